//! Requests about pictures. Nothing of them is stored.

use axum::Json;
use axum::extract::{Query, State};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::upload::{JsonPictures, Upload, Uploads};
use crate::embed::{Embedding, Mirror};
use crate::engine::{DetectedFace, IdentifiedFace, Recogniser};
use crate::gallery::{Choice, examine_picture};
use crate::identify::{Calibration, Candidate, Threshold, ThresholdRequest};
use crate::serve::problem::Problem;
use crate::serve::site::{App, Site};
use crate::serve::why::why;

/// Options of a comparison.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CompareQuery {
    /// The angle below which it is the same person, in degrees. Default: the model's.
    threshold_deg: Option<f64>,
}

/// The identified faces of pictures.
#[derive(Serialize, ToSchema)]
pub(super) struct Recognised {
    /// The angle below which a face is named, in degrees; `null` if nobody is enrolled.
    threshold_deg: Option<f64>,
    /// One per picture, in order.
    pictures: Vec<PictureAnswer>,
}

/// The faces of a picture.
#[derive(Serialize, ToSchema)]
pub(super) struct PictureAnswer {
    /// Its name in the request.
    name: String,
    /// Width in pixels, upright.
    width: u32,
    /// Height in pixels, upright.
    height: u32,
    /// Its faces, highest detector score first.
    faces: Vec<FaceAnswer>,
    /// Number of faces beyond the limit of the service, which are omitted.
    left_out: usize,
}

/// A face.
#[derive(Serialize, ToSchema)]
pub(super) struct FaceAnswer {
    /// x1, y1, x2, y2 in pixels.
    #[serde(rename = "box")]
    bbox: [f32; 4],
    /// Left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them.
    #[schema(value_type = Vec<Vec<f32>>)]
    landmarks: [[f32; 2]; 5],
    /// The detector's probability that it is a face.
    score: f32,
    /// Its quality for recognition.
    quality: QualityAnswer,
    /// The identity; absent if the request does not identify faces.
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<WhoAnswer>,
    /// The embedding, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
}

/// The quality of a face for recognition.
#[derive(Serialize, ToSchema)]
pub(super) struct QualityAnswer {
    /// Side of the part inside the picture, in pixels.
    size_px: f32,
    /// Yaw in degrees.
    yaw_deg: f32,
    /// Pitch in degrees.
    pitch_deg: f32,
    /// Roll in degrees.
    roll_deg: f32,
    /// Sharpness: 0 is blurred, 0.3 is in focus.
    sharpness: f32,
    /// Its problems as a template.
    problems: Vec<String>,
}

/// The identity of a face.
#[derive(Serialize, ToSchema)]
pub(super) struct WhoAnswer {
    /// The name; `null` for a stranger.
    name: Option<String>,
    /// The angle to the nearest person in degrees, named or not.
    angle_deg: Option<f32>,
    /// The nearest person.
    nearest: Option<NearAnswer>,
    /// The nearest other person.
    runner_up: Option<NearAnswer>,
    /// Whether the nearest person is below the threshold but another person is about as near.
    ambiguous: bool,
    /// The reason for the answer.
    why: String,
}

/// An enrolled person compared with a face.
#[derive(Serialize, ToSchema)]
pub(super) struct NearAnswer {
    /// The name.
    name: String,
    /// The angle to them in degrees.
    angle_deg: f32,
    /// The file name of the nearest still, or `mean` for the mean of the stills.
    template: String,
}

/// Embedded faces of pictures.
#[derive(Serialize, ToSchema)]
pub(super) struct Embedded {
    /// The model: embeddings of different ones cannot be compared.
    model: String,
    /// One per picture, in order.
    pictures: Vec<PictureAnswer>,
}

/// Faces of pictures.
#[derive(Serialize, ToSchema)]
pub(super) struct Detected {
    /// One per picture, in order.
    pictures: Vec<PictureAnswer>,
}

/// Whether two pictures show one person.
#[derive(Serialize, ToSchema)]
pub(super) struct Compared {
    /// Whether it is the same person.
    same: bool,
    /// The angle between the two faces, in degrees.
    angle_deg: f64,
    /// The angle below which it is the same person, in degrees.
    threshold_deg: f64,
    /// The share of pairs of different people at most this far apart, by the model's calibration.
    false_match_rate: Option<f64>,
    /// The compared faces: the largest of each picture.
    faces: Vec<FaceAnswer>,
}

/// Recognise people in pictures
///
/// Returns every face of every picture, with the name of enrolled people.
#[utoipa::path(
    post, path = "/api/v1/recognise", tag = "pictures",
    request_body(content(
        (Vec<u8> = "image/jpeg"), (JsonPictures = "application/json"), (Vec<u8> = "multipart/form-data")
    )),
    responses(
        (status = 200, body = Recognised),
        (status = 422, description = "A picture cannot be read", body = Problem),
        (status = 503, description = "Busy: retry after `Retry-After` seconds", body = Problem)
    )
)]
pub(super) async fn recognise(
    State(site): State<App>,
    uploads: Uploads,
) -> Result<Json<Recognised>, Problem> {
    let answer = site.compute(move |site| {
        let gallery = site.gallery()?;
        let threshold_deg = gallery.as_ref().map(|gallery| gallery.threshold().angle_deg());
        let recogniser = match &gallery {
            Some(gallery) => Recogniser::new(&site.engine, gallery),
            None => Recogniser::without_gallery(&site.engine),
        };
        let pictures = each(site, &uploads, |faces| {
            let named = recogniser.identify(faces)?;
            Ok(named.iter().map(|face| FaceAnswer::named(face, threshold_deg)).collect())
        })?;
        Ok(Recognised { threshold_deg, pictures })
    });
    answer.await.map(Json)
}

/// Detect faces
#[utoipa::path(
    post, path = "/api/v1/detect", tag = "pictures",
    request_body(content(
        (Vec<u8> = "image/jpeg"), (JsonPictures = "application/json"), (Vec<u8> = "multipart/form-data")
    )),
    responses((status = 200, body = Detected), (status = 422, body = Problem), (status = 503, body = Problem))
)]
pub(super) async fn detect(State(site): State<App>, uploads: Uploads) -> Result<Json<Detected>, Problem> {
    let found = |faces: Vec<DetectedFace>| Ok(faces.iter().map(FaceAnswer::found).collect());
    let answer = site.compute(move |site| Ok(Detected { pictures: each(site, &uploads, found)? }));
    answer.await.map(Json)
}

/// Embed faces
#[utoipa::path(
    post, path = "/api/v1/embed", tag = "pictures",
    request_body(content(
        (Vec<u8> = "image/jpeg"), (JsonPictures = "application/json"), (Vec<u8> = "multipart/form-data")
    )),
    responses((status = 200, body = Embedded), (status = 422, body = Problem), (status = 503, body = Problem))
)]
pub(super) async fn embed(State(site): State<App>, uploads: Uploads) -> Result<Json<Embedded>, Problem> {
    let answer = site.compute(move |site| {
        let pictures = each(site, &uploads, |mut faces| {
            let crops: Vec<_> = faces.iter_mut().map(|face| face.crop.take()).collect();
            let there: Vec<bool> = crops.iter().map(Option::is_some).collect();
            let mut made = site.engine.embed(crops.into_iter().flatten().collect())?.into_iter();
            let one = |(face, there): (&DetectedFace, bool)| {
                let embedding = if there { made.next() } else { None };
                FaceAnswer {
                    embedding: embedding.map(|one| one.as_slice().to_vec()),
                    ..FaceAnswer::found(face)
                }
            };
            Ok(faces.iter().zip(there).map(one).collect())
        })?;
        Ok(Embedded { model: site.engine.model().to_string(), pictures })
    });
    answer.await.map(Json)
}

/// Compare the faces of two pictures
///
/// If a picture shows several faces, the largest is used.
#[utoipa::path(
    post, path = "/api/v1/compare", tag = "pictures", params(CompareQuery),
    request_body(content((JsonPictures = "application/json"), (Vec<u8> = "multipart/form-data"))),
    responses((status = 200, body = Compared), (status = 422, body = Problem), (status = 503, body = Problem))
)]
pub(super) async fn compare(
    State(site): State<App>,
    query: Result<Query<CompareQuery>, axum::extract::rejection::QueryRejection>,
    uploads: Uploads,
) -> Result<Json<Compared>, Problem> {
    let Query(CompareQuery { threshold_deg }) = query?;
    let request = threshold_deg.map(angle).transpose()?.unwrap_or(ThresholdRequest::Default);
    if uploads.pictures.len() != 2 {
        let count = uploads.pictures.len();
        return Err(Problem::bad(format!("a comparison needs two pictures, but the request has {count}")));
    }
    site.compute(move |site| compare_two(site, &uploads, request)).await.map(Json)
}

fn compare_two(site: &Site, uploads: &Uploads, request: ThresholdRequest) -> Result<Compared, Problem> {
    let metadata = site.engine.embedder().metadata();
    let threshold = Threshold::resolve(request, metadata).map_err(|error| Problem::bad(error.to_string()))?;
    let mut crops = Vec::new();
    let mut faces = Vec::new();
    for upload in &uploads.pictures {
        let picture = decode(site, upload)?;
        let examined = examine_picture(&picture, Choice::Largest, site.engine.detector())
            .map_err(|error| named(&upload.name, error))?;
        faces.push(FaceAnswer::of(&examined.face, &examined.quality));
        crops.push(examined.crop);
    }
    let embedder = site.engine.embedder();
    let made = embedder.embed(&crops, Mirror::Average, &mut embedder.scratch());
    let made = made.map_err(|error| Problem::inside(&error))?;
    let angle_deg = match made.as_slice() {
        [a, b] => Embedding::angle_deg(a, b),
        _ => None,
    };
    let angle_deg = angle_deg.ok_or_else(|| Problem::bad("the model gave no embedding for each face"))?;
    let calibration = Calibration::from_metadata(metadata).ok();
    Ok(Compared {
        same: angle_deg < threshold.angle_deg(),
        angle_deg,
        threshold_deg: threshold.angle_deg(),
        false_match_rate: calibration.and_then(|table| table.fmr_at(angle_deg)),
        faces,
    })
}

/// A refusal of a picture with its name.
pub(super) fn named(name: &str, error: impl Into<Problem>) -> Problem {
    error.into().about(name)
}

fn angle(degrees: f64) -> Result<ThresholdRequest, Problem> {
    let parsed = crate::identify::parse_angle_deg(&degrees.to_string());
    parsed.map(ThresholdRequest::AngleDeg).map_err(|error| Problem::bad(error.to_string()))
}

pub(super) fn decode(site: &Site, upload: &Upload) -> Result<RgbImage, Problem> {
    upload.decode(site.settings().config.limits.megapixels)
}

/// The result of `tell` for the faces of every picture.
fn each(
    site: &Site,
    uploads: &Uploads,
    tell: impl Fn(Vec<DetectedFace>) -> Result<Vec<FaceAnswer>, Problem>,
) -> Result<Vec<PictureAnswer>, Problem> {
    let most = site.settings().config.limits.faces;
    let one = |upload: &Upload| {
        let picture = decode(site, upload)?;
        let mut faces = site.engine.detect(&picture)?;
        let left_out = faces.len().saturating_sub(most);
        faces.truncate(most);
        let (width, height) = picture.dimensions();
        Ok(PictureAnswer { name: upload.name.clone(), width, height, faces: tell(faces)?, left_out })
    };
    uploads.pictures.iter().map(one).collect()
}

impl FaceAnswer {
    pub fn of(face: &crate::detect::Face, quality: &crate::detect::Quality) -> Self {
        let b = face.bbox;
        Self {
            bbox: [b.x1, b.y1, b.x2, b.y2],
            landmarks: face.landmarks,
            score: face.score,
            quality: QualityAnswer {
                size_px: quality.size_px,
                yaw_deg: quality.yaw_deg,
                pitch_deg: quality.pitch_deg,
                roll_deg: quality.roll_deg,
                sharpness: quality.sharpness,
                problems: quality.verdict().iter().map(ToString::to_string).collect(),
            },
            who: None,
            embedding: None,
        }
    }

    fn found(face: &DetectedFace) -> Self {
        Self::of(&face.face, &face.quality)
    }

    fn named(face: &IdentifiedFace, threshold_deg: Option<f64>) -> Self {
        let identification = &face.identification;
        let who = WhoAnswer {
            name: identification.name.clone(),
            angle_deg: face.angle_deg(),
            nearest: identification.nearest.as_ref().map(NearAnswer::of),
            runner_up: identification.runner_up.as_ref().map(NearAnswer::of),
            ambiguous: identification.ambiguous,
            why: why(identification, threshold_deg),
        };
        Self { who: Some(who), ..Self::of(&face.face, &face.quality) }
    }
}

impl NearAnswer {
    fn of(candidate: &Candidate) -> Self {
        let Candidate { name, angle_deg, template, .. } = candidate.clone();
        Self { name, angle_deg, template }
    }
}
