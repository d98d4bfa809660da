//! Areas of a picture, and their frames of reference.

use super::Regions;

/// Largest difference between two aspect ratios that count as equal: previews are rounded to whole pixels.
const SAME_RATIO: f64 = 0.02;

/// A rectangle in fractions of a picture's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Left edge, 0 to 1.
    pub left: f64,
    /// Top edge, 0 to 1.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Area {
    /// The area between two corners, in any order, clipped to the picture.
    pub fn between([x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) -> Self {
        let inside = |x: f64| x.clamp(0.0, 1.0);
        let (left, right) = (inside(x1.min(x2)), inside(x1.max(x2)));
        let (top, bottom) = (inside(y1.min(y2)), inside(y1.max(y2)));
        Self { left, top, width: right - left, height: bottom - top }
    }

    /// Centre (x, y).
    pub fn centre(&self) -> [f64; 2] {
        [self.left + self.width / 2.0, self.top + self.height / 2.0]
    }

    fn corners(&self) -> [[f64; 2]; 2] {
        [[self.left, self.top], [self.left + self.width, self.top + self.height]]
    }

    /// The area after the EXIF orientation, 1 to 8, is applied to the stored picture.
    pub fn upright(&self, orientation: u8) -> Self {
        let turned = |[x, y]: [f64; 2]| match orientation {
            2 => [1.0 - x, y],
            3 => [1.0 - x, 1.0 - y],
            4 => [x, 1.0 - y],
            5 => [y, x],
            6 => [1.0 - y, x],
            7 => [1.0 - y, 1.0 - x],
            8 => [y, 1.0 - x],
            _ => [x, y],
        };
        let [a, b] = self.corners().map(turned);
        Self::between(a, b)
    }

    /// The area in the stored picture, given one in the picture as shown.
    pub fn stored(&self, orientation: u8) -> Self {
        self.upright(match orientation {
            6 => 8,
            8 => 6,
            same => same,
        })
    }

    /// The area in the whole picture, if this one is relative to `part` of it.
    pub fn within(&self, part: &Area) -> Self {
        let place = |[x, y]: [f64; 2]| [part.left + x * part.width, part.top + y * part.height];
        let [a, b] = self.corners().map(place);
        Self::between(a, b)
    }

    /// Intersection over union with another area.
    pub fn iou(&self, other: &Area) -> f64 {
        let overlap =
            |a: f64, a_size: f64, b: f64, b_size: f64| ((a + a_size).min(b + b_size) - a.max(b)).max(0.0);
        let both = overlap(self.left, self.width, other.left, other.width)
            * overlap(self.top, self.height, other.top, other.height);
        let all = self.width * self.height + other.width * other.height - both;
        if all > 0.0 { both / all } else { 0.0 }
    }

    /// Whether a point is in it.
    pub fn holds(&self, [x, y]: [f64; 2]) -> bool {
        (self.left..=self.left + self.width).contains(&x) && (self.top..=self.top + self.height).contains(&y)
    }
}

/// The frame of reference of regions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Frame {
    /// The pixels as stored, as the Metadata Working Group defines it.
    Stored,
    /// The picture as shown.
    Upright,
    /// This part of the stored picture.
    Cropped(Area),
}

impl Frame {
    /// The area in the picture as shown, with this EXIF orientation.
    pub fn upright(&self, area: &Area, orientation: u8) -> Area {
        match self {
            Self::Stored => area.upright(orientation),
            Self::Upright => *area,
            Self::Cropped(part) => area.within(part).upright(orientation),
        }
    }
}

fn is_same_ratio(a: [f64; 2], b: [f64; 2]) -> bool {
    let ratio = (a[0] * b[1]) / (a[1] * b[0]);
    ratio.is_finite() && (ratio.ln()).abs() < SAME_RATIO
}

impl Regions {
    /// The possible frames of reference of the regions in a picture with this stored size and EXIF
    /// orientation, the most likely first. Empty if their picture had another aspect ratio, because one of
    /// the two was cropped.
    pub fn frames(&self, stored: [u32; 2], orientation: u8) -> Vec<Frame> {
        let stored = stored.map(f64::from);
        let sideways = (5..=8).contains(&orientation);
        let upright = if sideways { [stored[1], stored[0]] } else { stored };
        let fits = |size: [f64; 2]| self.applied_to.is_none_or(|applied| is_same_ratio(applied, size));
        let mut frames = Vec::new();
        if fits(stored) {
            frames.push(Frame::Stored);
        }
        if orientation > 1 && fits(upright) {
            frames.push(Frame::Upright);
        }
        if let (true, Some(part)) = (frames.is_empty(), self.crop)
            && fits([stored[0] * part.width, stored[1] * part.height])
        {
            frames.push(Frame::Cropped(part));
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Area, b: [f64; 4]) {
        let found = [a.left, a.top, a.width, a.height];
        assert!(found.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, not {b:?}");
    }

    #[test]
    fn every_orientation_turns_an_area_as_the_decoder_turns_the_picture() {
        use image::{DynamicImage, Rgb, RgbImage, metadata::Orientation};
        // One white pixel of 8 x 4.
        let (x, y) = (1, 2);
        let mut picture = RgbImage::new(8, 4);
        picture.put_pixel(x, y, Rgb([255; 3]));
        let area = Area { left: 1.0 / 8.0, top: 2.0 / 4.0, width: 1.0 / 8.0, height: 1.0 / 4.0 };
        for exif in 1..=8 {
            let mut turned = DynamicImage::ImageRgb8(picture.clone());
            turned.apply_orientation(Orientation::from_exif(exif).unwrap());
            let turned = turned.into_rgb8();
            let (width, height) = (f64::from(turned.width()), f64::from(turned.height()));
            let white = turned.enumerate_pixels().find(|(_, _, pixel)| pixel.0 == [255; 3]).unwrap();
            let (x, y) = (f64::from(white.0), f64::from(white.1));
            let found = area.upright(exif);
            close(found, [x / width, y / height, 1.0 / width, 1.0 / height]);
            close(found.stored(exif), [area.left, area.top, area.width, area.height]);
        }
    }

    #[test]
    fn the_dimensions_tell_what_regions_are_relative_to() {
        let regions = |applied_to, crop| Regions { applied_to, crop, ..Regions::default() };
        let part = Area { left: 0.1, top: 0.2, width: 0.5, height: 0.75 };
        let whole = regions(Some([400.0, 300.0]), Some(part));
        assert_eq!(whole.frames([4000, 3000], 1), [Frame::Stored]);
        assert_eq!(whole.frames([4000, 3000], 3), [Frame::Stored, Frame::Upright]);
        assert_eq!(whole.frames([4000, 3000], 6), [Frame::Stored]);
        assert_eq!(whole.frames([3000, 4000], 6), [Frame::Upright]);
        assert_eq!(regions(None, None).frames([4000, 3000], 6), [Frame::Stored, Frame::Upright]);
        let cropped = regions(Some([2000.0, 2250.0]), Some(part));
        assert_eq!(cropped.frames([4000, 3000], 1), [Frame::Cropped(part)]);
        let inner = Area { left: 0.5, top: 0.0, width: 0.5, height: 1.0 };
        close(Frame::Cropped(part).upright(&inner, 1), [0.35, 0.2, 0.25, 0.75]);
        assert_eq!(regions(Some([1.0, 1.0]), Some(part)).frames([4000, 3000], 1), []);
        assert_eq!(regions(Some([0.0, 0.0]), None).frames([4000, 3000], 1), []);
    }

    #[test]
    fn areas_overlap_as_much_as_they_do() {
        let a = Area::between([0.5, 0.5], [0.0, -1.0]);
        close(a, [0.0, 0.0, 0.5, 0.5]);
        let b = Area::between([0.25, 0.0], [0.75, 0.5]);
        assert!((a.iou(&b) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(a.iou(&Area::between([0.6, 0.6], [1.0, 1.0])), 0.0);
        assert_eq!(Area::between([0.0; 2], [0.0; 2]).iou(&a), 0.0);
        assert!(a.holds(a.centre()) && !a.holds([0.6, 0.1]));
    }
}
