//! `sphereface serve` as its users, and those who should not be, meet it: the real program, asked over HTTP.
#![cfg(all(feature = "serve", feature = "cli", feature = "bundled-models"))]

mod api;
mod attack;
mod browser;
mod cameras;
mod client;
mod documents;
mod jobs;
mod library;
mod outputs;
mod pages;
mod review;
mod rtsp;
