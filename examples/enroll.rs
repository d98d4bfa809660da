//! Enrols a person from stills.
//!
//!     cargo run --release --example enroll -- gallery "Ada Lovelace" ada1.jpg ada2.jpg

use std::error::Error;
use std::path::Path;

use sphereface::Engine;
use sphereface::gallery::{Choice, GalleryFolder, NewStill, PersonName};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "give a gallery, a name and stills";
    let folder = GalleryFolder::create(Path::new(&arguments.next().ok_or(usage)?))?;
    let name = PersonName::new(&arguments.next().ok_or(usage)?)?;
    let engine = Engine::new()?;
    let mut stills = Vec::new();
    for path in arguments {
        let still = NewStill::read(Path::new(&path), Choice::Largest, engine.detector())?;
        for problem in still.examined.problems() {
            println!("{path}: {problem}");
        }
        stills.push(still);
    }
    let enrolled = folder.enroll(&name, stills)?;
    println!("{name} has {} stills", enrolled.person.stills.len());
    Ok(())
}
