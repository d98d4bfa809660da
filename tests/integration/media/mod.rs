//! Video in and out, on clips made by ffmpeg: frames, times, sound, and invalid inputs.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

mod clips;
mod kept;
mod pace;
mod pictures;
mod refused;
mod sound;
mod stills;
mod streams;
mod stuck;
