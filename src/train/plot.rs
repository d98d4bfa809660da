//! The curves of a run as SVG.

use std::fmt::Write as _;

use super::metrics::Line;
use crate::file::escaped;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 130.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 50.0;
/// Distance between panels.
const STEP: f64 = 170.0;

/// Maximum number of points per curve: more than there are pixels would not be visible.
const MOST_POINTS: usize = 1280;

/// One curve.
struct Panel {
    title: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// A whole number of 1, 2 or 5 times a power of ten at or above `x`.
fn round_up(x: f64) -> f64 {
    let power = 10f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|n| *n >= x * 0.999_999).unwrap_or(x)
}

/// The curves of loss, angle, lambda, learning rate and validation over the iterations; those without points
/// are omitted.
pub fn curves(title: &str, lines: &[Line]) -> String {
    let training = |of: fn(&super::metrics::Training) -> f64| -> Vec<(f64, f64)> {
        let points = lines.iter().filter_map(|line| match line {
            Line::Training(line) => Some((line.iteration as f64, of(line))),
            Line::Validation(_) => None,
        });
        points.collect()
    };
    let validation = lines.iter().filter_map(|line| match line {
        Line::Validation(line) => Some((line.iteration as f64, 100.0 * line.validation_accuracy)),
        Line::Training(_) => None,
    });
    let colours = ["#0b62c4", "#b4480c", "#3c7a1e", "#7a3c9c", "#a01c3c"];
    let panels = [
        ("loss", training(|line| line.loss)),
        ("angle to the target class, degrees", training(|line| line.angle_deg)),
        ("lambda", training(|line| line.lambda)),
        ("learning rate", training(|line| line.rate)),
        ("validation, % right", validation.collect()),
    ];
    let panels: Vec<Panel> = panels
        .into_iter()
        .zip(colours)
        .map(|((title, mut points), colour)| {
            points.retain(|(_, y)| y.is_finite());
            let every = points.len().div_ceil(MOST_POINTS).max(1);
            Panel { title, colour, points: points.into_iter().rev().step_by(every).rev().collect() }
        })
        .filter(|panel| panel.points.iter().any(|(_, y)| *y != 0.0))
        .collect();
    let title = escaped(title);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n",
        LEFT + WIDTH + 30.0,
        TOP + STEP * panels.len() as f64 + 10.0
    );
    let last = lines.iter().map(Line::iteration).max().unwrap_or(1).max(1) as f64;
    for (number, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, TOP + STEP * number as f64, last);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, panel: &Panel, top: f64, last: f64) {
    let values = || panel.points.iter().map(|(_, y)| *y);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let step = round_up(((most - least) / 4.0).max(most.abs() * 1e-3).max(1e-12));
    let bottom = (least / step).floor() * step;
    let steps = ((most - bottom) / step).ceil().max(1.0);
    let y = |value: f64| top + HEIGHT * (1.0 - (value - bottom) / (steps * step));
    let across = round_up(last / 8.0).max(1.0);
    let x = |iteration: f64| LEFT + WIDTH * iteration / last;
    // Decimals that distinguish the grid lines.
    let digits = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    // Writing into a String cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"{}\">{}</text>",
        top - 6.0,
        panel.colour,
        panel.title
    );
    for line in 0..=steps as u32 {
        let value = bottom + f64::from(line) * step;
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}h{WIDTH}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.digits$}</text>",
            LEFT - 6.0,
            y(value) + 4.0,
            y = y(value),
        );
    }
    for line in 0..=(last / across) as u32 {
        let iteration = f64::from(line) * across;
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {top:.1}v{HEIGHT}\" stroke=\"#eee\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{iteration:.0}</text>",
            top + HEIGHT + 15.0,
            x = x(iteration),
        );
    }
    let mut path = String::new();
    for (place, (iteration, value)) in panel.points.iter().enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if place == 0 { 'M' } else { 'L' }, x(*iteration), y(*value));
    }
    let _ =
        writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>", panel.colour);
    if let [.., (iteration, value)] = panel.points.as_slice() {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{}\"/>",
            x(*iteration),
            y(*value),
            panel.colour
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::{Training, Validated};

    fn training(iteration: u64, loss: f64) -> Line {
        Line::Training(Training {
            iteration,
            loss,
            class_loss: loss,
            teacher_loss: 0.0,
            angle_deg: 90.0 - iteration as f64 / 100.0,
            accuracy: 0.5,
            lambda: 1000.0 / (1.0 + 0.12 * iteration as f64),
            rate: if iteration < 3000 { 0.1 } else { 0.01 },
            images_per_s: 10.0,
            waiting: 0.0,
        })
    }

    #[test]
    fn curves_are_whole_for_any_run() {
        let mut lines: Vec<Line> =
            (1..400).map(|i| training(20 * i, 9.3 - (f64::from(i as u32)).ln())).collect();
        lines.push(Line::Validation(Validated {
            iteration: 4000,
            validation_accuracy: 0.9,
            standard_error: 0.01,
            pairs: 10,
        }));
        lines.push(Line::Validation(Validated {
            iteration: 7980,
            validation_accuracy: 0.95,
            standard_error: 0.01,
            pairs: 10,
        }));
        let svg = curves("a < b", &lines);
        assert!(svg.contains("a &lt; b") && svg.matches("stroke-width=\"1.5\"").count() == 5, "{svg}");
        for lines in [&lines[..0], &lines[..1], &[training(1, f64::NAN), training(2, 1e-9)]] {
            let svg = curves("x", lines);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn steps_are_round() {
        for (x, step) in [(0.013, 0.02), (1.0, 1.0), (3.4, 5.0), (720.0, 1000.0)] {
            assert!((round_up(x) - step).abs() < 1e-9 * step, "{x}: {}", round_up(x));
        }
    }
}
