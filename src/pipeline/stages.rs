//! The stages that observe a video, on the threads of a graph.
//!
//! ```text
//! decode ─▶ begin ─▶ pair ─▶ search ─▶ follow ─▶ embed ─▶
//!   1        N      1, in      N       1, in    N, faces
//!                   order              order
//! ```
//!
//! An item is a chunk of frames; its processing is in [`engine::observe`](crate::engine::observe).

use super::LabelError;
use super::graph::{BatchWorker, Flow, Graph, Overflow};
use super::job::{LabelJob, Mode};
use crate::align::Crop;
use crate::embed;
use crate::engine::observe::{self, CHUNK_PIXELS, Chunk, DecodedFrame, ObservedFrame, SearchedFrame};
use crate::engine::schedule::DetectionSchedule;
use crate::engine::{DetectEvery, Engine, RecogniseError};
use crate::media::Source;
use crate::track::{Follower, Thumbnail, Views};

/// Maximum batch size of embedding: enough to make the memory traffic of weights negligible.
const BATCH_FACES: usize = 16;

/// Settings for observing a video.
#[derive(Clone, Copy)]
pub(super) struct Observe<'a> {
    /// Detects and embeds faces.
    pub engine: &'a Engine,
    /// Interval between full passes; `None` makes a full pass over every frame and follows nothing.
    pub every: Option<DetectEvery>,
    /// The faces to embed.
    pub views: Views,
    /// Whether pictures are needed afterwards.
    pub pictures: bool,
}

impl<'a> Observe<'a> {
    /// The settings of a job.
    pub fn of(job: &'a LabelJob<'_>, embeds: bool, pictures: bool) -> Self {
        let per_frame = job.mode == Mode::PerFrame;
        let views = if per_frame { Views::All } else { Views::Telling };
        Self {
            engine: &job.engine,
            every: (!per_frame).then_some(job.detect_every),
            views: if embeds { views } else { Views::None },
            pictures,
        }
    }

    /// Maximum number of items inside [`stages`] for frames of that size: enough to keep every worker busy
    /// and, if an item is a single frame of a file, enough faces for batches.
    pub fn in_flight(&self, live: bool, (width, height): (usize, usize)) -> usize {
        let batch = (CHUNK_PIXELS / (width * height).max(1)).min(BATCH_FACES);
        let threads = self.engine.threads();
        match self.every {
            _ if live => threads + 2,
            Some(_) => 2 * threads + 2,
            None => 2 * threads + 2 + batch,
        }
    }
}

/// Adds the stages to a graph, from `source` on. Warnings of the source go to `warn`; `at_end` is called when
/// its last frame was read.
pub(super) fn stages<'scope, 'env>(
    graph: &mut Graph<'scope, 'env, LabelError>,
    source: &'env mut Source,
    warn: crossbeam_channel::Sender<String>,
    how: Observe<'env>,
    at_end: impl FnOnce() + Send + 'env,
) -> Flow<Vec<ObservedFrame>> {
    let Observe { engine, every, views, pictures } = how;
    let threads = engine.threads();
    let (live, size) = (source.info().live, (source.info().width, source.info().height));
    let length = observe::chunk_frames(every, live, size);
    // New faces can be followed back only if there are earlier frames in the chunk.
    let back = every.is_some() && !live && length > 1;
    let frames = decode(graph, source, warn, (length, back), at_end);
    // A worker that remembers the previous frames must be the only one.
    let remembers = live && every.is_some();
    let searchers = if remembers { 1 } else { threads };
    // If few faces are embedded, they are cropped after the selection. That takes less time than cropping all
    // of them while the frame is available in RGB.
    let crops = views == Views::All;
    let schedule = move || DetectionSchedule::new(engine, every.unwrap_or(DetectEvery::Frames(1)));
    let begun = graph.map("begin", if back { threads } else { 1 }, frames, move || {
        let mut schedule = schedule();
        move |frames: Vec<DecodedFrame>| match back {
            true => Ok(Chunk::begin(frames, &mut schedule).map_err(RecogniseError::from)?),
            false => Ok(Chunk { frames, ..Chunk::default() }),
        }
    });
    let mut held = Chunk::default();
    let paired = graph.in_order("pair", begun, move |chunk: Chunk| {
        if !back {
            return Ok(chunk);
        }
        let mut earlier = std::mem::replace(&mut held, chunk);
        earlier.precedes(&held);
        Ok(earlier)
    });
    let searched = graph.map("search", searchers, paired, move || {
        let mut schedule = schedule();
        move |chunk: Chunk| {
            if !remembers {
                schedule.forget();
            }
            Ok(observe::search(&mut schedule, chunk, back, crops).map_err(RecogniseError::from)?)
        }
    });
    let mut follower = Follower::new(views);
    let followed = graph.in_order("follow", searched, move |chunk: Vec<SearchedFrame>| {
        Ok(chunk.into_iter().map(|one| observe::follow(&mut follower, one, pictures)).collect::<Vec<_>>())
    });
    if views == Views::None {
        return followed;
    }
    graph.batched("embed", threads, BATCH_FACES, followed, move || {
        // Before the first batch is taken, so that a worker that waits for the network holds no faces.
        engine.embedder().prepare(threads);
        Embed { engine, pictures, scratch: engine.embedder().scratch() }
    })
}

/// The stage that reads frames, `length` per chunk. If faces are followed back, an empty chunk marks the end.
fn decode<'scope, 'env>(
    graph: &mut Graph<'scope, 'env, LabelError>,
    source: &'env mut Source,
    warn: crossbeam_channel::Sender<String>,
    (length, back): (usize, bool),
    at_end: impl FnOnce() + Send + 'env,
) -> Flow<Vec<DecodedFrame>> {
    // For live input, fresh frames matter more than full queues.
    let overflow = if source.info().live { Overflow::DropOldest(1) } else { Overflow::Wait };
    let (mut before, mut ended): (Option<Thumbnail>, bool) = (None, false);
    let mut at_end = Some(at_end);
    graph.source("decode", overflow, move || {
        let mut chunk = Vec::with_capacity(length);
        let mut room = length;
        while chunk.len() < room {
            let Some(frame) = source.next_frame()? else {
                if let Some(tell) = at_end.take() {
                    tell();
                }
                break;
            };
            if before.is_none() {
                // A part of a file has the chunks of the whole file, so that the same frames are searched in
                // both.
                room -= (source.info().frames_before(frame.pts_ns) % length as u64) as usize;
            }
            chunk.push(DecodedFrame::after(&mut before, frame));
        }
        source.take_warnings().into_iter().for_each(|text| drop(warn.send(text)));
        // An empty chunk at the end is the successor of the last one.
        let last = back && chunk.is_empty() && !std::mem::replace(&mut ended, true);
        Ok((last || !chunk.is_empty()).then_some(chunk))
    })
}

/// Embeds the faces of frames.
struct Embed<'a> {
    engine: &'a Engine,
    pictures: bool,
    scratch: embed::Scratch,
}

impl BatchWorker<Vec<ObservedFrame>, LabelError> for Embed<'_> {
    /// A face: its frame, its index in the frame, and its crop.
    type Part = (usize, usize, Crop);
    type Made = (usize, usize, embed::Embedding);

    fn split(&mut self, frames: &mut Vec<ObservedFrame>) -> Result<Vec<Self::Part>, LabelError> {
        let mut parts = Vec::new();
        for (number, frame) in frames.iter_mut().enumerate() {
            frame.cut();
            frame.picture.take_if(|_| !self.pictures);
            let crops = frame.faces.iter_mut().enumerate();
            parts.extend(crops.filter_map(|(face, one)| Some((number, face, one.crop.take()?))));
        }
        Ok(parts)
    }

    fn work(&mut self, faces: Vec<Self::Part>) -> Result<Vec<Self::Made>, LabelError> {
        let (places, crops): (Vec<_>, Vec<_>) =
            faces.into_iter().map(|(frame, face, crop)| ((frame, face), crop)).unzip();
        let made = self.engine.embedder().embed(&crops, self.engine.mirror(), &mut self.scratch);
        let made = made.map_err(RecogniseError::from)?;
        Ok(places.into_iter().zip(made).map(|((frame, face), made)| (frame, face, made)).collect())
    }

    fn join(&mut self, frames: &mut Vec<ObservedFrame>, made: Vec<Self::Made>) {
        for (frame, face, embedding) in made {
            if let Some(one) = frames.get_mut(frame).and_then(|frame| frame.faces.get_mut(face)) {
                one.embedding = Some(embedding);
            }
        }
    }
}
