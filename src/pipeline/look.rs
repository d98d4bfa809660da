//! The stages that find out what is in a video, whatever is done with it then.
//!
//! ```text
//! decode ─▶ begin ─▶ pair ─▶ search ─▶ follow ─▶ embed ─▶
//!   1        N      1, in      N       1, in    N, faces
//!                   order              order
//! ```
//!
//! An item is a stretch of frames. The first frame of a stretch is searched as a whole, the
//! others are mostly searched near known faces: where the stretch begins, and where the next one
//! does, whose new faces are followed back. So the result does not depend on the number of
//! workers. A live input has stretches of one frame, and one worker that remembers the last.

use std::sync::Arc;

use image::RgbImage;

use super::graph::{Flow, Graph, Overflow, Worker};
use super::job::{LabelError, LabelJob, Mode};
use super::recognise;
use super::search::{DetectEvery, Found, Search, is_among};
use super::statistics::Work;
use crate::align::{self, Crop};
use crate::detect::{DetectError, Detector, Face, Quality};
use crate::embed::{self, Embedder, Embedding, Mirror};
use crate::media::{Frame, Picture, Source};
use crate::track::{Follower, Luma, Moment, Seen, Step, Thumbnail, TrackId, Tracker, Views};

/// Faces embedded together at most: enough to make weight traffic negligible.
const BATCH_FACES: usize = 16;
/// Pixels of the frames of a stretch at most, as far as that leaves [`LEAST_STRETCH`]: they
/// are all in memory.
const STRETCH_PIXELS: usize = 8 * 1920 * 1080;
/// Frames of a stretch at least, unless fewer are asked for.
const LEAST_STRETCH: usize = 4;

/// How a video is looked at.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// Finds faces.
    pub detector: &'a Detector,
    /// Embeds them; `None` when nobody is looked for.
    pub embedder: Option<&'a Embedder>,
    /// Whether the mirror image of a face has a say.
    pub mirror: Mirror,
    /// How often the whole frame is searched; `None` searches every frame as a whole, and only
    /// so.
    pub every: Option<DetectEvery>,
    /// Which faces are embedded.
    pub views: Views,
    /// Whether pictures are wanted afterwards.
    pub pictures: bool,
    /// Workers a stage.
    pub threads: usize,
}

impl<'a> Look<'a> {
    /// As a job wants it.
    pub fn of(job: &LabelJob<'a>) -> Self {
        let per_frame = job.mode == Mode::PerFrame;
        Self {
            detector: job.detector,
            embedder: job.embedder,
            mirror: job.mirror,
            every: (!per_frame).then_some(job.every),
            views: if per_frame { Views::All } else { Views::Telling },
            pictures: true,
            threads: job.threads.max(1),
        }
    }
}

/// A frame that was looked at.
pub struct Looked {
    /// Which, when, and whether a new shot begins.
    pub moment: Moment,
    /// How long it is shown, in nanoseconds.
    pub duration_ns: u64,
    /// Its pixels, when they are wanted.
    pub picture: Option<Arc<Picture>>,
    /// What it took.
    pub work: Work,
    /// Its faces, the most certain first.
    pub faces: Vec<LookedFace>,
}

/// A face of such a frame.
pub struct LookedFace {
    /// Where it is.
    pub face: Face,
    /// How good a view it is.
    pub quality: Quality,
    /// How it continues the frames before.
    pub step: Step,
    /// Its embedding, where it was embedded.
    pub embedding: Option<Embedding>,
    /// Its aligned crop, once it is cut out and until it is embedded.
    crop: Option<Crop>,
}

impl Looked {
    /// The tracks of its faces.
    pub fn track(&self, tracker: &mut Tracker) -> Vec<TrackId> {
        let faces: Vec<Seen<'_>> = self.faces.iter().map(LookedFace::seen).collect();
        tracker.track(&self.moment, &faces)
    }

    /// Cuts out the faces to be embedded, as far as that is not done yet.
    fn cut(&mut self) {
        let wanted = |one: &LookedFace| one.step.embed && one.crop.is_none();
        if let Some(picture) = self.picture.as_ref().filter(|_| self.faces.iter().any(wanted)) {
            let picture = picture.to_rgb();
            for one in self.faces.iter_mut().filter(|one| wanted(one)) {
                one.crop = align::align(&picture, &one.face.landmarks);
            }
        }
    }
}

impl LookedFace {
    /// What tracking needs of it.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
            chain: self.step.chain,
            doubtful: self.step.doubtful,
            change: self.step.change,
            face: &self.face,
            quality: &self.quality,
            embedding: self.embedding.as_ref(),
        }
    }
}

/// A decoded frame.
struct Shown {
    frame: Frame,
    thumbnail: Thumbnail,
    cut: bool,
}

/// Frames one after the other, and what is known of them before they are searched.
#[derive(Default)]
struct Stretch {
    shown: Vec<Shown>,
    /// The pixels of the first frame and its faces, where that was searched.
    first: Option<(RgbImage, Found)>,
    /// The faces of the frame after the last, unless a new shot begins there.
    next: Vec<Face>,
}

/// A frame in which faces were looked for.
struct Searched {
    shown: Shown,
    found: Found,
    candidates: Vec<recognise::Candidate>,
}

/// The length of a stretch for frames of that size.
fn stretch_frames(every: Option<DetectEvery>, live: bool, (width, height): (usize, usize)) -> usize {
    let Some(every) = every.filter(|_| !live) else { return 1 };
    let room = (STRETCH_PIXELS / (width * height).max(1)).max(LEAST_STRETCH);
    every.stretch().min(room)
}

/// How many items may be on their way through [`stages`], for frames of that size: enough to keep
/// every worker busy, and where an item is a single frame of a file, enough faces for batches.
pub fn in_flight(how: &Look<'_>, live: bool, (width, height): (usize, usize)) -> usize {
    let batch = (STRETCH_PIXELS / (width * height).max(1)).min(BATCH_FACES);
    match how.every {
        _ if live => how.threads + 2,
        Some(_) => 2 * how.threads + 2,
        None => 2 * how.threads + 2 + batch,
    }
}

/// Adds the stages to a graph, from `source` on. Warnings of the source go to `warn`; `at_end` is
/// called when its last frame was read.
pub fn stages<'scope, 'env>(
    graph: &mut Graph<'scope, 'env, LabelError>,
    source: &'env mut Source,
    warn: crossbeam_channel::Sender<String>,
    how: Look<'env>,
    at_end: impl FnOnce() + Send + 'env,
) -> Flow<Vec<Looked>> {
    let Look { detector, embedder, mirror, every, views, pictures, threads } = how;
    let (live, size) = (source.info().live, (source.info().width, source.info().height));
    let length = stretch_frames(every, live, size);
    // Live input wants fresh frames more than full queues.
    let overflow = if live { Overflow::DropOldest(1) } else { Overflow::Wait };
    // Faces that turn up can be followed back where there is anything to go back to.
    let back = every.is_some() && !live && length > 1;
    let (mut before, mut ended): (Option<Thumbnail>, bool) = (None, false);
    let mut at_end = Some(at_end);
    let frames = graph.source("decode", overflow, move || {
        let mut stretch = Vec::with_capacity(length);
        while stretch.len() < length {
            let Some(frame) = source.next_frame()? else {
                if let Some(tell) = at_end.take() {
                    tell();
                }
                break;
            };
            let [luma, ..] = frame.picture.planes();
            let thumbnail = Thumbnail::new(luma, frame.picture.width(), frame.picture.height());
            let cut = before.as_ref().is_some_and(|before| thumbnail.cuts_from(before));
            before = Some(thumbnail.clone());
            stretch.push(Shown { frame, thumbnail, cut });
        }
        source.take_warnings().into_iter().for_each(|text| drop(warn.send(text)));
        // An empty one at the end takes the place of the next of the last.
        let last = back && stretch.is_empty() && !std::mem::replace(&mut ended, true);
        Ok((last || !stretch.is_empty()).then_some(stretch))
    });
    // A worker that remembers what came before must be the only one.
    let remembers = live && every.is_some();
    let searchers = if remembers { 1 } else { threads };
    let views = if embedder.is_some() { views } else { Views::None };
    // Where few are embedded they are cut out when it is known which, from the picture they are
    // in: that costs less than to cut out all while the frame is at hand in RGB.
    let crops = views == Views::All;
    let new_search = move || Search::new(detector, every.unwrap_or(DetectEvery::Frames(1)));
    let begun = graph.map("begin", if back { threads } else { 1 }, frames, move || {
        let mut search = new_search();
        move |shown: Vec<Shown>| {
            search.forget();
            let look = |first: &Shown| -> Result<_, recognise::RecogniseError> {
                let picture = first.frame.picture.to_rgb();
                let found = search.look(&picture, &first.thumbnail, first.cut)?;
                Ok((picture, found))
            };
            let first = shown.first().filter(|_| back).map(look).transpose()?;
            Ok(Stretch { shown, first, next: Vec::new() })
        }
    });
    let mut held = Stretch::default();
    let paired = graph.in_order("pair", begun, move |stretch: Stretch| {
        if !back {
            return Ok(stretch);
        }
        let mut earlier = std::mem::replace(&mut held, stretch);
        if let (Some(shown), Some((_, found))) = (held.shown.first(), &held.first)
            && !shown.cut
        {
            earlier.next.clone_from(&found.faces);
        }
        Ok(earlier)
    });
    let searched = graph.map("search", searchers, paired, move || {
        let mut search = new_search();
        move |stretch: Stretch| {
            if !remembers {
                search.forget();
            }
            let found = search_stretch(&mut search, stretch, back, crops);
            Ok(found.map_err(recognise::RecogniseError::from)?)
        }
    });
    let mut follower = Follower::new(views);
    let followed = graph.in_order("follow", searched, move |stretch: Vec<Searched>| {
        Ok(stretch.into_iter().map(|searched| follow(&mut follower, searched, pictures)).collect::<Vec<_>>())
    });
    let Some(embedder) = embedder else { return followed };
    graph.parts("embed", threads, BATCH_FACES, followed, move || {
        // Before there is a batch: whoever waits for the network then has taken none yet.
        embedder.prepare(threads);
        Embed { embedder, mirror, pictures, scratch: embedder.scratch() }
    })
}

/// Embeds the faces of frames.
struct Embed<'a> {
    embedder: &'a Embedder,
    mirror: Mirror,
    pictures: bool,
    scratch: embed::Scratch,
}

impl Worker<Vec<Looked>, LabelError> for Embed<'_> {
    /// A face and which it is.
    type Part = (usize, usize, Crop);
    type Made = (usize, usize, Embedding);

    fn split(&mut self, frames: &mut Vec<Looked>) -> Result<Vec<Self::Part>, LabelError> {
        let mut parts = Vec::new();
        for (frame, looked) in frames.iter_mut().enumerate() {
            looked.cut();
            looked.picture.take_if(|_| !self.pictures);
            let crops = looked.faces.iter_mut().enumerate();
            parts.extend(crops.filter_map(|(face, one)| Some((frame, face, one.crop.take()?))));
        }
        Ok(parts)
    }

    fn work(&mut self, faces: Vec<Self::Part>) -> Result<Vec<Self::Made>, LabelError> {
        let (places, crops): (Vec<_>, Vec<_>) =
            faces.into_iter().map(|(frame, face, crop)| ((frame, face), crop)).unzip();
        let made = self.embedder.embed(&crops, self.mirror, &mut self.scratch);
        let made = made.map_err(recognise::RecogniseError::from)?;
        Ok(places.into_iter().zip(made).map(|((frame, face), made)| (frame, face, made)).collect())
    }

    fn join(&mut self, frames: &mut Vec<Looked>, made: Vec<Self::Made>) {
        for (frame, face, embedding) in made {
            if let Some(one) = frames.get_mut(frame).and_then(|looked| looked.faces.get_mut(face)) {
                one.embedding = Some(embedding);
            }
        }
    }
}

/// The faces of every frame of a stretch. A face that turns up when the whole frame is searched
/// is followed `back` to where it came in.
fn search_stretch(
    search: &mut Search<'_>,
    stretch: Stretch,
    back: bool,
    crops: bool,
) -> Result<Vec<Searched>, DetectError> {
    let Stretch { shown, mut first, next } = stretch;
    let mut searched: Vec<Searched> = Vec::with_capacity(shown.len());
    for shown in shown {
        let (picture, found) = match first.take() {
            Some((picture, found)) => (picture, search.resume(found, &shown.thumbnail)),
            None => {
                let picture = shown.frame.picture.to_rgb();
                let found = search.look(&picture, &shown.thumbnail, shown.cut)?;
                (picture, found)
            }
        };
        let candidates = recognise::cut(&picture, found.faces.clone(), crops);
        searched.push(Searched { shown, found, candidates });
    }
    if !back {
        return Ok(searched);
    }
    for at in (1..=searched.len()).rev() {
        let (earlier, later) = searched.split_at_mut(at);
        let Some(here) = earlier.last_mut() else { continue };
        let after = match later.first() {
            Some(after) if after.shown.cut => continue,
            Some(after) => &after.found.faces,
            None => &next,
        };
        if after.iter().all(|face| is_among(&face.bbox, &here.found.faces)) {
            continue;
        }
        let picture = here.shown.frame.picture.to_rgb();
        let new = search.look_back(&picture, &mut here.found, after)?;
        here.candidates.extend(recognise::cut(&picture, new, crops));
        here.candidates.sort_by(|a, b| b.face.score.total_cmp(&a.face.score));
    }
    Ok(searched)
}

/// Follows the faces of a frame and keeps of it what is still needed.
fn follow(follower: &mut Follower, searched: Searched, pictures: bool) -> Looked {
    let Searched { shown: Shown { frame, cut, .. }, found, candidates } = searched;
    let moment = Moment { frame: frame.index, pts_ns: frame.pts_ns, cut };
    let places: Vec<(Face, Quality)> = candidates.iter().map(|one| (one.face, one.quality)).collect();
    let [bytes, ..] = frame.picture.planes();
    let luma = Luma { bytes, width: frame.picture.width(), height: frame.picture.height() };
    let steps = follower.follow(&moment, luma, &places);
    let faces: Vec<LookedFace> = candidates
        .into_iter()
        .zip(steps)
        .map(|(recognise::Candidate { face, quality, crop }, step)| LookedFace {
            face,
            quality,
            step,
            embedding: None,
            crop: crop.filter(|_| step.embed),
        })
        .collect();
    let embedded = faces.iter().filter(|face| face.step.embed).count() as u64;
    Looked {
        moment,
        duration_ns: frame.duration_ns,
        picture: (pictures || embedded > 0).then_some(frame.picture),
        work: Work { frames: 1, searched: u64::from(found.whole), faces: faces.len() as u64, embedded },
        faces,
    }
}
