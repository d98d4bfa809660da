//! Covering faces and drawing names on the frames of a job.

#[cfg(feature = "video")]
use std::sync::Arc;

#[cfg(feature = "video")]
use super::subscriber::{Pictures, Viewers};
use crate::annotate::Label;
#[cfg(feature = "video")]
use crate::annotate::{Annotator, Redactor};
use crate::engine::IdentifiedFace;
#[cfg(feature = "video")]
use crate::engine::LabelledFrame;
#[cfg(feature = "video")]
use crate::media::Picture;

/// Makes the pictures that the subscribers of a job need. It keeps nothing between frames, so any number of
/// threads can use it.
#[cfg(feature = "video")]
pub(super) struct Drawer {
    annotator: Annotator,
    redactor: Option<Redactor>,
    plain: bool,
    named: bool,
}

#[cfg(feature = "video")]
impl Drawer {
    /// Draws what the subscribers need.
    pub fn new(annotator: Annotator, redactor: Option<Redactor>, viewers: &Viewers<'_>) -> Self {
        let [plain, named] = [Pictures::Plain, Pictures::Named].map(|kind| viewers.need(kind));
        Self { annotator, redactor, plain, named }
    }

    /// Takes the picture of a frame as decoded. Leaves the plain one in the frame and returns the one with
    /// names, each if it is needed.
    pub fn draw(&self, frame: &mut LabelledFrame) -> Option<Arc<Picture>> {
        let mut picture = frame.picture.take()?;
        // Faces are covered first, so that names stay readable.
        if let Some(redactor) = self.redactor.as_ref().filter(|_| !frame.covered.is_empty()) {
            redactor.draw(Arc::make_mut(&mut picture), &frame.covered);
        }
        frame.picture = self.plain.then(|| picture.clone());
        if self.named && !frame.faces.is_empty() {
            self.annotator.draw(Arc::make_mut(&mut picture), &labels(&frame.faces));
        }
        self.named.then_some(picture)
    }
}

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
