//! The view of a face: its turn, and how surely it is one.

use serde::{Deserialize, Serialize};

use crate::detect::{Face, Quality};

/// The view of a face, as far as decisions need it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Viewpoint {
    /// Turn to the side in degrees, either way, 0 or more.
    pub yaw_deg: f32,
    /// The detector's score.
    pub score: f32,
}

impl Viewpoint {
    /// A face that is surely one, seen from the front.
    pub const FRONTAL: Viewpoint = Viewpoint { yaw_deg: 0.0, score: 1.0 };

    /// The view of a face.
    pub fn of(face: &Face, quality: &Quality) -> Self {
        Self { yaw_deg: quality.yaw_deg.abs(), score: face.score }
    }
}
