//! The motion of a face's box from frame to frame.

use crate::detect::BBox;

/// Weight of the newest motion in the running mean.
const NEWEST: f32 = 0.5;

/// Change of the sides x1, y1, x2, y2 of a box in pixels per frame, as a running mean.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Motion([f32; 4]);

impl Motion {
    /// Takes in that a box was at `before` and is at `now`, `frames` later.
    pub fn observe(&mut self, before: &BBox, now: &BBox, frames: f32) {
        let (before, now) = (before.sides(), now.sides());
        for (side, mean) in self.0.iter_mut().enumerate() {
            let newest = (now[side] - before[side]) / frames;
            *mean = (1.0 - NEWEST) * *mean + NEWEST * newest;
        }
    }

    /// Where a box is expected `frames` later.
    pub fn expected(&self, bbox: &BBox, frames: f32) -> BBox {
        let sides = bbox.sides();
        BBox::of_sides(std::array::from_fn(|side| sides[side] + frames * self.0[side]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_box_is_expected_where_it_goes() {
        let at = |frame: f32| BBox { x1: 10.0 * frame, y1: 5.0, x2: 10.0 * frame + 20.0, y2: 30.0 };
        let mut motion = Motion::default();
        assert_eq!(motion.expected(&at(0.0), 3.0), at(0.0));
        for frame in 0..12 {
            motion.observe(&at(frame as f32), &at((frame + 1) as f32), 1.0);
        }
        let expected = motion.expected(&at(12.0), 2.0);
        assert!((expected.x1 - at(14.0).x1).abs() < 0.1 && expected.y1 == 5.0, "{expected:?}");
        // A gap counts by its frames.
        let mut slow = Motion::default();
        slow.observe(&at(0.0), &at(1.0), 10.0);
        assert_eq!(slow.expected(&at(1.0), 1.0).x1, 10.5);
    }
}
