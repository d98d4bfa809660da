//! Blending with anti-aliased edges, on 4:2:0 pictures and on RGB images alike.

use image::RgbImage;
use serde::Serialize;

use super::colour::Rgb;
use crate::media::Picture;

/// A rectangle of whole pixels inside a canvas: x0 <= x < x1, y0 <= y < y1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Region {
    /// First column.
    pub x0: usize,
    /// First row.
    pub y0: usize,
    /// Column after the last.
    pub x1: usize,
    /// Row after the last.
    pub y1: usize,
}

impl Region {
    /// Whether a pixel lies inside.
    pub fn contains(&self, x: usize, y: usize) -> bool {
        (self.x0..self.x1).contains(&x) && (self.y0..self.y1).contains(&y)
    }
}

/// Something to draw on.
pub trait Canvas {
    /// Width and height in pixels.
    fn size(&self) -> (usize, usize);

    /// Blends `colour` into the pixels of `region` (which must be inside) with the weight `coverage(x, y)`: 0
    /// leaves the pixel unchanged, 1 replaces it.
    fn blend(&mut self, region: Region, colour: Rgb, coverage: impl Fn(usize, usize) -> f32);
}

fn mix(sample: &mut u8, value: f32, alpha: f32) {
    let old = f32::from(*sample);
    // The cast rounds down and clamps to 0..=255.
    *sample = (old + alpha * (value - old) + 0.5) as u8;
}

impl Canvas for Picture {
    fn size(&self) -> (usize, usize) {
        (self.width(), self.height())
    }

    fn blend(&mut self, region: Region, colour: Rgb, coverage: impl Fn(usize, usize) -> f32) {
        let [y_value, u_value, v_value] = self.colorimetry().yuv(colour.map(f32::from));
        let (width, height) = self.size();
        let (chroma_width, _) = self.chroma_size();
        let [luma, u_plane, v_plane] = self.planes_mut();
        for block_y in region.y0 / 2..region.y1.div_ceil(2) {
            for block_x in region.x0 / 2..region.x1.div_ceil(2) {
                let (mut sum, mut pixels) = (0.0, 0.0);
                for y in 2 * block_y..(2 * block_y + 2).min(height) {
                    for x in 2 * block_x..(2 * block_x + 2).min(width) {
                        pixels += 1.0;
                        if x < region.x0 || x >= region.x1 || y < region.y0 || y >= region.y1 {
                            continue;
                        }
                        let alpha = coverage(x, y);
                        if alpha > 0.0 {
                            mix(&mut luma[y * width + x], y_value, alpha);
                            sum += alpha;
                        }
                    }
                }
                if sum > 0.0 {
                    let at = block_y * chroma_width + block_x;
                    mix(&mut u_plane[at], u_value, sum / pixels);
                    mix(&mut v_plane[at], v_value, sum / pixels);
                }
            }
        }
    }
}

impl Canvas for RgbImage {
    fn size(&self) -> (usize, usize) {
        (self.width() as usize, self.height() as usize)
    }

    fn blend(&mut self, region: Region, colour: Rgb, coverage: impl Fn(usize, usize) -> f32) {
        for y in region.y0..region.y1 {
            for x in region.x0..region.x1 {
                let alpha = coverage(x, y);
                if alpha > 0.0 {
                    let pixel = self.get_pixel_mut(x as u32, y as u32);
                    for (sample, value) in pixel.0.iter_mut().zip(colour) {
                        mix(sample, f32::from(value), alpha);
                    }
                }
            }
        }
    }
}

/// A rectangle with round corners, in pixels; pixel (0, 0) has its centre at (0, 0).
#[derive(Debug, Clone, Copy)]
pub struct Rounded {
    pub x1: f32,
    pub y1: f32,
    pub x2: f32,
    pub y2: f32,
    pub radius: f32,
}

impl Rounded {
    /// The same rectangle with every edge `by` pixels further out.
    pub fn grown(self, by: f32) -> Self {
        let Self { x1, y1, x2, y2, radius } = self;
        Self { x1: x1 - by, y1: y1 - by, x2: x2 + by, y2: y2 + by, radius: (radius + by).max(0.0) }
    }

    /// Signed distance in pixels from the outline, negative inside.
    fn distance(&self, x: usize, y: usize) -> f32 {
        let (half_x, half_y) = ((self.x2 - self.x1) / 2.0, (self.y2 - self.y1) / 2.0);
        let radius = self.radius.min(half_x).min(half_y);
        let qx = (x as f32 - (self.x1 + half_x)).abs() - half_x + radius;
        let qy = (y as f32 - (self.y1 + half_y)).abs() - half_y + radius;
        let (beyond_x, beyond_y) = (qx.max(0.0), qy.max(0.0));
        (beyond_x * beyond_x + beyond_y * beyond_y).sqrt() + qx.max(qy).min(0.0) - radius
    }

    /// The pixels it may touch, within a canvas of that size; `None` when there are none.
    fn region(&self, (width, height): (usize, usize)) -> Option<Region> {
        // `as usize` saturates: negative becomes 0.
        let region = Region {
            x0: (self.x1 - 0.5).floor() as usize,
            y0: (self.y1 - 0.5).floor() as usize,
            x1: ((self.x2 + 0.5).ceil() as usize).saturating_add(1).min(width),
            y1: ((self.y2 + 0.5).ceil() as usize).saturating_add(1).min(height),
        };
        let inside = self.x2 > -1.0 && self.y2 > -1.0;
        (inside && region.x0 < region.x1 && region.y0 < region.y1).then_some(region)
    }

    /// Fills the rectangle.
    pub fn fill(&self, canvas: &mut impl Canvas, colour: Rgb, opacity: f32) {
        if let Some(region) = self.region(canvas.size()) {
            canvas.blend(region, colour, |x, y| opacity * (0.5 - self.distance(x, y)).clamp(0.0, 1.0));
        }
    }

    /// Draws the `width` pixels inside its edge.
    pub fn ring(&self, canvas: &mut impl Canvas, colour: Rgb, opacity: f32, width: f32) {
        let Some(region) = self.region(canvas.size()) else { return };
        let coverage = |x: usize, y: usize| {
            let distance = self.distance(x, y);
            let outer = (0.5 - distance).clamp(0.0, 1.0);
            let inner = (0.5 - distance - width).clamp(0.0, 1.0);
            opacity * (outer - inner)
        };
        // The hole in the middle is skipped. Its edges are even, so that no chroma sample is blended from two
        // sides.
        let margin = width.max(self.radius) + 1.0;
        let even_up = |x: f32| (x.max(0.0).ceil() as usize).next_multiple_of(2);
        let even_down = |x: f32| x.max(0.0).floor() as usize & !1;
        let hole = Region {
            x0: even_up(self.x1 + margin).clamp(region.x0, region.x1),
            y0: even_up(self.y1 + margin).clamp(region.y0, region.y1),
            x1: even_down(self.x2 - margin).clamp(region.x0, region.x1),
            y1: even_down(self.y2 - margin).clamp(region.y0, region.y1),
        };
        if hole.x0 >= hole.x1 || hole.y0 >= hole.y1 {
            canvas.blend(region, colour, coverage);
            return;
        }
        canvas.blend(Region { y1: hole.y0, ..region }, colour, coverage);
        canvas.blend(Region { y0: hole.y1, ..region }, colour, coverage);
        let rows = Region { y0: hole.y0, y1: hole.y1, ..region };
        canvas.blend(Region { x1: hole.x0, ..rows }, colour, coverage);
        canvas.blend(Region { x0: hole.x1, ..rows }, colour, coverage);
    }
}
