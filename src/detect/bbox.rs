//! The geometry of boxes.

use serde::{Deserialize, Serialize};

/// An axis-aligned box in pixels of the image it was found in; continuous coordinates, the
/// centre of the top-left pixel is (0, 0).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BBox {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
}

impl BBox {
    /// Width in pixels.
    pub fn width(&self) -> f32 {
        self.x2 - self.x1
    }

    /// Height in pixels.
    pub fn height(&self) -> f32 {
        self.y2 - self.y1
    }

    /// Centre (x, y).
    pub fn centre(&self) -> [f32; 2] {
        [(self.x1 + self.x2) / 2.0, (self.y1 + self.y2) / 2.0]
    }

    /// Area in square pixels; 0 for an empty or inverted box.
    pub fn area(&self) -> f32 {
        self.width().max(0.0) * self.height().max(0.0)
    }

    /// Left, top, right and bottom edge.
    pub fn sides(&self) -> [f32; 4] {
        [self.x1, self.y1, self.x2, self.y2]
    }

    /// The box with these edges: left, top, right and bottom.
    pub fn of_sides([x1, y1, x2, y2]: [f32; 4]) -> Self {
        Self { x1, y1, x2, y2 }
    }

    /// The box with `x_px` more at the left and at the right, and `y_px` more at the top and at the bottom.
    pub fn grown(&self, x_px: f32, y_px: f32) -> Self {
        Self { x1: self.x1 - x_px, y1: self.y1 - y_px, x2: self.x2 + x_px, y2: self.y2 + y_px }
    }

    /// The smallest box around both.
    pub fn union(&self, other: &BBox) -> Self {
        Self {
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
            x2: self.x2.max(other.x2),
            y2: self.y2.max(other.y2),
        }
    }

    /// Area that both cover, in square pixels.
    pub fn overlap(&self, other: &BBox) -> f32 {
        let common = BBox {
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
            x2: self.x2.min(other.x2),
            y2: self.y2.min(other.y2),
        };
        common.area()
    }

    /// Whether a point (x, y) lies inside or on an edge.
    pub fn contains(&self, [x, y]: [f32; 2]) -> bool {
        self.x1 <= x && x <= self.x2 && self.y1 <= y && y <= self.y2
    }

    /// Intersection over union, in 0..=1.
    pub fn iou(&self, other: &BBox) -> f32 {
        let overlap = self.overlap(other);
        let union = self.area() + other.area() - overlap;
        if union > 0.0 { overlap / union } else { 0.0 }
    }
}
