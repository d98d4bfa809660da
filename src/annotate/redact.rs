//! Redaction: the people to cover, the method, and the frames before and after.

use std::collections::BTreeSet;
use std::str::FromStr;

use image::RgbImage;

use super::canvas::Region;
use crate::detect::BBox;
use crate::media::Picture;

/// The people whose faces are covered.
///
/// Its text form is what `--redact` takes: `all`, `unknown`, `except:NAME,...` or
/// `only:NAME,...`; a comma inside a name is written `\,`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Everyone.
    All,
    /// Everyone without a name.
    Unknown,
    /// Everyone but these people, strangers included.
    Except(BTreeSet<String>),
    /// These people.
    Only(BTreeSet<String>),
}

impl Whom {
    /// Whether a face with that name (`None`: a stranger) is covered.
    pub fn covers(&self, name: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Unknown => name.is_none(),
            Self::Except(names) => !name.is_some_and(|name| names.contains(name)),
            Self::Only(names) => name.is_some_and(|name| names.contains(name)),
        }
    }

    /// The names it mentions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Except(names) | Self::Only(names) => Some(names),
            Self::All | Self::Unknown => None,
        };
        names.into_iter().flatten().map(String::as_str)
    }
}

/// An invalid redaction; the message says why and what is valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RedactError(String);

impl FromStr for Whom {
    type Err = RedactError;

    fn from_str(text: &str) -> Result<Self, RedactError> {
        let (kind, names) = text.split_once(':').unwrap_or((text, ""));
        let names: BTreeSet<String> = split_names(names).into_iter().collect();
        match (kind, names.is_empty()) {
            ("all", true) => Ok(Self::All),
            ("unknown", true) => Ok(Self::Unknown),
            ("except", false) => Ok(Self::Except(names)),
            ("only", false) => Ok(Self::Only(names)),
            ("except" | "only", true) => Err(RedactError(format!(
                "`{text}` names nobody: write {kind}:NAME, or {kind}:NAME,NAME for several"
            ))),
            _ => Err(RedactError(format!(
                "`{text}` does not select any faces: write all, unknown, except:NAME,... or only:NAME,..."
            ))),
        }
    }
}

/// Names separated by commas without a backslash, without surrounding space.
fn split_names(text: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, names.last_mut()) {
            ('\\', Some(name)) if characters.peek() == Some(&',') => name.extend(characters.next()),
            (',', _) => names.push(String::new()),
            (c, Some(name)) => name.push(c),
            (_, None) => {}
        }
    }
    names.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Methods of covering a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cover {
    /// A smooth blur that keeps no more than [`CELLS`] means along the shorter side.
    #[default]
    Blur,
    /// Blocks of one colour, [`CELLS`] along the shorter side.
    Pixelate,
    /// Black: the only one of the three that leaves nothing to recognise.
    Solid,
}

/// Mean colours kept along the shorter side of a covered area by blur and pixelate. With 8 or more, people
/// and networks still recognise some faces.
pub const CELLS: usize = 5;

/// Covers faces, in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Redactor {
    cover: Cover,
    grow: f32,
}

impl Redactor {
    /// Default margin around a box, which does not include hair, ears and chin.
    pub const GROW: f32 = 0.3;

    /// Covers boxes that grow on every side by `grow` times their longer side.
    ///
    /// # Errors
    /// [`RedactError`] unless `grow` is between 0 and 3.
    pub fn new(cover: Cover, grow: f32) -> Result<Self, RedactError> {
        if !(0.0..=3.0).contains(&grow) {
            return Err(RedactError(format!(
                "a margin of {grow} times the size of a face is out of range: give 0 (the face alone) to 3, for example 0.3"
            )));
        }
        Ok(Self { cover, grow })
    }

    /// Covers the [areas](Self::areas) of `boxes`.
    pub fn draw(&self, picture: &mut Picture, boxes: &[BBox]) {
        let areas = self.areas(boxes, picture.width(), picture.height());
        let black = picture.colorimetry().yuv([0.0; 3]).map(|x| x.round() as u8);
        let (width, (chroma_width, _)) = (picture.width(), picture.chroma_size());
        for area in &areas {
            // Areas begin at even pixels and end there or at the edge, so that no chroma sample shows covered
            // pixels.
            let half =
                Region { x0: area.x0 / 2, y0: area.y0 / 2, x1: area.x1.div_ceil(2), y1: area.y1.div_ceil(2) };
            let cells = cells(*area);
            let planes = picture.planes_mut();
            let layout = [(width, *area), (chroma_width, half), (chroma_width, half)];
            for ((plane, (stride, area)), black) in planes.into_iter().zip(layout).zip(black) {
                self.fill(&mut Samples { plane, stride, step: 1, first: 0 }, area, cells, black);
            }
        }
    }

    /// The same on a still.
    pub fn draw_rgb(&self, image: &mut RgbImage, boxes: &[BBox]) {
        let width = image.width() as usize;
        let areas = self.areas(boxes, width, image.height() as usize);
        let plane: &mut [u8] = image;
        for area in &areas {
            for first in 0..3 {
                self.fill(&mut Samples { plane, stride: 3 * width, step: 3, first }, *area, cells(*area), 0);
            }
        }
    }

    /// The pixels covered for boxes in a picture of that size; a box that touches no pixel has none.
    pub fn areas(&self, boxes: &[BBox], width: usize, height: usize) -> Vec<Region> {
        boxes.iter().filter_map(|bbox| self.area(*bbox, width, height)).collect()
    }

    /// The pixels covered for a box in a picture of that size. A box that is not finite might
    /// be anywhere: everything is covered.
    pub fn area(&self, bbox: BBox, width: usize, height: usize) -> Option<Region> {
        let BBox { x1, y1, x2, y2 } = bbox;
        if ![x1, y1, x2, y2].iter().all(|edge| edge.is_finite()) {
            return Some(Region { x0: 0, y0: 0, x1: width, y1: height });
        }
        let by = self.grow * (x2 - x1).max(y2 - y1).max(0.0);
        // `as usize` saturates: negative becomes 0.
        let low = |edge: f32, limit: usize| ((edge - by).floor() as usize & !1).min(limit);
        let high = |edge: f32, limit: usize| {
            (((edge + by).ceil() + 1.0).max(0.0) as usize).min(limit).next_multiple_of(2).min(limit)
        };
        let region =
            Region { x0: low(x1, width), y0: low(y1, height), x1: high(x2, width), y1: high(y2, height) };
        (region.x0 < region.x1 && region.y0 < region.y1).then_some(region)
    }

    fn fill(&self, samples: &mut Samples<'_>, area: Region, cells: (usize, usize), black: u8) {
        let (columns, rows) = (cells.0.min(area.x1 - area.x0), cells.1.min(area.y1 - area.y0));
        match self.cover {
            Cover::Solid => samples.set(area, |_, _| black),
            Cover::Pixelate => {
                let means = samples.means(area, columns, rows);
                let (width, height) = (area.x1 - area.x0, area.y1 - area.y0);
                samples.set(area, |x, y| means[y * rows / height * columns + x * columns / width] as u8);
            }
            Cover::Blur => {
                let means = samples.means(area, columns, rows);
                let across = blend(columns, area.x1 - area.x0);
                let down = blend(rows, area.y1 - area.y0);
                samples.set(area, |x, y| {
                    let ((left, right, fx), (above, below, fy)) = (across[x], down[y]);
                    let mix = |row: usize| {
                        let (a, b) = (means[row * columns + left], means[row * columns + right]);
                        a * (256 - fx) + b * fx
                    };
                    ((mix(above) * (256 - fy) + mix(below) * fy) >> 16) as u8
                });
            }
        }
    }
}

/// Mean colours kept of an area, across and down.
fn cells(area: Region) -> (usize, usize) {
    let (width, height) = (area.x1 - area.x0, area.y1 - area.y0);
    let shorter = width.min(height).max(1);
    ((CELLS * width).div_ceil(shorter), (CELLS * height).div_ceil(shorter))
}

/// For every sample along a side: the two cells with the nearest centres, and the weight of the second in
/// 1/256.
fn blend(cells: usize, length: usize) -> Vec<(usize, usize, u32)> {
    let position = |i: usize| ((i as f32 + 0.5) * cells as f32 / length as f32 - 0.5).max(0.0);
    let one = |i: usize| {
        let at = position(i);
        let cell = (at as usize).min(cells - 1);
        (cell, (cell + 1).min(cells - 1), ((at - cell as f32) * 256.0) as u32)
    };
    (0..length).map(one).collect()
}

/// One colour component of a picture: sample (x, y) is at `y * stride + x * step + first`.
struct Samples<'a> {
    plane: &'a mut [u8],
    stride: usize,
    step: usize,
    first: usize,
}

impl Samples<'_> {
    fn at(&self, x: usize, y: usize) -> usize {
        y * self.stride + x * self.step + self.first
    }

    /// Sets every sample of `area` to a function of its position in it.
    fn set(&mut self, area: Region, value: impl Fn(usize, usize) -> u8) {
        for y in area.y0..area.y1 {
            for x in area.x0..area.x1 {
                let at = self.at(x, y);
                self.plane[at] = value(x - area.x0, y - area.y0);
            }
        }
    }

    /// The mean of each of `columns` x `rows` cells of an area, row by row.
    fn means(&self, area: Region, columns: usize, rows: usize) -> Vec<u32> {
        let (width, height) = (area.x1 - area.x0, area.y1 - area.y0);
        let mut sums = vec![(0u64, 0u64); columns * rows];
        for y in 0..height {
            for x in 0..width {
                let (sum, count) = &mut sums[y * rows / height * columns + x * columns / width];
                *sum += u64::from(self.plane[self.at(x + area.x0, y + area.y0)]);
                *count += 1;
            }
        }
        sums.into_iter().map(|(sum, count)| ((sum + count / 2) / count.max(1)) as u32).collect()
    }
}

/// A face of one person in one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceBox {
    /// Index of the frame.
    pub frame: u64,
    /// The box.
    pub bbox: BBox,
}

/// The boxes to cover of one person, given the frames in which they were `seen` (in order). These are the
/// boxes seen; in every frame between two of them, the smallest box around both, since the face was in
/// between; and the first and the last box for `hold` frames before and after, since detectors find a face
/// late and lose it early. `frames` is the number of frames of the video.
pub fn cover_gaps(seen: &[FaceBox], hold: u64, frames: u64) -> Vec<FaceBox> {
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else { return Vec::new() };
    let held = |range: std::ops::Range<u64>, bbox| {
        (range.start..range.end.min(frames)).map(move |frame| FaceBox { frame, bbox })
    };
    let mut covered: Vec<FaceBox> = held(first.frame.saturating_sub(hold)..first.frame, first.bbox).collect();
    for pair in seen.windows(2) {
        covered.push(pair[0]);
        covered.extend(held(pair[0].frame + 1..pair[1].frame, pair[0].bbox.union(&pair[1].bbox)));
    }
    covered.push(*last);
    let next = last.frame.saturating_add(1);
    covered.extend(held(next..next.saturating_add(hold), last.bbox));
    covered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Colorimetry, Matrix};

    /// Detail in every sample.
    fn noise(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let hash =
                (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503_001)).wrapping_mul(2_246_822_519);
            image::Rgb([(hash >> 24) as u8, (hash >> 16) as u8, (hash >> 8) as u8])
        })
    }

    fn bbox(x1: f32, y1: f32, x2: f32, y2: f32) -> BBox {
        BBox { x1, y1, x2, y2 }
    }

    #[test]
    fn whom_reads_what_the_flag_takes_and_nothing_else() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!("all".parse(), Ok(Whom::All));
        assert_eq!("unknown".parse(), Ok(Whom::Unknown));
        assert_eq!("except:Ann Lee, Bo".parse(), Ok(Whom::Except(names(&["Ann Lee", "Bo"]))));
        assert_eq!(r"only:Lee\, Ann".parse(), Ok(Whom::Only(names(&["Lee, Ann"]))));
        for wrong in ["", "none", "only", "only:", "except: ,", "all:Ann", "unknown:Bo"] {
            assert!(wrong.parse::<Whom>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn strangers_are_covered_unless_only_some_people_are() {
        let covers = |whom: &str| {
            let whom: Whom = whom.parse().unwrap();
            [None, Some("Ann"), Some("Bo")].map(|name| whom.covers(name))
        };
        assert_eq!(covers("all"), [true; 3]);
        assert_eq!(covers("unknown"), [true, false, false]);
        assert_eq!(covers("except:Ann"), [true, false, true]);
        assert_eq!(covers("only:Ann"), [false, true, false]);
    }

    #[test]
    fn every_sample_inside_is_replaced_and_none_outside() {
        for cover in [Cover::Blur, Cover::Pixelate, Cover::Solid] {
            let redactor = Redactor::new(cover, 0.2).unwrap();
            for (width, height) in [(64, 48), (65, 47), (7, 5), (1, 1)] {
                let image = noise(width, height);
                let face = bbox(0.31 * width as f32, 0.3 * height as f32, 0.7 * width as f32, height as f32);
                let mut covered = image.clone();
                redactor.draw_rgb(&mut covered, &[face]);
                let areas = redactor.areas(&[face], width as usize, height as usize);
                let [area] = areas[..] else { panic!("{areas:?}") };
                assert!(area.x0 as f32 <= face.x1 && area.x1 as f32 >= face.x2);
                for (x, y, pixel) in covered.enumerate_pixels() {
                    if !area.contains(x as usize, y as usize) {
                        assert_eq!(pixel, image.get_pixel(x, y), "{cover:?} {width}x{height} {x},{y}");
                    }
                }

                for full_range in [false, true] {
                    let colorimetry = Colorimetry { matrix: Matrix::Bt709, full_range };
                    let data = Picture::from_rgb(&image).as_bytes().to_vec();
                    let (w, h) = (width as usize, height as usize);
                    let before = Picture::from_i420(data, w, h, colorimetry).unwrap();
                    let mut after = before.clone();
                    redactor.draw(&mut after, &[face]);
                    let half = Region {
                        x0: area.x0 / 2,
                        y0: area.y0 / 2,
                        x1: area.x1.div_ceil(2),
                        y1: area.y1.div_ceil(2),
                    };
                    let strides = [(w, area), (w.div_ceil(2), half), (w.div_ceil(2), half)];
                    for ((a, b), (stride, area)) in before.planes().iter().zip(after.planes()).zip(strides) {
                        for (i, (a, b)) in a.iter().zip(b).enumerate() {
                            assert!(area.contains(i % stride, i / stride) || a == b, "{cover:?} {i}");
                        }
                    }
                    if cover == Cover::Solid {
                        let rgb = after.to_rgb();
                        let inside = rgb
                            .enumerate_pixels()
                            .filter(|(x, y, _)| area.contains(*x as usize, *y as usize));
                        assert!(inside.into_iter().all(|(_, _, pixel)| pixel.0.iter().all(|&c| c <= 2)));
                    }
                }
            }
        }
    }

    #[test]
    fn no_more_than_the_means_of_the_cells_is_left() {
        // Two pictures with the same means of cells are equal afterwards.
        let area = bbox(20.0, 20.0, 59.0, 59.0);
        let checkered = |phase: u32| {
            RgbImage::from_fn(80, 80, |x, y| {
                image::Rgb([if (x + y + phase).is_multiple_of(2) { 250 } else { 10 }; 3])
            })
        };
        for cover in [Cover::Blur, Cover::Pixelate, Cover::Solid] {
            let redactor = Redactor::new(cover, 0.0).unwrap();
            let [mut a, mut b] = [checkered(0), checkered(1)];
            redactor.draw_rgb(&mut a, &[area]);
            redactor.draw_rgb(&mut b, &[area]);
            let areas = redactor.areas(&[area], 80, 80);
            assert_eq!((areas[0].x0, areas[0].x1), (20, 60));
            let inside = |image: &RgbImage| image::imageops::crop_imm(image, 20, 20, 40, 40).to_image();
            assert_eq!(inside(&a), inside(&b), "{cover:?}");
        }
    }

    #[test]
    fn boxes_partly_or_wholly_outside_are_clipped_and_impossible_ones_cover_everything() {
        let redactor = Redactor::new(Cover::Solid, 0.0).unwrap();
        let area = |b: BBox| redactor.area(b, 101, 50).map(|r| [r.x0, r.y0, r.x1, r.y1]);
        assert_eq!(area(bbox(-20.0, -20.0, 3.2, 4.0)), Some([0, 0, 6, 6]));
        assert_eq!(area(bbox(90.0, 40.0, 1e9, 1e9)), Some([90, 40, 101, 50]));
        assert_eq!(area(bbox(-50.0, 0.0, -10.0, 20.0)), None);
        assert_eq!(area(bbox(200.0, 0.0, 300.0, 20.0)), None);
        assert_eq!(area(bbox(f32::NAN, 0.0, 300.0, 20.0)), Some([0, 0, 101, 50]));
        for grow in [-0.1, 3.1, f32::NAN] {
            assert!(Redactor::new(Cover::Blur, grow).is_err());
        }
    }

    #[test]
    fn gaps_are_covered_from_both_sides_and_ends_are_held() {
        let at = |frame: u64, x: f32| FaceBox { frame, bbox: bbox(x, 0.0, x + 10.0, 10.0) };
        let covered = cover_gaps(&[at(3, 0.0), at(4, 5.0), at(8, 40.0)], 5, 11);
        let frames: Vec<u64> = covered.iter().map(|seen| seen.frame).collect();
        assert_eq!(frames, (0..11).collect::<Vec<_>>(), "held before and after, within the video");
        assert_eq!(covered[0].bbox, at(3, 0.0).bbox);
        assert_eq!(covered[4], at(4, 5.0));
        for between in &covered[5..8] {
            assert_eq!(between.bbox, bbox(5.0, 0.0, 50.0, 10.0), "the whole way");
        }
        assert_eq!(covered[10].bbox, at(8, 40.0).bbox);
        assert_eq!(cover_gaps(&[], 5, 11), []);
        assert_eq!(cover_gaps(&[at(7, 1.0)], 0, 8), [at(7, 1.0)]);
        assert_eq!(cover_gaps(&[at(u64::MAX - 1, 1.0)], u64::MAX, 3).last(), Some(&at(u64::MAX - 1, 1.0)));
    }
}
