//! The parts of the picture in which faces count.

use crate::detect::BBox;

/// An area of a picture, in fractions of its width and height.
#[derive(Debug, Clone, PartialEq)]
pub struct Polygon(Vec<[f32; 2]>);

/// Why corners do not make an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPolygon {
    /// Fewer than three, or more than 100.
    #[error("a region has 3 to 100 corners, not {0}")]
    Corners(usize),
    /// A corner outside the picture.
    #[error("corners are shares of the width and height, from 0 to 1")]
    Outside,
}

impl Polygon {
    /// The area between corners (x, y), each from 0 (left, top) to 1 (right, bottom).
    ///
    /// # Errors
    /// When there are fewer than three corners, more than 100, or one lies outside the picture.
    pub fn new(corners: &[[f64; 2]]) -> Result<Self, BadPolygon> {
        if !(3..=100).contains(&corners.len()) {
            return Err(BadPolygon::Corners(corners.len()));
        }
        match corners.iter().flatten().all(|value| (0.0..=1.0).contains(value)) {
            true => Ok(Self(corners.iter().map(|[x, y]| [*x as f32, *y as f32]).collect())),
            false => Err(BadPolygon::Outside),
        }
    }

    /// Whether a point lies inside: a line from it crosses the border an odd number of times.
    fn contains(&self, [x, y]: [f32; 2]) -> bool {
        let next = self.0.iter().cycle().skip(1);
        let crosses = |([x1, y1], [x2, y2]): (&[f32; 2], &[f32; 2])| {
            (*y1 > y) != (*y2 > y) && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
        };
        self.0.iter().zip(next).filter(|pair| crosses(*pair)).count() % 2 == 1
    }
}

/// Where faces count: by the centre of their box.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Regions {
    /// Only inside one of these; anywhere if there are none.
    pub watch: Vec<Polygon>,
    /// Not inside any of these.
    pub ignore: Vec<Polygon>,
}

impl Regions {
    /// Whether a face counts in a picture of that width and height, in pixels.
    pub fn keep(&self, bbox: &BBox, (width, height): (usize, usize)) -> bool {
        let [x, y] = bbox.centre();
        let at = [x / width.max(1) as f32, y / height.max(1) as f32];
        let inside = |areas: &[Polygon]| areas.iter().any(|area| area.contains(at));
        (self.watch.is_empty() || inside(&self.watch)) && !inside(&self.ignore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_face_counts_inside_what_is_watched_and_outside_what_is_ignored() {
        let at = |x: f32, y: f32| BBox { x1: x - 10.0, y1: y - 10.0, x2: x + 10.0, y2: y + 10.0 };
        let size = (640, 360);
        let left = Polygon::new(&[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]).unwrap();
        // A notch: the point between its arms is outside.
        let horseshoe =
            [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.6, 1.0], [0.6, 0.2], [0.4, 0.2], [0.4, 1.0], [0.0, 1.0]];
        let horseshoe = Polygon::new(&horseshoe).unwrap();
        let all = Regions::default();
        assert!(all.keep(&at(5.0, 5.0), size));
        let watch = Regions { watch: vec![left.clone()], ..Regions::default() };
        assert!(watch.keep(&at(300.0, 350.0), size) && !watch.keep(&at(330.0, 10.0), size));
        let ignore = Regions { ignore: vec![left.clone()], ..Regions::default() };
        assert!(!ignore.keep(&at(300.0, 350.0), size) && ignore.keep(&at(330.0, 10.0), size));
        let both = Regions { watch: vec![horseshoe], ignore: vec![left] };
        assert!(both.keep(&at(600.0, 300.0), size) && !both.keep(&at(320.0, 300.0), size));
        assert!(!both.keep(&at(100.0, 300.0), size));
    }

    #[test]
    fn what_is_no_area_is_refused() {
        assert_eq!(Polygon::new(&[[0.0, 0.0], [1.0, 1.0]]), Err(BadPolygon::Corners(2)));
        assert_eq!(Polygon::new(&[[0.5; 2]; 101]), Err(BadPolygon::Corners(101)));
        for wrong in [1.1, -0.1, f64::NAN] {
            assert_eq!(Polygon::new(&[[0.0, 0.0], [1.0, 1.0], [0.0, wrong]]), Err(BadPolygon::Outside));
        }
    }
}
