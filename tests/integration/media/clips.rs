//! Clips made by ffmpeg, and what is in a file by ffprobe.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use sphereface::media::{
    Input, MediaError, Sink, SinkOptions, SinkSummary, Source, SourceInfo, SourceOptions,
};

/// Whether the tools that make and measure clips are installed; prints a message if not.
pub fn tools() -> bool {
    let there = ["ffmpeg", "ffprobe"]
        .iter()
        .all(|tool| Command::new(tool).arg("-version").stdout(Stdio::null()).status().is_ok());
    if !there {
        println!("skipped: ffmpeg and ffprobe are not installed");
    }
    there
}

pub fn output_of(tool: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    output.stdout
}

pub fn ffmpeg(arguments: &str, output: &Path) {
    let mut all = vec!["-v", "error", "-nostdin", "-y", "-threads", "1"];
    all.extend(arguments.split_whitespace());
    all.push(output.to_str().unwrap());
    output_of("ffmpeg", &all);
}

/// Lines of one entry of a stream: `probe(path, "v:0", "frame=pts_time", &[])`.
pub fn probe(path: &Path, stream: &str, entry: &str, more: &[&str]) -> Vec<String> {
    let mut arguments =
        vec!["-v", "quiet", "-select_streams", stream, "-show_entries", entry, "-of", "csv=p=0"];
    arguments.extend(more);
    arguments.push(path.to_str().unwrap());
    let text = String::from_utf8(output_of("ffprobe", &arguments)).unwrap();
    text.lines().map(|line| line.trim_end_matches(',').to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Times of all frames in seconds, as a decoder gives them.
pub fn frame_times(path: &Path) -> Vec<f64> {
    let lines = probe(path, "v:0", "frame=pts_time", &[]);
    lines.iter().map(|line| line.split(',').next().unwrap().parse().unwrap_or(f64::NAN)).collect()
}

/// Time and hash of every sound packet of a track, priming before time 0 included.
pub fn packets(path: &Path, track: usize) -> Vec<(f64, String)> {
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

/// The packets of a track are those of the input, byte for byte, priming included.
pub fn assert_same_packets(output: &Path, input: &Path, track: usize) {
    let before = if input.extension() == Some("ts".as_ref()) {
        // There each packet repeats headers that other containers store once.
        let plain = input.with_extension("plain.mkv");
        ffmpeg(&format!("-i {} -c copy", input.display()), &plain);
        packets(&plain, track)
    } else {
        packets(input, track)
    };
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

pub fn audio_codecs(path: &Path) -> Vec<String> {
    probe(path, "a", "stream=codec_name", &[])
}

pub struct Transcoded {
    pub info: SourceInfo,
    pub frames: Vec<(u64, u64)>,
    pub warnings: Vec<String>,
    pub summary: SinkSummary,
}

pub fn transcode_with(input: &str, output: &Path, options: &SinkOptions) -> Result<Transcoded, MediaError> {
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

pub fn transcode(input: &Path, output: &Path) -> Transcoded {
    transcode_with(input.to_str().unwrap(), output, &SinkOptions::default())
        .unwrap_or_else(|error| panic!("{} -> {}: {error}", input.display(), output.display()))
}

/// Checks that the output has the frames of the input at the same times; returns its path for further checks.
pub fn same_frames(input: &Path, output: &Path) -> Transcoded {
    same_frames_with(input, output, &SinkOptions::default())
}

/// The same, written with `options`.
pub fn same_frames_with(input: &Path, output: &Path, options: &SinkOptions) -> Transcoded {
    let what = format!("{} -> {}", input.display(), output.display());
    let done = transcode_with(input.to_str().unwrap(), output, options)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let (expected, written) = (frame_times(input), frame_times(output));
    assert_eq!(done.frames.len(), expected.len(), "{what}: frames decoded");
    assert_eq!(done.summary.frames, expected.len() as u64, "{what}: frames written");
    assert_eq!(written.len(), expected.len(), "{what}: frames in the output");
    let shift = expected[0] - done.frames[0].0 as f64 / 1e9;
    // If sound comes first, the pictures begin later in the output.
    let later = written[0] - done.frames[0].0 as f64 / 1e9;
    assert!((-0.0021..0.1).contains(&later), "{what}: written {later} s later");
    for (n, ((expected, written), (pts_ns, _))) in expected.iter().zip(&written).zip(&done.frames).enumerate()
    {
        let expected = expected - shift;
        let decoded = *pts_ns as f64 / 1e9;
        assert!((decoded - expected).abs() < 0.0021, "{what}: frame {n} at {decoded}, not {expected}");
        let written = written - later;
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

pub const PICTURES: &str = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1";

pub fn sine(frequency: u32) -> String {
    format!("-f lavfi -i sine=frequency={frequency}:duration=1:sample_rate=48000")
}

pub const H264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
