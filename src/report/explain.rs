//! Explanations of the decisions about tracks, as text.

use std::fmt;

use super::Span;
use crate::detect::Quality;
use crate::identify::{Candidate, Decision, ViaTrack, Who};
use crate::track::{self, Observation};

/// The decision about a track with its evidence; displayed as one line.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// Start and end of the track.
    pub shown: Span,
    /// Time of its best view, in nanoseconds since the start.
    pub best_ns: u64,
    /// Quality of the best view.
    pub best: Quality,
}

impl Explanation {
    /// The decisions about the tracks of `observations`, in the order of tracks, without transient
    /// tracks.
    pub fn of(observations: &[Observation], decisions: &[Decision]) -> Vec<Self> {
        let explain = |track: track::Track| {
            let decision =
                Decision::about(decisions, track.id).filter(|one| one.who != Who::Transient)?.clone();
            let mut views = track.observations.iter().filter_map(|&at| observations.get(at));
            let best = views.find(|view| view.frame == decision.best_frame)?;
            let shown = Span { start_ns: track.start_ns, end_ns: track.end_ns };
            Some(Self { decision, shown, best_ns: best.pts_ns, best: best.quality })
        };
        track::tracks(observations).into_iter().filter_map(explain).collect()
    }
}

/// "Ada, 20.1 degrees from ada-2.jpg".
struct Near<'a>(&'a Candidate);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { name, angle_deg, template, .. } = self.0;
        match template.as_str() {
            "mean" => write!(f, "{name} at {angle_deg:.1} degrees (the mean of the stills)"),
            still => write!(f, "{name} at {angle_deg:.1} degrees (still {still})"),
        }
    }
}

/// The angle below which a candidate is named, and the handicap by which it is less than the threshold.
struct Bar(f64, f32);

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(threshold_deg, handicap_deg) = *self;
        let bar_deg = threshold_deg - f64::from(handicap_deg);
        if handicap_deg <= 0.0 {
            write!(f, "named below {threshold_deg:.1}")
        } else if bar_deg > 0.0 {
            write!(f, "named below {bar_deg:.1} for such views ({threshold_deg:.1} from the front)")
        } else {
            write!(f, "but such views carry no information (named below {threshold_deg:.1} from the front)")
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { track, who, nearest, runner_up, rejected, .. } = &self.decision;
        let Decision { via_track, threshold_deg, ambiguous, votes, .. } = &self.decision;
        write!(f, "track {track}, {}: {who}", self.shown)?;
        match (nearest, threshold_deg) {
            (Some(nearest), Some(threshold)) => {
                write!(f, "; nearest is {}, {}", Near(nearest), Bar(*threshold, nearest.handicap_deg))?;
                if let Some(ViaTrack { track, angle_deg }) = via_track {
                    write!(
                        f,
                        "; slightly beyond the threshold, but only {angle_deg:.1} degrees from track {track}, which is {}",
                        nearest.name
                    )?;
                }
                if *ambiguous {
                    write!(f, ", but the runner-up is about as near")?;
                } else if who.name().is_none() && f64::from(nearest.judged_deg()) < *threshold {
                    write!(f, ", but another face in the same frame is nearer to them")?;
                }
                if let Some(runner_up) = runner_up {
                    write!(f, "; then {}", Near(runner_up))?;
                }
                if let Some(rejected) = rejected {
                    let [angle, counter] = [rejected.candidate.angle_deg, rejected.counter_angle_deg];
                    write!(
                        f,
                        "; not {} at {angle:.1} degrees, because the counter-example {} is at {counter:.1}",
                        rejected.candidate.name, rejected.counter_example
                    )?;
                }
                write!(
                    f,
                    "; of {} views, {} are nearest to {}, {} of them below the threshold on their own ({:.0} % by weight)",
                    votes.views,
                    votes.nearest,
                    nearest.name,
                    votes.named,
                    100.0 * votes.share
                )?;
            }
            (_, None) => write!(f, "; no gallery was given")?,
            (None, _) => write!(f, "; no templates to compare with, or no embedded view")?,
        }
        let Quality { size_px, yaw_deg, pitch_deg, sharpness, .. } = self.best;
        write!(
            f,
            "; best view at {:.2} s: {size_px:.0} px, turned {:.0} degrees to the side and {:.0} up or down, sharpness {sharpness:.2}",
            self.best_ns as f64 / 1e9,
            yaw_deg.abs(),
            pitch_deg.abs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{BBox, Face};
    use crate::identify::{Rejection, Votes};
    use crate::track::TrackId;

    #[test]
    fn a_line_tells_angle_still_runner_up_votes_and_quality() {
        let candidate = |name: &str, angle_deg: f32, template: &str| Candidate {
            name: name.into(),
            angle_deg,
            template: template.into(),
            handicap_deg: 0.0,
        };
        let seen = |frame: u64, track: u32| Observation {
            frame,
            pts_ns: frame * 40_000_000,
            duration_ns: 40_000_000,
            face: Face {
                bbox: BBox { x1: 0.0, y1: 0.0, x2: 80.0, y2: 80.0 },
                score: 1.0,
                landmarks: [[0.0; 2]; 5],
            },
            quality: Quality { size_px: 80.0, yaw_deg: -5.0, pitch_deg: 3.0, roll_deg: 0.0, sharpness: 0.31 },
            embedding: None,
            track: TrackId(track),
        };
        let decision = Decision {
            track: TrackId(1),
            who: Who::Named("Ada".into()),
            nearest: Some(candidate("Ada", 20.12, "ada-2.jpg")),
            runner_up: Some(candidate("Bo", 81.0, "mean")),
            rejected: None,
            via_track: None,
            threshold_deg: Some(67.07),
            ambiguous: false,
            votes: Votes { views: 12, nearest: 11, named: 9, share: 0.95 },
            best_frame: 30,
        };
        let stranger = Decision {
            track: TrackId(2),
            who: Who::Stranger(1),
            nearest: Some(candidate("Bo", 50.0, "mean")),
            runner_up: None,
            rejected: Some(Rejection {
                candidate: candidate("Ada", 40.0, "mean"),
                counter_example: "twin.jpg".into(),
                counter_angle_deg: 30.0,
            }),
            best_frame: 26,
            ..decision.clone()
        };
        let through = Decision {
            track: TrackId(3),
            nearest: Some(candidate("Ada", 69.0, "mean")),
            via_track: Some(ViaTrack { track: TrackId(1), angle_deg: 48.61 }),
            best_frame: 60,
            ..decision.clone()
        };
        let torn = Decision {
            track: TrackId(4),
            who: Who::Stranger(2),
            nearest: Some(candidate("Ada", 61.0, "mean")),
            runner_up: Some(candidate("Bo", 61.5, "mean")),
            ambiguous: true,
            best_frame: 61,
            ..decision.clone()
        };
        let observations = [seen(25, 1), seen(26, 2), seen(30, 1), seen(49, 1), seen(60, 3), seen(61, 4)];
        let all = Explanation::of(&observations, &[decision, stranger, through, torn]);
        let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines[0],
            "track 1, 0:01.0-0:02.0: Ada; nearest is Ada at 20.1 degrees (still ada-2.jpg), named below 67.1; \
             then Bo at 81.0 degrees (the mean of the stills); of 12 views, 11 are nearest to Ada, 9 of them \
             below the threshold on their own (95 % by weight); best view at 1.20 s: 80 px, turned 5 degrees \
             to the side and 3 up or down, sharpness 0.31"
        );
        for part in
            ["Unknown 1", "another face in the same frame", "not Ada at 40.0 degrees", "twin.jpg is at 30.0"]
        {
            assert!(lines[1].contains(part), "{}", lines[1]);
        }
        let part = "named below 67.1; slightly beyond the threshold, but only 48.6 degrees from track 1, \
                    which is Ada; then Bo";
        assert!(lines[2].contains(part), "{}", lines[2]);
        let part = "named below 67.1, but the runner-up is about as near; then Bo at 61.5 degrees";
        assert!(lines[3].contains(part), "{}", lines[3]);
    }
}
