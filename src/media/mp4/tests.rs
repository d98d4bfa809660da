//! Synthetic indexes: valid, unusual and damaged ones.

use super::*;
use crate::mutations;

fn make(kind: &[u8; 4], inside: &[u8]) -> Vec<u8> {
    let mut made = ((inside.len() + 8) as u32).to_be_bytes().to_vec();
    made.extend(kind);
    made.extend(inside);
    made
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A movie header: 1000 ticks per second, 2000 ticks long.
fn movie(duration: u32) -> Vec<u8> {
    make(b"mvhd", &numbers(&[0, 0, 0, 1000, duration]))
}

/// A sound track at 48 000 ticks per second, 2 s and 1024 ticks long.
fn track(number: u32, entries: u32, edits: Option<&[u32]>) -> Vec<u8> {
    let mut inside = make(b"tkhd", &numbers(&[0, 0, 0, number]));
    if let Some(edits) = edits {
        inside.extend(make(b"edts", &make(b"elst", &numbers(edits))));
    }
    let header = make(b"mdhd", &numbers(&[0, 0, 0, 48_000, 97_024]));
    let handler = make(b"hdlr", &[&[0; 8][..], b"soun"].concat());
    let table = make(b"stbl", &[make(b"free", &[]), make(b"stsd", &numbers(&[0, entries]))].concat());
    inside.extend(make(b"mdia", &[header, handler, make(b"minf", &table)].concat()));
    make(b"trak", &inside)
}

fn file(parts: &[Vec<u8>]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&parts.concat()).unwrap();
    file
}

fn bytes(file: &mut File) -> Vec<u8> {
    let mut found = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut found).unwrap();
    found
}

#[test]
fn tracks_without_samples_go_and_leads_are_hidden() {
    let data = [make(b"ftyp", b"isom"), make(b"mdat", &[7; 50])].concat();
    let index = |tracks: &[Vec<u8>]| make(b"moov", &[movie(2000), tracks.concat()].concat());
    let before = index(&[track(1, 1, None), track(2, 0, None), track(3, 2, Some(&[0, 1, 0, 0, 1 << 16]))]);
    let mut made = file(&[data.clone(), before]);
    let hidden_ns = &[0, 0, 21_333_333];
    repair(&mut made, &Repairs { hidden_ns, ..Repairs::default() }).unwrap();
    let mut hidden = track(3, 2, None);
    let edits = make(b"edts", &make(b"elst", &numbers(&[1 << 24, 1, 0, 2000, 0, 1024, 1 << 16])));
    let header = 8 + make(b"tkhd", &numbers(&[0, 0, 0, 3])).len();
    hidden.splice(header..header, edits);
    set_size(&mut hidden);
    assert_eq!(bytes(&mut made), [data, index(&[track(1, 1, None), hidden])].concat());
}

#[test]
fn the_numbers_of_opus_are_turned_where_they_are_the_wrong_way_round() {
    let header = |skip: [u8; 2], rate: [u8; 4]| {
        let header = [&[0, 2][..], &skip, &rate, &[0, 0, 0]].concat();
        let entry = make(b"Opus", &[&[0; 28][..], &make(b"dOps", &header)].concat());
        let table = make(b"stsd", &[&numbers(&[0, 1])[..], &entry].concat());
        let inside = make(b"minf", &make(b"stbl", &table));
        make(b"trak", &make(b"mdia", &inside))
    };
    let (skip, rate) = ([0x01, 0x38], [0, 0, 0xbb, 0x80]);
    let right = header(skip, rate);
    assert_eq!(with_opus_mended(&right), None);
    assert_eq!(with_opus_mended(&header([0x38, 0x01], [0x80, 0xbb, 0, 0])), Some(right));
    assert_eq!(with_opus_mended(&header([0x38, 0x01], [0; 4])), Some(header(skip, [0; 4])));
    assert_eq!(with_opus_mended(&track(1, 1, None)), None);
}

#[test]
fn chapters_come_back() {
    let chapter = |start_ns, title: &str| Chapter { start_ns, end_ns: None, title: title.to_owned() };
    let chapters = [chapter(0, "one"), chapter(1_500_000_000, "zwölf")];
    for more in [Vec::new(), make(b"udta", &make(b"meta", &[1]))] {
        let mut made =
            file(&[make(b"ftyp", b"isom"), make(b"moov", &[movie(2000), track(1, 1, None), more].concat())]);
        repair(&mut made, &Repairs { chapters: &chapters, ..Repairs::default() }).unwrap();
        assert_eq!(Timeline::read(&mut made).unwrap().chapters, chapters);
    }
    assert_eq!(read_chapters(b"\0\0\0\x20moov\0\0\0\x18udta\0\0\0\x10chpl\0\0\0\0\0\0\0\0"), []);
}

#[test]
fn pictures_are_shown_to_their_end() {
    const ONE: u32 = 1 << 16;
    let pictures = |edits: &[u32]| bytes_replaced(&track(1, 1, Some(edits)), b"soun", b"vide");
    let index = |track: Vec<u8>| make(b"moov", &[movie(2000), track].concat());
    for (before, after) in [
        (&[0, 1, 800, 6030, ONE][..], &[0, 1, 934, 6030, ONE][..]),
        (&[0, 1, 950, 0, ONE], &[0, 1, 950, 0, ONE]),
        (&[0, 2, 10, u32::MAX, ONE, 800, 0, ONE], &[0, 2, 10, u32::MAX, ONE, 934, 0, ONE]),
        (&[1 << 24, 1, 0, 800, 0, 5, ONE], &[1 << 24, 1, 0, 934, 0, 5, ONE]),
    ] {
        let mut made = file(&[index(pictures(before))]);
        repair(&mut made, &Repairs { video_ns: 933_333_333, ..Repairs::default() }).unwrap();
        assert_eq!(bytes(&mut made), index(pictures(after)), "{before:?}");
    }
}

#[test]
fn plain_edit_lists_of_sound_become_shifts_and_cuts_are_left_alone() {
    const ONE: u32 = 1 << 16;
    for (edits, shift_ns) in [
        (&[0, 1, 2000, 1024, ONE][..], Some(-21_333_333)),
        (&[0, 2, 1000, u32::MAX, ONE, 2000, 1024, ONE], Some(978_666_667)),
        (&[0, 1, 500, 1024, ONE], None),
        (&[0, 1, 2000, 48_000, ONE], None),
        (&[0, 2, 1000, 0, ONE, 1000, 48_000, ONE], None),
    ] {
        let index = [movie(2000), track(7, 1, Some(edits))].concat();
        let mut made = file(&[make(b"ftyp", b"isom"), make(b"moov", &index)]);
        let timeline = Timeline::read(&mut made).unwrap();
        assert_eq!(timeline.shift_ns.get(&7).copied(), shift_ns, "{edits:?}");
        let before = bytes(&mut made);
        let mut after = before.clone();
        // In pieces, as a demuxer may read it.
        after.chunks_mut(5).enumerate().for_each(|(n, piece)| timeline.apply(n as u64 * 5, piece));
        let expected = match shift_ns {
            None => before,
            Some(_) => {
                let end = 2043 + if edits[1] == 2 { 1000 } else { 0 };
                let hidden = bytes_replaced(&track(7, 1, Some(edits)), b"edts", b"free");
                let index = [movie(end), hidden].concat();
                [make(b"ftyp", b"isom"), make(b"moov", &index)].concat()
            }
        };
        assert_eq!(after, expected, "{edits:?}");
    }
}

#[test]
fn pictures_much_shorter_than_the_sound_are_no_preview() {
    let pictures = |number, duration: u32| {
        let header = make(b"mdhd", &numbers(&[0, 0, 0, 12_000, duration]));
        let handler = make(b"hdlr", &[&[0; 8][..], b"vide"].concat());
        let media = make(b"mdia", &[header, handler].concat());
        make(b"trak", &[make(b"tkhd", &numbers(&[0, 0, 0, number])), media].concat())
    };
    let index = |tracks: &[Vec<u8>]| {
        let index = make(b"moov", &[movie(2000), track(9, 1, None), tracks.concat()].concat());
        [make(b"ftyp", b"isom"), index].concat()
    };
    // A fifth of the 2022 ms of the sound are 4852.8 ticks.
    for (lengths, shown) in [
        (&[800][..], &[4854][..]),
        (&[4852], &[4854]),
        (&[4853], &[4853]),
        (&[800, 24_000], &[800, 24_000]),
        (&[700, 800], &[700, 4854]),
    ] {
        let tracks = |lengths: &[u32]| {
            let tracks = lengths.iter().zip(1..).map(|(&duration, number)| pictures(number, duration));
            index(&tracks.collect::<Vec<_>>())
        };
        let mut before = tracks(lengths);
        let timeline = Timeline::read(&mut file(&[before.clone()])).unwrap();
        timeline.apply(0, &mut before);
        let patched = bytes_replaced(&tracks(shown), &2000u32.to_be_bytes(), &2022u32.to_be_bytes());
        assert_eq!(before, patched, "{lengths:?}");
    }
}

#[test]
fn an_edit_list_that_waits_for_ever_is_survived() {
    const ONE: u32 = 1 << 16;
    let (never, all) = ([u32::MAX, u32::MAX - 1], [u32::MAX; 2]);
    let wait = [&never[..], &all, &[ONE]].concat();
    let edits = [&[1 << 24, 3][..], &wait, &wait, &[0, 2000, 0, 0, ONE]].concat();
    let mut made =
        file(&[make(b"ftyp", b"isom"), make(b"moov", &[movie(9), track(7, 1, Some(&edits))].concat())]);
    assert!(Timeline::read(&mut made).unwrap().chapters.is_empty());
}

#[test]
fn indexes_of_any_bytes_are_survived() {
    const ONE: u32 = 1 << 16;
    let edits = [0, 2, 1000, u32::MAX, ONE, 2000, 1024, ONE];
    let long = [1 << 24, 2, 0, 500, u32::MAX, u32::MAX, ONE, 0, 2000, 0, 1024, ONE];
    let chapters = [&[0, 0, 0, 0, 1][..], &[0; 8], &[3, b'o', b'n', b'e']].concat();
    let tracks = [track(1, 1, Some(&edits)), track(2, 1, Some(&long)), track(3, 0, None)].concat();
    let pictures = bytes_replaced(&track(4, 1, Some(&edits)), b"soun", b"vide");
    let more = make(b"udta", &make(b"chpl", &chapters));
    let index = make(b"moov", &[movie(2000), tracks, pictures, more].concat());
    let whole = [make(b"ftyp", b"isom"), index, make(b"mdat", &[7; 50])].concat();
    mutations::survived_by("mp4", "edits", &whole, 2000);
}

fn bytes_replaced(bytes: &[u8], old: &[u8; 4], new: &[u8; 4]) -> Vec<u8> {
    let at = bytes.windows(4).position(|window| window == old).unwrap();
    [&bytes[..at], new, &bytes[at + 4..]].concat()
}

#[test]
fn a_file_without_index_is_told_from_what_is_no_mp4() {
    let whole = [make(b"ftyp", b"isom"), make(b"moov", &movie(1)), make(b"mdat", &[1; 9])].concat();
    let cut = [make(b"ftyp", b"isom"), make(b"mdat", &[1; 90])].concat();
    for (bytes, lacking) in [
        (&whole[..], false),
        (&cut[..], true),
        (&cut[..40], true),
        (b"RIFF1234AVI LIST", false),
        (b"\x1a\x45\xdf\xa3 matroska", false),
        (b"GIF", false),
        (b"", false),
    ] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        assert_eq!(lacks_index(&mut file).unwrap(), lacking, "{bytes:?}");
    }
}

#[test]
fn a_file_says_where_it_was_recorded() {
    let place = "+48.1371+011.5754/";
    let old = [&[0, place.len() as u8, 0x55, 0xc4][..], place.as_bytes()].concat();
    let old = make(b"udta", &make(b"\xa9xyz", &old));
    let keys = ["com.apple.quicktime.make", "com.apple.quicktime.location.ISO6709"];
    let keys: Vec<u8> = keys.iter().flat_map(|key| make(b"mdta", key.as_bytes())).collect();
    let keys = make(b"keys", &[numbers(&[0, 2]), keys].concat());
    let value = |number: u32, text: &str| {
        make(&number.to_be_bytes(), &make(b"data", &[&numbers(&[1, 0])[..], text.as_bytes()].concat()))
    };
    let list = make(b"ilst", &[value(1, "Somebody"), value(2, place)].concat());
    let new = make(b"meta", &[keys, list].concat());
    let phone = [&[0; 6][..], b"Munich\0\0", &numbers(&[758_605, 3_154_712, 0]), b"earth\0\0"].concat();
    let phone = make(b"udta", &make(b"loci", &phone));
    for (more, found) in [(old, Some(place)), (new, Some(place)), (phone, Some(place)), (Vec::new(), None)] {
        let mut made = file(&[make(b"ftyp", b"qt  "), make(b"moov", &[movie(2000), more].concat())]);
        assert_eq!(Timeline::read(&mut made).unwrap().location.as_deref(), found);
    }
}

#[test]
fn times_places_and_defaults_are_written() {
    let data = make(b"ftyp", b"isom");
    let flagged = |flags: u32| bytes_at(&track(1, 1, None), 16, &flags.to_be_bytes());
    let mut made = file(&[data, make(b"moov", &[movie(2000), flagged(7), flagged(7)].concat())]);
    let tracks = [Some(true), Some(false)].map(|default| Description {
        flags: Flags { default, ..Flags::default() },
        ..Description::default()
    });
    let repairs =
        Repairs { tracks: &tracks, recorded_s: Some(86_400), location: Some("+1+2/"), ..Repairs::default() };
    repair(&mut made, &repairs).unwrap();
    let timeline = Timeline::read(&mut made).unwrap();
    assert_eq!((timeline.recorded_s, timeline.location.as_deref()), (Some(86_400), Some("+1+2/")));
    let defaults: Vec<_> = timeline.tracks.iter().map(|track| track.flags.default).collect();
    assert_eq!(defaults, [Some(true), Some(false)]);
}

/// Bytes with others in their place.
fn bytes_at(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    [&bytes[..at], new, &bytes[at + new.len()..]].concat()
}

#[test]
fn tracks_that_demuxers_pass_over_are_listed() {
    let of_kind = |number: u32, kind: &[u8; 4], more: &[u8]| {
        let handler = make(b"hdlr", &[&[0; 8][..], kind].concat());
        let header = make(b"tkhd", &numbers(&[1, 0, 0, number]));
        make(b"trak", &[header, more.to_vec(), make(b"mdia", &handler)].concat())
    };
    let chapters = make(b"tref", &make(b"chap", &numbers(&[2])));
    let tracks = [
        of_kind(1, b"vide", &chapters),
        of_kind(2, b"text", &[]),
        of_kind(3, b"text", &[]),
        of_kind(4, b"tmcd", &[]),
        of_kind(5, b"meta", &[]),
    ];
    let mut made = file(&[make(b"ftyp", b"qt  "), make(b"moov", &[movie(2000), tracks.concat()].concat())]);
    let listed = Timeline::read(&mut made).unwrap().tracks;
    let silent: Vec<_> = listed.iter().map(|track| (track.number, track.silent)).collect();
    let expected =
        [None, None, Some("subtitles"), Some("timecode track"), Some("timed metadata")].into_iter().zip(1..);
    assert_eq!(silent, expected.map(|(what, number)| (number, what)).collect::<Vec<_>>());
}

#[test]
fn palettes_and_orders_of_samples_are_read() {
    let entry = |kind: &[u8; 4], depth: u8, table: &[u8]| {
        let head = [&[0; 75][..], &[depth], table].concat();
        let table = make(b"stsd", &[numbers(&[0, 1]), make(kind, &head)].concat());
        let handler = make(b"hdlr", &[&[0; 8][..], b"vide"].concat());
        let media = make(b"mdia", &[handler, make(b"minf", &make(b"stbl", &table))].concat());
        let track = make(b"trak", &[make(b"tkhd", &numbers(&[0, 0, 0, 6])), media].concat());
        let mut made = file(&[make(b"ftyp", b"qt  "), make(b"moov", &[movie(2000), track].concat())]);
        let timeline = Timeline::read(&mut made).unwrap();
        (timeline.packed.get(&6).copied(), timeline.palettes.get(&6).cloned())
    };
    // Two colours, of 16 bits each.
    let colours =
        [&[0, 0][..], &[0; 4], &[0x80, 0], &[0, 1], &[0, 0, 1, 1, 2, 2, 3, 3], &[0, 1, 4, 4, 5, 5, 6, 6]];
    let (packed, palette) = entry(b"smc ", 8, &colours.concat());
    assert_eq!(packed, None);
    assert_eq!(palette.unwrap()[..12], [3, 2, 1, 255, 6, 5, 4, 255, 0, 0, 0, 0]);
    assert_eq!(entry(b"smc ", 8, &[0xff, 0xff]), (None, None), "the standard one");
    assert_eq!(entry(b"raw ", 16, &[0xff, 0xff]), (Some(Packed::Rgb555), None));
    assert_eq!(entry(b"raw ", 24, &[0xff, 0xff]), (None, None));
    assert_eq!(entry(b"v308", 24, &[0xff, 0xff]), (Some(Packed::Vyu), None));
}

#[test]
fn a_file_says_when_it_was_recorded() {
    let recorded = |header: &[u8]| {
        let mut file = file(&[make(b"ftyp", b"isom"), make(b"moov", &make(b"mvhd", header))]);
        recorded_s(&mut file).unwrap()
    };
    let day = 2_082_844_800_u32 + 86_400;
    assert_eq!(recorded(&numbers(&[0, day, 0, 1000, 9])), Some(86_400));
    assert_eq!(recorded(&numbers(&[0, 0, 0, 1000, 9])), None, "not known");
    assert_eq!(recorded(&numbers(&[1 << 24, 0, day, 0, 0, 1000, 0, 9])), Some(86_400), "in 64 bits");
    assert_eq!(recorded(&[0; 4]), None);
}
