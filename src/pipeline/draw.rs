//! Covering faces and drawing names on the frames of a job.

use std::sync::Arc;

use super::labels::labels;
use super::subscriber::{Pictures, Viewers};
use crate::annotate::{Annotator, Redactor};
use crate::engine::LabelledFrame;
use crate::media::Picture;

/// Makes the pictures that the subscribers of a job need. It keeps nothing between frames, so any number of
/// threads can use it.
pub(super) struct Drawer {
    annotator: Annotator,
    redactor: Option<Redactor>,
    plain: bool,
    named: bool,
}

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
        match &self.redactor {
            Some(_) if frame.covered.is_empty() => {}
            Some(redactor) => redactor.draw(Arc::make_mut(&mut picture), &frame.covered),
            // The check of a redaction must not see boxes that are not covered.
            None => frame.covered.clear(),
        }
        frame.picture = self.plain.then(|| picture.clone());
        if self.named && !frame.faces.is_empty() {
            self.annotator.draw(Arc::make_mut(&mut picture), &labels(&frame.faces));
        }
        self.named.then_some(picture)
    }
}
