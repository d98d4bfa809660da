//! `sphereface serve` as seen by users and attackers: the real program over HTTP.
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
