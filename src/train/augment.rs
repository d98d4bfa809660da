//! Random augmentation of images, and their conversion to network input.

use std::f64::consts::PI;

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::config::AugmentConfig;
use super::network::CROP_LEN;
use crate::align::{CROP_HEIGHT, CROP_WIDTH};
use crate::embed::ChannelOrder;

const WIDTH: u32 = CROP_WIDTH as u32;
const HEIGHT: u32 = CROP_HEIGHT as u32;

/// Deviations of a blur, in pixels.
const BLUR_PX: std::ops::Range<f32> = 0.5..2.0;

/// Factors of a lower resolution.
const LOWER: std::ops::Range<f64> = 1.5..5.0;

/// Sides of an erased rectangle, in pixels.
const ERASED_PX: std::ops::Range<u32> = 12..48;

/// A number between -most and most.
fn about(random: &mut Xoshiro256PlusPlus, most: f64) -> f64 {
    (2.0 * random.random::<f64>() - 1.0) * most
}

/// Augments an image of 96 or 112 pixels width by `config` and crops it.
///
/// Every image draws the same random numbers in the same order, whether they are used or not.
pub fn augment(image: &RgbImage, config: &AugmentConfig, random: &mut Xoshiro256PlusPlus) -> RgbImage {
    let mut crop = place(image, config, random);
    let lower = random.random::<f64>() < config.low_resolution;
    let factor = random.random_range(LOWER);
    if lower {
        let size = |n: u32| (f64::from(n) / factor).round() as u32;
        let small = imageops::resize(&crop, size(WIDTH), size(HEIGHT), FilterType::Triangle);
        crop = imageops::resize(&small, WIDTH, HEIGHT, FilterType::Triangle);
    }
    let blur = random.random::<f64>() < config.blur;
    let deviation = random.random_range(BLUR_PX);
    if blur {
        crop = imageops::blur(&crop, deviation);
    }
    let grey = random.random::<f64>() < config.grey;
    let contrast = 1.0 + about(random, config.contrast);
    let brightness = about(random, config.brightness);
    let colours = [(); 3].map(|()| 1.0 + about(random, config.colour));
    if grey || config.contrast > 0.0 || config.brightness > 0.0 || config.colour > 0.0 {
        for Rgb(pixel) in crop.pixels_mut() {
            if grey {
                let [r, g, b] = pixel.map(f64::from);
                *pixel = [(0.299 * r + 0.587 * g + 0.114 * b).round() as u8; 3];
            }
            for (value, colour) in pixel.iter_mut().zip(colours) {
                let changed = ((f64::from(*value) - 127.5) * contrast + 127.5) * colour + brightness;
                // A cast from float saturates to 0..=255.
                *value = changed.round() as u8;
            }
        }
    }
    let erase = random.random::<f64>() < config.erase;
    let [width, height] = [(); 2].map(|()| random.random_range(ERASED_PX));
    let (left, top) = (random.random_range(0..WIDTH - width), random.random_range(0..HEIGHT - height));
    let shade = Rgb([random.random::<u8>(); 3]);
    if erase {
        for y in top..top + height {
            for x in left..left + width {
                crop.put_pixel(x, y, shade);
            }
        }
    }
    if random.random::<f64>() < config.mirror {
        imageops::flip_horizontal_in_place(&mut crop);
    }
    crop
}

/// Crops the middle of the image, shifted, rotated and scaled.
fn place(image: &RgbImage, config: &AugmentConfig, random: &mut Xoshiro256PlusPlus) -> RgbImage {
    let dx = about(random, config.shift_x_px);
    let dy = about(random, config.shift_y_px);
    let zoom = 1.0 + about(random, config.zoom);
    let angle = about(random, config.rotation_deg) * PI / 180.0;
    let margin = (image.width() - WIDTH) / 2;
    if config.zoom == 0.0 && config.rotation_deg == 0.0 {
        // Whole pixels only, so that nothing is blurred by resampling.
        let (dx, dy) = (dx.round() as i64 + i64::from(margin), dy.round() as i64);
        return RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
            let at = |n: u32, by: i64, size: u32| (i64::from(n) + by).clamp(0, i64::from(size) - 1) as u32;
            *image.get_pixel(at(x, dx, image.width()), at(y, dy, image.height()))
        });
    }
    let (sin, cos) = (angle.sin() / zoom, angle.cos() / zoom);
    let centre = [f64::from(WIDTH - 1) / 2.0, f64::from(HEIGHT - 1) / 2.0];
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let (x, y) = (f64::from(x) - centre[0], f64::from(y) - centre[1]);
        let from_x = cos * x - sin * y + centre[0] + dx + f64::from(margin);
        let from_y = sin * x + cos * y + centre[1] + dy;
        bilinear(image, from_x, from_y)
    })
}

/// The image between its pixels; beyond the border, the nearest pixel of the border.
fn bilinear(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let [x, y] =
        [(x, image.width()), (y, image.height())].map(|(at, size)| at.clamp(0.0, f64::from(size - 1)) as f32);
    match imageops::interpolate_bilinear(image, x, y) {
        Some(pixel) => pixel,
        None => unreachable!("clamped to the image"),
    }
}

/// Writes the pixels of a crop in the network's range, (x - 127.5) / 128.
///
/// # Panics
/// When `to` is not a crop long.
pub fn write_pixels(crop: &RgbImage, order: ChannelOrder, to: &mut [f32]) {
    assert_eq!((crop.as_raw().len(), to.len()), (CROP_LEN, CROP_LEN));
    for (to, &[r, g, b]) in to.as_chunks_mut().0.iter_mut().zip(crop.as_raw().as_chunks().0) {
        let pixel = match order {
            ChannelOrder::Rgb => [r, g, b],
            ChannelOrder::Bgr => [b, g, r],
        };
        *to = pixel.map(|x: u8| (f32::from(x) - 127.5) / 128.0);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn gradient(width: u32) -> RgbImage {
        RgbImage::from_fn(width, 112, |x, y| Rgb([2 * x as u8, 2 * y as u8, 50]))
    }

    fn run(image: &RgbImage, config: AugmentConfig, seed: u64) -> RgbImage {
        augment(image, &config, &mut Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    fn nothing() -> AugmentConfig {
        AugmentConfig { mirror: 0.0, ..AugmentConfig::default() }
    }

    #[test]
    fn without_changes_the_middle_of_the_image_is_the_crop() {
        assert_eq!(run(&gradient(96), nothing(), 1), gradient(96));
        assert_eq!(run(&gradient(112), nothing(), 1).get_pixel(0, 5).0, [16, 10, 50]);
        let mirrored = run(&gradient(112), AugmentConfig { mirror: 1.0, ..nothing() }, 1);
        assert_eq!(mirrored.get_pixel(95, 5).0, [16, 10, 50]);
    }

    #[test]
    fn shifts_take_what_lies_beside_the_crop() {
        let config = AugmentConfig { shift_x_px: 6.0, shift_y_px: 3.0, ..nothing() };
        let (mut shifts, image) = (Vec::new(), gradient(112));
        for seed in 0..100 {
            let Rgb([r, g, _]) = *run(&image, config.clone(), seed).get_pixel(40, 40);
            shifts.push((i32::from(r) / 2 - 48, i32::from(g) / 2 - 40));
        }
        assert!(shifts.iter().all(|(x, y)| x.abs() <= 6 && y.abs() <= 3));
        assert!(shifts.iter().any(|s| s.0 < -3) && shifts.iter().any(|s| s.0 > 3));
        assert!(shifts.iter().any(|s| s.1 < -1) && shifts.iter().any(|s| s.1 > 1));
    }

    #[test]
    fn turning_keeps_the_centre_and_zooming_spreads_from_it() {
        let config = AugmentConfig { rotation_deg: 20.0, zoom: 0.2, ..nothing() };
        let image = gradient(112);
        let mut slopes = Vec::new();
        for seed in 0..20 {
            let crop = run(&image, config.clone(), seed);
            let red = |x, y| f64::from(crop.get_pixel(x, y).0[0]) / 2.0;
            assert!((red(47, 55) - 55.0).abs() <= 1.0, "{}", red(47, 55));
            // One step right and one down in the crop are (cos, sin) / zoom steps in the image.
            let (right, down) = ((red(67, 55) - red(27, 55)) / 40.0, (red(47, 75) - red(47, 35)) / 40.0);
            let factor = right.hypot(down);
            assert!((1.0 / 1.2 - 0.02..1.0 / 0.8 + 0.02).contains(&factor), "{factor}");
            assert!(down.abs() <= 20f64.to_radians().sin() / 0.8 + 0.02);
            slopes.push(down);
        }
        assert!(slopes.iter().any(|s| *s > 0.1) && slopes.iter().any(|s| *s < -0.1));
    }

    #[test]
    fn colours_blur_and_erasure_change_what_they_say() {
        let image = gradient(112);
        let grey = run(&image, AugmentConfig { grey: 1.0, ..nothing() }, 1);
        assert!(grey.pixels().all(|Rgb([r, g, b])| r == g && g == b));
        let brightness = AugmentConfig { brightness: 30.0, ..nothing() };
        let shift = i32::from(run(&image, brightness, 4).get_pixel(40, 40).0[2]) - 50;
        assert!(shift != 0 && shift.abs() <= 30, "{shift}");
        let erased = run(&image, AugmentConfig { erase: 1.0, ..nothing() }, 2);
        let plain = run(&image, nothing(), 2);
        let changed = erased.pixels().zip(plain.pixels()).filter(|(a, b)| a != b).count();
        assert!((144..=48 * 48).contains(&changed), "{changed}");
        // Stripes lose their contrast.
        let stripes = RgbImage::from_fn(96, 112, |x, _| Rgb([if x % 2 == 0 { 0 } else { 255 }; 3]));
        for config in
            [AugmentConfig { blur: 1.0, ..nothing() }, AugmentConfig { low_resolution: 1.0, ..nothing() }]
        {
            let soft = run(&stripes, config, 3);
            let difference = i32::from(soft.get_pixel(50, 50).0[0]) - i32::from(soft.get_pixel(51, 50).0[0]);
            assert!(difference.abs() < 200, "{difference}");
        }
    }

    #[test]
    fn pixels_are_scaled_in_the_order_of_the_network() {
        let mut pixels = vec![0.0; CROP_LEN];
        write_pixels(&RgbImage::from_pixel(96, 112, Rgb([255, 0, 127])), ChannelOrder::Bgr, &mut pixels);
        assert_eq!(pixels[..3], [-0.003_906_25, -0.996_093_75, 0.996_093_75]);
    }
}
