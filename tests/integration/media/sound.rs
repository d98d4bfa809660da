//! Sound is complete and at its time, whatever its beginning, its changes of format or its tags are.

use std::fs;
use std::path::Path;

use sphereface::media::{Input, Source, SourceOptions};
use tempfile::TempDir;

use crate::media::clips::{
    H264, Transcoded, assert_same_packets, audio_codecs, ffmpeg, frame_times, output_of, packets, probe,
    sine, tools, transcode,
};

const PICTURES: &str = "-f lavfi -i testsrc2=size=64x48:rate=25:duration=1.2";
/// The allowed delay of sound in seconds: mpegpsdemux closes empty gaps.
const LONGER: &str = "-f lavfi -i testsrc2=size=64x48:rate=25:duration=2.2";
const TINY: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

/// A clip whose pictures start `later_s` after its sound.
fn shifted(path: &Path, later_s: f64, video: &str, sound: &str) {
    let (picture_s, sound_s) = (later_s.max(0.0), (-later_s).max(0.0));
    let how = format!(
        "-itsoffset {picture_s} {LONGER} -itsoffset {sound_s} -f lavfi -i sine=440:duration=1.5:sample_rate=48000 \
         -map 0 -map 1 {video} -fps_mode passthrough -c:a {sound}"
    );
    ffmpeg(&how, path);
}

/// Times of the sound packets since the first picture.
fn since_picture(path: &Path) -> Vec<f64> {
    let times = probe(path, "v:0", "packet=pts_time", &[]);
    let times = times.iter().filter_map(|line| line.split(',').next()?.parse::<f64>().ok());
    let first = times.fold(f64::INFINITY, f64::min);
    packets(path, 0).iter().map(|(pts_s, _)| pts_s - first).collect()
}

/// Copied sound has all its packets at their times; sound that is encoded again keeps its begin and end.
fn assert_sound_kept(input: &Path, output: &Path, done: &Transcoded) {
    let what = format!("{} -> {}", input.display(), output.display());
    let (before, after) = (since_picture(input), since_picture(output));
    let (codec, written) = (audio_codecs(input), audio_codecs(output));
    // A warning is given for lossless sound that is encoded again, and for no other.
    let told = |warning: &String| warning.contains("which is not lossless");
    let (lossless, others): (Vec<&String>, Vec<&String>) = done.warnings.iter().partition(|one| told(one));
    assert!(others.is_empty(), "{what}: {others:?}");
    let is_lossless = |codec: &str| codec.starts_with("pcm") || codec == "flac";
    let lost = is_lossless(&codec[0]) && !is_lossless(&written[0]);
    assert_eq!(!lossless.is_empty(), lost, "{what}: {lossless:?}");
    if codec == written && !codec[0].starts_with("pcm") {
        assert_eq!(before.len(), after.len(), "{what}: packets");
        let off = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 0.0032, "{what}: {off} s off, {before:?} {after:?}");
        if input.extension() != Some("ts".as_ref()) {
            let bytes = |path: &Path| packets(path, 0).into_iter().map(|packet| packet.1).collect::<Vec<_>>();
            assert_eq!(bytes(input), bytes(output), "{what}");
        }
    } else {
        assert!((before[0] - after[0]).abs() < 0.06, "{what}: begins {} {}", before[0], after[0]);
        let ends = (before.last().unwrap(), after.last().unwrap());
        assert!((ends.0 - ends.1).abs() < 0.08, "{what}: ends {ends:?}");
    }
}

#[test]
fn sound_before_and_after_the_first_picture_comes_out_whole_and_at_its_time() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mpeg = "-c:v mpeg2video -g 12";
    let vp8 = "-c:v libvpx -deadline realtime -cpu-used 8";
    for (extension, video, sound) in [
        ("ts", TINY, "aac"),
        ("ts", TINY, "ac3"),
        ("ts", mpeg, "mp2"),
        ("ts", TINY, "libopus"),
        ("flv", TINY, "aac"),
        ("flv", TINY, "libmp3lame -ar 44100"),
        ("mpg", mpeg, "mp2"),
        ("vob", mpeg, "ac3"),
        ("mp4", TINY, "aac"),
        ("mp4", TINY, "libopus"),
        ("mov", TINY, "alac"),
        ("mov", TINY, "pcm_s16le"),
        ("mkv", TINY, "flac"),
        ("mkv", TINY, "eac3"),
        ("mkv", TINY, "libopus"),
        ("webm", vp8, "libvorbis"),
        ("webm", vp8, "libopus"),
    ] {
        for later_s in [2.0, -2.0] {
            let codec = sound.split(' ').next().unwrap();
            let clip = at(&format!("{codec} {later_s}.{extension}"));
            shifted(&clip, later_s, video, sound);
            // In WebM, sound is encoded again whatever its codec was.
            let targets = if extension == "ts" { &["mp4", "mkv", "webm"][..] } else { &["mp4", "mkv"] };
            for target in targets {
                let output = at(&format!("{codec} {later_s} {extension}.{target}"));
                let done = transcode(&clip, &output);
                assert_sound_kept(&clip, &output, &done);
                fs::remove_file(output).unwrap();
            }
        }
    }
}

/// Begin of a beep, in seconds since the first picture.
fn beep(path: &Path) -> f64 {
    let name = path.to_str().unwrap();
    let arguments =
        ["-v", "error", "-copyts", "-i", name, "-vn", "-af", "aresample=async=1:first_pts=0", "-ac", "1"];
    let sound = output_of("ffmpeg", &[&arguments[..], &["-ar", "48000", "-f", "s16le", "-"]].concat());
    let loud = |s: &[u8]| i16::from_le_bytes([s[0], s[1]]).unsigned_abs() > 6000;
    let begins = sound.chunks_exact(2).position(loud).unwrap() as f64 / 48_000.0;
    begins - frame_times(path)[0].max(0.0)
}

#[test]
fn sound_that_is_encoded_anew_is_not_late() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, rate, codec) in
        [("a.mkv", 48_000, "pcm_s16le"), ("b.mkv", 44_100, "flac"), ("c.mkv", 48_000, "eac3")]
    {
        let sound = format!(
            "-f lavfi -i aevalsrc='if(gte(t,0.5),0.8*sin(6283*t),0)':duration=1.2:sample_rate={rate}"
        );
        ffmpeg(&format!("{PICTURES} {sound} {TINY} -c:a {codec}"), &at(name));
        for target in ["mp4", "webm", "mkv"] {
            let output = at(&format!("{name}.{target}"));
            transcode(&at(name), &output);
            let (before, after) = (beep(&at(name)), beep(&output));
            assert!((before - after).abs() < 0.004, "{name} -> {target}: beep at {after}, was {before}");
        }
    }
}

#[test]
fn opus_in_mp4_says_in_big_endian_how_much_is_left_out() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    shifted(&at("a.webm"), 0.0, "-c:v libvpx -deadline realtime -cpu-used 8", "libopus");
    transcode(&at("a.webm"), &at("a.mp4"));
    let bytes = fs::read(at("a.mp4")).unwrap();
    let header = bytes.windows(4).position(|window| window == b"dOps").unwrap();
    assert_eq!(bytes[header + 6..][..6], [0x01, 0x38, 0, 0, 0xbb, 0x80]);
    assert!((beep_free(&at("a.webm")) - beep_free(&at("a.mp4"))).abs() < 0.025);
}

/// Duration of decoded sound in seconds.
fn beep_free(path: &Path) -> f64 {
    let name = path.to_str().unwrap();
    let arguments = ["-v", "error", "-i", name, "-vn", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"];
    output_of("ffmpeg", &arguments).len() as f64 / 96_000.0
}

/// Concatenates clips byte for byte.
fn joined(parts: &[&Path], path: &Path) {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| fs::read(part).unwrap()).collect();
    fs::write(path, bytes).unwrap();
}

#[test]
fn sound_whose_rate_and_channels_change_goes_on() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let part = |name: &str, sound: &str| {
        ffmpeg(&format!("{PICTURES} {} {TINY} {sound}", sine(440)), &at(name));
    };
    for (sound, other) in [
        ("-c:a aac -ac 2 -ar 44100", "-c:a aac -ac 1 -ar 22050"),
        ("-c:a aac -ac 1 -ar 48000", "-c:a ac3 -ac 2 -ar 48000"),
        ("-c:a mp2 -ac 2 -ar 48000", "-c:a mp2 -ac 1 -ar 32000"),
    ] {
        part("a.ts", sound);
        part("b.ts", other);
        joined(&[&at("a.ts"), &at("b.ts")], &at("both.ts"));
        for target in ["mp4", "mkv", "webm"] {
            let output = at(&format!("both.{target}"));
            let done = transcode(&at("both.ts"), &output);
            let what = format!("{sound} then {other} -> {target}: {:?}", done.warnings);
            assert_eq!(done.frames.len(), 60, "{what}");
            assert_eq!(done.warnings, Vec::<String>::new(), "{what}");
            let times: Vec<f64> = since_picture(&output);
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{what}: {times:?}");
            let gap = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
            // The sound of the first part is shorter than its pictures.
            assert!(gap < 0.35, "{what}: a gap of {gap} s");
            assert!(*times.last().unwrap() > 2.0, "{what}: ends at {:?}", times.last());
            assert!(beep_free(&output) > 1.9, "{what}: {} s can be decoded", beep_free(&output));
        }
    }
}

#[test]
fn sound_that_outlasts_the_pictures_is_whole_where_transport_streams_are_joined() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (sound, packet_s) in
        [("aac", 1024.0 / 48_000.0), ("mp2", 1152.0 / 48_000.0), ("ac3", 1536.0 / 48_000.0)]
    {
        // Units of a transport stream hold many packets: the last one begins before the last picture ends.
        let tone = "-f lavfi -i sine=440:duration=1.37:sample_rate=48000";
        ffmpeg(&format!("{PICTURES} {tone} {TINY} -c:a {sound}"), &at("a.ts"));
        joined(&[&at("a.ts"), &at("a.ts"), &at("a.ts")], &at("all.ts"));
        for target in ["mkv", "mp4"] {
            let output = at(&format!("all.{target}"));
            let done = transcode(&at("all.ts"), &output);
            let what = format!("{sound} -> {target}");
            assert_eq!(done.warnings, Vec::<String>::new(), "{what}");
            assert_eq!(done.frames.len(), 90, "{what}");
            let times = since_picture(&output);
            assert_eq!(times.len(), 3 * packets(&at("a.ts"), 0).len(), "{what}");
            let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
            let (least, most) =
                steps.fold((f64::INFINITY, 0.0), |(a, b), step| (f64::min(a, step), f64::max(b, step)));
            assert!(least > packet_s - 0.003, "{what}: sound goes back, by steps of {least} s");
            assert!(most < packet_s + 0.05, "{what}: a gap of {most} s");
        }
    }
}

/// QuickTime says in a box of its own that the lower bytes come first.
#[test]
fn uncompressed_sound_of_either_order_of_bytes_is_the_same_sound() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let samples = |path: &Path| {
        output_of(
            "ffmpeg",
            &["-v", "error", "-i", path.to_str().unwrap(), "-f", "s16le", "-ac", "1", "-ar", "44100", "-"],
        )
    };
    for codec in ["s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be", "f64le", "f64be"] {
        let clip = at(&format!("{codec}.mov"));
        ffmpeg(&format!("{PICTURES} {} {TINY} -c:a pcm_{codec}", sine(440)), &clip);
        let before = samples(&clip);
        for target in ["mkv", "mp4"] {
            let output = at(&format!("{codec}.{target}"));
            transcode(&clip, &output);
            let after = samples(&output);
            let pairs = before.as_chunks::<2>().0.iter().zip(after.as_chunks::<2>().0);
            let values = pairs.map(|(a, b)| [*a, *b].map(|two| f64::from(i16::from_le_bytes(two))));
            let (mut both, mut squares) = (0.0, [0.0; 2]);
            // Sound that is coded again is louder or softer by little, and none of it is another.
            for [a, b] in values.skip(4410).take(22_050) {
                both += a * b;
                squares = [squares[0] + a * a, squares[1] + b * b];
            }
            let correlation = both / (squares[0] * squares[1]).sqrt();
            assert!(correlation > 0.99, "{codec} -> {target}: {correlation}");
            assert!((0.8..1.25).contains(&(squares[1] / squares[0])), "{codec} -> {target}: {squares:?}");
        }
    }
}

/// As digital television sends it.
#[test]
fn latm_sound_is_whole_from_its_first_packet_on() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, sound) in [("stereo", "-ac 2 -ar 44100"), ("mono", "-ac 1 -ar 24000")] {
        let (plain, latm) = (at(&format!("{name}.mp4")), at(&format!("{name}.ts")));
        ffmpeg(&format!("{PICTURES} {} {TINY} -c:a aac {sound}", sine(440)), &plain);
        ffmpeg(&format!("-i {} -c copy -mpegts_flags +latm", plain.display()), &latm);
        assert_eq!(audio_codecs(&latm)[0], "aac_latm");
        for target in ["mp4", "mkv"] {
            let output = at(&format!("{name}.out.{target}"));
            let done = transcode(&latm, &output);
            assert_eq!((done.summary.audio_copied, done.warnings.len()), (1, 0), "{:?}", done.warnings);
            assert_same_packets(&output, &plain, 0);
            let (before, after) = (since_picture(&plain), since_picture(&output));
            assert!((before[0] - after[0]).abs() < 0.002, "{target}: {} s and {} s", before[0], after[0]);
        }
    }
}

#[test]
fn sound_that_outlasts_the_pictures_is_not_cut_short() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let long = "-f lavfi -i sine=440:duration=3";
    for name in ["a.mp4", "a.mkv"] {
        ffmpeg(&format!("{PICTURES} {long} {TINY} -c:a aac"), &at(name));
        // Without an output, the sound is discarded.
        let mut source = Source::open(&Input::File(at(name)), &SourceOptions::default()).unwrap();
        while source.next_frame().unwrap().is_some() {}
        assert_eq!(source.take_warnings(), Vec::<String>::new(), "{name}");
        assert_eq!(transcode(&at(name), &at("out.mp4")).warnings, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn languages_and_titles_of_sound_are_kept() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tags = "-metadata:s:a:0 language=deu -metadata:s:a:1 language=fra";
    let how = format!("{PICTURES} {} {} -map 0 -map 1 -map 2 {H264} -c:a aac {tags}", sine(440), sine(880));
    for name in ["a.mkv", "a.mp4", "a.ts"] {
        ffmpeg(&how, &at(name));
        for target in ["mp4", "mkv", "webm"] {
            let output = at(&format!("{name}.{target}"));
            transcode(&at(name), &output);
            let languages = probe(&output, "a", "stream_tags=language", &[]);
            let known = [["deu", "fra"], ["ger", "fre"], ["ger", "fra"]];
            assert!(known.iter().any(|known| languages == known), "{name} -> {target}: {languages:?}");
        }
    }
}

#[test]
fn unknown_languages_and_flags_of_tracks_are_kept() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("s.srt"), "1\n00:00:00,200 --> 00:00:00,700\nHallo\n").unwrap();
    let inputs = format!("{PICTURES} {} {} -i {}", sine(440), sine(880), at("s.srt").display());
    let tags = "-metadata:s:v:0 language=swe -metadata:s:a:1 language=deu -disposition:v:0 default -disposition:a:0 0 -disposition:a:1 default+original";
    let how = format!("{inputs} -map 0 -map 1 -map 2 {H264} -c:a aac {tags}");
    ffmpeg(&format!("{how} -map 3 -c:s srt -disposition:s:0 forced"), &at("a.mkv"));
    ffmpeg(&how, &at("a.mp4"));
    ffmpeg(&format!("{inputs} -map 0 -map 1 -map 2 {H264} -c:a aac"), &at("a.ts"));
    for (name, language, sounds, original) in [
        ("a.mkv", "ger", ["0", "1"], "1"),
        ("a.mp4", "ger", ["0", "1"], "0"),
        ("a.ts", "und", ["1", "0"], "0"),
    ] {
        for target in ["mkv", "webm", "mp4"] {
            let output = at(&format!("{name}.{target}"));
            transcode(&at(name), &output);
            let what = format!("{name} -> {target}");
            let flag =
                |stream: &str, flag: &str| probe(&output, stream, &format!("stream_disposition={flag}"), &[]);
            assert_eq!(flag("v", "default"), ["1"], "{what}");
            assert_eq!(flag("a", "default"), sounds, "{what}");
            // ffprobe does not print an unknown language of Matroska, and prints the T codes of MP4.
            let told = |stream: &str| {
                let told = probe(&output, stream, "stream_tags=language", &[]);
                told.first().map_or("und", |code| if code == "deu" { "ger" } else { code }).to_owned()
            };
            assert_eq!([told("a:0"), told("a:1")], ["und", language], "{what}");
            assert_eq!(told("v:0"), if name == "a.ts" { "und" } else { "swe" }, "{what}");
            if target == "mkv" {
                assert_eq!(flag("a:1", "original"), [original], "{what}");
                let subtitles: &[&str] = if name == "a.mkv" { &["1"] } else { &[] };
                assert_eq!(flag("s", "forced"), subtitles, "{what}");
            }
        }
    }
}

#[test]
fn titles_of_sound_do_not_become_that_of_the_file() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tags = "-metadata:s:a:0 title=First -metadata:s:a:1 title=Second";
    let how = format!("{PICTURES} {} {} -map 0 -map 1 -map 2 {H264} -c:a aac {tags}", sine(440), sine(880));
    ffmpeg(&how, &at("a.mkv"));
    for (target, titles, told) in [("mkv", &["First", "Second"][..], 0), ("mp4", &[], 2)] {
        let output = at(&format!("out.{target}"));
        let done = transcode(&at("a.mkv"), &output);
        assert_eq!(probe(&output, "a", "stream_tags=title", &[]), titles, "{target}");
        assert_eq!(probe(&output, "v", "format_tags=title", &[]), Vec::<String>::new(), "{target}");
        let found = done.warnings.iter().filter(|text| text.contains("the title of a sound track")).count();
        assert_eq!((found, done.warnings.len()), (told, told), "{target}: {:?}", done.warnings);
    }
}

#[test]
fn subtitles_of_every_kind_are_kept_or_told() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("s.srt"), "1\n00:00:00,200 --> 00:00:00,700\nHallo\n").unwrap();
    let subtitles = at("s.srt");
    for (name, codec) in [("ass.mkv", "ass"), ("srt.mkv", "srt")] {
        ffmpeg(
            &format!("{PICTURES} -i {} -map 0 -map 1 {TINY} -c:s {codec}", subtitles.display()),
            &at(name),
        );
        for target in ["mkv", "mp4", "webm"] {
            let output = at(&format!("{name}.out.{target}"));
            let done = transcode(&at(name), &output);
            let packets = probe(&output, "s", "packet=pts_time", &[]).len();
            let told = done.warnings.iter().filter(|text| text.contains("subtitles")).count();
            let keeps = target == "mkv";
            assert_eq!((packets, told), if keeps { (1, 0) } else { (0, 1) }, "{name}: {:?}", done.warnings);
        }
    }
}

#[test]
fn title_chapters_and_subtitles_are_kept_or_named() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(
        at("s.srt"),
        "1\n00:00:00,200 --> 00:00:00,700\nHallo\n\n2\n00:00:00,800 --> 00:00:01,000\nZwei\n",
    )
    .unwrap();
    fs::write(
        at("m.txt"),
        ";FFMETADATA1\ntitle=Das Fest\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=Anfang\n\
         [CHAPTER]\nTIMEBASE=1/1000\nSTART=500\nEND=1000\ntitle=Ende\n",
    )
    .unwrap();
    let (subtitles, meta) = (at("s.srt"), at("m.txt"));
    let inputs = format!("{PICTURES} {} -i {} -i {}", sine(440), subtitles.display(), meta.display());
    let maps = "-map 0 -map 1 -map 2 -map_metadata 3 -map_chapters 3 -metadata:s:s:0 language=deu";
    ffmpeg(&format!("{inputs} {maps} {TINY} -c:a aac -c:s srt"), &at("a.mkv"));
    ffmpeg(&format!("{inputs} {maps} {TINY} -c:a aac -c:s mov_text"), &at("a.mp4"));
    for name in ["a.mkv", "a.mp4"] {
        for (target, keeps) in [("mkv", true), ("mp4", false), ("webm", false)] {
            let output = at(&format!("{name}.{target}"));
            let done = transcode(&at(name), &output);
            let what = format!("{name} -> {target}: {:?}", done.warnings);
            let tags = probe(&output, "v", "format_tags", &[]).join(",");
            assert!(tags.contains("Das Fest"), "{what}: {tags}");
            let chapters = probe(&output, "v", "chapter=start_time:chapter_tags=title", &["-show_chapters"]);
            let titles: Vec<&str> = chapters.iter().filter_map(|line| line.rsplit(',').next()).collect();
            assert_eq!(titles, ["Anfang", "Ende"], "{what}: {chapters:?}");
            let texts = probe(&output, "s", "packet=pts_time", &[]);
            assert_eq!(texts.len(), if keeps { 2 } else { 0 }, "{what}: {texts:?}");
            let told = done.warnings.iter().filter(|text| text.contains("subtitles")).count();
            assert_eq!(told, usize::from(!keeps), "{what}");
        }
    }
}

#[test]
fn false_cut_short_sound_that_begins_and_ends_late_is_no_loss() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["a.mp4", "a.mkv", "a.ts"] {
        shifted(&at(name), -1.8, TINY, "aac");
        let mut source = Source::open(&Input::File(at(name)), &SourceOptions::default()).unwrap();
        while source.next_frame().unwrap().is_some() {}
        assert_eq!(source.take_warnings(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn lossless_sound_and_channels_that_are_lost_are_told() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tone = "-f lavfi -i sine=440:duration=1:sample_rate=48000";
    for (name, how, lossless) in [
        ("stereo.mkv", "-ac 2 -c:a flac", Some("FLAC")),
        ("wide.mkv", "-ac 8 -c:a flac", Some("FLAC")),
        ("wide.mov", "-ac 8 -c:a pcm_s16le", Some("PCM")),
        ("apple.mp4", "-ac 2 -c:a alac", Some("ALAC")),
        ("lossy.mkv", "-ac 2 -c:a libvorbis", None),
        ("six.mkv", "-ac 6 -c:a ac3", None),
    ] {
        ffmpeg(&format!("{PICTURES} {tone} {TINY} {how}"), &at(name));
        for target in ["mp4", "mkv", "webm"] {
            let output = at(&format!("{name}.{target}"));
            let done = transcode(&at(name), &output);
            let what = format!("{name} -> {target}: {:?}", done.warnings);
            let written = audio_codecs(&output);
            let anew = matches!(written[0].as_str(), "aac" | "opus");
            let told = |text: &str| done.warnings.iter().filter(|said| said.contains(text)).count();
            assert_eq!(told("not lossless"), usize::from(anew && lossless.is_some()), "{what}");
            if let Some(codec) = lossless.filter(|_| anew) {
                assert_eq!(told(&format!("a sound track in {codec} is encoded again")), 1, "{what}");
            }
            let channels = |path: &Path| probe(path, "a", "stream=channels", &[])[0].parse::<u32>().unwrap();
            let fewer = channels(&output) < channels(&at(name));
            assert_eq!(told("is mixed down"), usize::from(fewer), "{what}");
        }
    }
}

/// A file whose sound begins later by its edit list than before.
fn with_sound_from(file: &[u8], ticks: u32) -> Vec<u8> {
    let mut file = file.to_vec();
    let handler = file.windows(4).rposition(|window| window == b"soun").unwrap();
    // The only entry, after version, flags and number: its length, and the place where it begins.
    let list = file[..handler].windows(4).rposition(|window| window == b"elst").unwrap() + 12;
    assert_eq!(file[list - 4..list], 1u32.to_be_bytes());
    let begin = u32::from_be_bytes(file[list + 4..list + 8].try_into().unwrap());
    file[list + 4..list + 8].copy_from_slice(&(begin + ticks).to_be_bytes());
    // In ticks of the movie, of which there are 1000 per second.
    let length = u32::from_be_bytes(file[list..list + 4].try_into().unwrap());
    file[list..list + 4].copy_from_slice(&(length - ticks / 48).to_be_bytes());
    file
}

#[test]
fn sound_that_an_edit_list_hides_is_not_heard() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for sound in ["aac", "libmp3lame", "libopus"] {
        for hidden_ms in [150, 300, 450, 800] {
            // One beep that is hidden but for its last 50 ms of silence, and one that is heard.
            let hidden_s = f64::from(hidden_ms) / 1000.0;
            let beeps = format!("lt(t,{})+between(t,1,1.1)", hidden_s - 0.05);
            let source = format!(
                "-f lavfi -i aevalsrc='if({beeps},0.8*sin(6283*t),0)':duration=1.5:sample_rate=48000"
            );
            ffmpeg(&format!("{PICTURES} {source} {TINY} -c:a {sound}"), &at("whole.mp4"));
            fs::write(at("cut.mp4"), with_sound_from(&fs::read(at("whole.mp4")).unwrap(), hidden_ms * 48))
                .unwrap();
            for target in ["mkv", "mp4", "webm"] {
                let output = at(&format!("out.{target}"));
                transcode(&at("cut.mp4"), &output);
                let begins = beep(&output);
                let what = format!("{sound}, {hidden_ms} ms hidden -> {target}");
                assert!((begins - (1.0 - hidden_s)).abs() < 0.01, "{what}: heard from {begins} s on");
            }
        }
    }
}

#[test]
fn chains_of_ogg_follow_each_other() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for sound in ["libvorbis", "flac", "libopus"] {
        for (name, tone) in [("a.ogv", 440), ("b.ogv", 880), ("c.ogv", 660)] {
            ffmpeg(&format!("{PICTURES} {} -c:v libtheora -c:a {sound} -shortest", sine(tone)), &at(name));
        }
        joined(&[&at("a.ogv"), &at("b.ogv"), &at("c.ogv")], &at("all.ogv"));
        let part_s = beep_free(&at("a.ogv"));
        // FFmpeg does not count the pictures on the last page of such a file.
        let part = transcode(&at("a.ogv"), &at("part.mkv")).frames.len();
        assert!((25..=30).contains(&part), "{sound}: {part}");
        for target in ["mkv", "mp4", "webm"] {
            let output = at(&format!("all.{target}"));
            let done = transcode(&at("all.ogv"), &output);
            let what = format!("{sound} -> {target}: {:?}", done.warnings);
            assert_eq!(done.frames.len(), 3 * part, "{what}");
            assert_eq!(frame_times(&output).len(), 3 * part, "{what}");
            let heard_s = beep_free(&output);
            assert!((heard_s - 3.0 * part_s).abs() < 0.15, "{what}: {heard_s} s of {part_s} s each");
        }
    }
}
