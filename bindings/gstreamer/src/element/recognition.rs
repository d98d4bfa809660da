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

/// The duration of a frame that states none, in nanoseconds.
const FRAME_NS: u64 = 40_000_000;
/// Nanoseconds added at a jump to the time after which a person has left. No track lasts that long without a
/// face.
const JUMP_NS: u64 = 10_000_000_000;
/// Frames for which a place stays covered after a face was seen there: the longest interval between searches.
const HOLD_FRAMES: usize = 8;

/// Why an element cannot start.
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
    /// The end of the last frame in the time of the stream, which never decreases.
    end_ns: u64,
    /// The offset that is added to the times of buffers, and the time of the last buffer.
    offset_ns: u64,
    last_ns: Option<u64>,
}

/// Whose faces are covered, and the covered places of the last frames.
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
    /// Loads the engine and the gallery of the settings.
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

    /// The number format of the embeddings, and the reason for it.
    pub fn arithmetic(&self) -> ChosenArithmetic {
        self.engine.arithmetic()
    }

    /// Reads the gallery again and uses it from the next frame on.
    pub fn reload(&mut self, settings: &Settings) -> Result<(), CannotStart> {
        let gallery = gallery(&self.engine, settings)?;
        self.stream.set_gallery(gallery.as_ref()).map_err(|error| error.to_string())?;
        self.annotator = annotator(gallery.as_ref())?;
        Ok(())
    }

    /// The next frames do not continue the previous ones, after a seek or a change of format.
    pub fn jump(&mut self) {
        self.last_ns = None;
        if let Some(cover) = &mut self.cover {
            cover.held.clear();
        }
    }

    /// The end of the stream: every person leaves.
    pub fn finish(&mut self) -> Result<Vec<Event>, RecogniseError> {
        self.stream.finish()?;
        self.jump();
        Ok(self.pull().1)
    }

    /// The faces of the next picture, and its events. `running_ns` is the time at which it is shown.
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

    /// Covers and draws as the settings say; true if that changed the picture.
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

    /// The time of a buffer in the time of the stream, which continues over jumps.
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

    /// The output of the stream: the frame that was pushed, and events.
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

/// The people of the configured gallery.
fn gallery(engine: &Engine, settings: &Settings) -> Result<Option<Gallery>, CannotStart> {
    let open = |folder: &String| Gallery::open_with(engine, folder, &settings.gallery_options());
    Ok(settings.gallery.as_ref().map(open).transpose()?)
}

/// The annotator, with the colours of the gallery.
fn annotator(gallery: Option<&Gallery>) -> Result<Annotator, AnnotateError> {
    let numbers = gallery.map(Gallery::colour_numbers).unwrap_or_default();
    Ok(Annotator::new(Style::default())?.with_colours(Colours::new(numbers.iter().cloned())))
}
