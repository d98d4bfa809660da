//! The style of labels, and its text form for `--style`.

use std::fmt;
use std::str::FromStr;

/// The style of labels.
///
/// Its text form is a list of settings separated by commas. Other settings keep their defaults:
///
/// | setting | meaning | default |
/// |---|---|---|
/// | `width=PX` | width of a box in pixels of the picture, 0 (no box) to 100; `auto` grows with the picture: 0.4 % of its height, at least 2 | `auto` |
/// | `text=name+angle+score` | the parts of the text, in that order: the name, the angle to the nearest template in degrees, the detector's score; `none` for no text | `name+angle` |
/// | `font-scale=X` | size of the text, 0.5 to 8, as a multiple of 3 % of the picture's height (at least 12 pixels) | `1` |
/// | `landmarks` | draw the five landmarks | not drawn |
/// | `unknown=text`, `box` or `hide` | strangers get a box with text, a box alone, or nothing | `text` |
#[derive(Debug, Clone, PartialEq)]
pub struct Style {
    /// Width of a box in pixels; `None` grows with the picture.
    pub width_px: Option<f32>,
    /// The parts of the text, in order; empty for none.
    pub text: Vec<Field>,
    /// Multiple of the default text size.
    pub font_scale: f32,
    /// Whether landmarks are drawn.
    pub landmarks: bool,
    /// The label of a stranger.
    pub unknown: Unknown,
}

/// A part of a label's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The name, "Unknown 3", or "unknown".
    Name,
    /// The angle to the nearest template, in degrees.
    Angle,
    /// The detector's score.
    Score,
}

/// Labels of a face without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// A grey box and text.
    Text,
    /// A grey box.
    Box,
    /// Nothing.
    Hide,
}

/// An invalid style; the message says why and what is valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StyleError(String);

impl Default for Style {
    fn default() -> Self {
        Self {
            width_px: None,
            text: vec![Field::Name, Field::Angle],
            font_scale: 1.0,
            landmarks: false,
            unknown: Unknown::Text,
        }
    }
}

const SETTINGS: &str = "width=PX|auto, text=name+angle+score|none, font-scale=X, landmarks, \
                        unknown=text|box|hide";

fn number(key: &str, value: &str, low: f32, high: f32) -> Result<f32, StyleError> {
    let number: Option<f32> = value.parse().ok();
    number
        .filter(|x| (low..=high).contains(x))
        .ok_or_else(|| StyleError(format!("style setting {key}={value}: give a number from {low} to {high}")))
}

impl FromStr for Style {
    type Err = StyleError;

    fn from_str(text: &str) -> Result<Self, StyleError> {
        let mut style = Self::default();
        for setting in text.split(',').map(str::trim) {
            let (key, value) = match setting.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (setting, None),
            };
            match (key, value) {
                ("width", Some("auto")) => style.width_px = None,
                ("width", Some(value)) => style.width_px = Some(number(key, value, 0.0, 100.0)?),
                ("font-scale", Some(value)) => style.font_scale = number(key, value, 0.5, 8.0)?,
                ("landmarks", None) => style.landmarks = true,
                ("unknown", Some("text")) => style.unknown = Unknown::Text,
                ("unknown", Some("box")) => style.unknown = Unknown::Box,
                ("unknown", Some("hide")) => style.unknown = Unknown::Hide,
                ("text", Some("none")) => style.text = Vec::new(),
                ("text", Some(value)) => {
                    style.text = value.split('+').map(field).collect::<Result<_, _>>()?;
                }
                _ => {
                    return Err(StyleError(format!(
                        "style setting '{setting}' does not exist: the settings are {SETTINGS}"
                    )));
                }
            }
        }
        Ok(style)
    }
}

fn field(text: &str) -> Result<Field, StyleError> {
    match text {
        "name" => Ok(Field::Name),
        "angle" => Ok(Field::Angle),
        "score" => Ok(Field::Score),
        _ => Err(StyleError(format!(
            "style setting text: '{text}' cannot be written: give none, or any of name, angle and score joined by +"
        ))),
    }
}

impl fmt::Display for Style {
    /// The complete text form: parsing it gives the same style.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.width_px {
            Some(width) => write!(f, "width={width}")?,
            None => f.write_str("width=auto")?,
        }
        let fields: Vec<&str> = self
            .text
            .iter()
            .map(|field| match field {
                Field::Name => "name",
                Field::Angle => "angle",
                Field::Score => "score",
            })
            .collect();
        let text = if fields.is_empty() { "none".into() } else { fields.join("+") };
        write!(f, ",text={text},font-scale={}", self.font_scale)?;
        if self.landmarks {
            f.write_str(",landmarks")?;
        }
        f.write_str(match self.unknown {
            Unknown::Text => ",unknown=text",
            Unknown::Box => ",unknown=box",
            Unknown::Hide => ",unknown=hide",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_says_everything() {
        let style: Style = "width=3,text=name+angle, landmarks,font-scale=1.2,unknown=box".parse().unwrap();
        assert_eq!(style.width_px, Some(3.0));
        assert_eq!(style.text, [Field::Name, Field::Angle]);
        assert!(style.landmarks);
        assert_eq!(style.unknown, Unknown::Box);
        for style in [style, Style::default(), "text=none,width=0".parse().unwrap()] {
            assert_eq!(style.to_string().parse::<Style>(), Ok(style));
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, reason) in [
            ("width=-1", "0 to 100"),
            ("width=NaN", "0 to 100"),
            ("font-scale=0", "0.5 to 8"),
            ("font-scale=inf", "0.5 to 8"),
            ("text=age", "'age' cannot be written"),
            ("unknown=blur", "unknown=text|box|hide"),
            ("colour=red", "the settings are width"),
            ("landmarks=yes", "does not exist"),
            ("", "does not exist"),
        ] {
            let error = text.parse::<Style>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
