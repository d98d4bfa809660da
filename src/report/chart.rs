//! Charts: curves over two axes, as SVG or PNG.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resvg::{tiny_skia, usvg};

use crate::file::escaped;

/// The font of the PNG: DejaVu Sans, as in the videos.
const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
const FONT_FAMILY: &str = "DejaVu Sans";

/// Width of the picture and place of the axes in it, in pixels of the SVG.
const WIDTH: f64 = 640.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 24.0;
/// Room above and below the axes.
const ABOVE: f64 = 44.0;
const BELOW: f64 = 56.0;

/// Height of a chart.
const HEIGHT: f64 = 480.0;
/// Height of each of several charts in one picture.
const STACKED_HEIGHT: f64 = 220.0;

/// Pixels of the PNG per pixel of the SVG.
const PNG_SCALE: f32 = 2.0;

/// Colours of the curves, in order, which colour-blind readers can distinguish too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Why a chart cannot be drawn into a file.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// The name ends in neither `.svg` nor `.png`.
    #[error("{path} does not have the extension of a chart: use .svg or .png", path = .0.display())]
    Format(PathBuf),
    /// The picture cannot be made.
    #[error("the chart cannot be drawn ({0}): this is a defect of sphereface, please report it")]
    Draw(String),
}

/// The scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Linear, from the first to the second value.
    Linear(f64, f64),
    /// Logarithmic, from 10 to the first to 10 to the second power; smaller values are at the start.
    Log10(i32, i32),
}

impl Scale {
    /// An even scale that holds the values and begins and ends at a mark; 0 to 1 without values.
    pub fn around(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
                (least.min(value), most.max(value))
            });
        if least > most {
            return Scale::Linear(0.0, 1.0);
        }
        let span = (most - least).max(most.abs() * 1e-3).max(1e-12);
        let step = nice_step(span / 5.0);
        let [from, to] = [(least / step).floor() * step, (most / step).ceil() * step];
        Scale::Linear(from, if to > from { to } else { from + step })
    }

    /// Where `value` lies, 0..=1 of the axis; outside values lie at its ends.
    fn place(&self, value: f64) -> f64 {
        let share = match *self {
            Scale::Linear(from, to) => (value - from) / (to - from),
            Scale::Log10(from, to) => (value.log10() - f64::from(from)) / f64::from(to - from),
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Values with a mark, and their labels.
    fn marks(&self) -> Vec<(f64, String)> {
        match *self {
            Scale::Linear(from, to) => {
                let step = nice_step((to - from) / 5.0);
                let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
                let (first, last) = ((from / step).ceil() as i64, (to / step + 1e-9).floor() as i64);
                (first..=last).map(|i| i as f64 * step).map(|at| (at, format!("{at:.digits$}"))).collect()
            }
            Scale::Log10(from, to) => {
                let text = |power: i32| if power == 0 { "1".into() } else { format!("1e{power}") };
                (from..=to).map(|power| (10f64.powi(power), text(power))).collect()
            }
        }
    }
}

/// The largest of 1, 2 and 5 times a power of ten that is not above `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [5.0, 2.0].map(|times| times * power).into_iter().find(|&nice| nice <= step * 1.0001).unwrap_or(power)
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// Its range.
    pub scale: Scale,
}

/// One curve.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Its label in the legend; empty for none.
    pub label: String,
    /// Points (x, y), joined in order.
    pub points: Vec<(f64, f64)>,
    /// Intervals (x, lower y, upper y) drawn as upright bars.
    pub intervals: Vec<(f64, f64, f64)>,
}

/// Curves over two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The title, one line.
    pub title: String,
    /// The axis along the bottom.
    pub x: Axis,
    /// The axis at the left.
    pub y: Axis,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl Chart {
    /// Whether a chart can be written under that name: it must end in `.svg` or `.png`.
    ///
    /// # Errors
    /// [`ChartError::Format`] when not.
    pub fn check_name(path: &Path) -> Result<(), ChartError> {
        is_png(path).map(drop)
    }

    /// The bytes of the picture in the format of the extension of its name.
    ///
    /// # Errors
    /// [`ChartError::Format`] for another ending than `.svg` and `.png`.
    pub fn encode_for(&self, path: &Path) -> Result<Vec<u8>, ChartError> {
        if is_png(path)? { self.to_png() } else { Ok(self.to_svg().into_bytes()) }
    }

    /// The chart as SVG, 640x480.
    pub fn to_svg(&self) -> String {
        picture(HEIGHT, |svg| self.draw(svg, [0.0, HEIGHT], &COLOURS))
    }

    /// Draws the chart between two heights of a picture.
    fn draw(&self, svg: &mut String, [top, bottom]: [f64; 2], colours: &[&str]) {
        let (title, label, [top, bottom]) = (top + 26.0, bottom - 14.0, [top + ABOVE, bottom - BELOW]);
        let x = |value: f64| LEFT + (RIGHT - LEFT) * self.x.scale.place(value);
        let y = |value: f64| bottom - (bottom - top) * self.y.scale.place(value);
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{title}\" font-size=\"15\">{}</text>",
            escaped(&self.title)
        );
        for (value, text) in self.x.scale.marks() {
            let at = x(value);
            let _ = writeln!(svg, "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                bottom + 20.0
            );
        }
        for (value, text) in self.y.scale.marks() {
            let at = y(value);
            let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/>");
            let place = (LEFT - 8.0, at + 4.5);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                place.0, place.1
            );
        }
        let middle = ((LEFT + RIGHT) / 2.0, (top + bottom) / 2.0);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            middle.0,
            label,
            escaped(&self.x.label),
            middle.1,
            escaped(&self.y.label)
        );
        for (curve, colour) in self.curves.iter().zip(colours.iter().cycle()) {
            let mut path = String::new();
            for &(at, value) in &curve.points {
                let command = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{command}{:.1} {:.1}", x(at), y(value));
            }
            if !path.is_empty() {
                let _ = writeln!(
                    svg,
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>"
                );
            }
            for &(at, lower, upper) in &curve.intervals {
                let (at, lower, upper) = (x(at), y(lower), y(upper));
                let _ = writeln!(
                    svg,
                    "<path d=\"M{0:.1} {lower:.1}H{1:.1}M{at:.1} {lower:.1}V{upper:.1}M{0:.1} {upper:.1}H{1:.1}\" fill=\"none\" stroke=\"{colour}\"/>",
                    at - 5.0,
                    at + 5.0
                );
            }
        }
        self.legend(svg, bottom, colours);
    }

    /// The names of the curves, at the lower right, where curves of good systems are not.
    fn legend(&self, svg: &mut String, bottom: f64, colours: &[&str]) {
        let named: Vec<_> =
            self.curves.iter().zip(colours.iter().cycle()).filter(|(c, _)| !c.label.is_empty()).collect();
        for (index, (curve, colour)) in named.iter().enumerate() {
            let at = bottom - 14.0 - 20.0 * (named.len() - 1 - index) as f64;
            let _ = writeln!(
                svg,
                "<path d=\"M{} {}H{}\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                RIGHT - 34.0,
                at,
                RIGHT - 10.0,
                RIGHT - 42.0,
                at + 4.5,
                escaped(&curve.label)
            );
        }
    }

    /// The chart as PNG, 1280x960.
    ///
    /// # Errors
    /// [`ChartError::Draw`] when the picture cannot be made.
    pub fn to_png(&self) -> Result<Vec<u8>, ChartError> {
        let draw = |error: &dyn std::fmt::Display| ChartError::Draw(error.to_string());
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family(FONT_FAMILY);
        let options = usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() };
        let tree = usvg::Tree::from_str(&self.to_svg(), &options).map_err(|e| draw(&e))?;
        let size = (tree.size().width() * PNG_SCALE, tree.size().height() * PNG_SCALE);
        let mut pixels = tiny_skia::Pixmap::new(size.0 as u32, size.1 as u32)
            .ok_or_else(|| draw(&"the picture has no size"))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut pixels.as_mut());
        pixels.encode_png().map_err(|e| draw(&e))
    }
}

/// Several charts one below the other as SVG, with a title. Each has a colour of its own.
pub fn stacked(title: &str, charts: &[Chart]) -> String {
    picture(ABOVE + STACKED_HEIGHT * charts.len() as f64, |svg| {
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"26\" font-size=\"17\">{}</text>", escaped(title));
        for (number, chart) in charts.iter().enumerate() {
            let top = ABOVE - 10.0 + STACKED_HEIGHT * number as f64;
            chart.draw(svg, [top, top + STACKED_HEIGHT], &[COLOURS[number % COLOURS.len()]]);
        }
    })
}

/// An SVG of that height.
fn picture(height: f64, draw: impl FnOnce(&mut String)) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"{FONT_FAMILY}, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    draw(&mut svg);
    svg.push_str("</svg>\n");
    svg
}

fn is_png(path: &Path) -> Result<bool, ChartError> {
    match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("png") => Ok(true),
        Some("svg") => Ok(false),
        _ => Err(ChartError::Format(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "<b> & co".into(),
            x: Axis { label: "rate".into(), scale: Scale::Log10(-3, 0) },
            y: Axis { label: "share".into(), scale: Scale::Linear(0.0, 1.0) },
            curves: vec![
                Curve {
                    label: "one".into(),
                    points: vec![(0.0, 0.1), (0.01, 0.5), (1.0, 1.0)],
                    ..Curve::default()
                },
                Curve { intervals: vec![(0.1, 0.2, 0.4)], ..Curve::default() },
            ],
        }
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let svg = chart().to_svg();
        let (top, bottom) = (ABOVE, HEIGHT - BELOW);
        // 0 lies at the start of a logarithmic axis, 0.01 at a third of it, 1 at its end.
        let path = format!(
            "M{LEFT:.1} {:.1}L{:.1} {:.1}L{RIGHT:.1} {top:.1}",
            bottom - 0.1 * (bottom - top),
            LEFT + (RIGHT - LEFT) / 3.0,
            (top + bottom) / 2.0
        );
        assert!(svg.contains(&path), "{svg}");
        assert!(svg.contains("&lt;b&gt; &amp; co") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn marks_are_round_numbers() {
        let texts = |scale: Scale| scale.marks().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(Scale::Linear(0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(Scale::Linear(0.9, 1.0)), ["0.90", "0.92", "0.94", "0.96", "0.98", "1.00"]);
        assert_eq!(texts(Scale::Linear(0.0, 28_000.0)), ["0", "5000", "10000", "15000", "20000", "25000"]);
        assert_eq!(texts(Scale::Log10(-2, 0)), ["1e-2", "1e-1", "1"]);
    }

    #[test]
    fn a_scale_holds_all_values_between_round_ones() {
        for (values, from, to) in [
            (&[0.3, 9.2, f64::NAN][..], 0.0, 10.0),
            (&[90.0, 91.3], 90.0, 91.4),
            (&[5.0], 5.0, 5.001),
            (&[], 0.0, 1.0),
            (&[-3.0, 4.0], -3.0, 4.0),
        ] {
            let scale = Scale::around(values.iter().copied());
            let Scale::Linear(least, most) = scale else { panic!("{scale:?}") };
            assert!((least - from).abs() < 1e-9 && (most - to).abs() < 1e-9, "{values:?}: {least} to {most}");
        }
    }

    #[test]
    fn charts_are_stacked_each_in_its_colour() {
        let svg = stacked("a < b", &[chart(), chart(), chart()]);
        assert!(svg.contains("a &lt; b") && svg.matches("&lt;b&gt; &amp; co").count() == 3, "{svg}");
        assert!(COLOURS[..3].iter().all(|colour| svg.contains(colour)) && !svg.contains(COLOURS[3]));
    }

    #[test]
    fn the_png_shows_curve_and_text() {
        let bytes = chart().encode_for(Path::new("a.PNG")).unwrap();
        let picture = image::load_from_memory(&bytes).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (1280, 960));
        let count = |colour: [u8; 3]| picture.pixels().filter(|p| p.0 == colour).count();
        assert!(count([0x00, 0x72, 0xb2]) > 1000, "the curve");
        let title = image::imageops::crop_imm(&picture, 140, 20, 200, 40).to_image();
        assert!(title.pixels().filter(|p| p.0 == [0; 3]).count() > 100, "the title");
        assert!(matches!(chart().encode_for(Path::new("a.jpg")), Err(ChartError::Format(_))));
    }
}
