//! Faces, labelled frames and events as Python sees them.

use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::prelude::*;
use sphereface::detect::{BBox, Landmarks};
use sphereface::identify::{Candidate, Who};
use sphereface::{EventKind, engine};

use crate::picture;

/// Left, top, right and bottom edge in pixels.
pub type Edges = (f32, f32, f32, f32);

/// The edges of a box.
pub fn edges(bbox: BBox) -> Edges {
    (bbox.x1, bbox.y1, bbox.x2, bbox.y2)
}

/// Landmarks as an array of 5 x 2.
pub fn points<'py>(py: Python<'py>, landmarks: &Landmarks) -> PyResult<Bound<'py, PyArray2<f32>>> {
    PyArray1::from_slice(py, landmarks.as_flattened()).reshape([landmarks.len(), 2])
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The quality of a face for recognition.
#[pyclass(frozen, module = "sphereface")]
pub struct Quality(sphereface::detect::Quality);

#[pymethods]
impl Quality {
    /// Side of the square with the area of the box, in pixels.
    #[getter]
    fn size_px(&self) -> f32 {
        self.0.size_px
    }

    /// Turn to the side in degrees, positive when the nose points to the right of the picture.
    #[getter]
    fn yaw_deg(&self) -> f32 {
        self.0.yaw_deg
    }

    /// Nod in degrees, positive when the nose points down.
    #[getter]
    fn pitch_deg(&self) -> f32 {
        self.0.pitch_deg
    }

    /// Tilt in the picture plane in degrees, positive clockwise.
    #[getter]
    fn roll_deg(&self) -> f32 {
        self.0.roll_deg
    }

    /// Sharpness, independent of brightness and contrast.
    #[getter]
    fn sharpness(&self) -> f32 {
        self.0.sharpness
    }

    /// The reasons against recognising this face, as sentences.
    #[getter]
    fn problems(&self) -> Vec<String> {
        self.0.verdict().iter().map(ToString::to_string).collect()
    }

    fn __repr__(&self) -> String {
        let q = &self.0;
        format!(
            "Quality(size_px={:.0}, yaw_deg={:.0}, pitch_deg={:.0}, roll_deg={:.0}, sharpness={:.2})",
            q.size_px, q.yaw_deg, q.pitch_deg, q.roll_deg, q.sharpness
        )
    }
}

/// A face that was found in a picture.
#[pyclass(frozen, module = "sphereface")]
pub struct DetectedFace {
    pub face: sphereface::detect::Face,
    pub quality: sphereface::detect::Quality,
    pub crop: Option<sphereface::align::Crop>,
}

#[pymethods]
impl DetectedFace {
    /// Left, top, right and bottom edge in pixels of the picture.
    #[getter]
    fn r#box(&self) -> Edges {
        edges(self.face.bbox)
    }

    /// The detector's probability that it is a face.
    #[getter]
    fn score(&self) -> f32 {
        self.face.score
    }

    /// Eyes, nose and corners of the mouth, left to right as the viewer sees them: 5 x 2, float32.
    #[getter]
    fn landmarks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        points(py, &self.face.landmarks)
    }

    /// Its quality for recognition.
    #[getter]
    fn quality(&self) -> Quality {
        Quality(self.quality)
    }

    /// The aligned face, 112 x 112 x 3; None if the landmarks do not form a face.
    #[getter]
    fn crop<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray3<u8>>>> {
        self.crop.as_ref().map(|crop| picture::array(py, crop.to_whole_image())).transpose()
    }

    fn __repr__(&self) -> String {
        let (x1, y1, x2, y2) = edges(self.face.bbox);
        format!("DetectedFace(box=({x1:.1}, {y1:.1}, {x2:.1}, {y2:.1}), score={:.4})", self.face.score)
    }
}

/// A face and its identity.
#[pyclass(frozen, eq, module = "sphereface")]
#[derive(PartialEq)]
pub struct IdentifiedFace(pub sphereface::IdentifiedFace);

#[pymethods]
impl IdentifiedFace {
    /// Left, top, right and bottom edge in pixels of the picture.
    #[getter]
    fn r#box(&self) -> Edges {
        edges(self.0.bbox())
    }

    /// The detector's probability that it is a face.
    #[getter]
    fn score(&self) -> f32 {
        self.0.face.score
    }

    /// Eyes, nose and corners of the mouth, left to right as the viewer sees them: 5 x 2, float32.
    #[getter]
    fn landmarks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        points(py, &self.0.landmarks())
    }

    /// Its quality for recognition.
    #[getter]
    fn quality(&self) -> Quality {
        Quality(self.0.quality)
    }

    /// The person's name; None for a stranger.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// The name, or the number of a stranger as "Unknown 3"; None if strangers have no numbers.
    #[getter]
    fn who(&self) -> Option<String> {
        self.0.who().map(|who| who.to_string())
    }

    /// The number of a stranger.
    #[getter]
    fn stranger(&self) -> Option<u32> {
        self.0.stranger
    }

    /// The angle to the nearest person of the gallery in degrees, named or not.
    #[getter]
    fn angle_deg(&self) -> Option<f32> {
        self.0.angle_deg()
    }

    /// The nearest person of the gallery, named or not.
    #[getter]
    fn nearest(&self) -> Option<&str> {
        self.0.identification.nearest.as_ref().map(|nearest| nearest.name.as_str())
    }

    /// The number of the track that it belongs to; None on a still.
    #[getter]
    fn track(&self) -> Option<u32> {
        self.0.track.map(|track| track.0)
    }

    /// True if this is hardly a face; such faces are neither drawn nor reported.
    #[getter]
    fn transient(&self) -> bool {
        self.0.transient
    }

    /// Its embedding, if this view of it was embedded.
    #[getter]
    fn embedding<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<f32>>> {
        self.0.embedding.as_ref().map(|one| PyArray1::from_slice(py, one.as_slice()))
    }

    fn __repr__(&self) -> String {
        let (x1, y1, x2, y2) = edges(self.0.bbox());
        let who = self.0.who().map_or_else(|| "unknown".into(), |who| who.to_string());
        format!("IdentifiedFace({who:?}, box=({x1:.1}, {y1:.1}, {x2:.1}, {y2:.1}))")
    }
}

/// The identity of an embedding.
#[pyclass(frozen, module = "sphereface")]
pub struct Identification(pub sphereface::identify::Identification);

#[pymethods]
impl Identification {
    /// The person's name; None if nobody is near enough, or two people are about equally near.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// The nearest person, named or not.
    #[getter]
    fn nearest(&self) -> Option<&str> {
        self.0.nearest.as_ref().map(|one| one.name.as_str())
    }

    /// The angle to the nearest person in degrees.
    #[getter]
    fn angle_deg(&self) -> Option<f32> {
        self.0.nearest.as_ref().map(|one| one.angle_deg)
    }

    /// The file name of the still that is nearest, or "mean".
    #[getter]
    fn template(&self) -> Option<&str> {
        self.0.nearest.as_ref().map(|one| one.template.as_str())
    }

    /// The nearest other person, with the angle in degrees.
    #[getter]
    fn runner_up(&self) -> Option<(&str, f32)> {
        self.0.runner_up.as_ref().map(|Candidate { name, angle_deg, .. }| (name.as_str(), *angle_deg))
    }

    /// The nearest person is near enough, but another person is about as near.
    #[getter]
    fn ambiguous(&self) -> bool {
        self.0.ambiguous
    }

    fn __repr__(&self) -> String {
        let name = self.name().map_or_else(|| "None".into(), |name| format!("{name:?}"));
        match &self.0.nearest {
            Some(one) => format!("Identification({name}, angle_deg={:.1} to {:?})", one.angle_deg, one.name),
            None => format!("Identification({name})"),
        }
    }
}

/// A frame of a video with the faces in it.
#[pyclass(frozen, module = "sphereface")]
pub struct LabelledFrame(pub sphereface::LabelledFrame);

#[pymethods]
impl LabelledFrame {
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
        seconds(self.0.pts_ns)
    }

    /// Duration in nanoseconds.
    #[getter]
    fn duration_ns(&self) -> u64 {
        self.0.duration_ns
    }

    /// Whether a new shot begins with this frame.
    #[getter]
    fn cut(&self) -> bool {
        self.0.cut
    }

    /// The faces, the most probable first.
    #[getter]
    fn faces(&self) -> Vec<IdentifiedFace> {
        self.0.faces.iter().cloned().map(IdentifiedFace).collect()
    }

    /// The pixels; None if they were not requested.
    #[getter]
    fn picture<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray3<u8>>>> {
        let Some(picture) = &self.0.picture else { return Ok(None) };
        let rgb = py.detach(|| picture.to_rgb());
        picture::array(py, rgb).map(Some)
    }

    fn __repr__(&self) -> String {
        let sphereface::LabelledFrame { index, faces, .. } = &self.0;
        format!("LabelledFrame(index={index}, pts_s={:.3}, {} faces)", self.pts_s(), faces.len())
    }
}

/// A person appears, leaves, or gets another name.
#[pyclass(frozen, eq, module = "sphereface")]
#[derive(PartialEq)]
pub struct Event(pub engine::Event);

#[pymethods]
impl Event {
    /// "appeared", "left" or "renamed".
    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.kind {
            EventKind::Appeared => "appeared",
            EventKind::Left => "left",
            EventKind::Renamed { .. } => "renamed",
            _ => "other",
        }
    }

    /// The label of the person: a name, or "Unknown 3".
    #[getter]
    fn who(&self) -> String {
        self.0.who.to_string()
    }

    /// The name of a person of the gallery; None for a stranger.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.who.name()
    }

    /// The previous label of a person who was renamed.
    #[getter]
    fn was(&self) -> Option<String> {
        match &self.0.kind {
            EventKind::Renamed { from } => Some(Who::to_string(from)),
            _ => None,
        }
    }

    /// The number of the track.
    #[getter]
    fn track(&self) -> u32 {
        self.0.track.0
    }

    /// The frame of the event; for a person who left, the last frame that showed them.
    #[getter]
    fn frame(&self) -> u64 {
        self.0.frame
    }

    /// Time of the event in nanoseconds since the start.
    #[getter]
    fn pts_ns(&self) -> u64 {
        self.0.pts_ns
    }

    /// Time of the event in seconds since the start.
    #[getter]
    fn pts_s(&self) -> f64 {
        seconds(self.0.pts_ns)
    }

    /// The angle to the nearest person of the gallery in degrees.
    #[getter]
    fn angle_deg(&self) -> Option<f32> {
        self.0.angle_deg
    }

    fn __repr__(&self) -> String {
        format!("Event({:?}, {:?}, pts_s={:.3})", self.kind(), self.who(), self.pts_s())
    }
}
