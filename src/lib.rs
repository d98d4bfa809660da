//! Point it at a video and get the same video back with everyone you enrolled named.
//!
//! A video becomes *observations* (what was seen), observations meet the *gallery* (who is
//! known) and become *identifications* (who it was, or unknown), and identifications are
//! *rendered* (drawn, written, played):
//!
//! ```text
//! media ─ Frame ▶ detect ─ Face ▶ align ─ Crop ▶ embed ─ Embedding ▶ track ─ Track ▶ identify ─ Decision ▶ annotate ▶ media
//!                                                                      │                            └▶ report
//!                                                                      └▶ analysis (label again without seeing a pixel)
//! ```
//!
//! | room | job | may know |
//! |---|---|---|
//! | [`file`] | files written whole or not at all; text files read | |
//! | [`media`] | open any source, hand out frames, write any sink with the audio kept | `file` |
//! | [`nn`] | CPU kernels and their gradients, weights in and out, device choice | `file`, candle |
//! | [`detect`] | MTCNN: pyramid, three networks, boxes; face quality | `nn` |
//! | [`align`] | landmarks -> similarity transform -> 112x96 crop | |
//! | [`embed`] | SphereFace networks: crop -> embedding | `nn`, `align` |
//! | [`prepare`] | a data set of photos -> a data set of crops | `file`, `media`, `detect`, `align` |
//! | [`gallery`] | people, stills, templates, storage, search, counter-examples, the doctor | `file`, `media`, `detect`, `align`, `embed` |
//! | [`track`] | which faces of a video are one person, and what each view is worth | `detect`, `embed` |
//! | [`identify`] | the open-set decision about a face or a track; its threshold | `gallery`, `track` |
//! | [`analysis`] | what was seen in a video, as a Parquet file | `file`, `track` |
//! | [`discover`] | who was never named: strangers grouped into people | `analysis`, `gallery`, `media` |
//! | [`annotate`] | boxes and names drawn on a picture, faces covered, contact sheets | `media` |
//! | [`report`] | results for machines, players and people | `file`, `identify`, `annotate` |
//! | [`eval`] | verification, open-set identification, video scoring, calibration | all of the above |
//! | [`train`] | data set, augmentation, losses, schedule, checkpoints, the loop | `file`, `nn`, `embed`, `eval` |
//! | [`pipeline`] | the stage graph: threads, channels, order, batching, statistics; the jobs | all stages |
//! | [`bench`] | this machine's peak, and what the networks and a whole job reach of it | all of the above |
//! | [`cli`] | one file per subcommand: arguments -> validated config -> library call | everything |
//!
//! Nothing here prints or exits; errors are typed. Only [`cli`] talks to a person.
#![warn(missing_docs)]
// The macros panic when the reader of a pipe is gone: the command line has its own.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod align;
pub mod analysis;
pub mod annotate;
pub mod bench;
pub mod cli;
pub mod detect;
pub mod discover;
pub mod embed;
pub mod engine;
pub mod eval;
pub mod file;
pub mod gallery;
pub mod identify;
pub mod media;
pub mod nn;
pub mod pipeline;
pub mod prepare;
pub mod report;
pub mod track;
pub mod train;

pub use engine::{
    DetectedFace, Engine, EngineError, Event, EventKind, Gallery, GalleryOptions, IdentifiedFace,
    LabelledFrame, Output, Recogniser, Stream, StreamOptions,
};
