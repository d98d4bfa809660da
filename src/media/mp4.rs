//! The index of MP4 files, as far as qtdemux and mp4mux do not handle it.
//!
//! Encoders of compressed sound put a packet or two of priming before the first audible sample, and the file
//! hides it with an edit list (ISO/IEC 14496-12, 8.6.6). qtdemux cuts off such packets and also the end of
//! the track; mp4mux cannot write such edit lists. So the edit lists of sound are hidden from qtdemux
//! ([`Timeline`]) and written by us ([`repair`]). The edit lists that mp4mux writes for pictures count in
//! decoding order. With reordered frames of a variable rate they hide the last frames; [`repair`] makes them
//! long enough. Without an edit list, qtdemux ends pictures at the sum of their durations, although frames that
//! are stored in another order are shown later than that; their header is patched to last until the last frame
//! is over. qtdemux also omits pictures that are much shorter than the sound, unless their header says otherwise.
//! Finally, it reports rotations, but no matrix that mirrors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::Chapter;
use super::audio::Description;
use super::listed::{Flags, Listed};
use super::location::{place, place_at};
use super::matroska::Turn;

/// Larger indexes are not read: that of a day of video has some 10 MB.
const LARGEST_INDEX: u64 = 256 << 20;
/// The longest hidden start of a track that counts as priming; a longer one is an intended cut.
const LONGEST_PRIMING_S: f64 = 0.5;
/// qtdemux omits pictures that last less than this share of the whole.
const PREVIEW_SHARE: f64 = 0.2;
/// The longest end of a track that an edit list may hide without being a cut.
const LONGEST_PADDING_S: f64 = 0.2;

/// The flag in the header of a track that players treat as a default (ISO/IEC 14496-12, 8.3.2).
const ENABLED: u8 = 1;

/// The edit lists of the sound of a file, and the patches that hide from qtdemux what it misinterprets.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Offset of the times of each track in nanoseconds, by track number.
    pub(super) shift_ns: HashMap<u32, i64>,
    /// Whether the pictures have full range, which qtdemux does not report.
    pub(super) full_range: bool,
    /// Numbers of the tracks of uncompressed sound with the lower bytes first, which qtdemux takes for the other order.
    pub(super) little_endian: Vec<u32>,
    /// The turn that makes mirrored pictures upright.
    pub(super) turn: Option<Turn>,
    /// Orders of samples that no format of GStreamer has, by track number.
    pub(super) packed: HashMap<u32, Packed>,
    /// Palettes in the file, of which qtdemux knows only the standard ones: 256 colours, each in four bytes from
    /// blue to alpha.
    pub(super) palettes: HashMap<u32, Vec<u8>>,
    /// Chapters in the format of Nero and FFmpeg.
    pub(super) chapters: Vec<Chapter>,
    /// The tracks that are listed.
    pub(super) tracks: Vec<Listed>,
    /// Time of recording in seconds since 1970.
    pub(super) recorded_s: Option<i64>,
    /// Place of recording, as in ISO 6709.
    pub(super) location: Option<String>,
    /// Length of the whole in nanoseconds, before the patches.
    pub(super) duration_ns: Option<u64>,
    /// Bytes to put over those of the file, by their offset in it.
    patches: Vec<(u64, Vec<u8>)>,
}

impl Timeline {
    /// Reads the index of a file; empty if it is not an MP4 file.
    pub(super) fn read(file: &mut File) -> io::Result<Self> {
        match find_index(file)? {
            Search::Found { at, index, .. } => Ok(Self::of_index(at, &index).unwrap_or_default()),
            Search::Missing | Search::Foreign => Ok(Self::default()),
        }
    }

    fn of_index(at: u64, index: &[u8]) -> Option<Self> {
        let parts = boxes(index.get(8..)?);
        let tracks = parts.iter().filter(|(kind, _)| kind == b"trak").map(|(_, track)| *track);
        let pictures = tracks.clone().find(|track| is_of_kind(track, b"vide"));
        let turn = pictures.and_then(matrix).and_then(Turn::of_matrix);
        let movie = parts.iter().find(|(kind, _)| kind == b"mvhd")?.1;
        let mut timeline = Self {
            turn,
            tracks: listed(tracks.clone()),
            recorded_s: recorded_of(movie),
            location: place_of(index),
            ..Self::default()
        };
        for track in tracks.clone().filter(|track| is_of_kind(track, b"vide")) {
            let (Some(number), Some(entry)) = (track_number(track), sample_entry(track)) else { continue };
            timeline.packed.extend(packed(entry).map(|packed| (number, packed)));
            timeline.palettes.extend(palette(entry).map(|palette| (number, palette)));
        }
        // Fragments carry their own times.
        if parts.iter().any(|(kind, _)| kind == b"mvex") {
            return Some(timeline);
        }
        let (movie_scale, movie_duration) = scale_and_duration(movie)?;
        let offset_of = |part: &[u8]| at + (part.as_ptr() as usize - index.as_ptr() as usize) as u64;
        timeline.chapters = read_chapters(index);
        let movie_ns = (movie_duration as f64 * 1e9 / f64::from(movie_scale)).round() as u64;
        timeline.duration_ns = Some(movie_ns).filter(|&ns| ns > 0);
        let mut longest = movie_duration;
        timeline.full_range = pictures.is_some_and(is_full_range);
        let swapped = tracks.clone().filter(|track| is_little_endian(track));
        timeline.little_endian = swapped.filter_map(track_number).collect();
        for track in tracks.clone() {
            let Some((scale, duration)) = inside(track, &[b"mdia", b"mdhd"]).and_then(scale_and_duration)
            else {
                continue;
            };
            let duration = duration.saturating_add(reordered(track));
            let Some(Edit { delay, start, length }) = edit(track) else { continue };
            let seconds = |ticks: u64, scale: u32| ticks as f64 / f64::from(scale);
            let (start_s, end_s) = (seconds(start, scale), seconds(duration, scale));
            let cut = length > 0 && start_s + seconds(length, movie_scale) + LONGEST_PADDING_S < end_s;
            if cut || start_s > LONGEST_PRIMING_S {
                continue;
            }
            // qtdemux ends a track where its unshifted times pass the duration of the whole.
            let end = ((end_s + start_s) * f64::from(movie_scale)).ceil() as u64;
            let end = end.saturating_add(delay);
            longest = longest.max(end);
            if !is_of_kind(track, b"soun") {
                continue;
            }
            if let (Some(list), Some(number)) = (inside(track, &[b"edts"]), track_number(track)) {
                timeline.patches.push((offset_of(list) + 4, b"free".to_vec()));
                let shift_s = seconds(delay, movie_scale) - start_s;
                timeline.shift_ns.insert(number, (shift_s * 1e9).round() as i64);
            }
        }
        if longest > movie_duration && movie_duration > 0 {
            timeline.patches.push(new_duration(offset_of(movie), movie, longest)?);
        }
        let mut lengths = Vec::new();
        for track in tracks.filter(|track| is_of_kind(track, b"vide")) {
            let Some(header) = inside(track, &[b"mdia", b"mdhd"]) else { continue };
            let Some((scale, duration)) = scale_and_duration(header) else { continue };
            let later = reordered(track);
            let whole = duration.saturating_add(later);
            if later > 0 {
                timeline.patches.push(new_duration(offset_of(header), header, whole)?);
            }
            lengths.push((whole as f64 / f64::from(scale), scale, header));
        }
        // qtdemux takes pictures that are much shorter than the whole for a preview, even if they are the
        // only ones.
        let longest_pictures = lengths.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((length_s, scale, header)) = longest_pictures {
            let least_s = longest as f64 / f64::from(movie_scale) * PREVIEW_SHARE;
            if length_s < least_s {
                let least = (least_s * f64::from(scale)).ceil() as u64 + 1;
                timeline.patches.push(new_duration(offset_of(header), header, least)?);
            }
        }
        Some(timeline)
    }

    /// Whether a patch touches the `length` bytes at `offset` of the file.
    pub(super) fn touches(&self, offset: u64, length: usize) -> bool {
        let end = offset.saturating_add(length as u64);
        self.patches.iter().any(|(at, new)| *at < end && at + new.len() as u64 > offset)
    }

    /// Changes bytes that were read at `offset` of the file.
    pub(super) fn apply(&self, offset: u64, bytes: &mut [u8]) {
        for (at, new) in &self.patches {
            for (n, byte) in new.iter().enumerate() {
                let place = (at + n as u64).checked_sub(offset).and_then(|n| usize::try_from(n).ok());
                if let Some(old) = place.and_then(|place| bytes.get_mut(place)) {
                    *old = *byte;
                }
            }
        }
    }
}

/// An order of the samples of uncompressed pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    /// Five bits each of red, green and blue, the upper byte first. qtdemux takes them for 5, 6 and 5 bits in the
    /// other order.
    Rgb555,
    /// Red-difference chroma, luma, blue-difference chroma, for which qtdemux names luma first.
    Vyu,
}

/// Whether the beginning of a file is that of an MP4 (or QuickTime) file that is not made of fragments.
pub(super) fn is_whole(start: &[u8]) -> bool {
    let begins = matches!(start.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free" | b"skip"));
    let fragments = [b"mvex", b"moof", b"styp", b"sidx"];
    begins && !start.windows(4).any(|kind| fragments.iter().any(|one| kind == *one))
}

/// Whether a file is MP4 (or QuickTime) and lacks its index, as after an interrupted recording.
pub(super) fn lacks_index(file: &mut File) -> io::Result<bool> {
    Ok(matches!(find_index(file)?, Search::Missing))
}

/// The repairs of a file that mp4mux has finished.
#[derive(Debug, Default)]
pub(super) struct Repairs<'a> {
    /// Length of the pictures shown.
    pub(super) video_ns: u64,
    /// Length of the hidden beginning of each sound track.
    pub(super) hidden_ns: &'a [u64],
    pub(super) chapters: &'a [Chapter],
    /// Delay of the chapters.
    pub(super) chapters_later_ns: u64,
    /// The tracks, in the order of the file.
    pub(super) tracks: &'a [Description],
    /// Time of recording in seconds since 1970; without one, the time of writing is stated.
    pub(super) recorded_s: Option<i64>,
    /// Place of recording, as in ISO 6709.
    pub(super) location: Option<&'a str>,
}

/// Completes a file that mp4mux has finished, and removes tracks that never got a sample, which
/// would make it unreadable.
///
/// # Errors
/// When it cannot be read or written, or its index is not where mp4mux puts it.
pub(super) fn repair(file: &mut File, repairs: &Repairs<'_>) -> io::Result<()> {
    let Search::Found { at, index, at_end } = find_index(file)? else {
        return Err(io::Error::other("the finished file has no index"));
    };
    // After the index there may be a copy of the tags as XMP, which is not needed.
    if !at_end && !is_of_kind_at(file, at + index.len() as u64, b"uuid")? {
        return Err(io::Error::other("the index of the finished file is not at its end"));
    }
    let repaired = repaired(&index, repairs)
        .ok_or_else(|| io::Error::other("the index of the finished file is not built as expected"))?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&repaired)?;
    file.set_len(at + repaired.len() as u64)
}

/// Whether a box of this kind begins there.
fn is_of_kind_at(file: &mut File, at: u64, kind: &[u8; 4]) -> io::Result<bool> {
    let mut head = [0; 8];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut head)?;
    Ok(head[4..] == *kind)
}

enum Search {
    /// The index box (moov), its position, and whether the file ends with it.
    Found {
        at: u64,
        index: Vec<u8>,
        at_end: bool,
    },
    Missing,
    /// Not an MP4 file.
    Foreign,
}

fn find_index(file: &mut File) -> io::Result<Search> {
    let length = file.metadata()?.len();
    let mut at = 0;
    let mut media = false;
    while at + 8 <= length {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 16];
        let header = if length - at >= 16 { 16 } else { 8 };
        file.read_exact(&mut head[..header])?;
        // A box that extends beyond the end of the file is the last one.
        let Some((kind, size)) = box_head(&head[..header], u64::MAX) else { break };
        let left = length - at;
        match &kind {
            b"moov" if size <= left && size <= LARGEST_INDEX => {
                let mut index = vec![0; size as usize];
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(&mut index)?;
                return Ok(Search::Found { at, index, at_end: size == left });
            }
            b"moov" => return Ok(Search::Foreign),
            b"ftyp" | b"mdat" => media = true,
            _ if at == 0 && !matches!(&kind, b"wide" | b"free" | b"skip" | b"pnot") => break,
            _ => {}
        }
        if size >= left {
            break;
        }
        at += size;
    }
    Ok(if media { Search::Missing } else { Search::Foreign })
}

/// Type and total size of the box that starts here, if it is within `available` bytes.
fn box_head(bytes: &[u8], available: u64) -> Option<([u8; 4], u64)> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = bytes.get(4..8)?.try_into().ok()?;
    let size = match size {
        0 => available,
        1 => u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?),
        size => u64::from(size),
    };
    (8..=available).contains(&size).then_some((kind, size))
}

/// The boxes inside `bytes`, each with its header.
pub(super) fn boxes(mut bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let mut found = Vec::new();
    while let Some((kind, size)) = box_head(bytes, bytes.len() as u64) {
        let (whole, rest) = bytes.split_at(size as usize);
        found.push((kind, whole));
        bytes = rest;
    }
    found
}

/// The box at the end of a path of kinds inside `outer`, with its header.
pub(super) fn inside<'a>(outer: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(outer, |outer, wanted| {
        Some(boxes(outer.get(8..)?).into_iter().find(|(kind, _)| kind == *wanted)?.1)
    })
}

pub(super) fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Seconds from 1904, when the time of QuickTime begins, to 1970.
const YEAR_1970_S: i64 = 2_082_844_800;

/// The recording time stated by a file, in seconds since 1970. Most programs that do not know it write 0.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn recorded_s(file: &mut File) -> io::Result<Option<i64>> {
    let Search::Found { index, .. } = find_index(file)? else { return Ok(None) };
    Ok(inside(&index, &[b"mvhd"]).and_then(recorded_of))
}

fn recorded_of(movie: &[u8]) -> Option<i64> {
    let since_1904 = match movie.get(8)? {
        0 => i64::from(number_at(movie, 12)?),
        _ => i64::try_from(long_at(movie, 12)?).ok()?,
    };
    since_1904.checked_sub(YEAR_1970_S).filter(|seconds| *seconds > 0)
}

/// The place of recording in an index, as old and new cameras state it (QuickTime File Format, user data and
/// metadata).
fn place_of(index: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"com.apple.quicktime.location.ISO6709";
    let text = |bytes: &[u8]| place(std::str::from_utf8(bytes).ok()?);
    // After the length of the text and its language.
    let old = inside(index, &[b"udta", b"\xa9xyz"]).and_then(|list| {
        let length = usize::from(u16::from_be_bytes(list.get(8..10)?.try_into().ok()?));
        text(list.get(12..12 + length)?)
    });
    old.or_else(|| loci(inside(index, &[b"udta", b"loci"])?)).or_else(|| {
        // The number of a key, from 1, is the kind of the box with its value.
        let keys = inside(index, &[b"meta", b"keys"])?;
        let number = boxes(keys.get(16..)?).iter().position(|(_, key)| key.get(8..) == Some(KEY))? + 1;
        let kind = u32::try_from(number).ok()?.to_be_bytes();
        text(inside(index, &[b"meta", b"ilst", &kind, b"data"])?.get(16..)?)
    })
}

/// The place in a box of mobile phones (3GPP TS 26.244, 8.8).
fn loci(list: &[u8]) -> Option<String> {
    // After the language: the name of the place, and its role.
    let named = list.get(14..)?;
    let end = named.iter().position(|byte| *byte == 0)?;
    let degrees = |at: usize| Some(f64::from(number_at(named, end + 2 + at)? as i32) / 65_536.0);
    place_at(degrees(4)?, degrees(0)?, degrees(8))
}

/// Ticks per second and duration in ticks of an mvhd or mdhd box.
fn scale_and_duration(header: &[u8]) -> Option<(u32, u64)> {
    let (scale, duration) = match header.get(8)? {
        0 => (number_at(header, 20)?, u64::from(number_at(header, 24)?)),
        _ => (number_at(header, 28)?, long_at(header, 32)?),
    };
    (scale > 0).then_some((scale, duration))
}

/// The patch that sets the duration of an mvhd or mdhd box at `at` to `duration` ticks; `None` if its field
/// is too small.
fn new_duration(at: u64, header: &[u8], duration: u64) -> Option<(u64, Vec<u8>)> {
    Some(match header.get(8)? {
        0 => (at + 24, u32::try_from(duration).ok()?.to_be_bytes().to_vec()),
        _ => (at + 32, duration.to_be_bytes().to_vec()),
    })
}

fn track_number(track: &[u8]) -> Option<u32> {
    let header = inside(track, &[b"tkhd"])?;
    number_at(header, if *header.get(8)? == 0 { 20 } else { 28 })
}

/// The tracks of an index.
fn listed<'a>(tracks: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<Listed> {
    // Tracks of text that hold the titles of chapters.
    let references = tracks.clone().filter_map(|track| inside(track, &[b"tref", b"chap"]));
    let of_chapters: Vec<u32> = references
        .flat_map(|list| {
            list.get(8..).unwrap_or_default().chunks_exact(4).filter_map(|one| number_at(one, 0))
        })
        .collect();
    let one = |track| {
        let number = track_number(track)?;
        let header = inside(track, &[b"tkhd"])?;
        let silent = match inside(track, &[b"mdia", b"hdlr"])?.get(16..20)? {
            b"tmcd" => Some("timecode track"),
            b"text" if of_chapters.contains(&number) => None,
            b"text" | b"sbtl" | b"subt" | b"clcp" => Some("subtitles"),
            b"meta" => Some("timed metadata"),
            _ => None,
        };
        let enabled = header.get(11)? & ENABLED != 0;
        let flags = Flags { default: Some(enabled), ..Flags::default() };
        Some(Listed { number, flags, silent, top_first: None })
    };
    tracks.filter_map(one).collect()
}

/// The upper left 2x2 part of the matrix that makes the pictures of a track upright, by rows; `None` if it does
/// more than turn and mirror them.
fn matrix(track: &[u8]) -> Option<[i32; 4]> {
    /// Offsets of the four numbers in the header of a track, which has longer times in its second version.
    const PLACES: [usize; 4] = [48, 52, 60, 64];
    const ONE: i32 = 1 << 16;
    let header = inside(track, &[b"tkhd"])?;
    let longer = if *header.get(8)? == 0 { 0 } else { 12 };
    let mut units = [0; 4];
    for (unit, place) in units.iter_mut().zip(PLACES) {
        let number = number_at(header, place + longer)? as i32;
        *unit = [-1, 0, 1].into_iter().find(|unit| unit * ONE == number)?;
    }
    Some(units)
}

/// The time in ticks by which the last frame of a track without an edit list may end later than the sum of all
/// durations: the largest distance from decoding to presentation (ISO/IEC 14496-12, 8.6.1.3).
fn reordered(track: &[u8]) -> u64 {
    if !is_of_kind(track, b"vide") || inside(track, &[b"edts", b"elst"]).is_some() {
        return 0;
    }
    let Some(list) = inside(track, &[b"mdia", b"minf", b"stbl", b"ctts"]) else { return 0 };
    // After version, flags and number: pairs of a number of frames and their distance, which may be negative.
    let distances = list.get(16..).unwrap_or_default().chunks_exact(8).filter_map(|pair| number_at(pair, 4));
    distances.map(|distance| u64::try_from(distance as i32).unwrap_or(0)).max().unwrap_or(0)
}

/// Whether the handler of a track is for sound (soun) or pictures (vide).
fn is_of_kind(track: &[u8], kind: &[u8; 4]) -> bool {
    inside(track, &[b"mdia", b"hdlr"]).and_then(|handler| handler.get(16..20)) == Some(kind)
}

/// Whether a track is uncompressed sound with the lower bytes first (QuickTime File Format, `enda`).
fn is_little_endian(track: &[u8]) -> bool {
    /// Bytes of the first and the second version of a sound sample entry before the boxes in it.
    const ENTRIES: [usize; 2] = [36, 52];
    let entry = inside(track, &[b"mdia", b"minf", b"stbl", b"stsd"])
        .and_then(|list| boxes(list.get(16..)?).first().copied());
    let Some((b"in24" | b"in32" | b"fl32" | b"fl64", entry)) =
        entry.as_ref().map(|(kind, entry)| (kind, *entry))
    else {
        return false;
    };
    let order = ENTRIES.into_iter().find_map(|header| {
        let wave = boxes(entry.get(header..)?).into_iter().find(|(kind, _)| kind == b"wave")?.1;
        inside(wave, &[b"enda"])?.get(8..10)
    });
    order == Some(&[0, 1])
}

/// The first sample entry of a track, with its header.
fn sample_entry(track: &[u8]) -> Option<&[u8]> {
    let list = inside(track, &[b"mdia", b"minf", b"stbl", b"stsd"])?;
    boxes(list.get(16..)?).first().map(|(_, entry)| *entry)
}

/// Bits per pixel in a visual sample entry, without the flag of grey levels.
fn depth(entry: &[u8]) -> Option<u8> {
    entry.get(83).map(|depth| depth & 0x1f)
}

/// The order of samples of uncompressed pictures that GStreamer lacks.
fn packed(entry: &[u8]) -> Option<Packed> {
    match entry.get(4..8)? {
        b"raw " if depth(entry) == Some(16) => Some(Packed::Rgb555),
        b"v308" => Some(Packed::Vyu),
        _ => None,
    }
}

/// The colour table of a visual sample entry (QuickTime File Format, `ctab`).
fn palette(entry: &[u8]) -> Option<Vec<u8>> {
    /// The identifier of a table that follows; others are those of standard ones.
    const FOLLOWS: &[u8] = &[0, 0];
    if !matches!(depth(entry)?, 1 | 2 | 4 | 8) || entry.get(84..86)? != FOLLOWS {
        return None;
    }
    // Seed and flags, then the number of the last colour. Each has an index and 16 bits of red, green and blue.
    let last = usize::from(*entry.get(93).filter(|_| entry.get(92) == Some(&0))?);
    let colours = entry.get(94..94 + (last + 1) * 8)?;
    let mut palette = vec![0; 256 * 4];
    for (colour, place) in colours.chunks_exact(8).zip(palette.chunks_exact_mut(4)) {
        place.copy_from_slice(&[colour[6], colour[4], colour[2], 0xff]);
    }
    Some(palette)
}

/// Whether the colour description of a track's pictures (ISO/IEC 14496-12, 12.1.5) states full range.
fn is_full_range(track: &[u8]) -> bool {
    /// Bytes of a visual sample entry before the boxes in it.
    const ENTRY: usize = 86;
    let colour = inside(track, &[b"mdia", b"minf", b"stbl", b"stsd"])
        .and_then(|list| boxes(list.get(16..)?).first().map(|(_, entry)| *entry))
        .and_then(|entry| boxes(entry.get(ENTRY..)?).into_iter().find(|(kind, _)| kind == b"colr"));
    colour.is_some_and(|(_, colour)| {
        colour.get(8..12) == Some(b"nclx") && colour.get(18).is_some_and(|flags| flags & 0x80 != 0)
    })
}

/// A simple edit list: an optional gap, then the track from one position on.
struct Edit {
    /// In ticks of the movie.
    delay: u64,
    /// In ticks of the track.
    start: u64,
    /// In ticks of the movie; 0 for all the rest.
    length: u64,
}

/// The edit list of a track; `None` when it cuts, repeats or changes speed.
fn edit(track: &[u8]) -> Option<Edit> {
    let Some(list) = inside(track, &[b"edts", b"elst"]) else {
        return Some(Edit { delay: 0, start: 0, length: 0 });
    };
    let long = *list.get(8)? != 0;
    let size = if long { 20 } else { 12 };
    let mut delay: u64 = 0;
    let mut found = None;
    for n in 0..number_at(list, 12)? as usize {
        let entry = list.get(16 + n * size..16 + (n + 1) * size)?;
        let (length, start, rate) = if long {
            (long_at(entry, 0)?, long_at(entry, 8)? as i64, number_at(entry, 16)?)
        } else {
            let start = number_at(entry, 4)? as i32;
            (u64::from(number_at(entry, 0)?), i64::from(start), number_at(entry, 8)?)
        };
        match u64::try_from(start) {
            Err(_) if found.is_none() => delay = length.saturating_add(delay),
            Ok(start) if found.is_none() && rate == 1 << 16 => found = Some((start, length)),
            _ => return None,
        }
    }
    let (start, length) = found?;
    Some(Edit { delay, start, length })
}

/// The repaired index: all pictures are shown, leads are hidden, and empty tracks are removed.
fn repaired(index: &[u8], repairs: &Repairs<'_>) -> Option<Vec<u8>> {
    let video_ns = repairs.video_ns;
    let parts = boxes(index.get(8..)?);
    let (movie_scale, _) =
        parts.iter().find(|(kind, _)| kind == b"mvhd").and_then(|(_, movie)| scale_and_duration(movie))?;
    let mut leads = repairs.hidden_ns.iter();
    let mut descriptions = repairs.tracks.iter();
    let mut about =
        Some([chapter_list(repairs), location(repairs)].into_iter().flatten().flatten().collect())
            .filter(|about: &Vec<u8>| !about.is_empty());
    let mut kept = index[..8].to_vec();
    for (kind, whole) in parts {
        if kind == *b"udta"
            && let Some(about) = about.take()
        {
            let mut more = [whole, &about].concat();
            set_size(&mut more);
            kept.extend(more);
            continue;
        }
        if kind == *b"mvhd"
            && let Some(recorded_s) = repairs.recorded_s
        {
            kept.extend(with_time(whole, recorded_s));
            continue;
        }
        if kind != *b"trak" {
            kept.extend_from_slice(whole);
            continue;
        }
        let lead_ns = if is_of_kind(whole, b"soun") { *leads.next().unwrap_or(&0) } else { 0 };
        let flags = descriptions.next().map(|description| description.flags).unwrap_or_default();
        if has_samples(whole) == Some(false) {
            continue;
        }
        let mended = with_opus_mended(whole);
        let whole = mended.as_deref().unwrap_or(whole);
        let chosen = if flags.default == Some(false) { without_default(whole) } else { None };
        let whole = chosen.as_deref().unwrap_or(whole);
        if is_of_kind(whole, b"vide") {
            let length = (video_ns as f64 * f64::from(movie_scale) / 1e9).ceil() as u64;
            kept.extend(with_length(whole, length));
        } else if lead_ns == 0 {
            kept.extend_from_slice(whole);
        } else {
            kept.extend(with_lead(whole, lead_ns, movie_scale)?);
        }
    }
    if let Some(about) = about {
        let mut more = [&b"\0\0\0\0udta"[..], &about].concat();
        set_size(&mut more);
        kept.extend(more);
    }
    set_size(&mut kept);
    Some(kept)
}

/// The header of a movie with a time of creation; unchanged if that cannot be expressed.
fn with_time(movie: &[u8], recorded_s: i64) -> Vec<u8> {
    let mut made = movie.to_vec();
    let since_1904 = recorded_s.checked_add(YEAR_1970_S).and_then(|seconds| u64::try_from(seconds).ok());
    let (Some(seconds), Some(version)) = (since_1904, movie.get(8)) else { return made };
    let bytes = match (version, u32::try_from(seconds)) {
        (0, Ok(seconds)) => seconds.to_be_bytes().to_vec(),
        (0, Err(_)) => return made,
        _ => seconds.to_be_bytes().to_vec(),
    };
    if let Some(field) = made.get_mut(12..12 + bytes.len()) {
        field.copy_from_slice(&bytes);
    }
    made
}

/// A track that is not played unless it is chosen.
fn without_default(track: &[u8]) -> Option<Vec<u8>> {
    let header = inside(track, &[b"tkhd"])?;
    let flags = header.as_ptr() as usize - track.as_ptr() as usize + 11;
    let mut made = track.to_vec();
    *made.get_mut(flags)? &= !ENABLED;
    Some(made)
}

/// The place of recording (QuickTime File Format, `©xyz`); `None` without one.
fn location(repairs: &Repairs<'_>) -> Option<Vec<u8>> {
    /// The language of the text: undetermined, in five bits per letter.
    const UNDETERMINED: u16 = 0x55c4;
    let text = repairs.location?;
    let length = u16::try_from(text.len()).ok()?;
    let mut made = b"\0\0\0\0\xa9xyz".to_vec();
    made.extend(length.to_be_bytes());
    made.extend(UNDETERMINED.to_be_bytes());
    made.extend(text.as_bytes());
    set_size(&mut made);
    Some(made)
}

/// A list of chapters (chpl); `None` without any.
fn chapter_list(repairs: &Repairs<'_>) -> Option<Vec<u8>> {
    let chapters = repairs.chapters.get(..repairs.chapters.len().min(255))?;
    let mut list = b"\0\0\0\0chpl\x01\0\0\0\0\0\0\0".to_vec();
    list.push(u8::try_from(chapters.len()).ok().filter(|&count| count > 0)?);
    for chapter in chapters {
        let start_ns = chapter.start_ns.saturating_add(repairs.chapters_later_ns);
        let mut end = chapter.title.len().min(255);
        while !chapter.title.is_char_boundary(end) {
            end -= 1;
        }
        list.extend((start_ns / 100).to_be_bytes());
        list.push(end as u8);
        list.extend(&chapter.title.as_bytes()[..end]);
    }
    set_size(&mut list);
    Some(list)
}

/// The chapters in a list (chpl) of an index.
fn read_chapters(index: &[u8]) -> Vec<Chapter> {
    let mut chapters = Vec::new();
    let Some(list) = inside(index, &[b"udta", b"chpl"]) else { return chapters };
    // The first version has no reserved bytes before the number.
    let mut at = if list.get(8) == Some(&0) { 13 } else { 17 };
    while let Some(start) = long_at(list, at)
        && let Some(&length) = list.get(at + 8)
        && let Some(title) = list.get(at + 9..at + 9 + usize::from(length))
    {
        let title = String::from_utf8_lossy(title).into_owned();
        chapters.push(Chapter { start_ns: start.saturating_mul(100), end_ns: None, title });
        at += 9 + usize::from(length);
    }
    chapters
}

/// A track whose last edit shows `length` ticks of the movie or more; unchanged when it has no
/// edit list, which shows everything.
fn with_length(track: &[u8], length: u64) -> Vec<u8> {
    let mut made = track.to_vec();
    let Some(list) = inside(track, &[b"edts", b"elst"]) else { return made };
    let start = list.as_ptr() as usize - track.as_ptr() as usize;
    let (Some(&version), Some(count)) = (list.get(8), number_at(list, 12)) else { return made };
    let Some(before) = (count as usize).checked_sub(1) else { return made };
    let longer = if version == 0 {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let at = 16 + before * 12;
        number_at(list, at).map(|old| (at, old.max(length).to_be_bytes().to_vec()))
    } else {
        let at = 16 + before * 20;
        long_at(list, at).map(|old| (at, old.max(length).to_be_bytes().to_vec()))
    };
    if let Some((at, bytes)) = longer {
        made[start + at..][..bytes.len()].copy_from_slice(&bytes);
    }
    made
}

/// An Opus track with the numbers of its header (dOps) in the right byte order: mp4mux of GStreamer 1.22
/// writes them little-endian. `None` for any other track.
fn with_opus_mended(track: &[u8]) -> Option<Vec<u8>> {
    /// The longest plausible pre-skip in samples.
    const LONGEST_SKIP: u16 = 4_800;
    let table = inside(track, &[b"mdia", b"minf", b"stbl", b"stsd"])?;
    // The first entry, after version, flags and count, has its own header before its boxes.
    let (_, entry) = boxes(table.get(16..)?).into_iter().find(|(kind, _)| kind == b"Opus")?;
    let (_, header) = boxes(entry.get(36..)?).into_iter().find(|(kind, _)| kind == b"dOps")?;
    let skip = header.get(10..12)?;
    let skips = [u16::from_be_bytes(skip.try_into().ok()?), u16::from_le_bytes(skip.try_into().ok()?)];
    let rate = number_at(header, 12)?;
    let turned = rate > 192_000 || (rate == 0 && skips[0] > LONGEST_SKIP && skips[1] <= LONGEST_SKIP);
    let start = header.as_ptr() as usize - track.as_ptr() as usize;
    let mut made = track.to_vec();
    for part in [10..12, 12..16, 16..18].into_iter().filter(|_| turned) {
        made.get_mut(start + part.start..start + part.end)?.reverse();
    }
    turned.then_some(made)
}

/// A track with an edit list that hides its first `lead_ns`.
fn with_lead(track: &[u8], lead_ns: u64, movie_scale: u32) -> Option<Vec<u8>> {
    let (scale, duration) = inside(track, &[b"mdia", b"mdhd"]).and_then(scale_and_duration)?;
    let lead = (lead_ns as f64 * f64::from(scale) / 1e9).round() as u64;
    let heard_s = duration.saturating_sub(lead) as f64 / f64::from(scale);
    let length = (heard_s * f64::from(movie_scale)).ceil() as u64;
    // The delay that mp4mux writes for a track that begins late is kept.
    let delay = edit(track).map_or(0, |edit| edit.delay);
    let count = if delay > 0 { 2 } else { 1 };
    // Version 1, one or two entries: 64-bit length and start, speed 1.
    let mut list = [0, 0, 0, 0, b'e', b'l', b's', b't', 1, 0, 0, 0, 0, 0, 0, count].to_vec();
    if delay > 0 {
        list.extend(delay.to_be_bytes());
        list.extend(u64::MAX.to_be_bytes());
        list.extend([0, 1, 0, 0]);
    }
    list.extend(length.to_be_bytes());
    list.extend(lead.to_be_bytes());
    list.extend([0, 1, 0, 0]);
    set_size(&mut list);
    let mut edits = b"\0\0\0\0edts".to_vec();
    edits.extend(list);
    set_size(&mut edits);
    let mut made = track[..8].to_vec();
    for (kind, whole) in boxes(&track[8..]) {
        if kind != *b"edts" {
            made.extend_from_slice(whole);
        }
        if kind == *b"tkhd" {
            made.extend_from_slice(&edits);
        }
    }
    set_size(&mut made);
    Some(made)
}

/// Writes the size of a box into its head.
fn set_size(made: &mut [u8]) {
    let size = (made.len() as u32).to_be_bytes();
    made[..4].copy_from_slice(&size);
}

/// Whether a track describes any sample; `None` when it is not built as expected.
fn has_samples(track: &[u8]) -> Option<bool> {
    let table = inside(track, &[b"mdia", b"minf", b"stbl", b"stsd"])?;
    // Version and flags, then the number of entries.
    Some(number_at(table, 12)? > 0)
}

#[cfg(test)]
mod tests;
