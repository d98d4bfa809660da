//! One face of one frame, as written to reports.

use serde::Serialize;

use super::ReportError;
use crate::detect::Quality;
use crate::identify::Who;

/// One face of one frame with the evidence of its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaceRecord<'a> {
    /// Index of the frame, from 0.
    pub frame: u64,
    /// Presentation time of the frame in nanoseconds since the start, exact.
    pub pts_ns: u64,
    /// The same in seconds, for reading.
    pub pts_s: f64,
    /// The track it belongs to, the same number in every output about a video; `null` without tracking.
    pub track: Option<u32>,
    /// x1, y1, x2, y2 in pixels of the frame.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// Left eye, right eye, nose, left and right mouth corner, as the viewer sees them: x, y
    /// in pixels of the frame.
    pub landmarks: [[f32; 2]; 5],
    /// The detector's probability that it is a face.
    pub score: f32,
    /// Size, pose and sharpness of the face.
    pub quality: Quality,
    /// The name; `null` when unknown.
    pub name: Option<&'a str>,
    /// Number of the stranger ("Unknown 3"), one number per person through the whole video; `null` for people
    /// with a name and if strangers are not numbered.
    pub stranger: Option<u32>,
    /// Angle to the nearest person of the gallery in degrees, named or not; `null` when the
    /// gallery is empty.
    pub angle_deg: Option<f32>,
    /// The nearest template of that person: the file name of a still, or `mean` for the mean of the stills.
    pub template: Option<&'a str>,
    /// The handicap by view: degrees that the views of face and template take off the threshold. The sum of
    /// `angle_deg` and this is compared with the threshold. 180 if such views carry no information.
    pub handicap_deg: Option<f32>,
    /// The second nearest person.
    pub runner_up: Option<&'a str>,
    /// Angle to the second nearest person in degrees.
    pub runner_up_angle_deg: Option<f32>,
    /// Whether the nearest person is below the threshold but does not beat the runner-up by the margin
    /// (`--margin`), so that the face is unknown.
    pub ambiguous: bool,
    /// A nearer person who was rejected because of a counter-example (`gallery reject`).
    pub rejected: Option<&'a str>,
    /// The other track from which it takes its name, if `angle_deg` alone is too large.
    #[serde(rename = "through")]
    pub via_track: Option<u32>,
    /// Number of views of the track that were compared with the gallery; `null` if only this frame was.
    pub views: Option<u32>,
    /// Number of these views that were nearest to the person named here.
    pub votes: Option<u32>,
}

impl FaceRecord<'_> {
    /// The label of the face: the name, "Unknown 3", or "unknown".
    pub fn label(&self) -> String {
        match (self.name, self.stranger) {
            (Some(name), _) => name.to_owned(),
            (None, Some(number)) => Who::Stranger(number).to_string(),
            (None, None) => "unknown".to_owned(),
        }
    }

    /// Refuses numbers that are not finite, which are never written.
    pub(super) fn check(&self) -> Result<(), ReportError> {
        let numbers = self.bbox.iter().chain(self.landmarks.as_flattened());
        let Quality { size_px, yaw_deg, pitch_deg, roll_deg, sharpness } = self.quality;
        let others = [self.score, size_px, yaw_deg, pitch_deg, roll_deg, sharpness];
        let angles = [self.angle_deg, self.handicap_deg, self.runner_up_angle_deg];
        let angles = angles.iter().flatten();
        let finite = self.pts_s.is_finite() && numbers.chain(&others).chain(angles).all(|x| x.is_finite());
        if finite { Ok(()) } else { Err(ReportError::NotFinite { frame: self.frame }) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn face(frame: u64) -> FaceRecord<'static> {
        FaceRecord {
            frame,
            pts_ns: frame * 40_000_000,
            pts_s: frame as f64 / 25.0,
            track: Some(3),
            bbox: [10.5, 20.0, 50.25, 70.0],
            landmarks: [[20.0, 30.0]; 5],
            score: 0.99,
            quality: Quality { size_px: 44.6, yaw_deg: -5.0, pitch_deg: 2.0, roll_deg: 0.0, sharpness: 0.4 },
            name: Some("Zoë \"Z\""),
            stranger: None,
            angle_deg: Some(41.5),
            template: Some("a.jpg"),
            handicap_deg: Some(0.0),
            runner_up: None,
            runner_up_angle_deg: None,
            ambiguous: false,
            rejected: None,
            via_track: None,
            views: Some(9),
            votes: Some(8),
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused_wherever_they_are() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut broken = [face(3), face(3), face(3), face(3), face(3), face(3)];
            broken[0].bbox[2] = bad;
            broken[1].landmarks[4][1] = bad;
            broken[2].score = bad;
            broken[3].quality.sharpness = bad;
            broken[4].angle_deg = Some(bad);
            broken[5].runner_up_angle_deg = Some(bad);
            for face in broken {
                assert!(matches!(face.check(), Err(ReportError::NotFinite { frame: 3 })));
            }
        }
        assert!(face(3).check().is_ok());
    }
}
