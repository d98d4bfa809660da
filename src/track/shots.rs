//! Detection of cuts, and of changed regions within a shot, on a small grey copy of each frame.

use std::ops::Range;

use crate::detect::BBox;

/// Columns of a [`Thumbnail`]; rows follow from the shape of the frame.
const COLUMNS: usize = 128;
/// Frames of one shot correlate more than this (after subtraction of their means, both
/// averaged to 64 columns). Measured: 0.63 at least in fast pans of the test clips, 0.23 at
/// most at cuts.
const SAME_SHOT: f32 = 0.5;
/// Mean change in grey levels below which two frames are of one shot whatever their correlation: between two
/// dark or uniform frames, the correlation is noise.
const LEAST_CHANGE: f32 = 8.0;
/// Change of a cell in grey levels that is more than noise of the camera or the codec.
const NOISE: i16 = 10;

/// A grey copy of a frame, `COLUMNS` cells wide, each the mean of its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumbnail {
    cells: Vec<u8>,
    columns: usize,
    rows: usize,
    cell_px: f32,
}

impl Thumbnail {
    /// The copy of a luma plane of `width` x `height` bytes, row by row.
    pub fn new(luma: &[u8], width: usize, height: usize) -> Self {
        let columns = COLUMNS.min(width).max(1);
        let cell_px = width.max(1) as f32 / columns as f32;
        let rows = ((height as f32 / cell_px).round() as usize).clamp(1, height.max(1));
        let span = |i: usize, cells: usize, side: usize| i * side / cells..((i + 1) * side / cells);
        let mut cells = vec![0; columns * rows];
        let mut sums = vec![0u32; width];
        for (row, out) in cells.chunks_exact_mut(columns).enumerate() {
            let ys = span(row, rows, height);
            sums.fill(0);
            for y in ys.clone() {
                let Some(line) = luma.get(y * width..(y + 1) * width) else { continue };
                sums.iter_mut().zip(line).for_each(|(sum, &x)| *sum += u32::from(x));
            }
            for (column, cell) in out.iter_mut().enumerate() {
                let xs = span(column, columns, width);
                let pixels = (ys.len() * xs.len()).max(1);
                *cell = (sums[xs].iter().sum::<u32>() / pixels as u32) as u8;
            }
        }
        Self { cells, columns, rows, cell_px }
    }

    /// Whether `self` begins a new shot after `before`. A fade or a dissolve is not a cut.
    pub fn cuts_from(&self, before: &Thumbnail) -> bool {
        if (self.columns, self.rows) != (before.columns, before.rows) {
            return true;
        }
        let (a, b) = (self.halved(), before.halved());
        let change = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).sum::<f32>() / a.len().max(1) as f32;
        change > LEAST_CHANGE && correlation(&a, &b) < SAME_SHOT
    }

    /// Cells averaged two by two, so that a pan of a cell or two still correlates.
    fn halved(&self) -> Vec<f32> {
        let (columns, rows) = (self.columns.div_ceil(2), self.rows.div_ceil(2));
        let mut halved = Vec::with_capacity(columns * rows);
        for y in 0..rows {
            for x in 0..columns {
                let (mut sum, mut count) = (0.0, 0.0);
                for cell_y in 2 * y..(2 * y + 2).min(self.rows) {
                    for cell_x in 2 * x..(2 * x + 2).min(self.columns) {
                        sum += f32::from(self.cells[cell_y * self.columns + cell_x]);
                        count += 1.0;
                    }
                }
                halved.push(sum / count);
            }
        }
        halved
    }

    /// The squares of `side_px` pixels outside of `known` that changed over half of their area since
    /// `before`: only there can a face have appeared. The result is boxes in pixels, each around squares that
    /// touch.
    pub fn changed_since(&self, before: &Thumbnail, side_px: f32, known: &[BBox]) -> Vec<BBox> {
        if (self.columns, self.rows) != (before.columns, before.rows) {
            return vec![self.pixels(0..self.columns, 0..self.rows)];
        }
        // Sums over everything above and to the left, for the number of changed cells in any
        // square at once.
        let width = self.columns + 1;
        let mut sums = vec![0u32; width * (self.rows + 1)];
        for y in 0..self.rows {
            let mut line = 0;
            for x in 0..self.columns {
                let at = y * self.columns + x;
                let changed = (i16::from(self.cells[at]) - i16::from(before.cells[at])).abs() > NOISE;
                line += u32::from(changed && !self.is_inside(x, y, known));
                sums[(y + 1) * width + x + 1] = sums[y * width + x + 1] + line;
            }
        }
        let side = ((side_px / self.cell_px) as usize).clamp(1, self.columns.min(self.rows));
        let needed = (side * side).div_ceil(2) as u32;
        let mut covered = vec![false; self.columns * self.rows];
        for y in side..=self.rows {
            for x in side..=self.columns {
                let at = |y: usize, x: usize| sums[y * width + x];
                if at(y, x) + at(y - side, x - side) - at(y - side, x) - at(y, x - side) >= needed {
                    for row in y - side..y {
                        covered[row * self.columns..][x - side..x].fill(true);
                    }
                }
            }
        }
        self.patches(covered)
    }

    /// Replaces a part of this copy by the same part of a later frame.
    pub fn renew(&mut self, later: &Thumbnail, part: &BBox) {
        if (self.columns, self.rows) != (later.columns, later.rows) {
            return self.clone_from(later);
        }
        for y in 0..self.rows {
            for x in 0..self.columns {
                if self.is_inside(x, y, std::slice::from_ref(part)) {
                    self.cells[y * self.columns + x] = later.cells[y * self.columns + x];
                }
            }
        }
    }

    /// Boxes around connected regions of cells that are set.
    fn patches(&self, mut set: Vec<bool>) -> Vec<BBox> {
        let mut boxes = Vec::new();
        while let Some(first) = set.iter().position(|&set| set) {
            let (mut xs, mut ys) = (first % self.columns..0, first / self.columns..0);
            let mut open = vec![first];
            set[first] = false;
            while let Some(at) = open.pop() {
                let (x, y) = (at % self.columns, at / self.columns);
                xs = xs.start.min(x)..xs.end.max(x + 1);
                ys = ys.start.min(y)..ys.end.max(y + 1);
                let mut visit = |inside: bool, next: usize| {
                    if inside && std::mem::take(&mut set[next]) {
                        open.push(next);
                    }
                };
                visit(x > 0, at.wrapping_sub(1));
                visit(x + 1 < self.columns, at + 1);
                visit(y > 0, at.wrapping_sub(self.columns));
                visit(y + 1 < self.rows, at + self.columns);
            }
            boxes.push(self.pixels(xs, ys));
        }
        boxes
    }

    /// The pixels of some cells.
    fn pixels(&self, xs: Range<usize>, ys: Range<usize>) -> BBox {
        let px = |cells: usize| cells as f32 * self.cell_px;
        BBox { x1: px(xs.start), y1: px(ys.start), x2: px(xs.end), y2: px(ys.end) }
    }

    fn is_inside(&self, x: usize, y: usize, boxes: &[BBox]) -> bool {
        let (x, y) = ((x as f32 + 0.5) * self.cell_px, (y as f32 + 0.5) * self.cell_px);
        boxes.iter().any(|b| b.x1 <= x && x <= b.x2 && b.y1 <= y && y <= b.y2)
    }
}

/// Pearson's correlation; 1 where either side is uniform.
fn correlation(a: &[f32], b: &[f32]) -> f32 {
    let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len().max(1) as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A different smooth picture for each `seed`, shifted by `shift` pixels and brightened.
    fn picture(seed: u32, shift: usize, brighter: u8) -> Thumbnail {
        let (width, height) = (640, 360);
        let wave = |x: f32, y: f32| {
            let s = seed as f32;
            (x * (0.011 + 0.004 * s) + s).sin() + (y * (0.017 + 0.003 * s) + x * 0.005 * s).cos()
        };
        let luma: Vec<u8> = (0..width * height)
            .map(|i| (100.0 + 40.0 * wave((i % width + shift) as f32, (i / width) as f32)) as u8 + brighter)
            .collect();
        Thumbnail::new(&luma, width, height)
    }

    #[test]
    fn a_cut_is_seen_and_a_pan_or_a_flash_is_none() {
        assert!(picture(2, 0, 0).cuts_from(&picture(1, 0, 0)));
        assert!(!picture(1, 25, 0).cuts_from(&picture(1, 0, 0)), "a pan");
        assert!(!picture(1, 0, 60).cuts_from(&picture(1, 0, 0)), "a flash");
        assert!(!picture(1, 0, 0).cuts_from(&picture(1, 0, 0)));
        let plain = |level| Thumbnail::new(&vec![level; 100 * 50], 100, 50);
        assert!(!plain(200).cuts_from(&plain(0)), "two plain frames correlate with anything");
    }

    #[test]
    fn what_appears_is_seen_where_nobody_is_known() {
        let empty = vec![50u8; 640 * 360];
        let mut full = empty.clone();
        for y in 100..150 {
            full[y * 640 + 200..y * 640 + 250].fill(120);
        }
        let (before, after) = (Thumbnail::new(&empty, 640, 360), Thumbnail::new(&full, 640, 360));
        let appeared = BBox { x1: 200.0, y1: 100.0, x2: 250.0, y2: 150.0 };
        let [found] = after.changed_since(&before, 40.0, &[])[..] else { panic!("one patch changed") };
        // Squares that changed over half of their area reach half a side beyond the change.
        let BBox { x1, y1, x2, y2 } = appeared;
        assert_eq!(found, BBox { x1: x1 - 20.0, y1: y1 - 20.0, x2: x2 + 20.0, y2: y2 + 20.0 });
        assert!(after.changed_since(&before, 120.0, &[]).is_empty(), "too small for a face of 120 pixels");
        let known = BBox { x1: 190.0, y1: 90.0, x2: 260.0, y2: 160.0 };
        assert!(after.changed_since(&before, 40.0, &[known]).is_empty(), "somebody known moved");
        assert!(before.changed_since(&before, 40.0, &[]).is_empty());
        let whole = Thumbnail::new(&empty, 360, 640).changed_since(&before, 40.0, &[]);
        assert!(whole[0].area() >= 360.0 * 640.0, "nothing is known of a frame of another shape");
    }

    #[test]
    fn what_changed_in_two_places_is_told_apart_and_seen_once() {
        let empty = vec![50u8; 640 * 360];
        let mut full = empty.clone();
        for y in 100..150 {
            full[y * 640 + 50..y * 640 + 100].fill(120);
            full[y * 640 + 590..y * 640 + 640].fill(120);
        }
        let (mut before, after) = (Thumbnail::new(&empty, 640, 360), Thumbnail::new(&full, 640, 360));
        let changed = after.changed_since(&before, 40.0, &[]);
        assert_eq!(changed.len(), 2, "{changed:?}");
        before.renew(&after, &changed[0]);
        assert_eq!(after.changed_since(&before, 40.0, &[]), changed[1..]);
        before.renew(&after, &changed[1]);
        assert!(after.changed_since(&before, 40.0, &[]).is_empty());
    }

    #[test]
    fn pictures_of_any_size_have_one() {
        for (width, height) in [(1, 1), (3, 200), (127, 2), (1000, 3)] {
            let one = Thumbnail::new(&vec![7; width * height], width, height);
            assert!(one.cells.iter().all(|&cell| cell == 7), "{width}x{height}");
            assert!(!one.cuts_from(&one) && one.changed_since(&one, 40.0, &[]).is_empty());
        }
    }
}
