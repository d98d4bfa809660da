//! The audit of a redaction, which checks in every frame that all faces are covered.

use serde::Serialize;

use super::{Output, ReportError, json_lines};
use crate::annotate::Region;
use crate::detect::BBox;

/// A face that was found in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AuditFace<'a> {
    /// The track it belongs to; `None` without tracking.
    pub track: Option<u32>,
    /// The name; `None` when unknown.
    pub name: Option<&'a str>,
    /// Its box.
    pub bbox: BBox,
    /// Whether it must be covered.
    pub redact: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    frame: u64,
    pts_ns: u64,
    faces: Vec<Entry<'a>>,
    /// The covered areas of the frame: x0, y0, x1, y1 in whole pixels, the last exclusive.
    covered: &'a [Region],
}

#[derive(Serialize)]
struct Entry<'a> {
    track: Option<u32>,
    name: Option<&'a str>,
    #[serde(rename = "box")]
    bbox: [f32; 4],
    /// Whether it must be covered.
    redact: bool,
    /// Whether a single area covers every pixel of it.
    covered: bool,
}

/// Counts of a redaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditSummary {
    /// Frames in which a face was found.
    pub frames_with_faces: u64,
    /// Frames with a covered area, with or without a face.
    pub frames_covered: u64,
    /// Faces found that must be covered, and are.
    pub faces_covered: u64,
    /// Faces found that must not be covered.
    pub faces_left: u64,
}

/// Checks frame by frame that the faces to be covered are covered, and optionally records it as JSON lines:
/// one line per frame in which a face was found or an area covered.
pub struct Audit {
    output: Option<Output>,
    summary: AuditSummary,
}

impl Audit {
    /// An audit written to `output`, or one that only checks and counts.
    pub fn new(output: Option<Output>) -> Self {
        Self { output, summary: AuditSummary::default() }
    }

    /// Enters a frame of `width` x `height` pixels: the faces found in it and the areas that
    /// were covered.
    ///
    /// # Errors
    /// [`ReportError::Uncovered`] when a face that must be covered is not covered completely: the video must
    /// not be published. Otherwise when the file cannot be written.
    pub fn enter(
        &mut self,
        (frame, pts_ns): (u64, u64),
        (width, height): (usize, usize),
        faces: &[AuditFace<'_>],
        covered: &[Region],
    ) -> Result<(), ReportError> {
        if faces.is_empty() && covered.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::with_capacity(faces.len());
        for face in faces {
            let BBox { x1, y1, x2, y2 } = face.bbox;
            let is_covered = is_covered(face.bbox, (width, height), covered);
            if face.redact && !is_covered {
                return Err(ReportError::Uncovered { frame });
            }
            let (track, name) = (face.track, face.name);
            let bbox = [x1, y1, x2, y2];
            entries.push(Entry { track, name, bbox, redact: face.redact, covered: is_covered });
            let count =
                if face.redact { &mut self.summary.faces_covered } else { &mut self.summary.faces_left };
            *count += 1;
        }
        self.summary.frames_with_faces += u64::from(!faces.is_empty());
        self.summary.frames_covered += u64::from(!covered.is_empty());
        match &mut self.output {
            Some(output) => output.write(&json_lines::line(&Line { frame, pts_ns, faces: entries, covered })),
            None => Ok(()),
        }
    }

    /// The counts so far.
    pub fn summary(&self) -> AuditSummary {
        self.summary
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When the rest cannot be written, or the file cannot take its name.
    pub fn finish(self) -> Result<AuditSummary, ReportError> {
        self.output.map(Output::finish).transpose()?;
        Ok(self.summary)
    }
}

/// Whether one area contains every pixel of the picture that a box touches; a box outside of the picture
/// touches none.
fn is_covered(bbox: BBox, (width, height): (usize, usize), covered: &[Region]) -> bool {
    // A pixel reaches half a pixel to each side of its centre. `as usize` saturates.
    let (x0, y0) = ((bbox.x1 + 0.5).floor() as usize, (bbox.y1 + 0.5).floor() as usize);
    let x1 = ((bbox.x2 + 0.5).ceil().max(0.0) as usize).min(width);
    let y1 = ((bbox.y2 + 0.5).ceil().max(0.0) as usize).min(height);
    x0 >= x1
        || y0 >= y1
        || covered.iter().any(|area| area.x0 <= x0 && area.y0 <= y0 && area.x1 >= x1 && area.y1 >= y1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotate::{Cover, Redactor};

    const SIZE: (usize, usize) = (101, 57);

    fn face(redact: bool, x: f32) -> AuditFace<'static> {
        let bbox = BBox { x1: x, y1: 10.4, x2: x + 20.7, y2: 40.2 };
        AuditFace { track: Some(1), name: None, bbox, redact }
    }

    #[test]
    fn what_the_redactor_covers_passes_wherever_the_face_is() {
        let redactor = Redactor::new(Cover::Solid, 0.0).unwrap();
        let mut audit = Audit::new(None);
        for step in -120..420 {
            let face = face(true, step as f32 / 3.3);
            let areas: Vec<Region> = redactor.area(face.bbox, SIZE.0, SIZE.1).into_iter().collect();
            audit.enter((0, 0), SIZE, &[face], &areas).unwrap_or_else(|e| panic!("{face:?}, {areas:?}: {e}"));
        }
        assert_eq!(audit.finish().unwrap().faces_covered, 540);
    }

    #[test]
    fn a_face_left_uncovered_stops_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut audit = Audit::new(Some(Output::create(&path).unwrap()));
        let area = Region { x0: 0, y0: 0, x1: 30, y1: 50 };
        audit.enter((4, 160), SIZE, &[face(true, 5.0), face(false, 60.0)], &[area]).unwrap();
        audit.enter((5, 200), SIZE, &[], &[]).unwrap();
        audit.enter((6, 240), SIZE, &[], &[area]).unwrap();
        let error = audit.enter((7, 280), SIZE, &[face(true, 5.0), face(true, 20.0)], &[area]).unwrap_err();
        assert!(matches!(error, ReportError::Uncovered { frame: 7 }), "{error}");
        let summary = audit.finish().unwrap();
        assert_eq!((summary.frames_with_faces, summary.frames_covered, summary.faces_left), (1, 2, 1));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["faces"][0]["covered"], true);
        assert_eq!(lines[0]["faces"][1]["covered"], false);
        assert_eq!(lines[1]["covered"][0]["x1"], 30);
    }
}
