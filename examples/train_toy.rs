//! Trains a small network with A-Softmax on a folder of aligned crops, one folder per person.
//!
//!     cargo run --release --example train_toy -- crops run

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use sphereface::nn::{Device, DeviceChoice, Isa};
use sphereface::train::config::{Flags, Layers};
use sphereface::train::{Dataset, Event, Trainer};

/// A network of four layers, and few iterations.
const SETTINGS: &str = "
[network]
depth = 4
channels = [8, 16, 16, 16]
embedding = 32

[schedule]
iterations = 40

[data]
batch = 16
small_classes = \"keep\"
holdout = 0.0
";

fn main() -> Result<(), Box<dyn Error>> {
    let [crops, run] = arguments()?;
    let config =
        Layers::preset("sphereface20-casia")?.over(SETTINGS, "the example")?.finish(&Flags::default())?;
    let dataset = Dataset::open(Path::new(&crops), &config.data, config.run.seed)?;
    let device = Device::open(DeviceChoice::Cpu, Isa::best())?;
    let trainer = Trainer::new(config, dataset, Path::new(&run), None, device)?;
    let outcome = trainer.run(&AtomicBool::new(false), &mut |event| {
        if let Event::Iteration(_) = event {
            print!(".");
        }
    })?;
    println!("\n{} iterations, weights in {}", outcome.iteration, outcome.model.display());
    Ok(())
}

fn arguments<const N: usize>() -> Result<[String; N], Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.try_into().map_err(|_| format!("give {N} arguments, see the top of the example").into())
}
