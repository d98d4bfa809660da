//! `sphereface serve` as its users, and those who should not be, meet it: the real program, asked over HTTP.
#![cfg(feature = "serve")]

mod api;
mod attack;
mod browser;
mod cameras;
mod client;
mod documents;
mod pages;
