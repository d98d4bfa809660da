//! The state of one source.

use std::collections::{BTreeMap, VecDeque};

use super::error::RecogniseError;
use super::event::{Event, Presence};
use super::face::{IdentifiedFace, LabelledFrame, TrackedFace};
use super::observe::{self, Chunk, DecodedFrame, ObservedFrame};
use super::region::Regions;
use super::schedule::{DetectEvery, DetectionSchedule};
use super::work::Work;
use super::{Engine, Gallery};
use crate::identify::{Decision, Identifier, IdentifyError, Online, View};
use crate::media::Frame;
use crate::track::{Follower, Moment, Thumbnail, TrackId, Tracker, Views};

/// Options of a stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Interval between full detection passes.
    pub detect_every: DetectEvery,
    /// Whether every frame is labelled before the next one arrives, as for a camera. Otherwise up to eight
    /// frames are held back, so that new faces can be followed back to where they appeared, as for a file.
    pub live: bool,
    /// Nanoseconds out of sight after which a person has left.
    pub left_after_ns: u64,
    /// Whether labelled frames contain their pictures.
    pub pictures: bool,
    /// Where faces count; the others are neither tracked nor embedded.
    pub regions: Regions,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            detect_every: DetectEvery::Auto,
            live: true,
            left_after_ns: 2_000_000_000,
            pictures: false,
            regions: Regions::default(),
        }
    }
}

impl StreamOptions {
    /// Sets the interval between full detection passes.
    pub fn detect_every(mut self, every: DetectEvery) -> Self {
        self.detect_every = every;
        self
    }

    /// Sets whether the source is live.
    pub fn live(mut self, live: bool) -> Self {
        self.live = live;
        self
    }

    /// Sets the time out of sight after which a person has left, in nanoseconds.
    pub fn left_after_ns(mut self, nanoseconds: u64) -> Self {
        self.left_after_ns = nanoseconds;
        self
    }

    /// Sets where faces count.
    pub fn regions(mut self, regions: Regions) -> Self {
        self.regions = regions;
        self
    }

    /// Sets whether labelled frames contain their pictures.
    pub fn pictures(mut self, pictures: bool) -> Self {
        self.pictures = pictures;
        self
    }
}

/// The output of a stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// A frame with its faces, in the order in which frames were pushed.
    Frame(LabelledFrame),
    /// An event of the frame before.
    Event(Event),
}

/// One source's state: frames in by [`push`](Self::push), labelled frames and events out by
/// [`pull`](Self::pull).
///
/// A stream works on the thread that pushes. Several streams on one engine may run on separate threads; their
/// faces share batches. The output depends on the frames alone, not on other streams.
///
/// ```no_run
/// # use sphereface::{Engine, Gallery, Output, Stream, StreamOptions};
/// # fn next_frame() -> Option<sphereface::media::Frame> { None }
/// # let engine = Engine::new()?;
/// # let gallery = Gallery::open(&engine, "gallery")?;
/// let mut stream = Stream::new(&engine, Some(&gallery), StreamOptions::default());
/// while let Some(frame) = next_frame() {
///     stream.push(frame)?;
///     while let Some(output) = stream.pull() {
///         match output {
///             Output::Frame(frame) => println!("{} faces", frame.faces.len()),
///             Output::Event(event) => println!("{}: {:?}", event.who, event.kind),
///             _ => {}
///         }
///     }
/// }
/// stream.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stream {
    engine: Engine,
    gallery: Option<Gallery>,
    options: StreamOptions,
    /// Searches the frames of a chunk, one after the other; of a live source, all frames.
    schedule: DetectionSchedule,
    /// Searches the first frame of the next chunk while the previous one still waits.
    begins: DetectionSchedule,
    before: Option<Thumbnail>,
    /// Frames of the chunk that is not full yet.
    frames: Vec<DecodedFrame>,
    /// The chunk before, which waits for the one after it.
    waiting: Option<Chunk>,
    follower: Follower,
    decider: Decider,
    presence: Presence,
    outputs: VecDeque<Output>,
    /// Width and height of the last frame.
    size: (usize, usize),
    work: Work,
}

impl Stream {
    /// The state of a source before its first frame. Without a gallery, every person is a numbered stranger.
    pub fn new(engine: &Engine, gallery: Option<&Gallery>, options: StreamOptions) -> Self {
        let schedule = || DetectionSchedule::new(engine, options.detect_every);
        Self {
            schedule: schedule(),
            begins: schedule(),
            before: None,
            frames: Vec::new(),
            waiting: None,
            follower: Follower::new(Views::Telling),
            decider: Decider::new(same_deg(engine, gallery), false),
            presence: Presence::new(options.left_after_ns),
            outputs: VecDeque::new(),
            size: (0, 0),
            work: Work::default(),
            engine: engine.clone(),
            gallery: gallery.cloned(),
            options,
        }
    }

    /// Uses another gallery from the next frame on, and decides again about people in sight.
    ///
    /// # Errors
    /// When the gallery is of another model than the engine.
    pub fn set_gallery(&mut self, gallery: Option<&Gallery>) -> Result<(), RecogniseError> {
        self.decider.online.judge_anew(gallery.map(Gallery::identifier))?;
        self.gallery = gallery.cloned();
        Ok(())
    }

    /// Takes the next frame. Indices and times increase.
    ///
    /// # Errors
    /// When the device fails, or the gallery is of another model than the engine.
    pub fn push(&mut self, frame: Frame) -> Result<(), RecogniseError> {
        let size = (frame.picture.width(), frame.picture.height());
        let length = observe::chunk_frames(Some(self.options.detect_every), self.options.live, size);
        self.size = size;
        let decoded = DecodedFrame::after(&mut self.before, frame);
        if self.options.live {
            let chunk = Chunk { frames: vec![decoded], ..Chunk::default() };
            return self.observe(chunk, false);
        }
        self.frames.push(decoded);
        if self.frames.len() < length {
            return Ok(());
        }
        self.complete(length > 1)
    }

    /// The source has ended: labels the frames that were held back. Everybody in sight leaves.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn finish(&mut self) -> Result<(), RecogniseError> {
        if !self.frames.is_empty() {
            self.complete(true)?;
        }
        if let Some(last) = self.waiting.take() {
            self.observe(last, true)?;
        }
        self.outputs.extend(self.presence.finish().into_iter().map(Output::Event));
        Ok(())
    }

    /// The next frame or event, in order; `None` until more frames are pushed.
    pub fn pull(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The work done so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// The chunk is full, so the previous one can be searched: its next frames are known now.
    fn complete(&mut self, back: bool) -> Result<(), RecogniseError> {
        let frames = std::mem::take(&mut self.frames);
        if !back {
            return self.observe(Chunk { frames, ..Chunk::default() }, false);
        }
        let chunk = Chunk::begin(frames, &mut self.begins)?;
        if let Some(mut before) = self.waiting.take() {
            before.precedes(&chunk);
            self.observe(before, true)?;
        }
        self.waiting = Some(chunk);
        Ok(())
    }

    /// Searches, follows, embeds and decides.
    fn observe(&mut self, chunk: Chunk, back: bool) -> Result<(), RecogniseError> {
        if !self.options.live {
            self.schedule.forget();
        }
        let searched = observe::search(&mut self.schedule, chunk, back, false)?;
        let pictures = self.options.pictures;
        let mut frames: Vec<ObservedFrame> =
            searched.into_iter().map(|one| observe::follow(&mut self.follower, one, pictures)).collect();
        let (regions, size) = (&self.options.regions, self.size);
        let mut elsewhere = Vec::new();
        for frame in &mut frames {
            let out = frame.faces.extract_if(.., |one| !regions.keep(&one.face.bbox, size));
            elsewhere.push(out.map(|one| one.face.bbox).collect::<Vec<_>>());
        }
        self.embed(&mut frames)?;
        for (mut frame, elsewhere) in frames.into_iter().zip(elsewhere) {
            self.work += frame.work;
            frame.picture.take_if(|_| !pictures);
            let mut labelled = self.decider.decide(frame, self.gallery.as_ref().map(Gallery::identifier))?;
            labelled.elsewhere = elsewhere;
            let events = self.presence.see(&labelled);
            self.outputs.push_back(Output::Frame(labelled));
            self.outputs.extend(events.into_iter().map(Output::Event));
        }
        Ok(())
    }

    /// Embeds the selected faces of all frames together.
    fn embed(&mut self, frames: &mut [ObservedFrame]) -> Result<(), RecogniseError> {
        frames.iter_mut().for_each(ObservedFrame::cut);
        let faces = frames.iter_mut().flat_map(|frame| &mut frame.faces);
        let mut wanted: Vec<&mut TrackedFace> = faces.filter(|face| face.crop.is_some()).collect();
        let crops = wanted.iter_mut().filter_map(|face| face.crop.take()).collect();
        let made = self.engine.embed(crops)?;
        wanted.into_iter().zip(made).for_each(|(face, made)| face.embedding = Some(made));
        Ok(())
    }
}

/// Largest angle between two views of one person in degrees, if it is known.
pub(crate) fn same_deg(engine: &Engine, gallery: Option<&Gallery>) -> Option<f64> {
    engine.same_person_deg().or_else(|| gallery.map(|gallery| gallery.threshold().angle_deg()))
}

/// Decides about frames in order: their tracks, and the identities by the frames so far.
pub(crate) struct Decider {
    tracker: Tracker,
    online: Online,
    /// Decides about every face by itself.
    per_frame: bool,
}

impl Decider {
    /// Starts without tracks.
    pub fn new(same_deg: Option<f64>, per_frame: bool) -> Self {
        Self { tracker: Tracker::new(same_deg), online: Online::new(same_deg), per_frame }
    }

    /// The identified faces of the next frame.
    pub fn decide(
        &mut self,
        frame: ObservedFrame,
        identifier: Option<&Identifier>,
    ) -> Result<LabelledFrame, IdentifyError> {
        let tracks = frame.track(&mut self.tracker);
        let mut faces = match identifier.filter(|_| self.per_frame) {
            Some(identifier) => alone(&frame, &tracks, identifier)?,
            None => self.together(&frame, &tracks, identifier)?,
        };
        let ObservedFrame { moment, duration_ns, picture, faces: observed, .. } = frame;
        for (face, observed) in faces.iter_mut().zip(observed) {
            face.embedding = observed.embedding;
        }
        let Moment { frame: index, pts_ns, cut } = moment;
        Ok(LabelledFrame { index, pts_ns, duration_ns, cut, faces, picture, ..LabelledFrame::default() })
    }

    /// Decides about the tracks by the frames so far.
    fn together(
        &mut self,
        frame: &ObservedFrame,
        tracks: &[TrackId],
        identifier: Option<&Identifier>,
    ) -> Result<Vec<IdentifiedFace>, IdentifyError> {
        let faces = frame.faces.iter().zip(tracks);
        let views: Vec<View<'_>> = faces
            .map(|(one, &track)| View {
                track,
                face: &one.face,
                quality: &one.quality,
                embedding: one.embedding.as_ref(),
            })
            .collect();
        let decisions = self.online.decide(identifier, &frame.moment, &views)?;
        let by_track: BTreeMap<TrackId, &Decision> = decisions.iter().map(|one| (one.track, one)).collect();
        let one = |(one, track): (&TrackedFace, &TrackId)| {
            IdentifiedFace::of_track(one.face, one.quality, *track, by_track.get(track).copied())
        };
        Ok(frame.faces.iter().zip(tracks).map(one).collect())
    }
}

/// Decides about each face by itself, without tracks.
fn alone(
    frame: &ObservedFrame,
    tracks: &[TrackId],
    identifier: &Identifier,
) -> Result<Vec<IdentifiedFace>, IdentifyError> {
    let one = |(one, &track): (&TrackedFace, &TrackId)| {
        let mut face = IdentifiedFace::unknown(one.face, one.quality);
        face.track = Some(track);
        if let Some(embedding) = &one.embedding {
            let view = crate::gallery::Viewpoint::of(&one.face, &one.quality);
            face.identification = identifier.identify(embedding, view)?;
        }
        Ok(face)
    };
    frame.faces.iter().zip(tracks).map(one).collect()
}
