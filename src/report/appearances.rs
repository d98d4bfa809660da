//! Appearances: who was seen when.

use std::collections::BTreeMap;
use std::fmt;

use crate::identify::Who;

/// A time span in which a person is in the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Start of its first frame, in nanoseconds since the start.
    pub start_ns: u64,
    /// End of its last frame.
    pub end_ns: u64,
}

impl Span {
    /// Its duration in nanoseconds.
    pub fn length_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// The appearances of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appearance {
    /// The person.
    pub who: Who,
    /// Frames that show the person.
    pub frames: u64,
    /// Time spans, first to last; never empty.
    pub spans: Vec<Span>,
}

impl Appearance {
    /// Total time on screen in nanoseconds.
    pub fn screen_time_ns(&self) -> u64 {
        self.spans.iter().map(Span::length_ns).sum()
    }
}

/// Collects appearances frame by frame.
#[derive(Debug, Clone)]
pub struct Appearances {
    gap_ns: u64,
    people: BTreeMap<Who, (u64, Vec<Span>)>,
}

impl Appearances {
    /// An empty collection. An absence of at most `gap_ns` does not end an appearance.
    pub fn new(gap_ns: u64) -> Self {
        Self { gap_ns, people: BTreeMap::new() }
    }

    /// The frame shown at `pts_ns` for `duration_ns` shows these people; each counts once.
    /// Frames come in the order of time.
    pub fn see(&mut self, pts_ns: u64, duration_ns: u64, people: impl IntoIterator<Item = Who>) {
        let shown = Span { start_ns: pts_ns, end_ns: pts_ns.saturating_add(duration_ns) };
        let mut people: Vec<Who> = people.into_iter().collect();
        people.sort_unstable();
        people.dedup();
        for who in people {
            let (frames, spans) = self.people.entry(who).or_default();
            *frames += 1;
            match spans.last_mut() {
                Some(last) if pts_ns <= last.end_ns.saturating_add(self.gap_ns) => last.end_ns = shown.end_ns,
                _ => spans.push(shown),
            }
        }
    }

    /// Everyone seen, in the order of the first appearance.
    pub fn people(&self) -> Vec<Appearance> {
        let mut people: Vec<Appearance> = (self.people.iter())
            .map(|(who, (frames, spans))| Appearance {
                who: who.clone(),
                frames: *frames,
                spans: spans.clone(),
            })
            .collect();
        people.sort_by_key(|person| person.spans.first().map(|span| span.start_ns));
        people
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |ns: u64| {
            let tenths = (ns + 50_000_000) / 100_000_000;
            let (minutes, rest) = (tenths / 600, tenths % 600);
            let seconds = format!("{:02}.{}", rest / 10, rest % 10);
            match minutes / 60 {
                0 => format!("{minutes}:{seconds}"),
                hours => format!("{hours}:{:02}:{seconds}", minutes % 60),
            }
        };
        write!(f, "{}-{}", time(self.start_ns), time(self.end_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn short_absences_are_bridged_and_long_ones_are_not() {
        let mut seen = Appearances::new(S);
        let frame = S / 4;
        let named = |name: &str| Who::Named(name.to_owned());
        for quarter in 0..40 {
            let pts = quarter * frame;
            let bob = quarter < 4 || (8..12).contains(&quarter) || quarter >= 20;
            let stranger = (quarter == 39).then_some(Who::Stranger(2));
            seen.see(pts, frame, bob.then(|| named("Bob")).into_iter().chain(stranger));
        }
        seen.see(40 * frame, frame, [Who::Stranger(2), Who::Stranger(2)]);
        let people = seen.people();
        assert_eq!(people.len(), 2);
        assert_eq!((&people[0].who, people[0].frames), (&named("Bob"), 28));
        let times = [Span { start_ns: 0, end_ns: 3 * S }, Span { start_ns: 5 * S, end_ns: 10 * S }];
        assert_eq!(people[0].spans, times, "1 s is bridged, 2 s are not");
        assert_eq!(people[0].screen_time_ns(), 8 * S);
        assert_eq!((people[1].who.to_string().as_str(), people[1].frames), ("Unknown 2", 2), "counts once");
    }

    #[test]
    fn times_are_written_as_people_read_them() {
        let span = |start_ns, end_ns| Span { start_ns, end_ns }.to_string();
        assert_eq!(span(0, 9 * S + S / 2), "0:00.0-0:09.5");
        assert_eq!(span(59 * S + 960_000_000, 3 * 3600 * S + 62 * S), "1:00.0-3:01:02.0");
    }
}
