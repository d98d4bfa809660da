//! Sources and streams: frame after frame.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use numpy::PyArray3;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sphereface::media::{self, Input, Picture};
use sphereface::{Output, StreamOptions};

use crate::engine::Engine;
use crate::error::{self, raised};
use crate::face::{Event, LabelledFrame};
use crate::gallery::Gallery;
use crate::picture;

/// The duration of a frame that states none, in nanoseconds.
const FRAME_NS: u64 = 40_000_000;

/// Locks; a poisoned lock is used, because no holder leaves partial state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A decoded frame of a source.
#[pyclass(frozen, module = "sphereface")]
pub struct Frame(pub media::Frame);

#[pymethods]
impl Frame {
    /// Position in the video, from 0.
    #[getter]
    fn index(&self) -> u64 {
        self.0.index
    }

    /// Time since the start in nanoseconds.
    #[getter]
    fn pts_ns(&self) -> u64 {
        self.0.pts_ns
    }

    /// Time since the start in seconds.
    #[getter]
    fn pts_s(&self) -> f64 {
        self.0.pts_ns as f64 / 1e9
    }

    /// Duration in nanoseconds.
    #[getter]
    fn duration_ns(&self) -> u64 {
        self.0.duration_ns
    }

    /// The pixels, height x width x 3 (RGB).
    #[getter]
    fn picture<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray3<u8>>> {
        let rgb = py.detach(|| self.0.picture.to_rgb());
        picture::array(py, rgb)
    }

    fn __repr__(&self) -> String {
        format!("Frame(index={}, pts_s={:.3})", self.0.index, self.pts_s())
    }
}

/// An open video, camera or stream. Iterating over it yields frames.
#[pyclass(frozen, module = "sphereface")]
pub struct Source {
    source: Mutex<media::Source>,
    info: media::SourceInfo,
}

#[pymethods]
impl Source {
    /// Opens a file, an address (rtsp://, https://), a camera ("webcam") or a pipeline ("gst:...").
    #[new]
    #[pyo3(signature = (input, *, live = None))]
    fn new(py: Python<'_>, input: PathBuf, live: Option<bool>) -> PyResult<Self> {
        let input = Input::parse_argument(input.as_os_str()).map_err(error::media)?;
        let options = media::SourceOptions { live, ..Default::default() };
        let source = py.detach(|| media::Source::open(&input, &options)).map_err(error::media)?;
        let info = source.info().clone();
        Ok(Self { source: Mutex::new(source), info })
    }

    /// Width in pixels, upright.
    #[getter]
    fn width(&self) -> usize {
        self.info.width
    }

    /// Height in pixels, upright.
    #[getter]
    fn height(&self) -> usize {
        self.info.height
    }

    /// Nominal frames per second; None if the source states none.
    #[getter]
    fn fps(&self) -> Option<f64> {
        self.info.fps.map(|(n, d)| f64::from(n) / f64::from(d))
    }

    /// Number of frames, estimated from length and frame rate.
    #[getter]
    fn frames(&self) -> Option<u64> {
        self.info.frames
    }

    /// Whether frames are dropped if they are not read in time.
    #[getter]
    fn live(&self) -> bool {
        self.info.live
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Frame>> {
        let next = py.detach(|| lock(&self.source).next_frame()).map_err(error::media)?;
        py.check_signals()?;
        Ok(next.map(Frame))
    }
}

/// The state of one source: push() takes frames, pull() returns labelled frames and events.
#[pyclass(frozen, module = "sphereface")]
pub struct Stream(Mutex<State>);

struct State {
    stream: sphereface::Stream,
    next_index: u64,
    /// Time and duration of the last frame.
    last: Option<(u64, u64)>,
}

impl State {
    /// Takes the next frame.
    fn push(&mut self, frame: media::Frame) -> PyResult<()> {
        let first = frame.index >= self.next_index;
        if !first || self.last.is_some_and(|(pts_ns, _)| frame.pts_ns <= pts_ns) {
            return Err(PyValueError::new_err(format!(
                "frame {} at {:.3} s is not later than the previous one: a stream takes the frames of one source in order",
                frame.index,
                frame.pts_ns as f64 / 1e9
            )));
        }
        self.next_index = frame.index + 1;
        self.last = Some((frame.pts_ns, frame.duration_ns));
        self.stream.push(frame).map_err(raised)
    }

    /// A picture as the next frame; a time or duration that is not given follows from the previous frame.
    fn frame(&self, picture: Picture, pts_ns: Option<u64>, duration_ns: Option<u64>) -> media::Frame {
        let follows = || self.last.map_or(0, |(pts_ns, duration_ns)| pts_ns.saturating_add(duration_ns));
        let before = self.last.map_or(FRAME_NS, |(_, duration_ns)| duration_ns);
        media::Frame {
            index: self.next_index,
            pts_ns: pts_ns.unwrap_or_else(follows),
            duration_ns: duration_ns.unwrap_or(before),
            picture: Arc::new(picture),
        }
    }
}

#[pymethods]
impl Stream {
    /// A source without frames yet. live=True answers every frame at once; live=False delays up to eight
    /// frames, as label(..., online=True) does with a file.
    #[new]
    #[pyo3(signature = (engine, gallery = None, live = true, *, detect_every = None, left_after_s = 2.0,
                        pictures = false))]
    fn new(
        engine: &Bound<'_, Engine>,
        gallery: Option<&Bound<'_, Gallery>>,
        live: bool,
        detect_every: Option<&Bound<'_, PyAny>>,
        left_after_s: f64,
        pictures: bool,
    ) -> PyResult<Self> {
        let mut options =
            StreamOptions::default().live(live).left_after_ns(nanoseconds(left_after_s)?).pictures(pictures);
        if let Some(every) = detect_every {
            options = options.detect_every(every.to_string().parse().map_err(raised)?);
        }
        let gallery = gallery.map(|gallery| &gallery.get().inner);
        let stream = sphereface::Stream::new(&engine.get().inner, gallery, options);
        Ok(Self(Mutex::new(State { stream, next_index: 0, last: None })))
    }

    /// Takes the next frame: a frame of a Source, or a picture, whose time follows from the previous frame
    /// unless it is given.
    #[pyo3(signature = (frame, pts_s = None, duration_s = None))]
    fn push(
        &self,
        py: Python<'_>,
        frame: &Bound<'_, PyAny>,
        pts_s: Option<f64>,
        duration_s: Option<f64>,
    ) -> PyResult<()> {
        if let Ok(frame) = frame.cast::<Frame>() {
            if pts_s.or(duration_s).is_some() {
                return Err(PyValueError::new_err(
                    "a Frame has a time of its own: leave out pts_s and duration_s",
                ));
            }
            let frame = frame.get().0.clone();
            return py.detach(|| lock(&self.0).push(frame));
        }
        let (pts_ns, duration_ns) =
            (pts_s.map(nanoseconds).transpose()?, duration_s.map(nanoseconds).transpose()?);
        let picture = picture::read(frame)?;
        py.detach(|| {
            let picture = Picture::from_rgb(&picture);
            let mut state = lock(&self.0);
            let frame = state.frame(picture, pts_ns, duration_ns);
            state.push(frame)
        })
    }

    /// The next LabelledFrame or Event, in order; None until more frames are pushed.
    fn pull(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        loop {
            match py.detach(|| lock(&self.0).stream.pull()) {
                Some(Output::Frame(frame)) => return LabelledFrame(frame).into_py_any(py).map(Some),
                Some(Output::Event(event)) => return Event(event).into_py_any(py).map(Some),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Ends the source: delayed frames can be pulled, and every person leaves.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| lock(&self.0).stream.finish()).map_err(raised)
    }

    /// Uses another gallery from the next frame on; people in sight are identified again.
    #[pyo3(signature = (gallery))]
    fn set_gallery(&self, py: Python<'_>, gallery: Option<&Bound<'_, Gallery>>) -> PyResult<()> {
        let gallery = gallery.map(|gallery| gallery.get().inner.clone());
        py.detach(|| lock(&self.0).stream.set_gallery(gallery.as_ref())).map_err(raised)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    /// Pulls until there is no more output.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.pull(py)
    }
}

/// Seconds as nanoseconds.
fn nanoseconds(seconds: f64) -> PyResult<u64> {
    match (0.0..1e9).contains(&seconds) {
        true => Ok((seconds * 1e9).round() as u64),
        false => Err(PyValueError::new_err(format!("{seconds} seconds is invalid: give 0 or more"))),
    }
}
