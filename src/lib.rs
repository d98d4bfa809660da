//! Point it at a video and get the same video back with everyone you enrolled named.
//!
//! A video becomes *observations* (what was seen), observations meet the *gallery* (who is
//! known) and become *identifications* (who it was, or unknown), and identifications are
//! *rendered* (drawn, written, played):
//!
//! ```text
//! media ─ Frame ▶ detect ─ DetectedFace ▶ align ─ Crop ▶ embed ─ Embedding ▶ track ─ Track ▶ identify ─ IdentifiedFace ▶ LabelledFrame ▶ subscribers
//!                                                                                                                  (annotate + media, report, analysis, your callback)
//! ```
//!
//! Another program comes in by the door, [`engine`]: an [`Engine`] is shared by everything, a [`Gallery`] is who is
//! known, and a [`Stream`] takes frames of one source and gives [`LabelledFrame`]s and [`Event`]s. A [`Recogniser`] is
//! for stills. Whole files and live sources are a [`LabelJob`](pipeline::LabelJob), which calls back.
//!
//! | room | job | may know |
//! |---|---|---|
//! | [`file`] | files written whole or not at all; text files read | |
//! | [`media`] | open any source, hand out frames, write any sink with the audio kept | `file` |
//! | [`nn`] | CPU kernels and their gradients, weights in and out, device choice | `file` |
//! | [`detect`] | MTCNN: pyramid, three networks, boxes; face quality | `nn` |
//! | [`align`] | landmarks -> similarity transform -> 112x96 crop | `detect` |
//! | [`embed`] | SphereFace networks: crop -> embedding | `nn`, `align` |
//! | [`track`] | which faces of a video are one person, and what each view is worth | `detect`, `embed` |
//! | [`gallery`] | people, stills, templates, storage, search, counter-examples, the check of a gallery | `file`, `media`, `nn`, `detect`, `align`, `embed`, `track` |
//! | [`identify`] | the open-set decision about a face or a track; its threshold | `nn`, `detect`, `embed`, `track`, `gallery` |
//! | [`engine`] | the door: engine, gallery, stream, recogniser, events | `media`, `nn`, `detect`, `align`, `embed`, `track`, `gallery`, `identify` |
//! | [`analysis`] | what was seen in a video, as a Parquet file | `file`, `nn`, `detect`, `embed`, `track` |
//! | [`discover`] | who was never named: strangers grouped into people | `media`, `nn`, `detect`, `align`, `embed`, `track`, `gallery`, `analysis` |
//! | [`annotate`] | boxes and names drawn on a picture, faces covered, contact sheets | `media`, `detect` |
//! | [`report`] | results for machines, players and people | `file`, `detect`, `track`, `identify`, `annotate` |
//! | [`pipeline`] | the stage graph: threads, channels, order, batching, statistics; the jobs | `media`, `detect`, `align`, `embed`, `track`, `identify`, `engine`, `analysis`, `discover`, `annotate`, `report` |
//! | [`prepare`] | a data set of photos -> a data set of crops | `file`, `media`, `detect`, `align`, `gallery` |
//! | [`eval`] | verification, open-set identification, video scoring, calibration | `file`, `media`, `detect`, `align`, `embed`, `track`, `gallery`, `identify`, `report`, `prepare` |
//! | [`train`] | data set, augmentation, losses, schedule, checkpoints, the loop | `file`, `nn`, `align`, `embed`, `eval` |
//! | [`bench`] | this machine's peak, and what the networks and a whole job reach of it | `media`, `nn`, `detect`, `align`, `embed`, `gallery`, `engine`, `annotate`, `pipeline` |
//! | [`serve`] | cameras and a service: many sources on one engine, API, pages, events | `media`, `nn`, `detect`, `embed`, `track`, `gallery`, `identify`, `engine`, `discover`, `annotate` |
//! | [`cli`] | one file per subcommand: arguments -> validated config -> library call | everything |
//!
//! A test holds this table to the imports.
//!
//! Features add rooms and change none: `label` is [`analysis`] to [`pipeline`] for stills, `video` adds GStreamer to
//! them, `train` is [`prepare`] to [`bench`], `serve` cameras and a service, `cli` the command line, `candle` the networks in candle's operations,
//! `cuda` those on a GPU, and `bundled-models` the trained networks, whose terms differ from the code's. Without any of
//! them faces of stills are found, embedded and named.
//!
//! Nothing here prints or exits; errors are typed. Only [`cli`] talks to a person.
#![deny(missing_docs)]
// The macros panic when the reader of a pipe is gone: the command line has its own.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod align;
#[cfg(feature = "label")]
pub mod analysis;
#[cfg(feature = "label")]
pub mod annotate;
#[cfg(feature = "train")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod detect;
#[cfg(feature = "label")]
pub mod discover;
pub mod embed;
pub mod engine;
#[cfg(feature = "train")]
pub mod eval;
pub mod file;
pub mod gallery;
pub mod identify;
pub mod media;
pub mod nn;
#[cfg(feature = "label")]
pub mod pipeline;
#[cfg(feature = "train")]
pub mod prepare;
#[cfg(feature = "label")]
pub mod report;
#[cfg(feature = "serve")]
pub mod serve;
pub mod track;
#[cfg(feature = "train")]
pub mod train;

pub use engine::{
    DetectedFace, Engine, EngineError, Event, EventKind, Gallery, GalleryOptions, IdentifiedFace,
    LabelledFrame, Output, Recogniser, Stream, StreamOptions,
};
