//! Slow consumers, stops, and windows.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sphereface::media::{Container, Input, Sink, SinkOptions, Source, SourceOptions, StopHandle, View};
use tempfile::TempDir;

use crate::media::clips::{H264, audio_codecs, ffmpeg, frame_times, packets, tools};

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
    // However slow the consumer, its frames are recent: at most as old as the queue (two frames of 20 ms).
    // The first frame shows when the clock of the source started.
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
        // The first track had not begun yet, and MP4 has no empty tracks; the second ends with the pictures.
        let last = audio_codecs(&out).len() - 1;
        let end = packets(&out, last).last().unwrap().0;
        assert!((1.0..1.3).contains(&end), "{extension}: sound ends at {end}");
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
    // The environment selects the display, so the window is opened in its own process. The server must not
    // restart when an unusable video sink disconnects.
    let child = Command::new("xvfb-run")
        .args([
            "-a",
            "--server-args=-screen 0 640x480x24 -noreset",
            std::env::current_exe().unwrap().to_str().unwrap(),
        ])
        .args(["--exact", "media::pace::window_on_a_virtual_display", "--ignored", "--nocapture"])
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
