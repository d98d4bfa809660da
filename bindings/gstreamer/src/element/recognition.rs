//! One element's stream: pictures in, labelled frames out, over seeks and changes of format.

use std::collections::VecDeque;
use std::sync::Arc;

use sphereface::annotate::{AnnotateError, Annotator, Colours, Cover, Redactor, Style, Whom};
use sphereface::detect::BBox;
use sphereface::engine::{EngineError, RecogniseError};
use sphereface::media::{Frame, Picture};
use sphereface::nn::ChosenArithmetic;
use sphereface::{Engine, Event, Gallery, LabelledFrame, Output, Stream, StreamOptions};

use super::engines;
use super::faces::labels;
use super::settings::Settings;

/// How long a frame is taken to last of which nothing is said, in nanoseconds.
const FRAME_NS: u64 = 40_000_000;
/// Time that passes at a jump, in nanoseconds, beside that after which somebody has left: more than tracks outlast.
const JUMP_NS: u64 = 10_000_000_000;
/// Frames for which a place stays covered after a face was seen there: the longest time between searches.
const HOLD_FRAMES: usize = 8;

/// Why an element cannot begin.
#[derive(Debug)]
pub struct CannotStart(pub String);

impl From<EngineError> for CannotStart {
    fn from(error: EngineError) -> Self {
        let source = std::error::Error::source(&error);
        Self(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
    }
}

impl From<String> for CannotStart {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<AnnotateError> for CannotStart {
    fn from(error: AnnotateError) -> Self {
        Self(error.to_string())
    }
}

/// Who is seen, frame after frame.
pub struct Recognition {
    engine: Engine,
    stream: Stream,
    annotator: Annotator,
    cover: Option<Covering>,
    left_after_ns: u64,
    next_index: u64,
    /// When the last frame ended, in the time of the stream, which never goes back.
    end_ns: u64,
    /// What is added to the times of buffers, and the last of those.
    offset_ns: u64,
    last_ns: Option<u64>,
}

/// Whose faces are covered, and where that was in the last frames.
struct Covering {
    whom: Whom,
    redactor: Redactor,
    held: VecDeque<Vec<BBox>>,
}

impl Covering {
    /// Covers the faces of a frame, and the places of those of the frames before.
    fn draw(&mut self, picture: &mut Picture, frame: &LabelledFrame) {
        let covered = frame.faces.iter().filter(|face| self.whom.covers(face.name()));
        self.held.push_front(covered.map(|face| face.bbox()).collect());
        self.held.truncate(HOLD_FRAMES);
        self.redactor.draw(picture, &self.held.iter().flatten().copied().collect::<Vec<_>>());
    }
}

impl Recognition {
    /// Loads what the settings ask for.
    pub fn start(settings: &Settings) -> Result<Self, CannotStart> {
        let engine = engines::engine(&settings.engine()?)?;
        let cover = match settings.whom()? {
            Some(whom) => {
                let redactor = Redactor::new(Cover::default(), Redactor::GROW).map_err(|e| e.to_string())?;
                Some(Covering { whom, redactor, held: VecDeque::new() })
            }
            None => None,
        };
        let gallery = gallery(&engine, settings)?;
        let options = StreamOptions::default()
            .detect_every(settings.every())
            .live(true)
            .left_after_ns(settings.left_after_ns);
        Ok(Self {
            stream: Stream::new(&engine, gallery.as_ref(), options),
            annotator: annotator(gallery.as_ref())?,
            engine,
            cover,
            left_after_ns: settings.left_after_ns,
            next_index: 0,
            end_ns: 0,
            offset_ns: 0,
            last_ns: None,
        })
    }

    /// What embeddings are computed in, and why.
    pub fn arithmetic(&self) -> ChosenArithmetic {
        self.engine.arithmetic()
    }

    /// Reads the gallery again and decides by it from the next frame on.
    pub fn reload(&mut self, settings: &Settings) -> Result<(), CannotStart> {
        let gallery = gallery(&self.engine, settings)?;
        self.stream.set_gallery(gallery.as_ref()).map_err(|error| error.to_string())?;
        self.annotator = annotator(gallery.as_ref())?;
        Ok(())
    }

    /// What comes next has nothing to do with what came before: a seek, another format.
    pub fn jump(&mut self) {
        self.last_ns = None;
        if let Some(cover) = &mut self.cover {
            cover.held.clear();
        }
    }

    /// Nothing more comes: everybody leaves.
    pub fn finish(&mut self) -> Result<Vec<Event>, RecogniseError> {
        self.stream.finish()?;
        self.jump();
        Ok(self.pull().1)
    }

    /// The faces of the next picture, and what happened in it. `running_ns` is when it is shown.
    pub fn label(
        &mut self,
        picture: Arc<Picture>,
        running_ns: Option<u64>,
        duration_ns: Option<u64>,
    ) -> Result<(Option<LabelledFrame>, Vec<Event>), RecogniseError> {
        let duration_ns = duration_ns.filter(|&ns| ns > 0).unwrap_or(FRAME_NS);
        let pts_ns = self.place(running_ns);
        let frame = Frame { index: self.next_index, pts_ns, duration_ns, picture };
        self.next_index += 1;
        self.end_ns = pts_ns.saturating_add(duration_ns);
        self.stream.push(frame)?;
        Ok(self.pull())
    }

    /// Covers and draws what the settings ask for; says whether that changed the picture.
    pub fn draw(&mut self, picture: &mut Arc<Picture>, frame: &LabelledFrame, draw: bool) -> bool {
        let labels = if draw { labels(frame) } else { Vec::new() };
        if labels.is_empty() && self.cover.is_none() {
            return false;
        }
        let picture = Arc::make_mut(picture);
        if let Some(cover) = &mut self.cover {
            cover.draw(picture, frame);
        }
        self.annotator.draw(picture, &labels);
        true
    }

    /// Where a buffer lies in the time of the stream, which goes on over jumps.
    fn place(&mut self, running_ns: Option<u64>) -> u64 {
        let running_ns = running_ns.unwrap_or_else(|| self.end_ns.saturating_sub(self.offset_ns));
        let goes_on = self.last_ns.is_some_and(|last| running_ns > last);
        if !goes_on && self.next_index > 0 {
            let gap_ns = self.left_after_ns.saturating_add(JUMP_NS);
            self.offset_ns = self.end_ns.saturating_add(gap_ns).saturating_sub(running_ns);
        }
        self.last_ns = Some(running_ns);
        running_ns.saturating_add(self.offset_ns)
    }

    /// What came out of the stream: the frame that was pushed, and events.
    fn pull(&mut self) -> (Option<LabelledFrame>, Vec<Event>) {
        let (mut frame, mut events) = (None, Vec::new());
        while let Some(output) = self.stream.pull() {
            match output {
                Output::Frame(labelled) => frame = Some(labelled),
                Output::Event(event) => events.push(event),
                _ => {}
            }
        }
        (frame, events)
    }
}

/// The people of the gallery that is set.
fn gallery(engine: &Engine, settings: &Settings) -> Result<Option<Gallery>, CannotStart> {
    let open = |folder: &String| Gallery::open_with(engine, folder, &settings.gallery_options());
    Ok(settings.gallery.as_ref().map(open).transpose()?)
}

/// What draws, in the colours of the gallery.
fn annotator(gallery: Option<&Gallery>) -> Result<Annotator, AnnotateError> {
    let numbers = gallery.map(Gallery::colour_numbers).unwrap_or_default();
    Ok(Annotator::new(Style::default())?.with_colours(Colours::new(numbers.iter().cloned())))
}
