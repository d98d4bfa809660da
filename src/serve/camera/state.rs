//! The state of a source.

use std::collections::VecDeque;
use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use crate::serve::store::rfc3339;

/// Frames over which delays and rates are measured.
const RECENT: usize = 128;

/// The phase of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::serve) enum Phase {
    /// It is being opened.
    Connecting,
    /// Frames come.
    Running,
    /// It failed and is opened again after a pause.
    Waiting,
    /// A file has come to its end.
    Ended,
    /// It is switched off.
    Off,
}

pub(super) struct State {
    pub phase: Phase,
    pub error: Option<String>,
    pub last_error: Option<(i64, String)>,
    pub attempts: u32,
    pub retry_at: Option<Instant>,
    pub lost_at: Option<Instant>,
    pub size: Option<(usize, usize)>,
    pub frames: u64,
    pub left_out: u64,
    pub events: u64,
    pub recent: VecDeque<(Instant, f64)>,
    pub faces: Vec<FaceInSight>,
}

/// A face in the last frame.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::serve) struct FaceInSight {
    /// The name, or "Unknown 3".
    pub who: String,
    /// The name of an enrolled person.
    pub person: Option<String>,
    /// x1, y1, x2, y2 in pixels of the source.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// The angle to the nearest person of the gallery in degrees, named or not.
    pub angle_deg: Option<f32>,
}

/// The state of a source.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::serve) struct SourceState {
    /// Whether frames come.
    phase: Phase,
    /// Why no frames come.
    error: Option<String>,
    /// The last reason for a failure, and its time (RFC 3339).
    last_error: Option<String>,
    /// Attempts to open it since it last ran.
    attempts: u32,
    /// Seconds until the next attempt.
    retry_in_s: Option<f64>,
    /// Width in pixels.
    width: Option<usize>,
    /// Height in pixels.
    height: Option<usize>,
    /// Frames that were analysed.
    frames: u64,
    /// Frames that were dropped because newer ones came while the machine was busy.
    left_out: u64,
    /// Events that were recorded.
    events: u64,
    /// Frames analysed per second, over the most recent ones.
    rate: f64,
    /// Median time from a frame's arrival to the end of its analysis, in milliseconds.
    delay_ms: Option<f64>,
    /// 95th percentile of that time.
    delay_95_ms: Option<f64>,
    /// Faces in the last frame.
    faces: Vec<FaceInSight>,
}

impl SourceState {
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Counts for metrics: frames, dropped frames, events.
    pub fn counts(&self) -> [u64; 3] {
        [self.frames, self.left_out, self.events]
    }

    /// Frames per second, and the median and 95th percentile of the delay in milliseconds.
    pub fn pace(&self) -> (f64, Option<f64>, Option<f64>) {
        (self.rate, self.delay_ms, self.delay_95_ms)
    }

    /// Who is in the last frame.
    pub fn who(&self) -> impl Iterator<Item = &str> {
        self.faces.iter().map(|face| face.who.as_str())
    }

    pub fn faces_len(&self) -> usize {
        self.faces.len()
    }
}

impl State {
    pub fn new(phase: Phase) -> Self {
        Self {
            phase,
            error: None,
            last_error: None,
            attempts: 0,
            retry_at: None,
            lost_at: None,
            size: None,
            frames: 0,
            left_out: 0,
            events: 0,
            recent: VecDeque::new(),
            faces: Vec::new(),
        }
    }

    /// Records the end of the analysis of a frame that arrived at that time.
    pub fn answered(&mut self, arrived: Instant, faces: Vec<FaceInSight>) -> f64 {
        let delay_ms = arrived.elapsed().as_secs_f64() * 1e3;
        self.frames += 1;
        self.faces = faces;
        if self.phase == Phase::Running {
            (self.error, self.lost_at) = (None, None);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((arrived, delay_ms));
        delay_ms
    }

    pub fn tell(&self) -> SourceState {
        let mut delays: Vec<f64> = self.recent.iter().map(|(_, delay_ms)| *delay_ms).collect();
        delays.sort_by(f64::total_cmp);
        let share =
            |share: f64| delays.get(((delays.len() as f64 * share) as usize).min(delays.len().max(1) - 1));
        let running = self.phase == Phase::Running;
        let since = self.recent.front().map(|(first, _)| first.elapsed().as_secs_f64());
        let rate = match since {
            Some(since) if running && since > 0.0 => self.recent.len() as f64 / since,
            _ => 0.0,
        };
        let retry_in_s = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64());
        SourceState {
            phase: self.phase,
            error: self.error.clone(),
            last_error: self
                .last_error
                .as_ref()
                .map(|(at_ms, reason)| format!("{}: {reason}", rfc3339(*at_ms))),
            attempts: self.attempts,
            retry_in_s: retry_in_s.filter(|_| self.phase == Phase::Waiting),
            width: self.size.map(|(width, _)| width),
            height: self.size.map(|(_, height)| height),
            frames: self.frames,
            left_out: self.left_out,
            events: self.events,
            rate,
            delay_ms: share(0.5).copied(),
            delay_95_ms: share(0.95).copied(),
            faces: self.faces.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_told_as_median_and_95_percent() {
        let mut state = State::new(Phase::Running);
        assert_eq!(state.tell().delay_ms, None);
        let now = Instant::now();
        state.recent = (0..100).map(|delay| (now, f64::from(delay))).collect();
        let told = state.tell();
        assert_eq!((told.delay_ms, told.delay_95_ms), (Some(50.0), Some(95.0)));
    }
}
