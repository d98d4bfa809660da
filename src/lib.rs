//! Face recognition in videos and stills: everyone you enrolled is named, everyone else stays unknown.
//!
//! Faces in a video become *observations*, the comparison of observations with the *gallery* gives
//! *identifications* (a person, or unknown), and identifications are *rendered* (drawn, written, played):
//!
//! ```text
//! media ─ Frame ▶ detect ─ DetectedFace ▶ align ─ Crop ▶ embed ─ Embedding ▶ track ─ Track ▶ identify ─ IdentifiedFace ▶ LabelledFrame ▶ subscribers
//!                                                                                                                  (annotate + media, report, analysis, your callback)
//! ```
//!
//! The entry points are in [`engine`]: an [`Engine`] is shared by everything, a [`Gallery`] holds the people
//! to name, and a [`Stream`] turns the frames of one source into [`LabelledFrame`]s and [`Event`]s. A
//! [`Recogniser`] is for stills. A [`LabelJob`](pipeline::LabelJob) labels a whole file or live source and
//! calls back.
//!
//! | module | purpose | may use |
//! |---|---|---|
//! | [`file`](mod@file) | atomic file writing; reading text files | |
//! | [`download`] | a file of known content from a web server | |
//! | [`media`] | open any source, deliver frames, write any sink with the audio kept | `file` |
//! | [`xmp`] | named faces in photos: XMP read and written | `file`, `media` |
//! | [`models`] | networks as data: architectures and plans; import and export of weights, built-in weights | `file` |
//! | [`nn`] | CPU kernels and their gradients, threads, layers on a GPU, device choice | |
//! | [`detect`] | MTCNN: pyramid, three networks, boxes; face quality | `models`, `nn` |
//! | [`align`] | landmarks -> similarity transform -> 112x96 crop, and the columns beside it | `detect` |
//! | [`embed`] | SphereFace networks and imported ones: crop -> embedding | `models`, `nn`, `align` |
//! | [`track`] | tracking: which faces of a video are one person; the weight of each view | `models`, `detect`, `embed` |
//! | [`gallery`] | people, stills, templates, storage, search, counter-examples, checking a gallery | `file`, `media`, `xmp`, `models`, `nn`, `detect`, `align`, `embed` |
//! | [`identify`] | the open-set decision about a face or a track; its threshold | `models`, `nn`, `detect`, `embed`, `track`, `gallery` |
//! | [`engine`] | the entry points: engine, gallery, stream, recogniser, events | `media`, `models`, `nn`, `detect`, `align`, `embed`, `track`, `gallery`, `identify` |
//! | [`analysis`] | tracks and embeddings of a video as a Parquet file | `file`, `models`, `nn`, `detect`, `embed`, `track` |
//! | [`discover`] | grouping strangers into people | `media`, `models`, `detect`, `align`, `embed`, `track`, `gallery`, `analysis` |
//! | [`annotate`] | drawing boxes and names, redaction, contact sheets | `media`, `detect` |
//! | [`report`] | reports: JSON Lines, CSV, subtitles, chapters, pages, charts | `file`, `detect`, `track`, `identify`, `annotate` |
//! | [`pipeline`] | the stage graph: threads, channels, order, batching, statistics; the jobs | `file`, `media`, `xmp`, `detect`, `align`, `embed`, `track`, `identify`, `engine`, `analysis`, `discover`, `annotate`, `report` |
//! | [`library`] | many videos and photos: a catalogue, a queue of files, workers, queries | `file`, `media`, `nn`, `detect`, `align`, `embed`, `track`, `gallery`, `identify`, `engine`, `analysis`, `discover`, `report`, `pipeline` |
//! | [`prepare`] | aligning a data set: photos -> crops | `file`, `media`, `detect`, `align`, `gallery` |
//! | [`eval`] | verification, open-set identification, video scoring, calibration | `file`, `media`, `detect`, `align`, `embed`, `gallery`, `identify`, `report`, `prepare` |
//! | [`train`] | data set, augmentation, losses, schedule, checkpoints, the loop | `file`, `models`, `nn`, `align`, `embed`, `report`, `eval` |
//! | [`serve`] | cameras and a service: many sources on one engine, API, pages, events, jobs | `media`, `models`, `nn`, `detect`, `embed`, `track`, `gallery`, `identify`, `engine`, `discover`, `annotate`, `report`, `pipeline`, `library` |
//! | [`bench`](mod@bench) | this machine's peak and the speed of the networks and of a whole job | `media`, `models`, `nn`, `detect`, `align`, `embed`, `gallery`, `engine`, `annotate`, `pipeline`, `library`, `serve` |
//!
//! A test checks this table against the imports. The program is a crate of its own, `src/main.rs` with
//! `src/cli`: one file per subcommand, arguments -> validated config -> library call.
//!
//! Features add top-level modules and do not change others: `label` is [`analysis`] to [`pipeline`] for
//! stills, `download` and `xmp` are the modules of that name, `video` adds GStreamer to them, `train` is
//! [`prepare`] to [`train`](mod@train) and [`bench`](mod@bench), `serve` cameras and a service, `library`
//! many files, `cli` the command line's program, `candle` the networks in candle's operations, `cuda` those on a GPU,
//! and `bundled-models` the trained networks, whose terms differ from the code's. Without features, faces in
//! stills are detected, embedded and identified.
//!
//! The library never prints or exits, and its errors are typed. Only the program prints.
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod align;
#[cfg(feature = "label")]
pub mod analysis;
#[cfg(feature = "label")]
pub mod annotate;
#[cfg(feature = "train")]
pub mod bench;
pub mod detect;
#[cfg(feature = "label")]
pub mod discover;
#[cfg(feature = "download")]
pub mod download;
pub mod embed;
pub mod engine;
#[cfg(feature = "train")]
pub mod eval;
pub mod file;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gallery;
pub mod identify;
#[cfg(feature = "library")]
pub mod library;
pub mod media;
pub mod models;
#[cfg(test)]
mod mutations;
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
#[cfg(feature = "xmp")]
pub mod xmp;

pub use engine::{
    DetectedFace, Engine, EngineError, Event, EventKind, Gallery, GalleryOptions, IdentifiedFace,
    LabelledFrame, Output, Recogniser, Stream, StreamOptions,
};
