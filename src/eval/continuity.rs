//! Whether a continuous face is one track with one name, after the CLEAR MOT measures (Bernardin and
//! Stiefelhagen, 2008).

use std::collections::BTreeMap;

use super::predicted::PredictedFace;
use super::truth::{TruthFace, same_name};

/// Changes of a continuous face between the frame in which it was last found and the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// It was found with another track number than before.
    pub switched: bool,
    /// It was missed in between, in a frame in which it is not difficult.
    pub interrupted: bool,
    /// It was missed in between, only in frames in which it is difficult.
    pub interrupted_where_difficult: bool,
    /// It has another name than before; unknown counts as a name.
    pub renamed: bool,
}

/// A continuous face as last found.
#[derive(Debug)]
struct Last<'a> {
    found: &'a PredictedFace,
    /// Whether it was missed since then: in frames where it is not difficult, and where it is.
    missed: [bool; 2],
}

/// Continuous faces of a truth, in the order of frames.
#[derive(Debug, Default)]
pub(super) struct Continuity<'a> {
    faces: BTreeMap<&'a str, Last<'a>>,
}

impl<'a> Continuity<'a> {
    /// Adds the next frame of a continuous face with its detection. A face that the truth does not follow has
    /// no changes.
    pub(super) fn see(&mut self, face: &'a TruthFace, found: Option<&'a PredictedFace>) -> Step {
        let Some(id) = face.id.as_deref() else { return Step::default() };
        let Some(found) = found else {
            if let Some(last) = self.faces.get_mut(id) {
                last.missed[usize::from(face.difficult)] = true;
            }
            return Step::default();
        };
        let Some(Last { found: before, missed: [missed, missed_difficult] }) =
            self.faces.insert(id, Last { found, missed: [false; 2] })
        else {
            return Step::default();
        };
        let same = match (&before.name, &found.name) {
            (Some(before), Some(name)) => same_name(before, name),
            (before, name) => before == name,
        };
        Step {
            switched: before.track.zip(found.track).is_some_and(|(before, track)| before != track),
            interrupted: missed,
            interrupted_where_difficult: missed_difficult && !missed,
            renamed: !same,
        }
    }
}
