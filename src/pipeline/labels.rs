//! The labels of the faces of a frame.

use crate::annotate::Label;
use crate::engine::IdentifiedFace;

/// The labels to draw on a picture.
pub(super) fn labels(faces: &[IdentifiedFace]) -> Vec<Label> {
    let one = |one: &IdentifiedFace| Label {
        landmarks: Some(one.face.landmarks),
        name: one.identification.name.clone(),
        stranger: one.stranger,
        angle_deg: one.angle_deg(),
        score: Some(one.face.score),
        ..Label::unknown(one.face.bbox)
    };
    faces.iter().filter(|face| !face.transient).map(one).collect()
}
