//! Detector, embedding network and device.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use image::RgbImage;
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sphereface::align;
use sphereface::detect::{BBox, DetectError, DetectorConfig, Face, MinFace, Quality, Scratch};
use sphereface::embed::Mirror;
use sphereface::identify::{Calibration, Threshold, ThresholdRequest};
use sphereface::nn::ArithmeticChoice;

use crate::error::raised;
use crate::face::{DetectedFace, Edges};
use crate::picture;

/// Detector, embedding network and device. One engine serves any number of threads and sources.
#[pyclass(frozen, module = "sphereface")]
pub struct Engine {
    pub inner: sphereface::Engine,
    /// Unused working memory, with all threads and with one.
    teams: Pool,
    singles: Pool,
}

/// Working memory that is not in use.
struct Pool {
    threads: usize,
    idle: Mutex<Vec<Scratch>>,
}

impl Pool {
    fn new(threads: usize) -> Self {
        Self { threads, idle: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut scratch = taken.unwrap_or_else(|| Scratch::new(self.threads));
        let made = work(&mut scratch);
        idle().push(scratch);
        made
    }
}

/// Least probabilities of a face after the three networks.
type Thresholds = (f32, f32, f32);

#[pymethods]
impl Engine {
    /// Without arguments: the built-in networks on the best device, with one thread per CPU.
    #[new]
    #[pyo3(signature = (model = None, device = "auto", threads = None, min_face = None, *, factor = None,
                        thresholds = None, precision = "auto", mirror = false))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn new(
        py: Python<'_>,
        model: Option<PathBuf>,
        device: &str,
        threads: Option<usize>,
        min_face: Option<Bound<'_, PyAny>>,
        factor: Option<f32>,
        thresholds: Option<Thresholds>,
        precision: &str,
        mirror: bool,
    ) -> PyResult<Self> {
        let mut builder = sphereface::Engine::builder()
            .detection(detection(min_face, factor, thresholds)?)
            .device(device.parse().map_err(raised)?)
            .precision(precision.parse::<ArithmeticChoice>().map_err(raised)?)
            .mirror(if mirror { Mirror::Average } else { Mirror::No });
        if let Some(model) = model {
            builder = builder.model(model.to_string_lossy());
        }
        if let Some(threads) = threads {
            builder = builder.threads(threads);
        }
        py.detach(|| builder.build()).map(Self::of).map_err(raised)
    }

    /// The faces of a picture, the most probable first.
    fn detect(&self, py: Python<'_>, image: &Bound<'_, PyAny>) -> PyResult<Vec<DetectedFace>> {
        let picture = picture::read(image)?;
        py.detach(|| self.teams.with(|scratch| self.find(&picture, scratch))).map_err(raised)
    }

    /// The faces of several pictures of any sizes, which share the threads.
    fn detect_many(&self, py: Python<'_>, images: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Vec<DetectedFace>>> {
        let pictures: Vec<RgbImage> = images.iter().map(picture::read).collect::<PyResult<_>>()?;
        py.detach(|| self.find_many(&pictures)).map_err(raised)
    }

    /// The faces near boxes where faces are expected, without a search of the whole picture.
    fn detect_near(
        &self,
        py: Python<'_>,
        image: &Bound<'_, PyAny>,
        boxes: Vec<Edges>,
    ) -> PyResult<Vec<DetectedFace>> {
        let picture = picture::read(image)?;
        let places: Vec<BBox> = boxes.into_iter().map(|(x1, y1, x2, y2)| BBox { x1, y1, x2, y2 }).collect();
        let near = |scratch: &mut Scratch| self.inner.detector().detect_near(&picture, &places, scratch);
        py.detach(|| self.singles.with(near).map(|faces| cut(&picture, faces))).map_err(raised)
    }

    /// The aligned face, 112 x 112 x 3, of five landmarks; None if they do not form a face.
    #[staticmethod]
    fn align<'py>(
        py: Python<'py>,
        image: &Bound<'py, PyAny>,
        landmarks: [[f32; 2]; 5],
    ) -> PyResult<Option<Bound<'py, PyArray3<u8>>>> {
        let picture = picture::read(image)?;
        let crop = py.detach(|| align::align(&picture, &landmarks));
        crop.map(|crop| picture::array(py, crop.to_whole_image())).transpose()
    }

    /// The embeddings, unit vectors as rows, of faces from detect() or of crops of 112 x 112 x 3. Crops of
    /// 112 x 96 x 3 lack the columns at the sides, which only some networks see.
    fn embed<'py>(
        &self,
        py: Python<'py>,
        faces: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let crops = faces.iter().map(crop).collect::<PyResult<Vec<_>>>()?;
        let made = py.detach(|| self.inner.embed(crops)).map_err(raised)?;
        let width = self.inner.embedder().family().embedding();
        let values = made.iter().flat_map(|one| one.as_slice()).copied().collect();
        PyArray1::from_vec(py, values).reshape([made.len(), width])
    }

    /// The angle in degrees below which two faces are one person: at the model's default rate of false
    /// matches, or at that one.
    #[pyo3(signature = (fmr = None))]
    fn threshold_deg(&self, fmr: Option<f64>) -> PyResult<f64> {
        let request = fmr.map_or(ThresholdRequest::Default, ThresholdRequest::Fmr);
        let threshold = Threshold::resolve(request, self.inner.embedder().metadata()).map_err(raised)?;
        Ok(threshold.angle_deg())
    }

    /// The share of comparisons of two different people that match at an angle; None if it was not measured.
    fn fmr(&self, angle_deg: f64) -> PyResult<Option<f64>> {
        let calibration = Calibration::from_metadata(self.inner.embedder().metadata()).map_err(raised)?;
        Ok(calibration.fmr_at(angle_deg))
    }

    /// Identifier of the embedding network: embeddings of different ones cannot be compared.
    #[getter]
    fn model(&self) -> String {
        self.inner.model().to_string()
    }

    /// The number format in which embeddings are computed: "f32", "bf16" or "int8".
    #[getter]
    fn precision(&self) -> String {
        self.inner.arithmetic().arithmetic.to_string()
    }

    /// The number of threads that work at the same time.
    #[getter]
    fn threads(&self) -> usize {
        self.inner.threads()
    }

    fn __repr__(&self) -> String {
        format!("Engine(model={:?}, threads={})", self.model(), self.threads())
    }
}

impl Engine {
    /// The engine of the library as a Python object.
    pub fn of(inner: sphereface::Engine) -> Self {
        Self { teams: Pool::new(inner.threads()), singles: Pool::new(1), inner }
    }

    fn find(&self, picture: &RgbImage, scratch: &mut Scratch) -> Result<Vec<DetectedFace>, DetectError> {
        self.inner.detector().detect(picture, scratch).map(|faces| cut(picture, faces))
    }

    /// One picture per thread; if there are fewer pictures than threads, all threads share one picture after
    /// the other.
    fn find_many(&self, pictures: &[RgbImage]) -> Result<Vec<Vec<DetectedFace>>, DetectError> {
        let threads = self.inner.threads();
        if pictures.len() < threads {
            let one = |picture| self.teams.with(|scratch| self.find(picture, scratch));
            return pictures.iter().map(one).collect();
        }
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Vec<DetectedFace>)>, DetectError> {
            self.singles.with(|scratch| {
                let mine = std::iter::from_fn(|| {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    pictures.get(at).map(|picture| (at, picture))
                });
                mine.map(|(at, picture)| Ok((at, self.find(picture, scratch)?))).collect()
            })
        };
        let mut found = thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = work()?;
            for worker in workers {
                found.extend(worker.join().unwrap_or_else(|panic| resume_unwind(panic))?);
            }
            Ok::<_, DetectError>(found)
        })?;
        found.sort_by_key(|(at, _)| *at);
        Ok(found.into_iter().map(|(_, faces)| faces).collect())
    }
}

/// The detected faces with quality and aligned crop.
fn cut(picture: &RgbImage, faces: Vec<Face>) -> Vec<DetectedFace> {
    let finite = |face: &Face| {
        let BBox { x1, y1, x2, y2 } = face.bbox;
        face.landmarks.as_flattened().iter().chain(&[x1, y1, x2, y2]).all(|x| x.is_finite())
    };
    let one = |face: Face| DetectedFace {
        quality: Quality::measure(&face, picture),
        crop: align::align(picture, &face.landmarks),
        face,
    };
    faces.into_iter().filter(finite).map(one).collect()
}

/// The crop of a face, or of an array.
fn crop(face: &Bound<'_, PyAny>) -> PyResult<align::Crop> {
    let Ok(face) = face.cast::<DetectedFace>() else { return picture::read_crop(face) };
    face.get().crop.clone().ok_or_else(|| {
        PyValueError::new_err(
            "the landmarks of this face do not form a face, so it cannot be embedded: leave it out",
        )
    })
}

/// The options of the detector.
fn detection(
    min_face: Option<Bound<'_, PyAny>>,
    factor: Option<f32>,
    thresholds: Option<Thresholds>,
) -> PyResult<DetectorConfig> {
    let default = DetectorConfig::default();
    let min_face = match min_face {
        Some(size) => size.to_string().parse::<MinFace>().map_err(raised)?,
        None => default.min_face,
    };
    Ok(DetectorConfig {
        min_face,
        factor: factor.unwrap_or(default.factor),
        thresholds: thresholds.map_or(default.thresholds, |(p, r, o)| [p, r, o]),
    })
}
