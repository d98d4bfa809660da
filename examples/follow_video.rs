//! Follows the people of a video with callbacks, and writes nothing.
//!
//!     cargo run --release --example follow_video -- gallery party.mp4

use std::error::Error;

use sphereface::pipeline::{Control, LabelJob};
use sphereface::{Engine, EventKind, Gallery};

fn main() -> Result<(), Box<dyn Error>> {
    let [gallery, video] = arguments()?;
    let engine = Engine::new()?;
    let gallery = Gallery::open(&engine, gallery)?;
    let (mut frames, mut most) = (0, 0);
    let job = LabelJob::new(&engine, video.parse()?)
        .gallery(&gallery)
        .on_frame(|frame| {
            frames += 1;
            most = most.max(frame.faces.len());
        })
        .on_event(|event| {
            let seconds = event.pts_ns as f64 / 1e9;
            match &event.kind {
                EventKind::Appeared => println!("{seconds:7.2} s  {} appeared", event.who),
                EventKind::Renamed { from } => println!("{seconds:7.2} s  {from} is {}", event.who),
                EventKind::Left => println!("{seconds:7.2} s  {} left", event.who),
                _ => {}
            }
        });
    job.run(&Control::new(), &mut |_| {})?;
    println!("{frames} frames, {most} faces at most in one");
    Ok(())
}

fn arguments<const N: usize>() -> Result<[String; N], Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.try_into().map_err(|_| format!("give {N} arguments, see the top of the example").into())
}
