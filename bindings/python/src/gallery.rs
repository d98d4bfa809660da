//! Galleries, enrolment and stills.

use std::path::PathBuf;

use numpy::{PyArray3, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sphereface::GalleryOptions;
use sphereface::embed::Embedding;
use sphereface::gallery::{Choice, GalleryFolder, NewStill, PersonName, Viewpoint};
use sphereface::identify::{ThresholdRequest, ThresholdSource};
use sphereface::media;

use crate::engine::Engine;
use crate::error::{self, raised};
use crate::face::{Identification, IdentifiedFace};
use crate::picture;

/// The angle below which a face is named.
#[pyclass(frozen, module = "sphereface")]
pub struct Threshold(sphereface::identify::Threshold);

#[pymethods]
impl Threshold {
    /// In degrees.
    #[getter]
    fn angle_deg(&self) -> f64 {
        self.0.angle_deg()
    }

    /// The rate of false matches that it corresponds to; None for an angle that was given or measured on
    /// strangers.
    #[getter]
    fn fmr(&self) -> Option<f64> {
        match self.0.source() {
            ThresholdSource::Calibrated { fmr, .. } => Some(*fmr),
            _ => None,
        }
    }

    fn __float__(&self) -> f64 {
        self.angle_deg()
    }

    fn __repr__(&self) -> String {
        match self.fmr() {
            Some(fmr) => format!("Threshold(angle_deg={:.2}, fmr={fmr:e})", self.angle_deg()),
            None => format!("Threshold(angle_deg={:.2})", self.angle_deg()),
        }
    }
}

/// The people to name: a snapshot of a folder.
#[pyclass(frozen, module = "sphereface")]
pub struct Gallery {
    pub inner: sphereface::Gallery,
    /// The engine that embedded it.
    pub engine: sphereface::Engine,
}

#[pymethods]
impl Gallery {
    /// Reads the people of a folder and embeds new stills.
    #[new]
    #[pyo3(signature = (engine, folder, threshold_deg = None, fmr = None, *, margin_deg = None))]
    fn new(
        py: Python<'_>,
        engine: &Bound<'_, Engine>,
        folder: PathBuf,
        threshold_deg: Option<f64>,
        fmr: Option<f64>,
        margin_deg: Option<f64>,
    ) -> PyResult<Self> {
        let request = match (threshold_deg, fmr) {
            (Some(_), Some(_)) => {
                return Err(PyValueError::new_err(
                    "threshold_deg and fmr set the same threshold: give one of them",
                ));
            }
            (Some(angle_deg), None) => ThresholdRequest::AngleDeg(angle_deg),
            (None, Some(fmr)) => ThresholdRequest::Fmr(fmr),
            (None, None) => ThresholdRequest::Default,
        };
        let mut options = GalleryOptions::default().threshold(request);
        if let Some(margin_deg) = margin_deg {
            options = options.margin_deg(margin_in_range(margin_deg)?);
        }
        let engine = engine.get().inner.clone();
        let inner =
            py.detach(|| sphereface::Gallery::open_with(&engine, folder, &options)).map_err(raised)?;
        Ok(Self { inner, engine })
    }

    /// Display names, in the order of the gallery.
    #[getter]
    fn people(&self) -> Vec<&str> {
        self.inner.people().collect()
    }

    /// The angle below which a face is named.
    #[getter]
    fn threshold(&self) -> Threshold {
        Threshold(self.inner.threshold().clone())
    }

    /// Identifies an embedding of this model; yaw_deg is the turn of the face to the side.
    #[pyo3(signature = (embedding, *, yaw_deg = 0.0, score = 1.0))]
    fn identify(
        &self,
        embedding: PyReadonlyArray1<'_, f32>,
        yaw_deg: f32,
        score: f32,
    ) -> PyResult<Identification> {
        let vector: Vec<f32> = embedding.as_array().iter().copied().collect();
        let width = self.engine.embedder().family().embedding();
        if vector.len() != width {
            return Err(PyValueError::new_err(format!(
                "an embedding of this model has {width} values, and this one {}",
                vector.len()
            )));
        }
        let probe = Embedding::new(self.inner.model(), vector);
        let probe = probe.ok_or_else(|| PyValueError::new_err("the embedding has no direction"))?;
        let view = Viewpoint { yaw_deg: yaw_deg.abs(), score };
        self.inner.identify(&probe, view).map(Identification).map_err(raised)
    }

    fn __len__(&self) -> usize {
        self.inner.people().len()
    }

    fn __repr__(&self) -> String {
        format!("Gallery({} people, {})", self.__len__(), self.threshold().__repr__())
    }
}

fn margin_in_range(margin_deg: f64) -> PyResult<f64> {
    sphereface::identify::parse_margin_deg(&format!("{margin_deg}deg")).map_err(raised)
}

/// Names the people in stills.
#[pyclass(frozen, module = "sphereface")]
pub struct Recogniser(sphereface::Recogniser);

#[pymethods]
impl Recogniser {
    /// Names the people of a gallery; without a gallery, every person is unknown.
    #[new]
    #[pyo3(signature = (engine, gallery = None))]
    fn new(engine: &Bound<'_, Engine>, gallery: Option<&Bound<'_, Gallery>>) -> Self {
        let engine = &engine.get().inner;
        Self(match gallery {
            Some(gallery) => sphereface::Recogniser::new(engine, &gallery.get().inner),
            None => sphereface::Recogniser::without_gallery(engine),
        })
    }

    /// The faces of a picture and their identities, the most probable face first.
    fn name(&self, py: Python<'_>, image: &Bound<'_, PyAny>) -> PyResult<Vec<IdentifiedFace>> {
        let picture = picture::read(image)?;
        let faces = py.detach(|| self.0.name(&picture)).map_err(raised)?;
        Ok(faces.into_iter().map(IdentifiedFace).collect())
    }
}

/// Enrols a person with the largest face of each still. Returns a warning for each still that was accepted in
/// spite of poor quality. If a still cannot be used, nothing is enrolled.
#[pyfunction]
#[pyo3(signature = (folder, name, paths, *, engine = None))]
pub fn enroll(
    py: Python<'_>,
    folder: PathBuf,
    name: &str,
    paths: Vec<PathBuf>,
    engine: Option<&Bound<'_, Engine>>,
) -> PyResult<Vec<String>> {
    if paths.is_empty() {
        return Err(PyValueError::new_err(format!("no still of {name} is given: give at least one")));
    }
    let name = PersonName::new(name).map_err(raised)?;
    let engine = given_or_new(py, engine)?;
    py.detach(|| {
        let mut told = Vec::new();
        let mut stills = Vec::new();
        for path in &paths {
            let still = NewStill::read(path, Choice::Largest, engine.detector());
            let still = still.map_err(|error| error::still(path, &error))?;
            let problems = still.examined.problems();
            told.extend(problems.iter().map(|problem| format!("{}: {problem}", path.display())));
            stills.push(still);
        }
        let folder = GalleryFolder::create(&folder).map_err(raised)?;
        folder.enroll(&name, stills).map_err(raised)?;
        Ok(told)
    })
}

/// The given engine, or one with default settings.
pub fn given_or_new(py: Python<'_>, engine: Option<&Bound<'_, Engine>>) -> PyResult<sphereface::Engine> {
    match engine {
        Some(engine) => Ok(engine.get().inner.clone()),
        None => py.detach(sphereface::Engine::new).map_err(raised),
    }
}

/// Reads an image file, upright.
#[pyfunction]
pub fn read_image(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyArray3<u8>>> {
    let picture = py.detach(|| media::read_still(&path)).map_err(error::media)?;
    picture::array(py, picture)
}

/// Writes an image file in the format of its file name extension.
#[pyfunction]
pub fn write_image(py: Python<'_>, path: PathBuf, image: &Bound<'_, PyAny>) -> PyResult<()> {
    let picture = picture::read(image)?;
    py.detach(|| media::write_still(&path, &picture)).map_err(error::media)
}
