//! Drawing boxes and names, and redaction, on I420 pictures and stills.

mod canvas;
mod colour;
mod redact;
mod sheet;
mod style;
mod text;

use std::borrow::Cow;

use image::RgbImage;

use crate::detect::{BBox, Landmarks};
use crate::media::Picture;
use canvas::{Canvas, Rounded};
use colour::Rgb;
use text::{Line, Mask, Typeface};

pub use canvas::Region;
pub use colour::Colours;
pub use redact::{CELLS, Cover, FaceBox, RedactError, Redactor, Whom, cover_gaps};
pub use sheet::{SheetCell, SheetRow, contact_sheet};
pub use style::{Field, Style, StyleError, Unknown};

/// The label of one face.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The box of the face in pixels of the picture. It may reach outside; a box that is empty or not finite
    /// is not drawn.
    pub bbox: BBox,
    /// The landmarks, drawn if the style includes them.
    pub landmarks: Option<Landmarks>,
    /// The name; `None` for a stranger.
    pub name: Option<String>,
    /// The number of a stranger, if there is one: "Unknown 3" is one person in the whole video.
    pub stranger: Option<u32>,
    /// Angle to the nearest template, in degrees.
    pub angle_deg: Option<f32>,
    /// The detector's score, 0..=1.
    pub score: Option<f32>,
}

impl Label {
    /// The label of a stranger with a box only.
    pub fn unknown(bbox: BBox) -> Self {
        Self { bbox, landmarks: None, name: None, stranger: None, angle_deg: None, score: None }
    }
}

/// The labels of a picture could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum AnnotateError {
    /// The font in the program is damaged.
    #[error("the font compiled into the program cannot be read: build it again from a clean checkout")]
    Font,
}

/// Draws labels in one style. Shared by threads; the same labels give the same pixels.
pub struct Annotator {
    style: Style,
    colours: Colours,
    typeface: Typeface,
}

impl Annotator {
    /// An annotator with that style.
    ///
    /// # Errors
    /// [`AnnotateError::Font`] when the font in the program is damaged.
    pub fn new(style: Style) -> Result<Self, AnnotateError> {
        let typeface = Typeface::new().ok_or(AnnotateError::Font)?;
        Ok(Self { style, colours: Colours::default(), typeface })
    }

    /// The same with these colours of people.
    pub fn with_colours(self, colours: Colours) -> Self {
        Self { colours, ..self }
    }

    /// The colours of people.
    pub fn colours(&self) -> &Colours {
        &self.colours
    }

    /// The style.
    pub fn style(&self) -> &Style {
        &self.style
    }

    /// Draws `labels` on a picture, in place, in the picture's own colorimetry.
    pub fn draw(&self, picture: &mut Picture, labels: &[Label]) {
        self.draw_on(picture, labels);
    }

    /// Draws `labels` on a still, in place.
    pub fn draw_rgb(&self, image: &mut RgbImage, labels: &[Label]) {
        self.draw_on(image, labels);
    }

    fn draw_on(&self, canvas: &mut impl Canvas, labels: &[Label]) {
        let (width, height) = canvas.size();
        let sizes = Sizes::new(&self.style, height);
        let labels: Vec<(&Label, BBox)> = labels
            .iter()
            .filter(|label| label.name.is_some() || self.style.unknown != Unknown::Hide)
            .filter_map(|label| Some((label, visible(label.bbox, width, height)?)))
            .collect();
        for (label, bbox) in &labels {
            self.draw_box(canvas, label, *bbox, &sizes);
        }
        // Text is drawn over all boxes, each plate where it hides the least.
        let boxes: Vec<BBox> = labels.iter().map(|(_, bbox)| *bbox).collect();
        let mut plates: Vec<BBox> = Vec::new();
        for (i, (label, bbox)) in labels.iter().enumerate() {
            if label.name.is_none() && self.style.unknown == Unknown::Box {
                continue;
            }
            let Some(line) = self.line(label, width as f32 - 2.0 * sizes.pad_px, sizes.em_px) else {
                continue;
            };
            let (up, down) = self.typeface.extent_px(sizes.em_px);
            let (up, down) = (up.ceil(), down.ceil());
            let size = ((line.width_px + 2.0 * sizes.pad_px).ceil(), up + down);
            let outer = bbox.grown(sizes.box_px / 2.0, sizes.box_px / 2.0);
            let others = boxes.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, b)| *b);
            let [x, y] = place(outer, size, (width as f32, height as f32), others, &plates);
            let plate = BBox { x1: x, y1: y, x2: x + size.0, y2: y + size.1 };
            plates.push(plate);
            let colour = self.colours.of(label.name.as_deref());
            let radius = (0.15 * sizes.em_px).round();
            // The plate covers the pixels x..x + width, whose outline runs half a pixel before
            // their centres.
            Rounded { x1: x - 0.5, y1: y - 0.5, x2: plate.x2 - 0.5, y2: plate.y2 - 0.5, radius }
                .fill(canvas, colour, 1.0);
            let (left, baseline) = ((x + sizes.pad_px) as i32, (y + up) as i32);
            let mask = self.typeface.rasterise(&line);
            stamp(canvas, &mask, left, baseline, colour::text_on(colour));
        }
    }

    fn draw_box(&self, canvas: &mut impl Canvas, label: &Label, bbox: BBox, sizes: &Sizes) {
        let colour = self.colours.of(label.name.as_deref());
        if sizes.box_px > 0.0 {
            let BBox { x1, y1, x2, y2 } = bbox.grown(sizes.box_px / 2.0, sizes.box_px / 2.0);
            let ring = Rounded { x1, y1, x2, y2, radius: 1.5 * sizes.box_px };
            // A dark edge keeps the box visible on a background of its own colour.
            let edge_px = (0.3 * sizes.box_px).max(0.5);
            ring.grown(edge_px).ring(canvas, [0; 3], 0.45, sizes.box_px + 2.0 * edge_px);
            ring.ring(canvas, colour, 1.0, sizes.box_px);
        }
        if let (true, Some(landmarks)) = (self.style.landmarks, label.landmarks) {
            for [x, y] in landmarks {
                let dot = |radius: f32| Rounded { x1: x, y1: y, x2: x, y2: y, radius: 0.0 }.grown(radius);
                if x.is_finite() && y.is_finite() {
                    dot(sizes.dot_px + 1.0).fill(canvas, [0; 3], 0.45);
                    dot(sizes.dot_px).fill(canvas, colour, 1.0);
                }
            }
        }
    }

    /// The shaped text of a label, its name cut so that it fits; `None` for no text.
    fn line(&self, label: &Label, room_px: f32, em_px: f32) -> Option<Line> {
        let name: Cow<'_, str> = match (&label.name, label.stranger) {
            (Some(name), _) => name.into(),
            (None, Some(number)) => format!("Unknown {number}").into(),
            (None, None) => "unknown".into(),
        };
        let write = |name: &str| -> String {
            let finite = |x: Option<f32>| x.filter(|x| x.is_finite());
            let fields: Vec<String> = self
                .style
                .text
                .iter()
                .filter_map(|field| match field {
                    // Isolated, so that a right-to-left name does not pull the numbers over.
                    Field::Name => Some(format!("\u{2068}{name}\u{2069}")),
                    Field::Angle => finite(label.angle_deg).map(|angle| format!("{angle:.0}°")),
                    Field::Score => finite(label.score).map(|score| format!("{score:.2}")),
                })
                .collect();
            fields.join("  ")
        };
        let text = write(&name);
        if text.is_empty() {
            return None;
        }
        // No name needs more characters than that, and the limit keeps shaping fast.
        let mut kept: Vec<char> = name.chars().take(200).collect();
        let mut line = if kept.len() < name.chars().count() { None } else { Some(text) }
            .map(|text| self.typeface.shape(&text, em_px));
        while line.as_ref().is_none_or(|line| line.width_px > room_px) && kept.pop().is_some() {
            let name: String = kept.iter().chain(&['…']).collect();
            line = Some(self.typeface.shape(&write(&name), em_px));
        }
        line
    }
}

/// Measures that follow from the style and the height of the picture.
struct Sizes {
    box_px: f32,
    em_px: f32,
    pad_px: f32,
    dot_px: f32,
}

impl Sizes {
    fn new(style: &Style, height: usize) -> Self {
        let height = height as f32;
        let em_px = (0.03 * height).max(12.0) * style.font_scale;
        Self {
            box_px: style.width_px.unwrap_or((0.004 * height).max(2.0)),
            em_px,
            pad_px: (0.35 * em_px).round(),
            dot_px: (0.003 * height).max(1.0),
        }
    }
}

/// `bbox`, with edges far outside a picture moved near it; `None` when no pixel of the picture
/// lies inside or the box is not a box.
fn visible(bbox: BBox, width: usize, height: usize) -> Option<BBox> {
    let (width, height) = (width as f32, height as f32);
    let finite = [bbox.x1, bbox.y1, bbox.x2, bbox.y2].iter().all(|v| v.is_finite());
    let near = BBox {
        x1: bbox.x1.max(-width),
        y1: bbox.y1.max(-height),
        x2: bbox.x2.min(2.0 * width),
        y2: bbox.y2.min(2.0 * height),
    };
    let touches = near.x2 >= -0.5 && near.y2 >= -0.5 && near.x1 <= width - 0.5 && near.y1 <= height - 0.5;
    (finite && touches && near.area() > 0.0).then_some(near)
}

/// The position of a box's plate: its top-left corner in whole pixels. It is above the box, else below, else
/// beside, else inside at its top: the first position that hides no other face and no other plate, or the one
/// that hides the least.
fn place(
    bbox: BBox,
    (width, height): (f32, f32),
    (picture_width, picture_height): (f32, f32),
    others: impl Iterator<Item = BBox>,
    plates: &[BBox],
) -> [f32; 2] {
    let others: Vec<BBox> = others.collect();
    let (left, right) = ((bbox.x1 + 0.5).floor(), (bbox.x2 + 0.5).floor() - width);
    let (above, below) = ((bbox.y1 + 0.5).floor() - height, (bbox.y2 + 0.5).ceil());
    let inside_x = |x: f32| x.min(picture_width - width).max(0.0);
    let inside_y = |y: f32| y.min(picture_height - height).max(0.0);
    let beside = inside_y((bbox.y1 + 0.5).floor());
    let candidates = [
        [inside_x(left), above],
        [inside_x(right), above],
        [inside_x(left), below],
        [inside_x(right), below],
        [(bbox.x2 + 0.5).ceil(), beside],
        [left - width, beside],
        [inside_x(left), beside],
    ];
    let mut best = (f32::INFINITY, [inside_x(left), beside]);
    for [x, y] in candidates {
        let plate = BBox { x1: x, y1: y, x2: x + width, y2: y + height };
        if x < 0.0 || y < 0.0 || plate.x2 > picture_width || plate.y2 > picture_height {
            continue;
        }
        let hidden: f32 = others.iter().map(|b| plate.overlap(b)).sum::<f32>()
            // Hiding its own face is not better, and text over text cannot be read at all.
            + plate.overlap(&bbox.grown(-1.0, -1.0))
            + 4.0 * plates.iter().map(|b| plate.overlap(b)).sum::<f32>();
        if hidden <= 0.02 * plate.area() {
            return [x, y];
        }
        if hidden < best.0 {
            best = (hidden, [x, y]);
        }
    }
    best.1
}

/// Blends a mask with its origin at pixel (`left`, `top`), as far as it is inside.
fn stamp(canvas: &mut impl Canvas, mask: &Mask, left: i32, top: i32, colour: Rgb) {
    let (width, height) = canvas.size();
    let (left, top) = (i64::from(left) + i64::from(mask.left), i64::from(top) + i64::from(mask.top));
    let clip = |v: i64, limit: usize| v.clamp(0, limit as i64) as usize;
    let region = Region {
        x0: clip(left, width),
        y0: clip(top, height),
        x1: clip(left + mask.width as i64, width),
        y1: clip(top + mask.height as i64, height),
    };
    canvas.blend(region, colour, |x, y| {
        let (column, row) = ((x as i64 - left) as usize, (y as i64 - top) as usize);
        mask.coverage.get(row * mask.width + column).map_or(0.0, |&c| f32::from(c) / 255.0)
    });
}

#[cfg(test)]
mod tests;
