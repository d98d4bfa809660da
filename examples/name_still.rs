//! Names the people in a still.
//!
//!     cargo run --release --example name_still -- gallery group.jpg

use std::error::Error;
use std::path::Path;

use sphereface::{Engine, Gallery, Recogniser, media};

fn main() -> Result<(), Box<dyn Error>> {
    let [gallery, still] = arguments()?;
    let engine = Engine::new()?;
    let recogniser = Recogniser::new(&engine, &Gallery::open(&engine, gallery)?);
    for face in recogniser.name(&media::read_still(Path::new(&still))?)? {
        let [x, y] = face.bbox().centre();
        println!("{} at {x:.0},{y:.0}", face.name().unwrap_or("unknown"));
    }
    Ok(())
}

fn arguments<const N: usize>() -> Result<[String; N], Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.try_into().map_err(|_| format!("give {N} arguments, see the top of the example").into())
}
