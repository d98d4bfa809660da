//! Contact sheets: rows of small pictures with words.

use image::RgbImage;
use image::imageops::{self, FilterType};

use super::text::Typeface;
use super::{AnnotateError, stamp};

/// A row of a contact sheet.
#[derive(Debug, Clone)]
pub struct SheetRow {
    /// What the pictures have in common, above them.
    pub title: String,
    /// The pictures.
    pub cells: Vec<SheetCell>,
}

/// A picture of a contact sheet.
#[derive(Debug, Clone)]
pub struct SheetCell {
    /// The picture, of any size; shown whole.
    pub picture: RgbImage,
    /// Words below it; what does not fit is cut off.
    pub caption: String,
}

const CELL_PX: u32 = 128;
const GAP_PX: u32 = 10;
const TITLE_PX: f32 = 17.0;
const CAPTION_PX: f32 = 12.0;
/// Most and fewest pictures beside each other.
const COLUMNS: u32 = 8;
const MIN_COLUMNS: u32 = 5;
const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [25; 3];

/// Draws rows one below the other, at most eight pictures beside each other.
///
/// # Errors
/// [`AnnotateError::Font`] when the font in the program is damaged.
pub fn contact_sheet(rows: &[SheetRow]) -> Result<RgbImage, AnnotateError> {
    let typeface = Typeface::new().ok_or(AnnotateError::Font)?;
    let line_px = |em_px: f32| {
        let (up, down) = typeface.extent_px(em_px);
        (up + down).ceil() as u32
    };
    let (title_px, cell_px) = (line_px(TITLE_PX), CELL_PX + line_px(CAPTION_PX) + GAP_PX);
    let lines = |row: &SheetRow| (row.cells.len() as u32).div_ceil(COLUMNS);
    let height =
        rows.iter().map(|row| title_px + GAP_PX + lines(row) * cell_px + GAP_PX).sum::<u32>() + GAP_PX;
    let widest = rows.iter().map(|row| row.cells.len() as u32).max().unwrap_or(0);
    let width = GAP_PX + widest.clamp(MIN_COLUMNS, COLUMNS) * (CELL_PX + GAP_PX);
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb(PAPER));
    let write = |sheet: &mut RgbImage, text: &str, x: u32, y: u32, em_px: f32, room_px: u32| {
        let (up, _) = typeface.extent_px(em_px);
        let mut line = typeface.shape(text, em_px);
        let mut kept: Vec<char> = text.chars().take(300).collect();
        while line.width_px > room_px as f32 && kept.pop().is_some() {
            let text: String = kept.iter().chain(&['…']).collect();
            line = typeface.shape(&text, em_px);
        }
        stamp(sheet, &typeface.rasterise(&line), x as i32, y as i32 + up.ceil() as i32, INK);
    };
    let mut top = GAP_PX;
    for row in rows {
        write(&mut sheet, &row.title, GAP_PX, top, TITLE_PX, width - 2 * GAP_PX);
        top += title_px + GAP_PX / 2;
        for cells in row.cells.chunks(COLUMNS as usize) {
            for (column, cell) in (0u32..).zip(cells) {
                let left = GAP_PX + column * (CELL_PX + GAP_PX);
                let picture = fitted(&cell.picture);
                let (dx, dy) = ((CELL_PX - picture.width()) / 2, (CELL_PX - picture.height()) / 2);
                imageops::replace(&mut sheet, &picture, i64::from(left + dx), i64::from(top + dy));
                write(&mut sheet, &cell.caption, left, top + CELL_PX, CAPTION_PX, CELL_PX);
            }
            top += cell_px;
        }
        top += GAP_PX + GAP_PX / 2;
    }
    Ok(sheet)
}

/// The picture at the size of a cell, in its own proportions.
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
