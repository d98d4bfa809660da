//! Video in and out, on clips made by ffmpeg: frames, times, sound, and inputs that bite.
#![cfg(feature = "video")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use sphereface::media::{
    Audio, Codec, Container, Frame, Input, MediaError, Reconnect, Sink, SinkOptions, SinkSummary, Source,
    SourceInfo, SourceOptions, StopHandle, View,
};
use tempfile::TempDir;

/// Whether the tools that make and measure clips are here; says so when not.
fn tools() -> bool {
    let there = ["ffmpeg", "ffprobe"]
        .iter()
        .all(|tool| Command::new(tool).arg("-version").stdout(Stdio::null()).status().is_ok());
    if !there {
        println!("skipped: ffmpeg and ffprobe are not installed");
    }
    there
}

fn output_of(tool: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    output.stdout
}

fn ffmpeg(arguments: &str, output: &Path) {
    let mut all = vec!["-v", "error", "-nostdin", "-y", "-threads", "1"];
    all.extend(arguments.split_whitespace());
    all.push(output.to_str().unwrap());
    output_of("ffmpeg", &all);
}

/// Lines of one entry of a stream: `probe(path, "v:0", "frame=pts_time", &[])`.
fn probe(path: &Path, stream: &str, entry: &str, more: &[&str]) -> Vec<String> {
    let mut arguments =
        vec!["-v", "quiet", "-select_streams", stream, "-show_entries", entry, "-of", "csv=p=0"];
    arguments.extend(more);
    arguments.push(path.to_str().unwrap());
    let text = String::from_utf8(output_of("ffprobe", &arguments)).unwrap();
    text.lines().map(|line| line.trim_end_matches(',').to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Times of all frames in seconds, as a decoder gives them.
fn frame_times(path: &Path) -> Vec<f64> {
    let lines = probe(path, "v:0", "frame=pts_time", &[]);
    lines.iter().map(|line| line.split(',').next().unwrap().parse().unwrap_or(f64::NAN)).collect()
}

/// Time and hash of every sound packet of a track, priming before time 0 included.
fn packets(path: &Path, track: usize) -> Vec<(f64, String)> {
    let stream = format!("a:{track}");
    let name = path.to_str().unwrap();
    let json = output_of(
        "ffprobe",
        &[
            "-v",
            "quiet",
            "-select_streams",
            &stream,
            "-show_entries",
            "packet=pts_time,data_hash",
            "-show_data_hash",
            "md5",
            "-of",
            "json",
            name,
        ],
    );
    let found: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let text = |packet: &serde_json::Value, key: &str| packet[key].as_str().unwrap().to_owned();
    let packets = found["packets"].as_array().unwrap().iter();
    packets.map(|packet| (text(packet, "pts_time").parse().unwrap(), text(packet, "data_hash"))).collect()
}

/// The packets of a track are those of the input, byte for byte. Of MP4's edit lists the other
/// containers know nothing: what one hides before time 0 is left out there.
fn assert_same_packets(output: &Path, input: &Path, track: usize) {
    let mut before = if input.extension() == Some("ts".as_ref()) {
        // There each packet repeats what other containers say once.
        let plain = input.with_extension("plain.mkv");
        ffmpeg(&format!("-i {} -c copy", input.display()), &plain);
        // And tsdemux begins with the first picture.
        let begin = frame_times(&plain)[0];
        packets(&plain, track).into_iter().filter(|(pts_s, _)| *pts_s >= begin).collect()
    } else {
        packets(input, track)
    };
    if input.extension() == Some("mp4".as_ref()) && output.extension() != Some("mp4".as_ref()) {
        before.retain(|(pts_s, _)| *pts_s >= 0.0);
    }
    let after = packets(output, track);
    let first = before.iter().zip(&after).position(|(a, b)| a.1 != b.1);
    assert!(
        before.len() == after.len() && first.is_none(),
        "{}: track {track} has {} packets, was {}; the first that differs is {first:?}",
        output.display(),
        after.len(),
        before.len()
    );
    assert!(!before.is_empty(), "{}: track {track} has no packet", input.display());
}

fn audio_codecs(path: &Path) -> Vec<String> {
    probe(path, "a", "stream=codec_name", &[])
}

struct Transcoded {
    info: SourceInfo,
    frames: Vec<(u64, u64)>,
    warnings: Vec<String>,
    summary: SinkSummary,
}

fn transcode_with(input: &str, output: &Path, options: &SinkOptions) -> Result<Transcoded, MediaError> {
    let input = Input::parse(input)?;
    let container = Sink::check(output, &input, options)?;
    let opening = SourceOptions { container: Some(container), ..SourceOptions::default() };
    let mut source = Source::open(&input, &opening)?;
    let audio = source.take_audio();
    let mut sink = Sink::create(output, source.info(), audio, options)?;
    let mut frames = Vec::new();
    while let Some(frame) = source.next_frame()? {
        assert_eq!(frame.index, frames.len() as u64, "frames of a file have no gaps");
        frames.push((frame.pts_ns, frame.duration_ns));
        sink.write(frame)?;
    }
    let warnings = source.take_warnings();
    let summary = sink.finish()?;
    Ok(Transcoded { info: source.info().clone(), frames, warnings, summary })
}

fn transcode(input: &Path, output: &Path) -> Transcoded {
    transcode_with(input.to_str().unwrap(), output, &SinkOptions::default())
        .unwrap_or_else(|error| panic!("{} -> {}: {error}", input.display(), output.display()))
}

/// Frames in = frames out, at the same times; returns what is to be looked at further.
fn same_frames(input: &Path, output: &Path) -> Transcoded {
    let what = format!("{} -> {}", input.display(), output.display());
    let done = transcode(input, output);
    let (expected, written) = (frame_times(input), frame_times(output));
    assert_eq!(done.frames.len(), expected.len(), "{what}: frames decoded");
    assert_eq!(done.summary.frames, expected.len() as u64, "{what}: frames written");
    assert_eq!(written.len(), expected.len(), "{what}: frames in the output");
    let shift = expected[0] - done.frames[0].0 as f64 / 1e9;
    for (n, ((expected, written), (pts_ns, _))) in expected.iter().zip(&written).zip(&done.frames).enumerate()
    {
        let expected = expected - shift;
        let decoded = *pts_ns as f64 / 1e9;
        assert!((decoded - expected).abs() < 0.0021, "{what}: frame {n} at {decoded}, not {expected}");
        assert!(
            (written - expected).abs() < 0.0021,
            "{what}: frame {n} written at {written}, not {expected}"
        );
    }
    assert!(done.frames.windows(2).all(|w| w[0].0 < w[1].0), "{what}: times increase");
    for pair in done.frames.windows(2) {
        assert_eq!(pair[0].0 + pair[0].1, pair[1].0, "{what}: a frame lasts until the next");
    }
    let folder = output.parent().unwrap();
    let left = fs::read_dir(folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(left.count(), 0, "{what}: a temporary file is left");
    done
}

const PICTURES: &str = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1";

fn sine(frequency: u32) -> String {
    format!("-f lavfi -i sine=frequency={frequency}:duration=1:sample_rate=48000")
}

const H264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

#[test]
fn every_codec_and_container_keeps_its_frames_and_its_sound() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (a, b) = (sine(440), sine(880));
    // (clip, how it is made, [(output extension, sound codecs there, how many are copies)])
    type Outputs<'a> = &'a [(&'a str, &'a [&'a str], usize)];
    let cases: &[(&str, String, Outputs)] = &[
        (
            "h264_aac.mp4",
            format!("{PICTURES} {a} -bf 2 {H264} -c:a aac"),
            &[("mp4", &["aac"], 1), ("mkv", &["aac"], 1), ("webm", &["opus"], 0)],
        ),
        ("aac.ts", format!("{PICTURES} {a} {H264} -c:a aac"), &[("mp4", &["aac"], 1)]),
        (
            "h264_mp3.mp4",
            format!("{PICTURES} {a} {H264} -c:a libmp3lame"),
            &[("mp4", &["mp3"], 1), ("mkv", &["mp3"], 1)],
        ),
        (
            "two.mkv",
            format!("{PICTURES} {a} {b} -map 0 -map 1 -map 2 {H264} -c:a:0 aac -c:a:1 flac"),
            &[("mkv", &["aac", "flac"], 2), ("mp4", &["aac", "aac"], 1)],
        ),
        (
            "vp8_opus.webm",
            format!("{PICTURES} {a} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus"),
            &[("webm", &["opus"], 1), ("mp4", &["opus"], 1), ("mkv", &["opus"], 1)],
        ),
        (
            "vorbis.webm",
            format!("{PICTURES} {a} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libvorbis"),
            &[("webm", &["vorbis"], 1)],
        ),
        (
            "vp9_silent.webm",
            format!("{PICTURES} -c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
            &[("webm", &[], 0), ("mp4", &[], 0)],
        ),
        (
            "mpeg4_mp3.avi",
            format!("{PICTURES} {a} -c:v mpeg4 -c:a libmp3lame"),
            &[("mkv", &["mp3"], 1), ("mp4", &["mp3"], 1)],
        ),
        (
            "mjpeg_pcm.mov",
            format!("{PICTURES} {a} -c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le"),
            &[("mkv", &["pcm_s16le"], 1), ("mp4", &["aac"], 0)],
        ),
        ("ac3.mkv", format!("{PICTURES} {a} {H264} -c:a ac3"), &[("mp4", &["ac3"], 1), ("mkv", &["ac3"], 1)]),
    ];
    for (name, how, outputs) in cases {
        let clip = at(name);
        ffmpeg(how, &clip);
        for (extension, codecs, copies) in *outputs {
            let out = at(&format!("{name}.out.{extension}"));
            let done = same_frames(&clip, &out);
            let what = format!("{name} -> {extension}");
            assert_eq!(audio_codecs(&out), *codecs, "{what}");
            assert_eq!(done.info.audio_tracks, codecs.len(), "{what}");
            assert_eq!(done.summary.audio_copied, *copies, "{what}");
            assert_eq!(done.summary.audio_encoded, codecs.len() - copies, "{what}");
            assert_eq!(done.warnings, Vec::<String>::new(), "{what}");
            let before = audio_codecs(&clip);
            for (track, codec) in codecs.iter().enumerate() {
                if before[track] == *codec && !codec.starts_with("pcm") {
                    assert_same_packets(&out, &clip, track);
                }
            }
        }
    }
}

#[test]
fn pictures_of_every_shape_come_out_right() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4";
    let plain = at("plain.mp4");
    ffmpeg(&format!("{half} {H264}"), &plain);
    for degrees in [90, 180, 270] {
        let turned = format!("rot{degrees}.mp4");
        ffmpeg(&format!("-i {} -c copy -metadata:s:v:0 rotate={degrees}", plain.display()), &at(&turned));
    }
    ffmpeg(&format!("{half} -vf setsar=4/3 {H264}"), &at("aspect.mp4"));
    ffmpeg(
        "-f lavfi -i testsrc2=size=640x360:rate=25:duration=0.4 -vf scale=641:359,setsar=1 -c:v libvpx -deadline realtime -cpu-used 8",
        &at("odd.webm"),
    );
    ffmpeg(&format!("{half} -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"), &at("ten_bit.mp4"));
    ffmpeg(&format!("{half} -c:v libx264 -preset ultrafast -pix_fmt yuv444p"), &at("chroma444.mkv"));
    ffmpeg(&format!("{half} -frames:v 1 {H264}"), &at("one.mp4"));
    ffmpeg(
        &format!(
            "-f lavfi -i testsrc2=size=160x120:rate=30:duration=1 -vf select='not(mod(n,3))+lt(n,10)' -vsync vfr {H264}"
        ),
        &at("vfr.mkv"),
    );

    // (clip, output, width, height, pixel aspect)
    for (name, extension, size, aspect) in [
        ("rot90.mp4", "mp4", "120,160", "1:1"),
        ("rot180.mp4", "mkv", "160,120", "1:1"),
        ("rot270.mp4", "webm", "120,160", "1:1"),
        ("aspect.mp4", "mp4", "160,120", "4:3"),
        // Matroska stores the display width, 213, in whole pixels.
        ("aspect.mp4", "mkv", "160,120", "213:160"),
        ("odd.webm", "mp4", "642,360", "1:1"),
        ("odd.webm", "webm", "641,359", "1:1"),
        ("ten_bit.mp4", "mp4", "160,120", "1:1"),
        ("chroma444.mkv", "mkv", "160,120", "1:1"),
        ("one.mp4", "mp4", "160,120", "1:1"),
        ("one.mp4", "webm", "160,120", "1:1"),
        ("vfr.mkv", "mp4", "160,120", "1:1"),
        ("vfr.mkv", "mkv", "160,120", "1:1"),
        ("vfr.mkv", "webm", "160,120", "1:1"),
    ] {
        let out = at(&format!("{name}.out.{extension}"));
        same_frames(&at(name), &out);
        let what = format!("{name} -> {extension}");
        assert_eq!(probe(&out, "v:0", "stream=width,height", &[]), [size], "{what}");
        assert_eq!(probe(&out, "v:0", "stream=sample_aspect_ratio", &[]), [aspect], "{what}");
        assert_eq!(probe(&out, "v:0", "stream_side_data=rotation", &[]).join(""), "", "{what}: turned twice");
    }
    // The picture itself is turned: compare with ffmpeg's own idea of upright.
    for degrees in [90, 180, 270] {
        let pixels = |path: &Path| {
            let path = path.to_str().unwrap();
            output_of(
                "ffmpeg",
                &["-v", "error", "-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"],
            )
        };
        let extension = [(90, "mp4"), (180, "mkv"), (270, "webm")].iter().find(|e| e.0 == degrees).unwrap().1;
        let before = pixels(&at(&format!("rot{degrees}.mp4")));
        let after = pixels(&at(&format!("rot{degrees}.mp4.out.{extension}")));
        assert_eq!(before.len(), after.len());
        let off: u64 = before.iter().zip(&after).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = off as f64 / before.len() as f64;
        assert!(mean < 8.0, "rotated by {degrees}: mean difference {mean}");
    }
}

#[test]
fn a_size_that_changes_in_the_middle_is_letterboxed() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    ffmpeg(&format!("-f lavfi -i color=white:size=160x120:rate=25:duration=0.4 {H264}"), &at("a.h264"));
    ffmpeg(&format!("-f lavfi -i color=white:size=200x80:rate=25:duration=0.4 {H264}"), &at("b.h264"));
    let mut bytes = fs::read(at("a.h264")).unwrap();
    bytes.extend(fs::read(at("b.h264")).unwrap());
    fs::write(at("both.h264"), bytes).unwrap();
    let input = Input::parse(at("both.h264").to_str().unwrap()).unwrap();
    let mut source = Source::open(&input, &SourceOptions::default()).unwrap();
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(frame) = source.next_frame().unwrap() {
        frames.push(frame);
    }
    assert_eq!(frames.len(), 20);
    assert!(frames.iter().all(|f| (f.picture.width(), f.picture.height()) == (160, 120)));
    let last = &frames[19].picture;
    let luma = |x: usize, y: usize| last.planes()[0][y * 160 + x];
    assert!(luma(80, 60) > 200 && luma(80, 5) < 40 && luma(80, 115) < 40, "bars above and below");
}

#[test]
fn flash_and_beep_stay_together() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("flash.mkv");
    ffmpeg(
        &format!(
            "-f lavfi -i color=black:size=160x120:rate=25:duration=2,drawbox=color=white:t=fill:enable='between(t,0.99,1.2)' \
             -f lavfi -i aevalsrc='if(between(t,1,1.2),sin(6283*t),0)':duration=2:sample_rate=48000 {H264} -c:a aac"
        ),
        &clip,
    );
    let moments = |path: &Path| {
        let name = path.to_str().unwrap();
        let gray = output_of(
            "ffmpeg",
            &[
                "-v",
                "error",
                "-i",
                name,
                "-vf",
                "scale=1:1:flags=area",
                "-vsync",
                "passthrough",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "gray",
                "-",
            ],
        );
        let flash = frame_times(path)[gray.iter().position(|&v| v > 128).unwrap()];
        let sound = output_of(
            "ffmpeg",
            &[
                "-v",
                "error",
                "-i",
                name,
                "-af",
                "aresample=async=1:first_pts=0",
                "-ac",
                "1",
                "-ar",
                "48000",
                "-f",
                "s16le",
                "-",
            ],
        );
        let beep = sound.chunks_exact(2).position(|s| i16::from_le_bytes([s[0], s[1]]).abs() > 8000).unwrap();
        (flash, beep as f64 / 48000.0)
    };
    let (flash, beep) = moments(&clip);
    assert!((flash - beep).abs() < 0.04);
    for extension in ["mp4", "mkv", "webm"] {
        let out = folder.path().join(format!("out.{extension}"));
        same_frames(&clip, &out);
        let (flash_out, beep_out) = moments(&out);
        assert!((flash_out - flash).abs() < 0.04, "{extension}: flash at {flash_out}, was {flash}");
        assert!((beep_out - beep).abs() < 0.04, "{extension}: beep at {beep_out}, was {beep}");
    }
}

#[test]
fn late_and_short_sound_keep_their_place() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let two = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2";
    ffmpeg(&format!("{two} -itsoffset 1 {} {H264} -c:a aac", sine(440)), &at("late.mkv"));
    ffmpeg(&format!("{two} -itsoffset 1 {} {H264} -c:a aac", sine(440)), &at("late.mp4"));
    ffmpeg(&format!("{two} -f lavfi -i sine=duration=0.6 {H264} -c:a libmp3lame"), &at("short.mkv"));
    ffmpeg(
        &format!("-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4 {} {H264} -c:a aac", sine(440)),
        &at("long.mkv"),
    );
    for (name, extension) in [
        ("late.mkv", "mp4"),
        ("late.mp4", "mkv"),
        ("short.mkv", "mp4"),
        ("short.mkv", "mkv"),
        ("long.mkv", "mp4"),
    ] {
        let out = at(&format!("{name}.out.{extension}"));
        same_frames(&at(name), &out);
        assert_same_packets(&out, &at(name), 0);
        // Times are of the pictures, which ffmpeg lets start a little late in Matroska.
        let first = |path: &Path| packets(path, 0)[0].0 - frame_times(path)[0];
        let (before, after) = (first(&at(name)), first(&out));
        assert!((before - after).abs() < 0.003, "{name} -> {extension}: sound at {after}, was {before}");
    }
}

#[test]
fn bad_input_is_refused_in_one_sentence_and_soon() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty.mp4"), b"").unwrap();
    fs::write(at("text.mp4"), "hello, this is no video\n".repeat(100)).unwrap();
    fs::write(
        at("noise.mkv"),
        (0..9000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    ffmpeg(&format!("{} -c:a aac", sine(440)), &at("sound.m4a"));
    ffmpeg(&format!("{} -c:a libmp3lame", sine(440)), &at("sound.mp3"));
    ffmpeg(&format!("{PICTURES} {H264}"), &at("whole.mp4"));
    let whole = fs::read(at("whole.mp4")).unwrap();
    fs::write(at("no_index.mp4"), &whole[..whole.len() / 2]).unwrap();
    ffmpeg("-f lavfi -i testsrc2=size=64x48:rate=10:duration=1 -f gif", &at("gif.mp4"));
    for (name, cause) in [
        ("missing.mp4", "does not exist"),
        ("", "is a folder"),
        ("empty.mp4", "zero bytes"),
        ("text.mp4", "cannot be decoded"),
        ("noise.mkv", "cannot be decoded"),
        ("sound.m4a", "no video stream"),
        ("sound.mp3", "no video stream"),
        ("no_index.mp4", "has no index"),
        ("gif.mp4", "gif image"),
    ] {
        let began = Instant::now();
        for container in [None, Some(Container::Mp4)] {
            let options = SourceOptions { container, ..SourceOptions::default() };
            let Err(error) = Source::open(&Input::File(at(name)), &options) else {
                panic!("{name} was opened")
            };
            let message = error.to_string();
            println!("{message}");
            assert!(message.contains(cause), "{name}: {message}");
            assert!(message.contains(name), "{name} is not named: {message}");
            assert!(!message.contains('\n') && message.len() < 300, "{name}: {message}");
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{name} took {:?}", began.elapsed());
    }
    for (input, cause) in [
        ("gst:nosuchelement", "does not take the pipeline"),
        ("gst:videotestsrc ! fakesink", "does not take the pipeline"),
        ("rtsp://127.0.0.1:9/none", "cannot be decoded"),
        ("http://127.0.0.1:9/none.mp4", "cannot be decoded"),
        ("webcam:97", "cannot be decoded"),
        ("still.png", "still image"),
    ] {
        let input = Input::parse(input).unwrap();
        let Err(error) = Source::open(&input, &SourceOptions::default()) else {
            panic!("{input} was opened")
        };
        let message = error.to_string();
        println!("{message}");
        assert!(message.contains(cause), "{input}: {message}");
    }
}

#[test]
fn a_truncated_file_gives_what_it_has_and_a_warning() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let two = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=3";
    ffmpeg(&format!("{two} {H264} -movflags +faststart"), &at("whole.mp4"));
    let whole = fs::read(at("whole.mp4")).unwrap();
    fs::write(at("cut.mp4"), &whole[..whole.len() / 2]).unwrap();
    let done = transcode(&at("cut.mp4"), &at("out.mp4"));
    assert!((10..75).contains(&done.frames.len()), "{} frames", done.frames.len());
    assert_eq!(frame_times(&at("out.mp4")).len(), done.frames.len());
    assert_eq!(done.warnings.len(), 1);
    assert!(done.warnings[0].contains("cut.mp4"), "{}", done.warnings[0]);
}

#[test]
fn a_bad_output_is_refused_before_anything_is_opened() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("in.mp4"), b"x").unwrap();
    fs::create_dir(at("folder.mp4")).unwrap();
    let input = Input::File(at("in.mp4"));
    let webm_h264 = SinkOptions { codec: Codec::H264, ..SinkOptions::default() };
    let quantizer = SinkOptions { quantizer: Some(60), ..SinkOptions::default() };
    let plain = SinkOptions::default();
    for (name, options, cause) in [
        ("out.avi", &plain, "use .mp4, .mkv or .webm"),
        ("out", &plain, "use .mp4, .mkv or .webm"),
        ("none/out.mp4", &plain, "create it first"),
        ("folder.mp4", &plain, "is a folder"),
        ("in.mp4", &plain, "is also the input"),
        ("out.webm", &webm_h264, "WebM cannot hold H.264"),
        ("out.mp4", &quantizer, "quantizer 60 makes no sense"),
    ] {
        let message = Sink::check(&at(name), &input, options).unwrap_err().to_string();
        assert!(message.contains(cause), "{name}: {message}");
    }
    assert_eq!(Sink::check(&at("out.MKV"), &input, &plain).unwrap(), Container::Matroska);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "checking leaves nothing behind");
}

#[test]
fn a_sink_that_is_not_finished_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.mp4");
    let input = Input::parse("gst:videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48").unwrap();
    let mut source = Source::open(&input, &SourceOptions::default()).unwrap();
    let mut sink = Sink::create(&out, source.info(), Audio::none(), &SinkOptions::default()).unwrap();
    sink.write(source.next_frame().unwrap().unwrap()).unwrap();
    drop(sink);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (clip, disk) = (folder.path().join("clip.mkv"), folder.path().join("disk"));
    fs::create_dir(&disk).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=300k", "tmpfs", disk.to_str().unwrap()];
    let mounted = Command::new("mount").args(mount).stderr(Stdio::null()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: mounting a small tmpfs is not allowed here");
        return;
    }
    ffmpeg(&format!("-f lavfi -i testsrc2=size=320x240:rate=25:duration=4 {} {H264}", sine(440)), &clip);
    let options = SinkOptions { quantizer: Some(2), ..SinkOptions::default() };
    let began = Instant::now();
    let results: Vec<_> = ["mp4", "mkv", "webm"]
        .map(|extension| {
            transcode_with(clip.to_str().unwrap(), &disk.join(format!("out.{extension}")), &options)
        })
        .into_iter()
        .map(|result| result.err().map(|error| error.to_string()))
        .collect();
    let (took, left) = (began.elapsed(), fs::read_dir(&disk).unwrap().count());
    let unmounted = Command::new("umount").arg(&disk).status().unwrap();
    assert!(unmounted.success());
    for message in results {
        let message = message.expect("300 KB are not enough");
        println!("{message}");
        assert!(message.contains("No space left"), "{message}");
    }
    assert_eq!(left, 0, "the temporary file is gone");
    assert!(took < Duration::from_secs(20), "took {took:?}");
}

/// Memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_slow_consumer_does_not_fill_the_memory() {
    // 300 frames of 1.4 MB: all of them would be 415 MB. Other tests run beside this one.
    let input =
        "gst:videotestsrc num-buffers=300 pattern=black ! video/x-raw,format=I420,width=1280,height=720";
    let mut source = Source::open(&Input::parse(input).unwrap(), &SourceOptions::default()).unwrap();
    let before = resident();
    let (mut count, mut most) = (0, 0);
    while source.next_frame().unwrap().is_some() {
        std::thread::sleep(Duration::from_millis(5));
        count += 1;
        most = most.max(resident());
    }
    assert_eq!(count, 300);
    let grown = most.saturating_sub(before) / 1_000_000;
    assert!(grown < 250, "{grown} MB more");
}

#[test]
fn a_pipeline_description_is_an_input() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.mkv");
    let input = "gst:videotestsrc num-buffers=12 ! video/x-raw,width=64,height=48,framerate=10/1";
    let done = transcode_with(input, &out, &SinkOptions::default()).unwrap();
    assert_eq!((done.info.width, done.info.height, done.info.fps), (64, 48, Some((10, 1))));
    assert!(!done.info.live);
    assert_eq!(frame_times(&out).len(), 12);
}

#[test]
fn a_failing_encoder_falls_through_to_the_next() {
    let folder = TempDir::new().unwrap();
    let input = "gst:videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48";
    let with = |encoders: &[&str]| SinkOptions {
        encoders: encoders.iter().map(|name| (*name).to_owned()).collect(),
        ..SinkOptions::default()
    };
    let failing = ["nosuchenc", "identity error-after=2 ! x264enc", "openh264enc", "x264enc"];
    let done = transcode_with(input, &folder.path().join("out.mp4"), &with(&failing)).unwrap();
    assert_eq!(done.summary.encoder, "openh264enc");
    assert_eq!(done.summary.frames, 5);
    let none = transcode_with(input, &folder.path().join("none.mp4"), &with(&failing[..2]));
    let message = none.err().unwrap().to_string();
    assert!(message.contains("no H.264 encoder works") && message.contains("nosuchenc"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_encoder_that_fails_in_the_middle_is_an_error_and_not_a_hang() {
    let folder = TempDir::new().unwrap();
    let input = "gst:videotestsrc num-buffers=60 ! video/x-raw,width=64,height=48";
    let encoders = vec!["identity error-after=20 ! x264enc tune=zerolatency".to_owned()];
    let options = SinkOptions { encoders, ..SinkOptions::default() };
    let message = transcode_with(input, &folder.path().join("out.mp4"), &options).err().unwrap().to_string();
    assert!(message.contains("out.mp4 failed"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the temporary file is gone");
}

#[test]
fn a_slow_consumer_loses_live_frames_but_none_of_a_file() {
    let live = "gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=50/1";
    let mut source = Source::open(&Input::parse(live).unwrap(), &SourceOptions::default()).unwrap();
    assert!(source.info().live);
    let mut frames = Vec::new();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(120));
        frames.push(source.next_frame().unwrap().unwrap());
    }
    let last = frames[5].index;
    assert_eq!(frames[0].pts_ns.min(1_000_000_000), frames[0].pts_ns, "starts near 0");
    assert!(frames.windows(2).all(|w| w[0].pts_ns < w[1].pts_ns && w[0].index < w[1].index));
    assert!(source.dropped() >= 10 && last >= 15, "{} dropped, last {last}", source.dropped());
    assert!(source.dropped() + 6 <= last + 1 + 2, "what was dropped is counted right");
    // However slow the consumer, what it gets is fresh: at most the frames that wait (two of
    // 20 ms) old. The first frame tells when the clock of the source started.
    let mut source = Source::open(&Input::parse(live).unwrap(), &SourceOptions::default()).unwrap();
    let started = Instant::now();
    let mut oldest_s = f64::NEG_INFINITY;
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(150));
        let frame = source.next_frame().unwrap().unwrap();
        oldest_s = oldest_s.max(started.elapsed().as_secs_f64() - frame.pts_ns as f64 / 1e9);
    }
    assert!(oldest_s < 0.2, "a frame came {oldest_s} s late");

    let file = "gst:videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48,framerate=50/1";
    let mut source = Source::open(&Input::parse(file).unwrap(), &SourceOptions::default()).unwrap();
    let mut count = 0;
    while source.next_frame().unwrap().is_some() {
        count += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((count, source.dropped()), (30, 0));
}

#[test]
fn a_stop_leaves_a_playable_file() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("clip.mkv");
    ffmpeg(
        &format!(
            "-f lavfi -i testsrc2=size=160x120:rate=25:duration=8 -itsoffset 3 -f lavfi -i sine=duration=5 -f lavfi -i sine=duration=8 -map 0 -map 1 -map 2 {H264} -c:a aac"
        ),
        &clip,
    );
    for extension in ["mp4", "mkv", "webm"] {
        let out = folder.path().join(format!("out.{extension}"));
        let stop = StopHandle::new();
        let container = Some(Container::from_path(&out).unwrap());
        let options = SourceOptions { container, stop: stop.clone(), ..SourceOptions::default() };
        let mut source = Source::open(&Input::File(clip.clone()), &options).unwrap();
        let audio = source.take_audio();
        let mut sink = Sink::create(&out, source.info(), audio, &SinkOptions::default()).unwrap();
        let mut count = 0;
        while let Some(frame) = source.next_frame().unwrap() {
            sink.write(frame).unwrap();
            count += 1;
            if count == 30 {
                let stop = stop.clone();
                std::thread::spawn(move || stop.stop()).join().unwrap();
            }
        }
        assert_eq!(count, 30, "{extension}");
        sink.finish().unwrap();
        assert_eq!(frame_times(&out).len(), 30, "{extension}");
        // The first track had not begun yet, and MP4 has no empty ones; the second ends with the
        // pictures.
        let last = audio_codecs(&out).len() - 1;
        let end = packets(&out, last).last().unwrap().0;
        assert!((1.0..1.3).contains(&end), "{extension}: sound ends at {end}");
    }
}

/// Serves a description at rtsp://127.0.0.1:PORT/cam in a thread of its own until dropped.
struct Camera {
    port: u16,
    main_loop: gstreamer::glib::MainLoop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Camera {
    fn start(port: u16, description: &str) -> Self {
        gstreamer::init().unwrap();
        let description = description.to_owned();
        let (ready, started) = std::sync::mpsc::channel();
        let context = gstreamer::glib::MainContext::new();
        let main_loop = gstreamer::glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let thread = std::thread::spawn(move || {
            context
                .with_thread_default(|| {
                    let server = rtsp::RTSPServer::new();
                    server.set_address("127.0.0.1");
                    server.set_service(&port.to_string());
                    let factory = rtsp::RTSPMediaFactory::new();
                    factory.set_launch(&description);
                    factory.set_shared(true);
                    server.mount_points().unwrap().add_factory("/cam", factory);
                    let _attached = server.attach(Some(&context)).unwrap();
                    ready.send(server.bound_port() as u16).unwrap();
                    running.run();
                    server.client_filter(Some(&mut |_, _| rtsp::RTSPFilterResult::Remove));
                })
                .unwrap();
        });
        Self { port: started.recv().unwrap(), main_loop, thread: Some(thread) }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

const CAMERA: &str = "( videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=25/1 \
    ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 \
    audiotestsrc is-live=true ! audio/x-raw,rate=48000 ! avenc_aac ! rtpmp4gpay name=pay1 pt=97 )";

#[test]
fn an_rtsp_stream_is_recorded_and_connected_to_again_when_it_is_lost() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.mp4");
    let camera = Camera::start(0, CAMERA);
    let port = camera.port;
    let input = Input::parse(&format!("rtsp://127.0.0.1:{port}/cam")).unwrap();
    let reconnect = Reconnect { first_pause: Duration::from_millis(200), ..Reconnect::default() };
    let stop = StopHandle::new();
    let options = SourceOptions {
        container: Some(Container::Mp4),
        reconnect,
        stop: stop.clone(),
        ..SourceOptions::default()
    };
    let mut source = Source::open(&input, &options).unwrap();
    assert!(source.info().live);
    let audio = source.take_audio();
    assert_eq!(audio.tracks(), 1);
    let mut sink = Sink::create(&out, source.info(), audio, &SinkOptions::default()).unwrap();
    let mut frames: Vec<(u64, u64)> = Vec::new();
    let mut record = |source: &mut Source, frames: &mut Vec<(u64, u64)>| {
        let frame = source.next_frame().unwrap();
        frame.map(|frame| {
            frames.push((frame.pts_ns, frame.duration_ns));
            sink.write(frame).unwrap();
        })
    };
    while frames.len() < 20 {
        record(&mut source, &mut frames).unwrap();
    }
    drop(camera);
    let before = frames.len();
    let back = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        Camera::start(port, CAMERA)
    });
    while frames.len() < before + 25 {
        record(&mut source, &mut frames).unwrap();
    }
    stop.stop();
    while record(&mut source, &mut frames).is_some() {}
    let warnings = source.take_warnings();
    let summary = sink.finish().unwrap();
    drop(source);
    drop(back.join().unwrap());
    assert!(warnings[0].contains("was lost") && warnings[1].contains("is back"), "{warnings:?}");
    assert!(frames.windows(2).all(|w| w[0].0 < w[1].0), "times increase");
    let gap = frames.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap();
    assert!((400_000_000..20_000_000_000).contains(&gap), "the pause shows in the times: {gap}");
    assert_eq!(summary.frames, frames.len() as u64);
    assert_eq!(frame_times(&out).len(), frames.len());
    assert_eq!(audio_codecs(&out), ["aac"]);
}

#[test]
fn a_lost_stream_ends_after_its_last_attempt_and_a_stop_interrupts_the_pause() {
    let camera = Camera::start(0, CAMERA);
    let input = Input::parse(&format!("rtsp://127.0.0.1:{}/cam", camera.port)).unwrap();
    let reconnect =
        Reconnect { attempts: Some(2), first_pause: Duration::from_millis(50), ..Reconnect::default() };
    let options = SourceOptions { reconnect, ..SourceOptions::default() };
    let mut ending = Source::open(&input, &options).unwrap();
    let stop = StopHandle::new();
    let reconnect = Reconnect { first_pause: Duration::from_secs(3600), ..Reconnect::default() };
    let options = SourceOptions { reconnect, stop: stop.clone(), ..SourceOptions::default() };
    let mut stopped = Source::open(&input, &options).unwrap();
    ending.next_frame().unwrap().unwrap();
    stopped.next_frame().unwrap().unwrap();
    drop(camera);
    while ending.next_frame().unwrap().is_some() {}
    let warnings = ending.take_warnings();
    assert!(warnings.last().unwrap().contains("did not come back after 2 attempt"), "{warnings:?}");
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        stop.stop();
    });
    while stopped.next_frame().unwrap().is_some() {}
    stopper.join().unwrap();
}

#[test]
fn http_is_read_without_range_requests() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("clip.mkv");
    ffmpeg(&format!("{PICTURES} {} {H264} -c:a aac", sine(440)), &clip);
    let body = fs::read(&clip).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    let out: PathBuf = folder.path().join("clip.out.mp4");
    let done = transcode_with(&format!("http://{address}/clip.mkv"), &out, &SinkOptions::default()).unwrap();
    assert_eq!(done.frames.len(), 25);
    assert_eq!(frame_times(&out).len(), 25);
    assert_same_packets(&out, &clip, 0);
}

#[test]
fn colour_range_and_matrix_are_kept() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("clip.mkv");
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.2";
    for (range, matrix) in [("tv", "bt709"), ("pc", "bt709"), ("tv", "smpte170m")] {
        let tags = format!(
            "-color_range {range} -colorspace {matrix} -color_primaries {matrix} -color_trc {matrix}"
        );
        ffmpeg(&format!("{half} -vf scale=out_range={range} {H264} {tags}"), &clip);
        for extension in ["mkv", "mp4"] {
            let out = folder.path().join(format!("out.{extension}"));
            let done = same_frames(&clip, &out);
            assert_eq!(done.info.colorimetry.full_range, range == "pc", "{range} {matrix}");
            let written = probe(&out, "v:0", "stream=color_range,color_space", &[]);
            assert_eq!(written, [format!("{range},{matrix}")], "{extension}");
        }
    }
}

#[test]
fn a_window_shows_frames_and_never_holds_them_up() {
    let xvfb =
        Command::new("xvfb-run").arg("--help").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !xvfb {
        println!("skipped: xvfb-run is not installed");
        return;
    }
    // A display is chosen by the environment: the window is opened in a process of its own.
    let child = Command::new("xvfb-run")
        .args(["-a", std::env::current_exe().unwrap().to_str().unwrap()])
        .args(["--exact", "window_on_a_virtual_display", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
#[ignore = "run by a_window_shows_frames_and_never_holds_them_up, with a virtual display"]
fn window_on_a_virtual_display() {
    let input = "gst:videotestsrc num-buffers=40 ! video/x-raw,width=63,height=47,framerate=25/1";
    let mut source = Source::open(&Input::parse(input).unwrap(), &SourceOptions::default()).unwrap();
    let view = View::open(source.info()).unwrap();
    let mut count = 0;
    while let Some(frame) = source.next_frame().unwrap() {
        view.show(&frame);
        count += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(count, 40);
    assert!(view.is_open());
}
