//! Redaction of a video whose tracks are known, and its audit.

use std::cell::Cell;
use std::rc::Rc;

use super::LabelError;
use super::subscriber::{Ending, Pictures, Subscriber};
use crate::analysis::Analysis;
use crate::annotate::{FaceBox, Redactor, Whom, cover_gaps};
use crate::detect::BBox;
use crate::engine::{IdentifiedFace, LabelledFrame};
use crate::identify::Decision;
use crate::report::{Audit, AuditFace, AuditSummary};

/// Settings of a redaction.
pub struct Redaction {
    /// The people to cover.
    pub whom: Whom,
    /// The method.
    pub redactor: Redactor,
    /// Frames to cover before a person is first seen and after they are last seen.
    pub hold_frames: u64,
    /// Checks every frame, and records it if requested.
    pub audit: Audit,
}

impl Redaction {
    /// The boxes to cover in each frame of an analysed video: tracks are covered as a whole,
    /// gaps included.
    #[cfg_attr(not(feature = "video"), expect(dead_code, reason = "needs the frames"))]
    pub(super) fn of_video(&self, analysis: &Analysis, decisions: &[Decision]) -> Vec<Vec<BBox>> {
        let frames = analysis.video.frames;
        let mut boxes: Vec<Vec<BBox>> = vec![Vec::new(); usize::try_from(frames).unwrap_or(0)];
        for track in analysis.tracks() {
            let name = Decision::about(decisions, track.id).and_then(|decision| decision.who.name());
            if !self.whom.covers(name) {
                continue;
            }
            let seen = track.observations.iter().map(|&index| &analysis.observations[index]);
            let seen: Vec<FaceBox> =
                seen.map(|one| FaceBox { frame: one.frame, bbox: one.face.bbox }).collect();
            for FaceBox { frame, bbox } in cover_gaps(&seen, self.hold_frames, frames) {
                let place = usize::try_from(frame).ok().and_then(|frame| boxes.get_mut(frame));
                place.into_iter().for_each(|place| place.push(bbox));
            }
        }
        boxes
    }

    /// The boxes to cover in a still.
    pub(super) fn of_still(&self, faces: &[IdentifiedFace]) -> Vec<BBox> {
        let covered = faces.iter().filter(|one| self.whom.covers(one.identification.name.as_deref()));
        covered.map(|one| one.face.bbox).collect()
    }

    /// The subscriber that checks the covered frames.
    pub(super) fn check(self) -> Check {
        let Self { whom, redactor, audit, .. } = self;
        Check { whom, redactor, audit, summary: Rc::default() }
    }
}

/// A face as in the audit.
fn entry<'a>(one: &'a IdentifiedFace, whom: &Whom) -> AuditFace<'a> {
    let name = one.name();
    let track = one.track.map(|track| track.0);
    AuditFace { track, name, bbox: one.face.bbox, redact: whom.covers(name) }
}

/// Checks that the faces of every frame are covered as requested.
pub(super) struct Check {
    whom: Whom,
    redactor: Redactor,
    audit: Audit,
    /// The counts, at the end.
    pub summary: Rc<Cell<Option<AuditSummary>>>,
}

impl Subscriber for Check {
    /// It checks the frames that are written.
    fn pictures(&self) -> Pictures {
        Pictures::Named
    }

    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        let Some(picture) = &frame.picture else { return Ok(()) };
        let (width, height) = (picture.width(), picture.height());
        let faces: Vec<AuditFace<'_>> = frame.faces.iter().map(|one| entry(one, &self.whom)).collect();
        let areas = self.redactor.areas(&frame.covered, width, height);
        Ok(self.audit.enter((frame.index, frame.pts_ns), (width, height), &faces, &areas)?)
    }

    fn finish(self: Box<Self>, _: &Ending<'_>) -> Result<(), LabelError> {
        self.summary.set(Some(self.audit.finish()?));
        Ok(())
    }
}
