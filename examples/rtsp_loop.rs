//! Serves H.264 videos in a loop over RTSP, like cameras: for trying `sphereface serve` and measuring it
//! (`benches/cameras.py`).
//!
//!     cargo run --release --example rtsp_loop -- 8600 front.mp4 yard.mp4
//!
//! serves rtsp://127.0.0.1:8600/1 and /2. The pictures are only packetised, so this takes almost no CPU time.
//! Videos without B-frames play best: `ffmpeg -i ANY -an -c:v libx264 -bf 0 -g 10 front.mp4`.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;

/// Duration of a picture whose file does not state one.
const USUAL: Duration = Duration::from_millis(40);

/// A video as encoded pictures.
struct Video {
    caps: gst::Caps,
    units: Vec<(gst::Buffer, Duration)>,
}

impl Video {
    /// Reads the encoded pictures of a file.
    fn read(path: &str) -> Result<Self, Box<dyn Error>> {
        let pipeline = "filesrc name=file ! qtdemux ! h264parse config-interval=-1 ! \
                        video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=units sync=false";
        let pipeline =
            gst::parse::launch(pipeline)?.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
        pipeline.by_name("file").ok_or("no file")?.set_property("location", path);
        let sink = pipeline.by_name("units").and_then(|sink| sink.downcast::<AppSink>().ok());
        let sink = sink.ok_or("no sink")?;
        pipeline.set_state(gst::State::Playing)?;
        let (mut caps, mut units) = (None, Vec::new());
        while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(10)) {
            caps = sample.caps_owned();
            let buffer = sample.buffer().ok_or("a sample without a buffer")?;
            let shown = buffer.duration().map_or(USUAL, Duration::from);
            let bytes = buffer.map_readable()?.to_vec();
            units.push((gst::Buffer::from_slice(bytes), shown));
        }
        pipeline.set_state(gst::State::Null)?;
        let caps = caps.ok_or_else(|| format!("{path} holds no H.264 video in MP4"))?;
        Ok(Self { caps, units })
    }

    /// Pushes the pictures in real time, repeatedly, until there is no receiver.
    fn play(&self, source: &AppSrc) {
        let mut next = Instant::now();
        for (buffer, shown) in self.units.iter().cycle() {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if source.push_buffer(buffer.clone()).is_err() {
                return;
            }
            next += *shown;
        }
    }
}

/// The factory of a video's stream, which runs when a client connects.
fn factory(video: Arc<Video>) -> rtsp::RTSPMediaFactory {
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(
        "( appsrc name=units is-live=true format=time do-timestamp=true ! rtph264pay name=pay0 pt=96 config-interval=1 )",
    );
    factory.set_shared(true);
    factory.connect_media_configure(move |_, media| {
        let bin = media.element().downcast::<gst::Bin>().ok();
        let source = bin.and_then(|bin| bin.by_name("units")?.downcast::<AppSrc>().ok());
        if let Some(source) = source {
            source.set_caps(Some(&video.caps));
            let video = Arc::clone(&video);
            std::thread::spawn(move || video.play(&source));
        }
    });
    factory
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("usage: rtsp_loop PORT VIDEO...")?.parse()?;
    gst::init()?;
    let server = rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&port.to_string());
    let mounts = server.mount_points().ok_or("the server has no places for streams")?;
    for (number, path) in (1..).zip(arguments) {
        mounts.add_factory(&format!("/{number}"), factory(Arc::new(Video::read(&path)?)));
    }
    let _attached = server.attach(None).map_err(|_| "the port cannot be listened on")?;
    println!("rtsp://127.0.0.1:{}/", server.bound_port());
    glib::MainLoop::new(None, false).run();
    Ok(())
}
