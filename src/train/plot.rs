//! The curves of a run as SVG.

use super::metrics::Line;
use crate::report::chart::{Axis, Chart, Curve, Scale, stacked};

/// Maximum number of points per curve: more than there are pixels would not be visible.
const MOST_POINTS: usize = 1280;

/// The curves of loss, angle, lambda, learning rate and validation over the iterations; those
/// without points are left out.
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
    let last = lines.iter().map(Line::iteration).max().unwrap_or(1).max(1) as f64;
    let charts = [
        ("loss", training(|line| line.loss)),
        ("angle to the target class, degrees", training(|line| line.angle_deg)),
        ("lambda", training(|line| line.lambda)),
        ("learning rate", training(|line| line.rate)),
        ("validation, % right", validation.collect()),
    ]
    .into_iter()
    .filter(|(_, points)| points.iter().any(|(_, y)| y.is_finite() && *y != 0.0))
    .map(|(title, mut points)| {
        points.retain(|(_, y)| y.is_finite());
        let every = points.len().div_ceil(MOST_POINTS).max(1);
        let points: Vec<_> = points.into_iter().rev().step_by(every).rev().collect();
        Chart {
            title: title.to_owned(),
            x: Axis { label: "iteration".to_owned(), scale: Scale::Linear(0.0, last) },
            y: Axis { label: String::new(), scale: Scale::around(points.iter().map(|(_, y)| *y)) },
            curves: vec![Curve { points, ..Curve::default() }],
        }
    });
    stacked(title, &charts.collect::<Vec<_>>())
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
        assert!(svg.contains("a &lt; b") && svg.matches("stroke-linejoin").count() == 5, "{svg}");
        for lines in [&lines[..0], &lines[..1], &[training(1, f64::NAN), training(2, 1e-9)]] {
            let svg = curves("x", lines);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
