//! A source: one thread that keeps its newest frame, and one that analyses it.

mod state;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::config::SourceSettings;
use super::confirm::Confirm;
use super::cover::{boxes, cover};
use super::sightings::{Sightings, encode};
use super::store::Store;
use super::turns::Turns;
use super::{lock, now_ms};
use crate::annotate::{Annotator, Colours, Label, Style};
use crate::engine::{Engine, Gallery, LabelledFrame, Output, Stream, StreamOptions};
use crate::media::{Frame, Input, MediaError, Picture, Reconnect, Source, SourceOptions, StopHandle};

use state::State;
pub(super) use state::{FaceInSight, Phase, SourceState};

/// Pause before a source that failed is opened again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. With an attempt that is given up after 20 s, a source is back 30 s after it answers again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A source that ran for that long begins with the first pause again.
const RAN_WELL: Duration = Duration::from_secs(10);
/// How long a source may give nothing before it is opened again.
const PATIENCE: Duration = Duration::from_secs(15);
/// Waits are cut into slices of this length, to notice a stop.
const SLICE: Duration = Duration::from_millis(50);
/// Width of the pictures for viewers, in pixels, at most.
const TILE_PX: u32 = 960;
/// Quality of the pictures for viewers, of 100.
const TILE_QUALITY: u8 = 80;

/// State shared by all sources.
pub(super) struct Common {
    pub engine: Engine,
    pub turns: Arc<Turns>,
    pub store: Arc<Store>,
}

/// A running source.
pub(super) struct Camera {
    pub settings: SourceSettings,
    shared: Arc<CameraShared>,
    threads: Vec<JoinHandle<()>>,
}

struct CameraShared {
    name: String,
    stop: StopHandle,
    newest: Mutex<Newest>,
    arrived: Condvar,
    state: Mutex<State>,
    gallery: Mutex<Option<Gallery>>,
    tile: watch::Sender<Option<Arc<Tile>>>,
}

/// The newest frame that is not analysed yet.
#[derive(Default)]
struct Newest {
    frame: Option<(Arc<Picture>, Instant)>,
    /// Whether the gallery was replaced.
    other_gallery: bool,
}

/// A labelled picture for viewers.
pub(super) struct Tile {
    pub jpeg: Vec<u8>,
    pub number: u64,
    pub delay_ms: f64,
}

impl Camera {
    /// Starts a source, unless it is switched off.
    pub fn start(settings: SourceSettings, gallery: Option<Gallery>, common: &Arc<Common>) -> Self {
        let shared = Arc::new(CameraShared {
            name: settings.config.name.clone(),
            stop: StopHandle::new(),
            newest: Mutex::default(),
            arrived: Condvar::new(),
            state: Mutex::new(State::new(if settings.config.enabled {
                Phase::Connecting
            } else {
                Phase::Off
            })),
            gallery: Mutex::new(gallery),
            tile: watch::Sender::new(None),
        });
        let mut threads = Vec::new();
        if settings.config.enabled {
            let reader = Reader { settings: settings.clone(), shared: Arc::clone(&shared) };
            let worker = CameraWorker::new(settings.clone(), Arc::clone(&shared), Arc::clone(common));
            let name = &settings.config.name;
            let start = |what: &str, work: Box<dyn FnOnce() + Send>| {
                thread::Builder::new().name(format!("{what}-{name}")).spawn(work)
            };
            for (what, work) in [
                ("read", Box::new(move || reader.run()) as Box<dyn FnOnce() + Send>),
                ("work", Box::new(move || worker.run())),
            ] {
                match start(what, work) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => shared.fail(format!("its thread cannot be started: {error}")),
                }
            }
        }
        Self { settings, shared, threads }
    }

    /// Uses another gallery from the next frame on.
    pub fn set_gallery(&self, gallery: Option<Gallery>) {
        *lock(&self.shared.gallery) = gallery;
        lock(&self.shared.newest).other_gallery = true;
        self.shared.arrived.notify_all();
    }

    /// Its state.
    pub fn state(&self) -> SourceState {
        lock(&self.shared.state).tell()
    }

    /// Its labelled pictures; they are drawn as long as a receiver exists.
    pub fn tiles(&self) -> watch::Receiver<Option<Arc<Tile>>> {
        self.shared.tile.subscribe()
    }

    /// Tells the threads to end, without waiting for them.
    pub fn stop(&self) {
        self.shared.stop.stop();
        self.shared.arrived.notify_all();
    }

    /// Waits for the threads to end. All people in sight have then left.
    pub fn join(self) {
        self.stop();
        for thread in self.threads {
            // A thread that panicked has already reported it.
            let _ = thread.join();
        }
    }
}

impl CameraShared {
    /// Records why no frames come.
    fn fail(&self, reason: String) {
        tracing::warn!(source = self.name, "{reason}");
        let mut state = lock(&self.state);
        state.last_error = Some((now_ms(), reason.clone()));
        state.error = Some(reason);
        state.lost_at.get_or_insert_with(Instant::now);
    }

    fn set_phase(&self, phase: Phase) {
        lock(&self.state).phase = phase;
    }

    /// A frame arrived. Returns whether an older one was dropped for it.
    fn offer(&self, picture: Arc<Picture>) {
        let before = lock(&self.newest).frame.replace((picture, Instant::now()));
        if before.is_some() {
            lock(&self.state).left_out += 1;
        }
        self.arrived.notify_all();
    }

    /// Sleeps until a time, unless stopped. Returns whether to continue.
    fn sleep(&self, until: Instant) -> bool {
        while !self.stop.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(SLICE));
        }
        false
    }
}

/// Opens the source, and opens it again.
struct Reader {
    settings: SourceSettings,
    shared: Arc<CameraShared>,
}

/// How reading ended.
enum End {
    /// The end of a file.
    File,
    /// The source was lost, with the reason.
    Lost(String),
}

impl Reader {
    fn run(self) {
        let mut pause = FIRST_PAUSE;
        while !self.shared.stop.is_stopped() {
            lock(&self.shared.state).phase = Phase::Connecting;
            let began = Instant::now();
            let end = catch_unwind(AssertUnwindSafe(|| self.read()))
                .unwrap_or_else(|_| Ok(End::Lost("reading it failed inside the program".to_owned())));
            if began.elapsed() > RAN_WELL {
                pause = FIRST_PAUSE;
            }
            let reason = match end {
                Ok(End::File) if self.settings.config.repeat => continue,
                Ok(End::File) => {
                    lock(&self.shared.state).lost_at = Some(Instant::now());
                    return self.shared.set_phase(Phase::Ended);
                }
                Ok(End::Lost(reason)) => reason,
                Err(MediaError::Stopped(_)) => return,
                Err(error) => error.to_string(),
            };
            if self.shared.stop.is_stopped() {
                return;
            }
            self.shared.fail(reason);
            let until = Instant::now() + pause;
            {
                let mut state = lock(&self.shared.state);
                (state.phase, state.retry_at) = (Phase::Waiting, Some(until));
                state.attempts += 1;
            }
            if !self.shared.sleep(until) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads the source until it ends.
    fn read(&self) -> Result<End, MediaError> {
        let options = SourceOptions {
            // Our own pause is reported.
            reconnect: Reconnect { attempts: Some(0), ..Reconnect::default() },
            patience: Some(PATIENCE),
            stop: self.shared.stop.clone(),
            ..SourceOptions::default()
        };
        let mut source = Source::open(&self.settings.input, &options)?;
        let info = source.info().clone();
        lock(&self.shared.state).size = Some((info.width, info.height));
        let mut rate = Rate::new(self.settings.fps);
        let began = Instant::now();
        while let Some(frame) = source.next_frame()? {
            self.run_on();
            if !rate.takes(frame.pts_ns) {
                continue;
            }
            // A file is played at its own frame rate, like a camera.
            if !info.live && !self.shared.sleep(began + Duration::from_nanos(frame.pts_ns)) {
                break;
            }
            self.shared.offer(frame.picture);
        }
        let reason =
            source.cut_off().map(str::to_owned).or_else(|| source.take_warnings().into_iter().next());
        match (&self.settings.input, reason) {
            (Input::File(_), reason) => {
                reason.into_iter().for_each(|reason| tracing::warn!(source = self.shared.name, "{reason}"));
                // The last frame is shown for as long as it lasts.
                self.shared.sleep(began + Duration::from_nanos(info.duration_ns.unwrap_or_default()));
                Ok(End::File)
            }
            (_, Some(reason)) => Ok(End::Lost(reason)),
            (input, None) => Ok(End::Lost(format!("{input} has ended"))),
        }
    }

    /// Frames come again.
    fn run_on(&self) {
        let mut state = lock(&self.shared.state);
        if state.phase != Phase::Running {
            let (before, attempts) = (state.error.take(), std::mem::take(&mut state.attempts));
            (state.phase, state.lost_at, state.retry_at) = (Phase::Running, None, None);
            if before.is_some() {
                tracing::info!(source = self.shared.name, "it is back after {attempts} attempts");
            }
        }
    }
}

/// Selects the frames to analyse.
struct Rate {
    period_ns: u64,
    next_ns: u64,
}

impl Rate {
    fn new(fps: f64) -> Self {
        Self { period_ns: (1e9 / fps) as u64, next_ns: 0 }
    }

    /// Whether a frame of that time is selected.
    fn takes(&mut self, pts_ns: u64) -> bool {
        if pts_ns < self.next_ns {
            return false;
        }
        // Without drift, unless frames are missing.
        self.next_ns += self.period_ns;
        if self.next_ns <= pts_ns {
            self.next_ns = pts_ns + self.period_ns;
        }
        true
    }
}

/// Analyses the newest frame, repeatedly.
struct CameraWorker {
    settings: SourceSettings,
    shared: Arc<CameraShared>,
    common: Arc<Common>,
    sightings: Sightings,
    annotator: Option<Annotator>,
    began: Instant,
    number: u64,
    last_ns: u64,
    /// Everybody has left, since no frames come.
    empty: bool,
}

impl CameraWorker {
    fn new(settings: SourceSettings, shared: Arc<CameraShared>, common: Arc<Common>) -> Self {
        let same_deg = common.engine.same_person_deg();
        let confirm = Confirm::new(settings.config.confirm_frames, settings.confirm_ns);
        Self {
            sightings: Sightings::new(&settings.config.name, Arc::clone(&common.store), same_deg, confirm)
                .redact(settings.redact.clone()),
            settings,
            shared,
            common,
            annotator: None,
            began: Instant::now(),
            number: 0,
            last_ns: 0,
            empty: true,
        }
    }

    fn run(mut self) {
        while !self.shared.stop.is_stopped() {
            // If a frame makes the stream panic, only this source loses its state.
            let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
            let reason = match worked {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(_) => "analysing it failed inside the program".to_owned(),
            };
            self.shared.fail(reason);
            self.sightings.forget_numbers();
            self.shared.sleep(Instant::now() + FIRST_PAUSE);
        }
    }

    /// Works until the source stops or an error occurs.
    fn work(&mut self) -> Result<(), String> {
        let gallery = self.take_gallery();
        let options = StreamOptions::default()
            .pictures(true)
            .left_after_ns(self.settings.left_after_ns)
            .regions(self.settings.regions.clone());
        let mut stream = Stream::new(&self.common.engine, gallery.as_ref(), options);
        while self.wait() {
            if std::mem::take(&mut lock(&self.shared.newest).other_gallery) {
                let gallery = self.take_gallery();
                stream.set_gallery(gallery.as_ref()).map_err(|error| error.to_string())?;
            }
            let common = Arc::clone(&self.common);
            let turn = common.turns.take();
            let newest = lock(&self.shared.newest).frame.take();
            if let Some((picture, arrived)) = newest {
                stream.push(self.frame(picture, arrived)).map_err(|error| error.to_string())?;
                self.empty = false;
                self.answer(&mut stream, Some(arrived))?;
            }
            drop(turn);
            if self.is_lost() {
                self.leave(&mut stream)?;
            }
        }
        self.leave(&mut stream)
    }

    /// Waits for a frame, but not long. Returns whether to continue.
    fn wait(&self) -> bool {
        let newest = lock(&self.shared.newest);
        if newest.frame.is_none() && !newest.other_gallery && !self.shared.stop.is_stopped() {
            drop(self.shared.arrived.wait_timeout(newest, 4 * SLICE).unwrap_or_else(PoisonError::into_inner));
        }
        !self.shared.stop.is_stopped()
    }

    fn take_gallery(&mut self) -> Option<Gallery> {
        let gallery = lock(&self.shared.gallery).clone();
        self.sightings.set_gallery(gallery.as_ref());
        let numbers = gallery.as_ref().map(Gallery::colour_numbers).unwrap_or_default();
        let colours = Colours::new(numbers.iter().cloned());
        // Without the font nothing is drawn; the service checked it at the start.
        self.annotator =
            Annotator::new(Style::default()).ok().map(|annotator| annotator.with_colours(colours));
        gallery
    }

    /// The next frame of the stream, with its time of arrival.
    fn frame(&mut self, picture: Arc<Picture>, arrived: Instant) -> Frame {
        let since = arrived.saturating_duration_since(self.began).as_nanos();
        let pts_ns = u64::try_from(since).unwrap_or(u64::MAX).max(self.last_ns + 1);
        let duration_ns = (1e9 / self.settings.fps) as u64;
        (self.last_ns, self.number) = (pts_ns, self.number + 1);
        Frame { index: self.number - 1, pts_ns, duration_ns, picture }
    }

    /// Records the output of the stream. For a frame that `arrived`, faces and a picture are published, too.
    fn answer(&mut self, stream: &mut Stream, arrived: Option<Instant>) -> Result<(), String> {
        let mut shown = None;
        while let Some(output) = stream.pull() {
            match output {
                Output::Frame(frame) => {
                    let told = self.sightings.see(&frame).map_err(|error| error.to_string())?;
                    lock(&self.shared.state).events += told.len() as u64;
                    shown = Some(frame);
                }
                Output::Event(event) => {
                    let told = self.sightings.tell(event).map_err(|error| error.to_string())?;
                    lock(&self.shared.state).events += told.len() as u64;
                }
            }
        }
        if let (Some(frame), Some(arrived)) = (shown, arrived) {
            let faces = self.faces(&frame);
            let delay_ms = lock(&self.shared.state).answered(arrived, faces);
            if self.shared.tile.receiver_count() > 0 {
                self.show(frame, delay_ms);
            }
        }
        Ok(())
    }

    fn faces(&self, frame: &LabelledFrame) -> Vec<FaceInSight> {
        let faces = frame.faces.iter().filter(|face| !face.transient);
        faces
            .map(|face| {
                let stranger = face.stranger.map(|number| self.sightings.number(number));
                let who = match (face.name(), stranger.flatten()) {
                    (Some(name), _) => name.to_owned(),
                    (None, Some(number)) => format!("Unknown {number}"),
                    (None, None) => "unknown".to_owned(),
                };
                let b = face.bbox();
                let person = face.name().map(str::to_owned);
                FaceInSight { who, person, bbox: [b.x1, b.y1, b.x2, b.y2], angle_deg: face.angle_deg() }
            })
            .collect()
    }

    /// Draws a frame for viewers.
    fn show(&self, frame: LabelledFrame, delay_ms: f64) {
        let labels: Vec<Label> = frame
            .faces
            .iter()
            .filter(|face| !face.transient)
            .map(|face| Label {
                name: face.name().map(str::to_owned),
                stranger: face
                    .stranger
                    .and_then(|number| self.sightings.number(number))
                    .and_then(|number| u32::try_from(number).ok()),
                angle_deg: face.angle_deg(),
                score: Some(face.face.score),
                ..Label::unknown(face.bbox())
            })
            .collect();
        let covered = self.settings.redact.as_ref();
        let covered = covered.map(|whom| boxes(whom, &frame).collect::<Vec<_>>());
        let Some(picture) = frame.picture else { return };
        let mut rgb = picture.to_rgb();
        if let Some(boxes) = covered {
            cover(&mut rgb, &boxes);
        }
        if let Some(annotator) = &self.annotator {
            annotator.draw_rgb(&mut rgb, &labels);
        }
        if rgb.width() > TILE_PX {
            let height =
                (u64::from(rgb.height()) * u64::from(TILE_PX) / u64::from(rgb.width())).max(1) as u32;
            rgb = image::imageops::thumbnail(&rgb, TILE_PX, height);
        }
        let tile = Tile { jpeg: encode(&rgb, TILE_QUALITY), number: frame.index, delay_ms };
        self.shared.tile.send_replace(Some(Arc::new(tile)));
    }

    /// Whether no frame has come for so long that everybody has left.
    fn is_lost(&self) -> bool {
        let lost_at = lock(&self.shared.state).lost_at;
        let after = Duration::from_nanos(self.settings.left_after_ns);
        !self.empty && lost_at.is_some_and(|lost_at| lost_at.elapsed() > after)
    }

    /// Everybody leaves.
    fn leave(&mut self, stream: &mut Stream) -> Result<(), String> {
        self.empty = true;
        stream.finish().map_err(|error| error.to_string())?;
        lock(&self.shared.state).faces.clear();
        self.answer(stream, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_frames_are_taken_as_were_asked_for_and_all_where_there_are_fewer() {
        let taken = |fps: f64, source_fps: u64| {
            let mut rate = Rate::new(fps);
            (0..10 * source_fps).filter(|frame| rate.takes(frame * 1_000_000_000 / source_fps)).count()
        };
        assert_eq!(taken(5.0, 25), 50);
        assert!((98..=101).contains(&taken(10.0, 30)), "{}", taken(10.0, 30));
        assert_eq!(taken(30.0, 25), 250);
        assert_eq!(taken(0.5, 25), 5);
        // After a gap, the rate continues from there, without catching up.
        let mut rate = Rate::new(5.0);
        assert!(rate.takes(0) && rate.takes(10_000_000_000));
        assert!(!rate.takes(10_100_000_000) && rate.takes(10_200_000_000));
    }

    #[test]
    fn the_newest_frame_takes_the_place_of_one_that_nobody_answered_and_that_is_counted() {
        let shared = CameraShared {
            name: "door".into(),
            stop: StopHandle::new(),
            newest: Mutex::default(),
            arrived: Condvar::new(),
            state: Mutex::new(State::new(Phase::Running)),
            gallery: Mutex::new(None),
            tile: watch::Sender::new(None),
        };
        let picture = |width: usize| Arc::new(Picture::from_rgb(&image::RgbImage::new(width as u32, 2)));
        for width in [2, 4, 6] {
            shared.offer(picture(width));
        }
        let (newest, _) = lock(&shared.newest).frame.take().unwrap();
        assert_eq!((newest.width(), lock(&shared.state).left_out), (6, 2));
    }
}
