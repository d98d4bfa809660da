//! Tests of the program and the library from outside. They are one binary, because each binary is linked with
//! everything, and tests of several files run in parallel.
//!
//! A module per subject; `cargo test --test integration label::` runs those of one. Tests that measure the
//! memory of their own process are in tests/memory.rs.

mod onnx_file;
mod place;

mod align;
mod analysis;
mod bench;
mod commands;
mod detect;
mod device;
mod door;
mod download;
mod eval;
mod examples;
mod gallery;
mod label;
mod library;
mod licences;
mod media;
mod models;
mod networks;
mod onnx;
mod photos;
mod redact;
mod report;
mod rooms;
mod same_place;
mod serve;
mod stop;
mod timeline;
mod train;
