//! Nothing hangs: streams that change, inputs that stop, and inputs that can be read only once.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sphereface::media::{Container, Input, Sink, SinkOptions, Source, SourceOptions, StopHandle};
use tempfile::TempDir;

use crate::media::clips::{
    H264, PICTURES, assert_same_packets, audio_codecs, ffmpeg, frame_times, packets, sine, tools, transcode,
};

fn join(parts: &[PathBuf], path: &Path) {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| fs::read(part).unwrap()).collect();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_transport_stream_whose_streams_change_is_followed() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (a, b) = (sine(440), sine(880));
    ffmpeg(&format!("{PICTURES} {a} {H264} -c:a aac"), &at("one.ts"));
    ffmpeg(&format!("{PICTURES} {a} {b} -map 0 -map 1 -map 2 {H264} -c:a:0 aac -c:a:1 mp2"), &at("two.ts"));
    ffmpeg(&format!("{PICTURES} {H264}"), &at("silent.ts"));
    ffmpeg(
        &format!(
            "{PICTURES} {a} {H264} -c:a aac -mpegts_start_pid 0x300 -mpegts_service_id 7 -mpegts_pmt_start_pid 0x200"
        ),
        &at("moved.ts"),
    );
    for (parts, sound, said) in [
        (["one.ts", "two.ts"], 2.0, 1),
        (["two.ts", "one.ts"], 2.0, 0),
        (["one.ts", "silent.ts"], 1.0, 0),
        (["silent.ts", "one.ts"], 0.0, 1),
        (["one.ts", "moved.ts"], 2.0, 0),
        (["moved.ts", "two.ts"], 2.0, 1),
    ] {
        join(&parts.map(at), &at("both.ts"));
        for target in ["mp4", "mkv"] {
            let output = at(&format!("both.{target}"));
            let done = transcode(&at("both.ts"), &output);
            let what = format!("{parts:?} -> {target}: {:?}", done.warnings);
            assert_eq!(frame_times(&output).len(), 50, "{what}");
            let steps = done.frames.windows(2).map(|pair| pair[1].0 - pair[0].0);
            assert!(steps.max().unwrap() < 200_000_000, "{what}: the second part follows the first");
            assert_eq!(done.warnings.len(), said, "{what}");
            if sound > 0.0 {
                let end = packets(&output, 0).last().unwrap().0;
                assert!((end - sound).abs() < 0.25, "{what}: sound ends at {end}");
            } else {
                assert!(audio_codecs(&output).is_empty(), "{what}");
            }
        }
    }
}

#[test]
fn pictures_that_change_their_codec_end_the_output_with_a_sentence() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    ffmpeg(&format!("{PICTURES} {} {H264} -c:a aac", sine(440)), &at("a.ts"));
    ffmpeg(&format!("{PICTURES} {} -c:v mpeg2video -c:a aac", sine(440)), &at("b.ts"));
    join(&[at("a.ts"), at("b.ts")], &at("both.ts"));
    let began = Instant::now();
    let (frames, reason) = recorded(&at("both.ts"), &at("out.mp4"), Duration::from_secs(30));
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(frames, 25);
    let reason = reason.unwrap();
    assert!(reason.contains("both.ts") && reason.contains("change from H.264 to MPEG video"), "{reason}");
    assert_eq!(frame_times(&at("out.mp4")).len(), 25);
}

/// Records an input; returns the number of frames and why it ended early.
fn recorded(input: &Path, output: &Path, patience: Duration) -> (usize, Option<String>) {
    let container = Some(Container::from_path(output).unwrap());
    let options = SourceOptions { container, patience: Some(patience), ..SourceOptions::default() };
    let mut source = Source::open(&Input::File(input.to_owned()), &options).unwrap();
    let audio = source.take_audio();
    let mut sink = Sink::create(output, source.info(), audio, &SinkOptions::default()).unwrap();
    let mut frames = 0;
    while let Some(frame) = source.next_frame().unwrap() {
        sink.write(frame).unwrap();
        frames += 1;
    }
    sink.finish().unwrap();
    (frames, source.cut_off().map(str::to_owned))
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn an_input_that_falls_silent_ends_with_a_complete_output_and_a_sentence() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let two = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4";
    for name in ["a.ts", "a.mkv"] {
        ffmpeg(&format!("{two} {} {H264} -c:a aac", sine(440)), &at(name));
        let pipe = at(&format!("{name}.pipe"));
        fifo(&pipe);
        let (bytes, path) = (fs::read(at(name)).unwrap(), pipe.clone());
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let mut out = OpenOptions::new().write(true).open(path).unwrap();
            out.write_all(&bytes[..bytes.len() * 2 / 3]).unwrap();
            // The pipe stays open and gives nothing.
            let _ = finished.recv();
        });
        let output = at(&format!("{name}.mp4"));
        let began = Instant::now();
        let (frames, reason) = recorded(&pipe, &output, Duration::from_secs(2));
        assert!(began.elapsed() < Duration::from_secs(15), "{name}: took {:?}", began.elapsed());
        drop(done);
        writer.join().unwrap();
        let reason = reason.unwrap();
        assert!(reason.contains("no data came for 2 s"), "{name}: {reason}");
        assert!((30..100).contains(&frames), "{name}: {frames} frames");
        assert_eq!(frame_times(&output).len(), frames, "{name}");
    }
}

#[test]
fn a_fifo_is_read_once_and_whole() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    // The index of the first MP4 file is at its end, that of the second at the beginning; the third is made of fragments.
    for (name, how) in [
        ("a.ts", ""),
        ("a.mkv", ""),
        ("a.flv", ""),
        ("a.mp4", ""),
        ("b.mp4", "-movflags +faststart"),
        ("c.mp4", "-movflags +frag_keyframe+empty_moov"),
    ] {
        ffmpeg(&format!("{PICTURES} {} {H264} -c:a aac {how}", sine(440)), &at(name));
        let pipe = at(&format!("{name}.pipe"));
        fifo(&pipe);
        assert!(!Input::File(pipe.clone()).is_read_twice() && Input::File(at(name)).is_read_twice());
        let (from, to) = (at(name), pipe.clone());
        let writer = std::thread::spawn(move || {
            std::io::copy(
                &mut File::open(from).unwrap(),
                &mut OpenOptions::new().write(true).open(to).unwrap(),
            )
        });
        let output = at(&format!("{name}.mp4"));
        let (frames, reason) = recorded(&pipe, &output, Duration::from_secs(20));
        writer.join().unwrap().unwrap();
        assert_eq!((frames, reason), (25, None), "{name}");
        assert_eq!(audio_codecs(&output), ["aac"], "{name}");
        if how.is_empty() || how.contains("faststart") {
            assert_same_packets(&output, &at(name), 0);
        }
    }
}

#[test]
fn a_fifo_that_nobody_writes_to_can_be_stopped() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    fifo(&pipe);
    let stop = StopHandle::new();
    let options = SourceOptions { stop: stop.clone(), ..SourceOptions::default() };
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stop.stop();
    });
    let began = Instant::now();
    let error = Source::open(&Input::File(pipe.clone()), &options).err().unwrap();
    assert!(error.to_string().contains("was stopped"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    stopper.join().unwrap();
    // Lets the reader go.
    drop(OpenOptions::new().read(true).write(true).open(pipe).unwrap());
}
