//! What was seen, counted and listed, and what of it is drawn.

use super::job::LabelSummary;
use super::recognise::Sighting;
use super::statistics::{Statistics, Work};
use crate::annotate::Label;
use crate::report::{Appearance, Appearances, FaceRecord, ReportError, Results};

/// Absences up to this long do not end an appearance, in nanoseconds.
pub const APPEARANCE_GAP_NS: u64 = 1_000_000_000;

/// What is drawn for the faces of a picture.
pub(super) fn labels(sightings: &[Sighting]) -> Vec<Label> {
    let one = |sighting: &Sighting| Label {
        landmarks: Some(sighting.face.landmarks),
        name: sighting.identification.name.clone(),
        stranger: sighting.stranger,
        angle_deg: sighting.identification.nearest.as_ref().map(|nearest| nearest.angle_deg),
        score: Some(sighting.face.score),
        ..Label::unknown(sighting.face.bbox)
    };
    sightings.iter().filter(|sighting| !sighting.glimpse).map(one).collect()
}

/// Counts and lists what was seen.
pub(super) struct Ledger {
    /// What it took.
    pub(super) work: Work,
    results: Results,
    /// When the last frame went away.
    end_ns: u64,
    appearances: Appearances,
    faces: u64,
    named: u64,
}

impl Ledger {
    pub(super) fn new(results: Results) -> Self {
        let appearances = Appearances::new(APPEARANCE_GAP_NS);
        Self { work: Work::default(), results, end_ns: 0, appearances, faces: 0, named: 0 }
    }

    /// Everyone seen so far.
    #[cfg_attr(not(feature = "video"), expect(dead_code, reason = "only the passes over a video tell"))]
    pub(super) fn people(&self) -> Vec<Appearance> {
        self.appearances.people()
    }

    /// Time goes on to `end_ns`, with frames that show nobody.
    pub(super) fn lasts_until(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.max(end_ns);
    }

    /// Enters a frame; frames come in order.
    pub(super) fn enter(
        &mut self,
        frame: u64,
        pts_ns: u64,
        duration_ns: u64,
        sightings: &[Sighting],
    ) -> Result<(), ReportError> {
        let sightings: Vec<&Sighting> = sightings.iter().filter(|sighting| !sighting.glimpse).collect();
        let names = sightings.iter().filter_map(|sighting| sighting.identification.name.as_deref());
        self.faces += sightings.len() as u64;
        self.named += names.clone().count() as u64;
        let people = sightings.iter().filter_map(|sighting| sighting.who());
        self.appearances.see(pts_ns, duration_ns, people);
        self.lasts_until(pts_ns.saturating_add(duration_ns));
        if !self.results.lists_faces() {
            return Ok(());
        }
        for Sighting { face, quality, identification, track, stranger, votes, through, .. } in sightings {
            let runner_up = identification.runner_up.as_ref();
            self.results.face(&FaceRecord {
                frame,
                pts_ns,
                pts_s: pts_ns as f64 / 1e9,
                bbox: [face.bbox.x1, face.bbox.y1, face.bbox.x2, face.bbox.y2],
                landmarks: face.landmarks,
                score: face.score,
                quality: *quality,
                track: track.map(|track| track.0),
                stranger: *stranger,
                name: identification.name.as_deref(),
                angle_deg: identification.nearest.as_ref().map(|nearest| nearest.angle_deg),
                handicap_deg: identification.nearest.as_ref().map(|nearest| nearest.handicap_deg),
                template: identification.nearest.as_ref().map(|nearest| nearest.template.as_str()),
                runner_up: runner_up.map(|candidate| candidate.name.as_str()),
                runner_up_angle_deg: runner_up.map(|candidate| candidate.angle_deg),
                ambiguous: identification.ambiguous,
                rejected: identification.rejected.as_ref().map(|one| one.candidate.name.as_str()),
                through: through.map(|through| through.track.0),
                views: votes.map(|votes| votes.views),
                votes: votes.map(|votes| votes.nearest),
            })?;
        }
        Ok(())
    }

    /// Completes the list; `dropped` frames were lost before the graph saw them.
    pub(super) fn close(
        self,
        mut statistics: Statistics,
        dropped: u64,
        stopped: bool,
    ) -> Result<LabelSummary, ReportError> {
        // Stages count stretches of frames.
        statistics.items = self.work.frames.max(statistics.items);
        let people = self.appearances.people();
        self.results.finish(&people, self.end_ns)?;
        Ok(LabelSummary {
            frames: statistics.items,
            listed: statistics.items,
            faces: self.faces,
            named: self.named,
            dropped: dropped + statistics.dropped,
            people,
            redacted: None,
            explanations: Vec::new(),
            work: self.work,
            statistics,
            stopped,
            cut_off: None,
        })
    }
}
