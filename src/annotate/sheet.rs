//! Contact sheets: rows of small pictures with text.

use image::RgbImage;
use image::imageops::{self, FilterType};

use super::text::{Line, Typeface};
use super::{AnnotateError, stamp};

/// A row of a contact sheet.
#[derive(Debug, Clone)]
pub struct SheetRow {
    /// The title above the pictures, on up to three lines.
    pub title: String,
    /// The pictures.
    pub cells: Vec<SheetCell>,
}

/// A picture of a contact sheet.
#[derive(Debug, Clone)]
pub struct SheetCell {
    /// The picture, of any size; scaled to fit.
    pub picture: RgbImage,
    /// The text below it, on up to two lines; longer text is cut off.
    pub caption: String,
}

const CELL_PX: u32 = 128;
const GAP_PX: u32 = 10;
const TITLE_PX: f32 = 17.0;
const CAPTION_PX: f32 = 12.0;
/// The most lines of a title and of a caption.
const TITLE_LINES: usize = 3;
const CAPTION_LINES: usize = 2;
/// The most and the fewest pictures per line.
const COLUMNS: u32 = 8;
const MIN_COLUMNS: u32 = 5;
const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [25; 3];

/// Draws rows from top to bottom, with at most eight pictures per line.
///
/// # Errors
/// [`AnnotateError::Font`] when the font in the program is damaged.
pub fn contact_sheet(rows: &[SheetRow]) -> Result<RgbImage, AnnotateError> {
    let typeface = Typeface::new().ok_or(AnnotateError::Font)?;
    let line_px = |em_px: f32| {
        let (up, down) = typeface.extent_px(em_px);
        (up + down).ceil() as u32
    };
    let (title_px, caption_px) = (line_px(TITLE_PX), line_px(CAPTION_PX));
    let widest = rows.iter().map(|row| row.cells.len() as u32).max().unwrap_or(0);
    let width = GAP_PX + widest.clamp(MIN_COLUMNS, COLUMNS) * (CELL_PX + GAP_PX);
    let room_px = width - 2 * GAP_PX;
    let shaped: Vec<Shaped<'_>> = (rows.iter())
        .map(|row| {
            let caption = |cell: &SheetCell| typeface.wrap(&cell.caption, CAPTION_PX, CELL_PX, CAPTION_LINES);
            Shaped {
                row,
                title: typeface.wrap(&row.title, TITLE_PX, room_px, TITLE_LINES),
                captions: row.cells.iter().map(caption).collect(),
            }
        })
        .collect();
    let height = GAP_PX + shaped.iter().map(|row| row.height_px(title_px, caption_px)).sum::<u32>();
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb(PAPER));
    let write = |sheet: &mut RgbImage, lines: &[Line], x: u32, y: u32, em_px: f32| {
        let (up, _) = typeface.extent_px(em_px);
        for (i, line) in (0..).zip(lines) {
            let baseline = (y + i * line_px(em_px)) as i32 + up.ceil() as i32;
            stamp(sheet, &typeface.rasterise(line), x as i32, baseline, INK);
        }
    };
    let mut top = GAP_PX;
    for shaped in &shaped {
        write(&mut sheet, &shaped.title, GAP_PX, top, TITLE_PX);
        let mut y = top + shaped.title.len() as u32 * title_px + GAP_PX / 2;
        for (cells, captions) in shaped.lines() {
            for ((column, cell), caption) in (0u32..).zip(cells).zip(captions) {
                let left = GAP_PX + column * (CELL_PX + GAP_PX);
                let picture = fitted(&cell.picture);
                let (dx, dy) = ((CELL_PX - picture.width()) / 2, (CELL_PX - picture.height()) / 2);
                imageops::replace(&mut sheet, &picture, i64::from(left + dx), i64::from(y + dy));
                write(&mut sheet, caption, left, y + CELL_PX, CAPTION_PX);
            }
            y += line_of_cells_px(captions, caption_px);
        }
        top += shaped.height_px(title_px, caption_px);
    }
    Ok(sheet)
}

/// A row with its text broken into lines.
struct Shaped<'a> {
    row: &'a SheetRow,
    title: Vec<Line>,
    captions: Vec<Vec<Line>>,
}

impl Shaped<'_> {
    /// The lines of pictures, with their captions.
    fn lines(&self) -> impl Iterator<Item = (&[SheetCell], &[Vec<Line>])> {
        self.row.cells.chunks(COLUMNS as usize).zip(self.captions.chunks(COLUMNS as usize))
    }

    fn height_px(&self, title_px: u32, caption_px: u32) -> u32 {
        let cells: u32 = self.lines().map(|(_, captions)| line_of_cells_px(captions, caption_px)).sum();
        self.title.len() as u32 * title_px + cells + 2 * GAP_PX
    }
}

/// The height of a line of pictures, with the longest of their captions.
fn line_of_cells_px(captions: &[Vec<Line>], caption_px: u32) -> u32 {
    let lines = captions.iter().map(Vec::len).max().unwrap_or(0) as u32;
    CELL_PX + lines * caption_px + GAP_PX
}

/// The picture scaled to a cell, with its aspect ratio kept.
fn fitted(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 {
        return RgbImage::new(1, 1);
    }
    let scale = CELL_PX as f32 / width.max(height) as f32;
    let side = |length: u32| ((length as f32 * scale).round() as u32).clamp(1, CELL_PX);
    imageops::resize(picture, side(width), side(height), FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_on_the_sheet_with_ink_below() {
        let colours = [[200, 30, 30], [30, 200, 30], [30, 30, 200]];
        let cells = (0..11).map(|i| SheetCell {
            picture: RgbImage::from_pixel(40 + 30 * i, 60, image::Rgb(colours[i as usize % 3])),
            caption: format!("track {i} with a caption that does not fit below it"),
        });
        let rows = [
            SheetRow { title: "1: Zoë, 王".into(), cells: cells.collect() },
            SheetRow { title: String::new(), cells: Vec::new() },
        ];
        let sheet = contact_sheet(&rows).unwrap();
        let count = |colour: [u8; 3]| sheet.pixels().filter(|pixel| pixel.0 == colour).count();
        for colour in colours {
            assert!(count(colour) > 3 * 2000, "{colour:?}");
        }
        assert!(count(INK) > 100, "words");
        assert_eq!(contact_sheet(&[]).unwrap().height(), GAP_PX);
    }
}
