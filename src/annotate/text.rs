//! From a line of text to pixels: order (Unicode bidi), shaping (HarfBuzz's rules), rasters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ab_glyph::{Font as _, FontRef, GlyphId, PxScale, point};
use rustybuzz::{Direction, Face, UnicodeBuffer};
use unicode_bidi::{BidiInfo, Level};

/// DejaVu Sans 2.37 (`assets/DejaVuSans-LICENSE.txt`).
const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// Rasters kept before the cache is cleared: a label has tens of glyphs, each at up to four subpixel
/// positions.
const CACHED_RASTERS: usize = 4096;

/// Number of subpixel positions at which a glyph is drawn.
const SUBPIXELS: f32 = 4.0;

/// The font, and the glyphs drawn with it so far.
pub struct Typeface {
    shaping: Face<'static>,
    outlines: FontRef<'static>,
    units_per_em: f32,
    rasters: Mutex<HashMap<RasterKey, Arc<Mask>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct RasterKey {
    glyph: u16,
    /// Size of the em in 1/64 pixel.
    em: u32,
    /// Subpixel position, in 1/[`SUBPIXELS`].
    x: u8,
    y: u8,
}

/// Coverage (0..=255) of a rectangle of pixels whose top-left corner is (`left`, `top`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    pub left: i32,
    pub top: i32,
    pub width: usize,
    pub height: usize,
    pub coverage: Vec<u8>,
}

/// A shaped line: glyphs in visual order, positions in pixels from the start of its baseline.
#[derive(Debug, Clone, Default)]
pub struct Line {
    glyphs: Vec<(u16, f32, f32)>,
    em_px: f32,
    /// The advance of the line in pixels.
    pub width_px: f32,
}

impl Typeface {
    /// The font compiled into the program; `None` when it cannot be read.
    pub fn new() -> Option<Self> {
        let outlines = FontRef::try_from_slice(FONT).ok()?;
        Some(Self {
            shaping: Face::from_slice(FONT, 0)?,
            units_per_em: outlines.units_per_em()?,
            outlines,
            rasters: Mutex::default(),
        })
    }

    /// Height above and depth below the baseline of a line with an em of `em_px`, in pixels.
    pub fn extent_px(&self, em_px: f32) -> (f32, f32) {
        let scale = em_px / self.units_per_em;
        (self.outlines.ascent_unscaled() * scale, -self.outlines.descent_unscaled() * scale)
    }

    /// Puts one line of text in visual order and positions its glyphs. Characters that the font lacks become
    /// its replacement box; control characters become spaces.
    pub fn shape(&self, text: &str, em_px: f32) -> Line {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let scale = em_px / self.units_per_em;
        let mut line = Line { em_px, ..Line::default() };
        let bidi = BidiInfo::new(&text, Some(Level::ltr()));
        for paragraph in &bidi.paragraphs {
            let (levels, runs) = bidi.visual_runs(paragraph, paragraph.range.clone());
            for run in runs {
                let right_to_left = levels.get(run.start).is_some_and(Level::is_rtl);
                let mut buffer = UnicodeBuffer::new();
                buffer.push_str(text.get(run).unwrap_or_default());
                buffer.set_direction(if right_to_left {
                    Direction::RightToLeft
                } else {
                    Direction::LeftToRight
                });
                buffer.guess_segment_properties();
                let shaped = rustybuzz::shape(&self.shaping, &[], buffer);
                for (info, place) in shaped.glyph_infos().iter().zip(shaped.glyph_positions()) {
                    let x = line.width_px + place.x_offset as f32 * scale;
                    let y = -place.y_offset as f32 * scale;
                    line.glyphs.push((info.glyph_id as u16, x, y));
                    line.width_px += place.x_advance as f32 * scale;
                }
            }
        }
        line
    }

    /// Breaks text between words into at most `most` (at least 1) lines no wider than `room_px`; the rest is
    /// cut off with an ellipsis. Empty text has no lines.
    pub fn wrap(&self, text: &str, em_px: f32, room_px: u32, most: usize) -> Vec<Line> {
        let fits = |text: &str| Some(self.shape(text, em_px)).filter(|line| line.width_px <= room_px as f32);
        let mut lines = Vec::new();
        // The limit keeps shaping fast.
        let mut words: Vec<&str> = text.split_whitespace().take(200).collect();
        while !words.is_empty() {
            let last = lines.len() + 1 >= most;
            let fitting = (1..=words.len()).rev().find_map(|n| Some((n, fits(&words[..n].join(" "))?)));
            match fitting {
                Some((n, line)) if n == words.len() || !last => {
                    lines.push(line);
                    words.drain(..n);
                }
                _ => {
                    // A word wider than a line fills the line; the last line takes the rest.
                    let taken = if last { words.len() } else { 1 };
                    let mut kept: Vec<char> =
                        words.drain(..taken).collect::<Vec<_>>().join(" ").chars().collect();
                    kept.truncate(300);
                    let mut line = None;
                    while line.is_none() && kept.pop().is_some() {
                        line = fits(&kept.iter().chain(&['…']).collect::<String>());
                    }
                    lines.extend(line);
                }
            }
            if last {
                break;
            }
        }
        lines
    }

    /// Draws a line, its baseline starting at (0, 0).
    pub fn rasterise(&self, line: &Line) -> Mask {
        let mut placed = Vec::with_capacity(line.glyphs.len());
        for &(glyph, x, y) in &line.glyphs {
            let split = |v: f32| {
                let steps = (v * SUBPIXELS).round() as i32;
                (steps.div_euclid(SUBPIXELS as i32), steps.rem_euclid(SUBPIXELS as i32) as u8)
            };
            let ((x, sub_x), (y, sub_y)) = (split(x), split(y));
            let key = RasterKey { glyph, em: (line.em_px * 64.0).round() as u32, x: sub_x, y: sub_y };
            let raster = self.raster(key);
            if !raster.coverage.is_empty() {
                placed.push((raster.left + x, raster.top + y, raster));
            }
        }
        let Some(left) = placed.iter().map(|p| p.0).min() else { return Mask::default() };
        let top = placed.iter().map(|p| p.1).min().unwrap_or(0);
        let right = placed.iter().map(|p| p.0 + p.2.width as i32).max().unwrap_or(left);
        let bottom = placed.iter().map(|p| p.1 + p.2.height as i32).max().unwrap_or(top);
        let (width, height) = ((right - left) as usize, (bottom - top) as usize);
        let mut coverage = vec![0u8; width * height];
        for (x, y, raster) in placed {
            let offset = (y - top) as usize * width + (x - left) as usize;
            for (row, source) in raster.coverage.chunks_exact(raster.width).enumerate() {
                let target = &mut coverage[offset + row * width..][..raster.width];
                for (target, &source) in target.iter_mut().zip(source) {
                    *target = target.saturating_add(source);
                }
            }
        }
        Mask { left, top, width, height, coverage }
    }

    fn raster(&self, key: RasterKey) -> Arc<Mask> {
        // A thread that panicked between two lines of this function left a usable cache.
        let mut rasters = self.rasters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(raster) = rasters.get(&key) {
            return raster.clone();
        }
        if rasters.len() >= CACHED_RASTERS {
            rasters.clear();
        }
        let raster = Arc::new(self.draw(key));
        rasters.insert(key, raster.clone());
        raster
    }

    fn draw(&self, key: RasterKey) -> Mask {
        let em_px = key.em as f32 / 64.0;
        // ab_glyph scales by the height from descent to ascent, not by the em.
        let scale = PxScale::from(em_px * self.outlines.height_unscaled() / self.units_per_em);
        let origin = point(f32::from(key.x) / SUBPIXELS, f32::from(key.y) / SUBPIXELS);
        let glyph = GlyphId(key.glyph).with_scale_and_position(scale, origin);
        let Some(outlined) = self.outlines.outline_glyph(glyph) else { return Mask::default() };
        let bounds = outlined.px_bounds();
        let (width, height) = (bounds.width() as usize, bounds.height() as usize);
        let mut coverage = vec![0u8; width * height];
        outlined.draw(|x, y, alpha| {
            if let Some(sample) = coverage.get_mut(y as usize * width + x as usize) {
                *sample = (alpha * 255.0).round() as u8;
            }
        });
        Mask { left: bounds.min.x as i32, top: bounds.min.y as i32, width, height, coverage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glyphs(text: &str) -> Vec<u16> {
        let typeface = Typeface::new().unwrap();
        typeface.shape(text, 20.0).glyphs.iter().map(|g| g.0).collect()
    }

    #[test]
    fn the_scripts_of_the_font_have_glyphs_and_others_a_box() {
        for text in ["Zoë Łukasz", "Νίκος", "Дмитрий", "Արամ", "ნინო", "שירה", "ليلى"]
        {
            assert!(glyphs(text).iter().all(|&g| g != 0), "{text}");
        }
        assert_eq!(glyphs("王"), [0]);
        let typeface = Typeface::new().unwrap();
        let mask = typeface.rasterise(&typeface.shape("王", 20.0));
        assert!(mask.width > 5 && mask.height > 10, "the box has ink: {mask:?}");
    }

    #[test]
    fn right_to_left_names_run_from_right_to_left_and_arabic_letters_join() {
        let (shin, yod) = (glyphs("ש"), glyphs("י"));
        assert_eq!(glyphs("שי"), [yod, shin].concat());
        let alone = glyphs("ل");
        assert!(!glyphs("ليلى").contains(&alone[0]), "joined forms differ from the isolated one");
    }

    #[test]
    fn combining_marks_and_odd_characters_neither_crash_nor_advance() {
        let typeface = Typeface::new().unwrap();
        let plain = typeface.shape("e", 20.0).width_px;
        for text in ["e\u{301}", "e\u{323}\u{302}", "\u{2068}e\u{2069}", "e\u{200d}"] {
            let line = typeface.shape(text, 20.0);
            assert!((line.width_px - plain).abs() < 0.01, "{text:?} is {} wide", line.width_px);
            assert!(!typeface.rasterise(&line).coverage.is_empty());
        }
        for text in ["", "\u{301}", "\n\r\t\0", "\u{feff}", "\u{202e}abc", "🙂", "\u{10ffff}"] {
            typeface.rasterise(&typeface.shape(text, 20.0));
        }
    }

    #[test]
    fn text_is_broken_between_words_and_what_does_not_fit_is_cut_off() {
        let typeface = Typeface::new().unwrap();
        let wrap = |text: &str, room_px: u32, most: usize| typeface.wrap(text, 12.0, room_px, most);
        let text = "Monica Geller: 07.jpg: the face is turned away, use a picture facing the camera";
        assert!(wrap("", 100, 2).is_empty());
        assert_eq!(wrap("Ada", 100, 2).len(), 1);
        let lines = wrap(text, 150, 9);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.width_px <= 150.0));
        let glyphs: usize = lines.iter().map(|line| line.glyphs.len()).sum();
        // Only the spaces at the breaks are removed.
        assert_eq!(glyphs, text.len() - (lines.len() - 1));
        for (text, most) in [(text, 2), ("Ada-Augusta-Byron-King-Countess-of-Lovelace", 2)] {
            let lines = wrap(text, 150, most);
            let ellipsis = typeface.shape("…", 12.0).glyphs[0].0;
            assert!(lines.len() <= most && lines.iter().all(|line| line.width_px <= 150.0));
            assert_eq!(lines.last().unwrap().glyphs.last().unwrap().0, ellipsis, "{text}");
        }
    }

    #[test]
    fn a_line_is_as_tall_as_its_extent_and_kept_rasters_do_not_change_it() {
        let typeface = Typeface::new().unwrap();
        let line = typeface.shape("Ågj", 40.0);
        let mask = typeface.rasterise(&line);
        let (up, down) = typeface.extent_px(40.0);
        assert!(-mask.top as f32 <= up + 1.0 && (mask.top + mask.height as i32) as f32 <= down + 1.0);
        assert!(mask.height as f32 > 0.7 * (up + down));
        assert_eq!(mask, typeface.rasterise(&line));
    }
}
