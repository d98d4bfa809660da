//! What the header of a Matroska file says beyond what GStreamer's elements read and write: the orientation and
//! field order of its pictures, the flags of its tracks, and the time of recording.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::audio::Description;
use super::listed::{Flags, Listed};
use super::location::place;

/// The most elements that are read before the wanted one.
const MOST_ELEMENTS: usize = 4096;
/// Larger elements are not read.
const LARGEST_PART: u64 = 16 << 20;

const HEADER: u64 = 0x1a45_dfa3;
const SEGMENT: u64 = 0x1853_8067;
const INFO: u64 = 0x1549_a966;
const DATE: u64 = 0x4461;
const TRACKS: u64 = 0x1654_ae6b;
const TRACK: u64 = 0xae;
const NUMBER: u64 = 0xd7;
const KIND: u64 = 0x83;
const NAME: u64 = 0x536e;
const LANGUAGE: u64 = 0x22_b59c;
const DEFAULT: u64 = 0x88;
const FORCED: u64 = 0x55aa;
const FOR_DEAF: u64 = 0x55ab;
const FOR_BLIND: u64 = 0x55ac;
const ORIGINAL: u64 = 0x55ae;
const COMMENTARY: u64 = 0x55af;
const VOID: u64 = 0xec;
const TAGS: u64 = 0x1254_c367;
const TAG: u64 = 0x7373;
const SIMPLE_TAG: u64 = 0x67c8;
const TAG_NAME: u64 = 0x45a3;
const TAG_STRING: u64 = 0x4487;
const VIDEO: u64 = 0xe0;
const FIELD_ORDER: u64 = 0x9d;
const PROJECTION: u64 = 0x7670;
const YAW: u64 = 0x7673;
const PITCH: u64 = 0x7674;
const ROLL: u64 = 0x7675;

/// Seconds from 1970 to 2001, when the time of Matroska begins.
const YEAR_2001_S: i64 = 978_307_200;

/// The operation that makes stored pictures upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Left and right are swapped first.
    mirrored: bool,
    /// Then quarter turns counterclockwise, 0 to 3.
    quarters: u8,
}

impl Turn {
    /// Its name among the directions of videoflip.
    pub(super) fn direction(self) -> &'static str {
        match (self.mirrored, self.quarters) {
            (false, 1) => "90l",
            (false, 2) => "180",
            (false, 3) => "90r",
            (true, 0) => "horiz",
            (true, 1) => "ul-lr",
            (true, 2) => "vert",
            (true, 3) => "ur-ll",
            _ => "identity",
        }
    }

    /// From the matrix of an MP4 track: the upper left 2x2 part, by rows, in units of 1. Only turns that mirror;
    /// `None` for plain rotations, which the demuxer reports, and for anything else.
    pub(super) fn of_matrix(matrix: [i32; 4]) -> Option<Self> {
        let quarters = match matrix {
            [-1, 0, 0, 1] => 0,
            [0, 1, 1, 0] => 1,
            [1, 0, 0, -1] => 2,
            [0, -1, -1, 0] => 3,
            _ => return None,
        };
        Some(Self { mirrored: true, quarters })
    }

    /// From a pose in degrees; `None` if the picture is upright, or the pose is not that of a flat picture.
    fn of_pose(pose: &Pose) -> Option<Self> {
        let near = |angle: f64, wanted: f64| (angle - wanted).abs() < 0.5;
        let mirrored = near(pose.yaw.abs(), 180.0);
        if !near(pose.pitch, 0.0) || !(mirrored || near(pose.yaw, 0.0)) {
            return None;
        }
        let quarters = (pose.roll / 90.0).round();
        if !near(pose.roll, quarters * 90.0) {
            return None;
        }
        let turn = Self { mirrored, quarters: quarters.rem_euclid(4.0) as u8 };
        (turn.mirrored || turn.quarters != 0).then_some(turn)
    }
}

#[derive(Debug, Default)]
struct Pose {
    yaw: f64,
    pitch: f64,
    roll: f64,
}

/// The header of a file.
#[derive(Debug)]
pub(super) struct Header {
    /// The turn of its pictures; `None` if they are upright.
    pub(super) turn: Option<Turn>,
    /// Its tracks.
    pub(super) tracks: Vec<Listed>,
    /// The time of recording, in seconds since 1970.
    pub(super) recorded_s: Option<i64>,
    /// The place of recording, as in ISO 6709.
    pub(super) location: Option<String>,
    /// Whether a timecode is stated.
    pub(super) has_timecode: bool,
}

impl Header {
    /// Reads the header of a file; `None` if it is not a Matroska file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(file: &mut File) -> io::Result<Option<Self>> {
        let Some(Part { content: tracks, .. }) = part(file, TRACKS)? else { return Ok(None) };
        let listed = elements(&tracks).filter(|(id, _)| *id == TRACK).filter_map(|(_, track)| listed(track));
        let tags = part(file, TAGS)?.map_or_else(Vec::new, |tags| tags.content);
        Ok(Some(Self {
            turn: turn_of(&tracks),
            tracks: listed.collect(),
            recorded_s: recorded_s(file)?,
            location: tag(&tags, b"LOCATION").and_then(place),
            has_timecode: tag(&tags, b"TIMECODE").is_some(),
        }))
    }
}

/// The text of the first tag with that name.
fn tag<'a>(tags: &'a [u8], wanted: &[u8]) -> Option<&'a str> {
    let all = elements(tags).filter(|(id, _)| *id == TAG).flat_map(|(_, tag)| elements(tag));
    let mut simple = all.filter(|(id, _)| *id == SIMPLE_TAG);
    simple.find_map(|(_, tag)| {
        let value = |wanted: u64| elements(tag).find(|(id, _)| *id == wanted).map(|(_, value)| value);
        // Both may be filled up with zeros.
        let filled = |value: &'a [u8]| value.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(filled(value(TAG_STRING)?)).ok()?;
        (filled(value(TAG_NAME)?) == wanted).then_some(text)
    })
}

fn listed(track: &[u8]) -> Option<Listed> {
    let value = |wanted: u64| elements(track).find(|(id, _)| *id == wanted).map(|(_, value)| value);
    let flag = |wanted: u64| value(wanted).and_then(number).is_some_and(|value| value > 0);
    let video = value(VIDEO).unwrap_or_default();
    let order = elements(video).find(|(id, _)| *id == FIELD_ORDER).and_then(|(_, value)| number(value));
    Some(Listed {
        number: u32::try_from(number(value(NUMBER)?)?).ok()?,
        flags: Flags {
            // Its default is 1.
            default: Some(value(DEFAULT).is_none() || flag(DEFAULT)),
            forced: flag(FORCED),
            for_deaf: flag(FOR_DEAF),
            for_blind: flag(FOR_BLIND),
            original: flag(ORIGINAL),
            commentary: flag(COMMENTARY),
        },
        silent: match number(value(KIND)?)? {
            0x11 => Some("subtitles"),
            0x12 => Some("buttons"),
            0x21 => Some("timed metadata"),
            _ => None,
        },
        top_first: match order {
            Some(1 | 9) => Some(true),
            Some(6 | 14) => Some(false),
            _ => None,
        },
    })
}

/// The language that the sink gives each track at first, so that the file has room for the right one.
pub(super) const PLACEHOLDER: &str = "eng";

/// Writes the languages and flags of the tracks into the header of a file that matroskamux has finished, which
/// keeps its length. The muxer leaves them out: by the defaults of Matroska, every track would be English and
/// played unless another one is chosen. The room is that of the names that the muxer invents, such as `Audio`.
///
/// # Errors
/// When the file cannot be read or written.
pub(super) fn describe(file: &mut File, tracks: &[Description]) -> io::Result<()> {
    let Some(Part { at, content }) = part(file, TRACKS)? else { return Ok(()) };
    let mut described = tracks.iter();
    let mut made = Vec::with_capacity(content.len());
    let mut rest = &content[..];
    while let Some(element) = Element::first(rest) {
        rest = &rest[element.whole.len()..];
        let head = element.whole.len() - element.value.len();
        let track = if element.id == TRACK { described.next() } else { None };
        let changed = track.and_then(|description| described_entry(element.value, description));
        made.extend(&element.whole[..head]);
        made.extend(changed.as_deref().unwrap_or(element.value));
    }
    made.extend(rest);
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&made)
}

/// The content of a track's entry with its language and flags, of the same length; `None` without room for the
/// language.
fn described_entry(entry: &[u8], description: &Description) -> Option<Vec<u8>> {
    let (mut made, mut written) = (Vec::with_capacity(entry.len()), None);
    let mut rest = entry;
    while let Some(element) = Element::first(rest) {
        rest = &rest[element.whole.len()..];
        match element.id {
            LANGUAGE => written = Some(element.value),
            NAME => {}
            _ => made.extend(element.whole),
        }
    }
    made.extend(rest);
    let language = language(written, description.language.as_deref());
    made.extend(element(LANGUAGE, language));
    let mut left = entry.len().checked_sub(made.len())?;
    let Flags { default, forced, for_deaf, for_blind, original, commentary } = description.flags;
    let flags = [
        (DEFAULT, default == Some(false), 0),
        (FORCED, forced, 1),
        (FOR_DEAF, for_deaf, 1),
        (FOR_BLIND, for_blind, 1),
        (COMMENTARY, commentary, 1),
        (ORIGINAL, original, 1),
    ];
    for (id, _, value) in flags.into_iter().filter(|(_, wanted, _)| *wanted) {
        let plain = element(id, &[value]);
        // An element that fills the rest needs at least two bytes. A number may begin with zeros.
        let flag = if plain.len() + 1 == left { element(id, &[0, value]) } else { plain };
        if flag.len() <= left {
            left -= flag.len();
            made.extend(flag);
        }
    }
    match left.checked_sub(2) {
        Some(filling) => made.extend(element(VOID, &vec![0; filling])),
        None if left == 0 => {}
        None => return None,
    }
    Some(made)
}

/// The code to write, given the one that the muxer wrote, which knows only some languages.
fn language<'a>(written: Option<&'a [u8]>, wanted: Option<&'a str>) -> &'a [u8] {
    let is_code = |code: &&str| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase());
    match (wanted, written) {
        (None, _) => b"und",
        (Some("en" | "eng"), _) => b"eng",
        (Some(_), Some(code)) if code != PLACEHOLDER.as_bytes() => code,
        (Some(code), _) => Some(code).filter(is_code).unwrap_or("und").as_bytes(),
    }
}

/// An element of less than 127 bytes.
fn element(id: u64, value: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id = id.iter().skip_while(|byte| **byte == 0);
    id.copied().chain([0x80 | value.len() as u8]).chain(value.iter().copied()).collect()
}

/// The recording time stated by a file, in seconds since 1970.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn recorded_s(file: &mut File) -> io::Result<Option<i64>> {
    Ok(part(file, INFO)?.and_then(|info| recorded_of(&info.content)))
}

/// The time in the description of a file: nanoseconds since the beginning of 2001.
fn recorded_of(info: &[u8]) -> Option<i64> {
    let (_, value) = elements(info).find(|(id, _)| *id == DATE)?;
    let ns = i64::from_be_bytes(value.try_into().ok()?);
    (ns / 1_000_000_000).checked_add(YEAR_2001_S)
}

/// An element of a file: its content, and where that begins.
struct Part {
    at: u64,
    content: Vec<u8>,
}

/// The first element of a file with that identifier.
fn part(file: &mut File, wanted: u64) -> io::Result<Option<Part>> {
    let length = file.metadata()?.len();
    let mut at = 0;
    for number in 0..MOST_ELEMENTS {
        file.seek(SeekFrom::Start(at))?;
        let mut head = Vec::new();
        (&mut *file).take(12).read_to_end(&mut head)?;
        let Some(Head { id, size, length: head }) = Head::read(&head) else { return Ok(None) };
        if (number == 0) != (id == HEADER) {
            return Ok(None);
        }
        at += head as u64;
        match (id, size) {
            // Continues with the children.
            (SEGMENT, _) => {}
            (id, Some(size)) if id == wanted && size <= LARGEST_PART => {
                let mut content = Vec::new();
                file.seek(SeekFrom::Start(at))?;
                (&mut *file).take(size).read_to_end(&mut content)?;
                return Ok(Some(Part { at, content }));
            }
            (_, Some(size)) if size < length - at.min(length) => at += size,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// The turn of the first track with pictures.
fn turn_of(tracks: &[u8]) -> Option<Turn> {
    let video = elements(tracks)
        .filter(|(id, _)| *id == TRACK)
        .find_map(|(_, track)| elements(track).find(|(id, _)| *id == VIDEO))?
        .1;
    let projection = elements(video).find(|(id, _)| *id == PROJECTION)?.1;
    let mut pose = Pose::default();
    for (id, value) in elements(projection) {
        match id {
            YAW => pose.yaw = float(value)?,
            PITCH => pose.pitch = float(value)?,
            ROLL => pose.roll = float(value)?,
            _ => {}
        }
    }
    Turn::of_pose(&pose)
}

/// The complete elements in `bytes`: identifiers and contents.
fn elements(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let Element { id, value, whole } = Element::first(rest)?;
        rest = &rest[whole.len()..];
        Some((id, value))
    })
}

/// A complete element.
struct Element<'a> {
    id: u64,
    value: &'a [u8],
    /// With its head.
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The element at the beginning of `bytes`.
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let Head { id, size, length } = Head::read(bytes)?;
        let size = usize::try_from(size?).ok()?;
        let value = bytes.get(length..)?.get(..size)?;
        Some(Self { id, value, whole: &bytes[..length + size] })
    }
}

/// Number and size of an element.
struct Head {
    id: u64,
    /// `None` if it is unknown, as in a live recording.
    size: Option<u64>,
    /// Length of both in bytes.
    length: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let id_length = bytes.first()?.leading_zeros() as usize + 1;
        let id = number(bytes.get(..id_length.min(9))?).filter(|_| id_length <= 4)?;
        let rest = bytes.get(id_length..)?;
        let size_length = rest.first()?.leading_zeros() as usize + 1;
        if size_length > 8 {
            return None;
        }
        let all = (1u64 << (7 * size_length)) - 1;
        let size = number(rest.get(..size_length)?)? & all;
        Some(Self { id, size: (size != all).then_some(size), length: id_length + size_length })
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn float(bytes: &[u8]) -> Option<f64> {
    let value = match bytes.len() {
        0 => 0.0,
        4 => f64::from(f32::from_be_bytes(bytes.try_into().ok()?)),
        8 => f64::from_be_bytes(bytes.try_into().ok()?),
        _ => return None,
    };
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    fn long_element(id: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        bytes.push(0x08);
        bytes.extend((content.len() as u32).to_be_bytes());
        bytes.extend(content);
        bytes
    }

    fn posed(yaw: f64, roll: f64) -> Vec<u8> {
        let pose = [long_element(YAW, &yaw.to_be_bytes()), long_element(ROLL, &(roll as f32).to_be_bytes())]
            .concat();
        let video = long_element(VIDEO, &long_element(PROJECTION, &pose));
        let sound = long_element(TRACK, &long_element(0x83, &[2]));
        let tracks = long_element(TRACKS, &[sound, long_element(TRACK, &video)].concat());
        [long_element(HEADER, b""), long_element(SEGMENT, &[long_element(0xec, &[0; 300]), tracks].concat())]
            .concat()
    }

    fn turn_in(bytes: &[u8]) -> Option<Turn> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Header::read(&mut file).unwrap().and_then(|header| header.turn)
    }

    #[test]
    fn a_file_says_when_it_was_recorded() {
        let recorded = |info: &[u8]| {
            let segment =
                long_element(SEGMENT, &[long_element(0xec, &[0; 30]), long_element(INFO, info)].concat());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[long_element(HEADER, b""), segment].concat()).unwrap();
            recorded_s(&mut file).unwrap()
        };
        let day = long_element(DATE, &(86_400_000_000_000_i64).to_be_bytes());
        assert_eq!(recorded(&[long_element(0x4d80, b"us"), day].concat()), Some(YEAR_2001_S + 86_400));
        assert_eq!(recorded(&long_element(0x4d80, b"us")), None);
        assert_eq!(recorded(&long_element(DATE, &[1, 2])), None);
    }

    #[test]
    fn the_pose_of_the_pictures_is_a_turn() {
        for (yaw, roll, direction) in [
            (0.0, 90.0, Some("90l")),
            (0.0, -90.0, Some("90r")),
            (0.0, 270.0, Some("90r")),
            (0.0, 180.0, Some("180")),
            (0.0, -180.0, Some("180")),
            (180.0, 0.0, Some("horiz")),
            (-180.0, 90.0, Some("ul-lr")),
            (180.0, 180.0, Some("vert")),
            (180.0, -90.0, Some("ur-ll")),
            (0.0, 0.0, None),
            (0.0, 360.0, None),
            (0.0, 45.0, None),
            (30.0, 90.0, None),
            (0.0, f64::NAN, None),
        ] {
            let turn = turn_in(&posed(yaw, roll));
            assert_eq!(turn.map(Turn::direction), direction, "{yaw} {roll}");
        }
    }

    #[test]
    fn the_header_lists_flags_and_fields() {
        let track = |number: u8, more: &[Vec<u8>]| {
            let head = [long_element(NUMBER, &[number]), long_element(KIND, &[1])];
            long_element(TRACK, &[head.concat(), more.concat()].concat())
        };
        let order = |value: u8| long_element(VIDEO, &long_element(FIELD_ORDER, &[value]));
        let tracks = [
            track(1, &[order(1), long_element(DEFAULT, &[1])]),
            track(2, &[order(6), long_element(DEFAULT, &[0]), long_element(FORCED, &[1])]),
            track(3, &[order(2), long_element(ORIGINAL, &[0, 1]), long_element(COMMENTARY, &[])]),
        ];
        let mut file = tempfile::tempfile().unwrap();
        let segment = long_element(SEGMENT, &long_element(TRACKS, &tracks.concat()));
        file.write_all(&[long_element(HEADER, b""), segment].concat()).unwrap();
        let listed = |number, flags, top_first| Listed { number, flags, silent: None, top_first };
        let played = Flags { default: Some(true), ..Flags::default() };
        let expected = [
            listed(1, played, Some(true)),
            listed(2, Flags { default: Some(false), forced: true, ..played }, Some(false)),
            listed(3, Flags { original: true, ..played }, None),
        ];
        assert_eq!(Header::read(&mut file).unwrap().unwrap().tracks, expected);
    }

    #[test]
    fn place_and_timecode_are_found_among_the_tags() {
        let simple = |name: &[u8], text: &[u8]| {
            long_element(SIMPLE_TAG, &[long_element(TAG_NAME, name), long_element(TAG_STRING, text)].concat())
        };
        let read = |tags: &[Vec<u8>]| {
            let tags = long_element(TAGS, &long_element(TAG, &tags.concat()));
            let mut file = tempfile::tempfile().unwrap();
            let segment = long_element(SEGMENT, &[long_element(TRACKS, b""), tags].concat());
            file.write_all(&[long_element(HEADER, b""), segment].concat()).unwrap();
            let header = Header::read(&mut file).unwrap().unwrap();
            (header.location, header.has_timecode)
        };
        let (place, home) = (simple(b"LOCATION\0\0", b"+48.1+011.5/"), simple(b"LOCATION", b"home"));
        assert_eq!(read(&[simple(b"TITLE", b"+1+1/"), place]), (Some("+48.1+011.5/".to_owned()), false));
        assert_eq!(read(&[home, simple(b"TIMECODE", b"01:00:00:00")]), (None, true));
    }

    #[test]
    fn languages_and_flags_are_written_over_invented_names() {
        let described = |language: Option<&str>, flags| Description {
            language: language.map(str::to_owned),
            title: None,
            flags,
        };
        let (played, other) = (Flags::default(), Flags { default: Some(false), ..Flags::default() });
        let entry = |language: &[u8], name: &[u8]| {
            [element(NUMBER, &[1]), element(LANGUAGE, language), element(NAME, name), element(0x86, b"A")]
                .concat()
        };
        let kept = |language: &[u8], rest: &[u8]| {
            [&element(NUMBER, &[1])[..], &element(0x86, b"A"), &element(LANGUAGE, language), rest].concat()
        };
        for (written, description, expected) in [
            (&b"eng"[..], described(None, played), kept(b"und", &[0xec, 0x86, 0, 0, 0, 0, 0, 0])),
            (b"eng", described(Some("en"), played), kept(b"eng", &[0xec, 0x86, 0, 0, 0, 0, 0, 0])),
            (b"ger", described(Some("de"), other), kept(b"ger", &[0x88, 0x81, 0, 0xec, 0x83, 0, 0, 0])),
            (b"eng", described(Some("yue"), other), kept(b"yue", &[0x88, 0x81, 0, 0xec, 0x83, 0, 0, 0])),
            (b"eng", described(Some("?!"), played), kept(b"und", &[0xec, 0x86, 0, 0, 0, 0, 0, 0])),
            (
                b"eng",
                described(None, Flags { forced: true, ..other }),
                kept(b"und", &[0x88, 0x81, 0, 0x55, 0xaa, 0x82, 0, 1]),
            ),
        ] {
            let before = entry(written, b"Audio");
            let after = described_entry(&before, &description).unwrap();
            assert_eq!(after.len(), before.len());
            assert_eq!(after, expected, "{description:?}");
        }
        // Neither a name nor a language leaves no room.
        assert_eq!(described_entry(&element(NUMBER, &[1]), &described(None, other)), None);
    }

    #[test]
    fn bytes_that_are_no_matroska_are_no_turn_and_no_fault() {
        let whole = posed(0.0, 90.0);
        for end in 0..whole.len() {
            turn_in(&whole[..end]);
        }
        mutations::survived_by("matroska", "turned", &whole, 2000);
        assert_eq!(turn_in(&[0xff; 64]), None);
        assert_eq!(turn_in(b""), None);
    }
}
