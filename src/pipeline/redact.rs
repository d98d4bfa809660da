//! Redaction of a video whose tracks are known, and its audit.

use crate::analysis::Analysis;
use crate::annotate::{FaceBox, Redactor, Region, Whom, cover_gaps};
use crate::detect::BBox;
use crate::engine::IdentifiedFace;
use crate::identify::Decision;
use crate::report::{Audit, AuditFace, ReportError};

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

/// The method and, for each frame, the covered boxes.
pub type Covered = (Redactor, Vec<Vec<BBox>>);

impl Redaction {
    /// The boxes to cover in each frame of an analysed video: tracks are covered as a whole,
    /// gaps included.
    #[cfg_attr(not(feature = "video"), expect(dead_code, reason = "needs the frames"))]
    pub(super) fn cover(&self, analysis: &Analysis, decisions: &[Decision]) -> Covered {
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
        (self.redactor, boxes)
    }

    /// The boxes to cover in a still.
    pub(super) fn of_still(&self, faces: &[IdentifiedFace]) -> Vec<BBox> {
        let covered = faces.iter().filter(|one| self.whom.covers(one.identification.name.as_deref()));
        covered.map(|one| one.face.bbox).collect()
    }

    /// Checks a frame that was covered.
    pub(super) fn check(
        &mut self,
        (frame, pts_ns): (u64, u64),
        size: (usize, usize),
        faces: &[IdentifiedFace],
        covered: &[Region],
    ) -> Result<(), ReportError> {
        let faces: Vec<AuditFace<'_>> = faces
            .iter()
            .map(|face| {
                let name = face.identification.name.as_deref();
                let (track, bbox) = (face.track.map(|track| track.0), face.face.bbox);
                AuditFace { track, name, bbox, redact: self.whom.covers(name) }
            })
            .collect();
        self.audit.enter((frame, pts_ns), size, &faces, covered)
    }
}
