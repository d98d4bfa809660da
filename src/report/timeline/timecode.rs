//! Frame rates and SMPTE timecode.

use std::fmt;
use std::str::FromStr;

/// Rates of cinema and television, as fractions.
const KNOWN: [(i64, i64); 15] = [
    (24000, 1001),
    (24, 1),
    (25, 1),
    (30000, 1001),
    (30, 1),
    (48000, 1001),
    (48, 1),
    (50, 1),
    (60000, 1001),
    (60, 1),
    (100, 1),
    (120000, 1001),
    (120, 1),
    (240000, 1001),
    (240, 1),
];

/// Largest relative difference between a rate and the known one that it is a rounded form of: 29.97 is
/// 30000/1001 and not 30.
const SAME: f64 = 1e-4;

/// Highest rate.
const MOST: f64 = 1000.0;

/// Frames per second, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    numerator: i64,
    denominator: i64,
}

/// Why a text is not a rate or a timecode.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TimecodeError {
    /// The text is not a frame rate.
    #[error("`{0}` is not a frame rate: write frames per second, for example 25, 29.97 or 30000/1001")]
    Rate(String),
    /// The text is not a timecode.
    #[error(
        "`{0}` is not a timecode: write HH:MM:SS:FF, for example 01:00:00:00, or HH:MM:SS;FF for drop frame"
    )]
    Syntax(String),
    /// There are fewer frames per second.
    #[error("the timecode {timecode} does not exist at {rate} frames per second: frames are numbered from 0 to {}", .base - 1)]
    Frame {
        /// The timecode.
        timecode: String,
        /// The rate.
        rate: Rate,
        /// Frame numbers per second.
        base: i64,
    },
    /// This number is dropped.
    #[error(
        "the timecode {0} does not exist: drop frame leaves out the first frame numbers of every minute that is not a multiple of ten"
    )]
    Dropped(String),
    /// Drop frame exists for two rates only.
    #[error("drop frame exists at 29.97 and 59.94 frames per second, and not at {0}: write HH:MM:SS:FF")]
    NoDropFrame(Rate),
    /// The video states no rate.
    #[error("the video states no frame rate, which timelines need: give one")]
    NoRate,
}

impl Rate {
    /// The rate of `numerator` frames in `denominator` seconds; `None` if that is not a rate. Rounded forms
    /// of the usual rates become exact.
    pub fn new(numerator: i64, denominator: i64) -> Option<Self> {
        if numerator <= 0 || denominator <= 0 {
            return None;
        }
        let rate = numerator as f64 / denominator as f64;
        let same = |&&(n, d): &&(i64, i64)| (rate / (n as f64 / d as f64) - 1.0).abs() < SAME;
        if let Some(&(numerator, denominator)) = KNOWN.iter().find(same) {
            return Some(Self { numerator, denominator });
        }
        let divisor = greatest_common_divisor(numerator, denominator);
        let (numerator, denominator) = (numerator / divisor, denominator / divisor);
        (0.1..=MOST).contains(&rate).then_some(Self { numerator, denominator })
    }

    /// Frames per second as a float.
    pub fn per_s(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// Frame numbers per second of timecode.
    pub fn base(self) -> i64 {
        (self.per_s().round() as i64).max(1)
    }

    /// Whether it is one of the rates of NTSC, whose timecode runs slower than the clock.
    pub fn is_ntsc(self) -> bool {
        self.denominator == 1001
    }

    /// Number of the frame that begins nearest to a time.
    pub fn frame_at(self, time_ns: u64) -> i64 {
        let ns = i128::from(time_ns) * i128::from(self.numerator);
        let per_frame = i128::from(self.denominator) * 1_000_000_000;
        i64::try_from((ns + per_frame / 2) / per_frame).unwrap_or(i64::MAX)
    }

    /// The duration of that many frames in seconds, as a fraction: numerator and denominator.
    pub fn seconds(self, frames: i64) -> (i64, i64) {
        (frames * self.denominator, self.numerator)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

impl FromStr for Rate {
    type Err = TimecodeError;

    fn from_str(text: &str) -> Result<Self, TimecodeError> {
        let rate = || match text.trim().split_once('/') {
            Some((numerator, denominator)) => {
                Self::new(numerator.trim().parse().ok()?, denominator.trim().parse().ok()?)
            }
            None => {
                let rate = text.trim().parse::<f64>().ok().filter(|rate| (0.1..=MOST).contains(rate))?;
                Self::new((rate * 1e6).round() as i64, 1_000_000)
            }
        };
        rate().ok_or_else(|| TimecodeError::Rate(text.to_owned()))
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A timecode as written, before a rate is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timecode {
    hours: i64,
    minutes: i64,
    seconds: i64,
    frames: i64,
    drop: bool,
}

impl FromStr for Timecode {
    type Err = TimecodeError;

    fn from_str(text: &str) -> Result<Self, TimecodeError> {
        let syntax = || TimecodeError::Syntax(text.to_owned());
        let parts: Vec<&str> = text.trim().split([':', ';', '.']).collect();
        let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if parts.len() != 4 || !parts.iter().all(|part| digits(part)) {
            return Err(syntax());
        }
        let numbers: Result<Vec<i64>, _> = parts.iter().map(|part| part.parse()).collect();
        let [hours, minutes, seconds, frames] =
            numbers.ok().and_then(|numbers| numbers.try_into().ok()).ok_or_else(syntax)?;
        // A semicolon, or a full stop, before the frames marks drop frame.
        let drop = text.trim().contains([';', '.']);
        if hours > 23 || minutes > 59 || seconds > 59 {
            return Err(syntax());
        }
        Ok(Self { hours, minutes, seconds, frames, drop })
    }
}

impl fmt::Display for Timecode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hours, minutes, seconds, frames, drop } = self;
        let mark = if *drop { ';' } else { ':' };
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}{mark}{frames:02}")
    }
}

/// The numbering of frames: a rate, with drop frame or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbering {
    /// The rate.
    pub rate: Rate,
    /// Whether frame numbers are dropped, so that timecode keeps up with the clock.
    pub drop: bool,
}

impl Numbering {
    /// Frame numbers that drop frame skips in most minutes.
    fn dropped(self) -> i64 {
        if self.drop { self.rate.base() / 15 } else { 0 }
    }

    /// The numbering of a timecode at a rate, and its frame counted from 00:00:00:00.
    ///
    /// # Errors
    /// When there is no such timecode at that rate.
    pub fn of(timecode: Timecode, rate: Rate) -> Result<(Self, i64), TimecodeError> {
        let Timecode { hours, minutes, seconds, frames, drop } = timecode;
        let base = rate.base();
        if drop && !(rate.is_ntsc() && (base == 30 || base == 60)) {
            return Err(TimecodeError::NoDropFrame(rate));
        }
        if frames >= base {
            return Err(TimecodeError::Frame { timecode: timecode.to_string(), rate, base });
        }
        let numbering = Self { rate, drop };
        let dropped = numbering.dropped();
        if drop && seconds == 0 && minutes % 10 != 0 && frames < dropped {
            return Err(TimecodeError::Dropped(timecode.to_string()));
        }
        let all_minutes = 60 * hours + minutes;
        let number = (60 * all_minutes + seconds) * base + frames;
        Ok((numbering, number - dropped * (all_minutes - all_minutes / 10)))
    }

    /// The timecode of a frame counted from 00:00:00:00. After 24 hours it restarts at 0.
    pub fn timecode(self, frame: i64) -> Timecode {
        let (base, dropped) = (self.rate.base(), self.dropped());
        let per_minute = 60 * base - dropped;
        let per_ten = 10 * per_minute + dropped;
        let frame = frame.rem_euclid(24 * 6 * per_ten);
        let (tens, rest) = (frame / per_ten, frame % per_ten);
        // The first of ten minutes drops nothing.
        let minute = if rest < 60 * base { 0 } else { 1 + (rest - 60 * base) / per_minute };
        let number = frame + dropped * (9 * tens + minute);
        let seconds = number / base;
        Timecode {
            hours: seconds / 3600,
            minutes: seconds / 60 % 60,
            seconds: seconds % 60,
            frames: number % base,
            drop: self.drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_exact_whatever_they_are_written_as() {
        for (text, shown, base) in [
            ("25", "25", 25),
            ("29.97", "30000/1001", 30),
            ("2997/100", "30000/1001", 30),
            ("23.976", "24000/1001", 24),
            ("23.98", "1199/50", 24),
            ("60000/1001", "60000/1001", 60),
            ("119.88", "120000/1001", 120),
            ("12.5", "25/2", 13),
            ("15/1", "15", 15),
            (" 50/2 ", "25", 25),
        ] {
            assert_eq!((rate(text).to_string().as_str(), rate(text).base()), (shown, base), "{text}");
        }
        for text in ["", "0", "-25", "25/0", "1001", "nan", "x", "25/1/1", "1e9/1"] {
            assert!(matches!(text.parse::<Rate>(), Err(TimecodeError::Rate(_))), "{text}");
        }
    }

    #[test]
    fn times_become_the_nearest_frames() {
        let ntsc = rate("29.97");
        for frame in [0, 1, 17, 1799, 1800, 107_892, 10_000_000] {
            let exact = (i128::from(frame) * 1001 * 1_000_000_000 / 30000) as u64;
            for ns in [exact, exact + 1, exact + 16_000_000] {
                assert_eq!(ntsc.frame_at(ns), frame, "{ns}");
            }
        }
        assert_eq!(ntsc.seconds(30), (30030, 30000));
    }

    #[test]
    fn drop_frame_is_what_smpte_defines() {
        for (fps, frame, text) in [
            ("29.97", 0, "00:00:00;00"),
            ("29.97", 1799, "00:00:59;29"),
            ("29.97", 1800, "00:01:00;02"),
            ("29.97", 17981, "00:09:59;29"),
            ("29.97", 17982, "00:10:00;00"),
            ("29.97", 17982 + 1800, "00:11:00;02"),
            ("29.97", 107_892, "01:00:00;00"),
            ("59.94", 3599, "00:00:59;59"),
            ("59.94", 3600, "00:01:00;04"),
            ("59.94", 35_964, "00:10:00;00"),
            ("29.97", 107_892, "01:00:00:00"),
            ("25", 90_000, "01:00:00:00"),
            ("23.976", 86_400, "01:00:00:00"),
        ] {
            let timecode: Timecode = text.parse().unwrap();
            let expected = if text == "01:00:00:00" && fps == "29.97" { 108_000 } else { frame };
            let (numbering, found) = Numbering::of(timecode, rate(fps)).unwrap();
            assert_eq!(found, expected, "{text}");
            assert_eq!(numbering.timecode(found).to_string(), text);
        }
    }

    #[test]
    fn every_frame_of_a_day_has_a_timecode_of_its_own() {
        for (fps, drop) in [("29.97", true), ("59.94", true), ("29.97", false), ("25", false)] {
            let numbering = Numbering { rate: rate(fps), drop };
            let (_, day) = Numbering::of("23:59:59:00".parse().unwrap(), rate(fps)).unwrap();
            let step = if cfg!(debug_assertions) { 37 } else { 1 };
            for frame in (0..if drop { day / 1001 * 1000 } else { day }).step_by(step) {
                let timecode = numbering.timecode(frame);
                assert_eq!(Numbering::of(timecode, rate(fps)), Ok((numbering, frame)), "{timecode}");
            }
        }
        let numbering = Numbering { rate: rate("25"), drop: false };
        assert_eq!(numbering.timecode(25 * 86_400 + 3).to_string(), "00:00:00:03", "the next day");
    }

    #[test]
    fn timecodes_that_do_not_exist_are_refused() {
        let of = |text: &str, fps: &str| Numbering::of(text.parse().unwrap(), rate(fps)).unwrap_err();
        assert!(of("01:00:00:25", "25").to_string().contains("0 to 24"));
        assert!(matches!(of("00:01:00;01", "29.97"), TimecodeError::Dropped(_)));
        assert!(matches!(of("00:01:00;03", "59.94"), TimecodeError::Dropped(_)));
        assert!(matches!(of("00:01:00;02", "30"), TimecodeError::NoDropFrame(_)));
        assert!(matches!(of("00:01:00;02", "23.976"), TimecodeError::NoDropFrame(_)));
        for text in
            ["", "1:2:3", "24:00:00:00", "00:60:00:00", "00:00:60:00", "a:b:c:d", "-1:00:00:00", "+1:0:0:0"]
        {
            assert!(matches!(text.parse::<Timecode>(), Err(TimecodeError::Syntax(_))), "{text}");
        }
    }
}
