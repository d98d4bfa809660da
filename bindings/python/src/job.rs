//! Whole files: `label`, with callbacks on the calling thread.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sphereface::engine::{self, DetectEvery};
use sphereface::media::Input;
use sphereface::pipeline::{
    Control, LabelError, LabelJob, LabelSummary, Mode, Pictures, Progress, Subscriber,
};
use sphereface::report::Appearance;

use crate::engine::Engine;
use crate::error::{self, Error, raised};
use crate::face::{Event, LabelledFrame};
use crate::gallery::{Gallery, given_or_new};

/// The interval at which Ctrl-C is checked while no callback is due.
const SLICE: Duration = Duration::from_millis(50);

/// Messages from the thread of the job to the calling thread.
enum Told {
    Frame(sphereface::LabelledFrame),
    Event(engine::Event),
    Warning(String),
}

/// The error of a job whose caller no longer listens. It is not raised: the exception of the caller is.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody listens any more")
    }
}

impl std::error::Error for Gone {}

/// Sends a message to the caller and waits for the answer.
struct Teller {
    told: Sender<Told>,
    heard: Receiver<()>,
    frames: bool,
    events: bool,
    pictures: bool,
}

impl Teller {
    fn tell(&self, told: Told) -> Result<(), LabelError> {
        let gone = || LabelError::Subscriber(Box::new(Gone));
        self.told.send(told).map_err(|_| gone())?;
        self.heard.recv().map_err(|_| gone())
    }
}

impl Subscriber for Teller {
    fn pictures(&self) -> Pictures {
        if self.pictures { Pictures::Plain } else { Pictures::None }
    }

    fn frame(&mut self, frame: &sphereface::LabelledFrame) -> Result<(), LabelError> {
        if self.frames { self.tell(Told::Frame(frame.clone())) } else { Ok(()) }
    }

    fn event(&mut self, event: &engine::Event) -> Result<(), LabelError> {
        if self.events { self.tell(Told::Event(event.clone())) } else { Ok(()) }
    }
}

/// Who was seen when, and counts of the job.
#[pyclass(frozen, module = "sphereface")]
pub struct Summary {
    summary: LabelSummary,
    /// Warnings, as sentences.
    #[pyo3(get)]
    warnings: Vec<String>,
}

#[pymethods]
impl Summary {
    /// Frames labelled.
    #[getter]
    fn frames(&self) -> u64 {
        self.summary.frames
    }

    /// Faces seen, over all frames.
    #[getter]
    fn faces(&self) -> u64 {
        self.summary.faces
    }

    /// Faces named, over all frames.
    #[getter]
    fn named(&self) -> u64 {
        self.summary.named
    }

    /// Frames of a live input that were dropped.
    #[getter]
    fn dropped(&self) -> u64 {
        self.summary.dropped
    }

    /// For each person: a name or "Unknown 3", and the intervals of presence in seconds.
    #[getter]
    fn people(&self) -> Vec<(String, Vec<(f64, f64)>)> {
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let one = |Appearance { who, spans, .. }: &Appearance| {
            let spans = spans.iter().map(|span| (seconds(span.start_ns), seconds(span.end_ns)));
            (who.to_string(), spans.collect())
        };
        self.summary.people.iter().map(one).collect()
    }

    /// Why the input could not be read to its end; None if it was.
    #[getter]
    fn cut_off(&self) -> Option<&str> {
        self.summary.cut_off.as_deref()
    }

    fn __repr__(&self) -> String {
        let LabelSummary { frames, faces, named, .. } = &self.summary;
        format!("Summary({frames} frames, {faces} faces, {named} named)")
    }
}

/// The arguments of `label`.
struct Request {
    engine: sphereface::Engine,
    gallery: Option<sphereface::Gallery>,
    input: Input,
    output: Option<PathBuf>,
    analysis: Option<PathBuf>,
    mode: Mode,
    live: Option<bool>,
    detect_every: DetectEvery,
}

impl Request {
    /// Runs the job on a thread of its own, so that the caller can serve callbacks.
    fn start(
        self,
        teller: Teller,
        control: Control,
    ) -> std::io::Result<JoinHandle<Result<LabelSummary, LabelError>>> {
        thread::Builder::new().name("label".into()).spawn(move || {
            let told = teller.told.clone();
            let mut job =
                LabelJob::new(&self.engine, self.input).mode(self.mode).detect_every(self.detect_every);
            if teller.frames || teller.events {
                job = job.subscriber(teller);
            }
            if let Some(gallery) = &self.gallery {
                job = job.gallery(gallery);
            }
            if let Some(output) = self.output {
                job = job.output(output);
            }
            if let Some(analysis) = self.analysis {
                job = job.analysis(analysis);
            }
            if let Some(live) = self.live {
                job = job.live(live);
            }
            job.run(&control, &mut |progress| {
                if let Progress::Warning(text) = progress {
                    let _ = told.send(Told::Warning(text.to_owned()));
                }
            })
        })
    }
}

/// The callbacks.
struct Callbacks<'py> {
    frame: Option<Bound<'py, PyAny>>,
    event: Option<Bound<'py, PyAny>>,
}

/// Labels a video or a still: names the people of a gallery (a Gallery or a folder), writes the annotated
/// video, and calls back with every LabelledFrame and Event, on the calling thread.
///
/// An exception in a callback ends the job and is raised; then nothing is written. Ctrl-C does the same.
#[pyfunction]
#[pyo3(signature = (video, output = None, gallery = None, on_frame = None, on_event = None, *, engine = None,
                    online = false, live = None, detect_every = None, pictures = false, analysis = None))]
#[expect(clippy::too_many_arguments, reason = "keywords in Python")]
pub fn label<'py>(
    py: Python<'py>,
    video: PathBuf,
    output: Option<PathBuf>,
    gallery: Option<&Bound<'py, PyAny>>,
    on_frame: Option<Bound<'py, PyAny>>,
    on_event: Option<Bound<'py, PyAny>>,
    engine: Option<&Bound<'py, Engine>>,
    online: bool,
    live: Option<bool>,
    detect_every: Option<&Bound<'py, PyAny>>,
    pictures: bool,
    analysis: Option<PathBuf>,
) -> PyResult<Summary> {
    let (engine, gallery) = engine_and_gallery(py, engine, gallery)?;
    let detect_every = match detect_every {
        Some(every) => every.to_string().parse::<DetectEvery>().map_err(raised)?,
        None => DetectEvery::Auto,
    };
    let request = Request {
        engine,
        gallery,
        input: Input::parse_argument(video.as_os_str()).map_err(error::media)?,
        output,
        analysis,
        mode: if online { Mode::Online } else { Mode::TwoPass },
        live,
        detect_every,
    };
    run(py, request, &Callbacks { frame: on_frame, event: on_event }, pictures)
}

/// The engine and gallery to use: an open gallery brings its own engine.
fn engine_and_gallery(
    py: Python<'_>,
    engine: Option<&Bound<'_, Engine>>,
    gallery: Option<&Bound<'_, PyAny>>,
) -> PyResult<(sphereface::Engine, Option<sphereface::Gallery>)> {
    let Some(gallery) = gallery else { return Ok((given_or_new(py, engine)?, None)) };
    if let Ok(open) = gallery.cast::<Gallery>() {
        let open = open.get();
        let engine = engine.map_or_else(|| open.engine.clone(), |engine| engine.get().inner.clone());
        return Ok((engine, Some(open.inner.clone())));
    }
    let folder: PathBuf = gallery.extract()?;
    let engine = given_or_new(py, engine)?;
    let open = py.detach(|| sphereface::Gallery::open(&engine, folder)).map_err(raised)?;
    Ok((engine, Some(open)))
}

fn run(py: Python<'_>, request: Request, callbacks: &Callbacks<'_>, pictures: bool) -> PyResult<Summary> {
    if pictures && callbacks.frame.is_none() {
        return Err(PyValueError::new_err("pictures are passed with the frames, but no on_frame is given"));
    }
    let (told, tells) = bounded(0);
    let (hears, heard) = bounded(0);
    let (frames, events) = (callbacks.frame.is_some(), callbacks.event.is_some());
    let control = Control::new();
    let job = request.start(Teller { told, heard, frames, events, pictures }, control.clone());
    let job = job.map_err(|error| Error::new_err(format!("no thread can be started ({error})")))?;
    let mut warnings = Vec::new();
    let listened = listen(py, &tells, &hears, callbacks, &mut warnings);
    if listened.is_err() {
        control.abort();
    }
    drop((tells, hears));
    let done = py.detach(|| job.join());
    listened?;
    match done {
        Ok(summary) => Ok(Summary { summary: summary.map_err(error::job)?, warnings }),
        Err(_) => Err(Error::new_err("the job panicked: this is a defect of sphereface, please report it")),
    }
}

/// Calls back until the job is done, a callback raises, or somebody presses Ctrl-C.
fn listen(
    py: Python<'_>,
    tells: &Receiver<Told>,
    hears: &Sender<()>,
    callbacks: &Callbacks<'_>,
    warnings: &mut Vec<String>,
) -> PyResult<()> {
    let call = |call: &Option<Bound<'_, PyAny>>, with: Bound<'_, PyAny>| -> PyResult<()> {
        call.as_ref().map_or(Ok(()), |call| call.call1((with,)).map(drop))
    };
    loop {
        match py.detach(|| tells.recv_timeout(SLICE)) {
            Ok(Told::Warning(text)) => {
                warnings.push(text);
                continue;
            }
            Ok(Told::Frame(frame)) => {
                call(&callbacks.frame, Bound::new(py, LabelledFrame(frame))?.into_any())?
            }
            Ok(Told::Event(event)) => call(&callbacks.event, Bound::new(py, Event(event))?.into_any())?,
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals()?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        py.check_signals()?;
        // A job that has failed no longer receives messages, and ends by itself.
        let _ = py.detach(|| hears.send(()));
    }
}
