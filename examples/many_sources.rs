//! Labels several sources at a time on one engine: files, cameras or streams.
//!
//!     cargo run --release --example many_sources -- gallery a.mp4 b.mp4

use std::error::Error;
use std::thread;

use sphereface::media::{Source, SourceOptions};
use sphereface::{Engine, Gallery, Output, Stream, StreamOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let engine = Engine::new()?;
    let gallery = Gallery::open(&engine, arguments.next().ok_or("give a gallery and sources")?)?;
    thread::scope(|scope| {
        for input in arguments {
            let (engine, gallery) = (&engine, &gallery);
            scope.spawn(move || {
                if let Err(error) = follow(engine, gallery, &input) {
                    eprintln!("{input}: {error}");
                }
            });
        }
    });
    Ok(())
}

fn follow(engine: &Engine, gallery: &Gallery, input: &str) -> Result<(), Box<dyn Error>> {
    let mut source = Source::open(&input.parse()?, &SourceOptions::default())?;
    let options = StreamOptions::default().live(source.info().live);
    let mut stream = Stream::new(engine, Some(gallery), options);
    while let Some(frame) = source.next_frame()? {
        stream.push(frame)?;
        tell(input, &mut stream);
    }
    stream.finish()?;
    tell(input, &mut stream);
    Ok(())
}

fn tell(input: &str, stream: &mut Stream) {
    while let Some(output) = stream.pull() {
        if let Output::Event(event) = output {
            println!("{input}: {} {:?} at {:.2} s", event.who, event.kind, event.pts_ns as f64 / 1e9);
        }
    }
}
