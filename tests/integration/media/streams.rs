//! Inputs other than files: cameras, HTTP, and descriptions of a pipeline.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use sphereface::media::{Container, Input, Reconnect, Sink, SinkOptions, Source, SourceOptions, StopHandle};
use tempfile::TempDir;

use crate::media::clips::{
    H264, PICTURES, assert_same_packets, audio_codecs, ffmpeg, frame_times, sine, tools, transcode_with,
};

/// Serves a description at rtsp://127.0.0.1:PORT/cam in its own thread until dropped.
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
fn an_address_that_answers_with_a_web_page_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>";
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                page.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(page.as_bytes()));
        }
    });
    let input = Input::parse(&format!("http://{address}/video.mp4")).unwrap();
    let Err(error) = Source::open(&input, &SourceOptions::default()) else { panic!("a page was opened") };
    let message = error.to_string();
    assert!(message.contains("answered with a web page"), "{message}");
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
