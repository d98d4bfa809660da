//! Names to confirm or reject, and the effect of the threshold.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::events::Events;
use super::path::Path;
use super::people::new_still;
use super::pictures::{decode, named};
use super::upload::Upload;
use crate::gallery::{Choice, NewStill, PersonName, Viewpoint};
use crate::identify::{Calibration, Threshold, ThresholdRequest};
use crate::report::chart::{Axis, Chart, Curve, Scale};
use crate::serve::access::Caller;
use crate::serve::cover::cover;
use crate::serve::problem::Problem;
use crate::serve::sightings::{PICTURE_QUALITY, encode};
use crate::serve::site::{App, Site};
use crate::serve::store::{Event, NewSight, StrangerPicture};
use crate::track::weight_inside;

/// Thresholds that may be set, in degrees.
const LEAST_DEG: f64 = 1.0;
const MOST_DEG: f64 = 179.0;
/// Names with a smaller margin below the threshold, in degrees, are doubtful.
const DOUBTFUL_DEG: f64 = 6.0;

/// A request for doubtful names.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DoubtsQuery {
    /// Names whose angle was less than this many degrees below the threshold. Default: 6.
    margin_deg: Option<f64>,
    /// Maximum number, 1 to 1000. Default: 100.
    limit: Option<usize>,
}

/// Options of a confirmation.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Confirmation {
    /// Whether the picture is added to the stills of the person.
    enroll: bool,
}

/// List doubtful names
///
/// Names with a small margin that are neither confirmed nor rejected, the newest first.
#[utoipa::path(
    get, path = "/api/v1/doubts", tag = "events", params(DoubtsQuery),
    responses((status = 200, body = Events), (status = 400, body = Problem))
)]
pub(super) async fn list(
    State(site): State<App>,
    query: Result<Query<DoubtsQuery>, QueryRejection>,
) -> Result<Json<Events>, Problem> {
    let Query(DoubtsQuery { margin_deg, limit }) = query?;
    let (margin_deg, limit) = (margin_deg.unwrap_or(DOUBTFUL_DEG), limit.unwrap_or(100));
    if !(0.0..=180.0).contains(&margin_deg) || !(1..=1000).contains(&limit) {
        return Err(Problem::bad("give a margin_deg from 0 to 180, and a limit from 1 to 1000"));
    }
    site.wait_for(move |site| Ok(Json(Events { events: site.store.doubts(margin_deg, limit)? }))).await
}

/// An event that has a name and a picture.
fn event_with_name(site: &Site, id: i64) -> Result<(Event, PersonName, Upload), Problem> {
    let event = site.store.event(id)?.ok_or_else(|| Problem::not_found(format!("there is no event {id}")))?;
    let name = event.person.as_deref().ok_or_else(|| Problem::bad(format!("event {id} names nobody")))?;
    let name = PersonName::new(name)?;
    let picture = site.store.event_picture(id)?;
    let bytes = picture.ok_or_else(|| Problem::bad(format!("event {id} has no picture")))?;
    Ok((event, name, Upload { name: format!("event-{id}.jpg"), bytes }))
}

/// The face of an event.
fn still_of(site: &Site, event: &Event, upload: &Upload) -> Result<NewStill, Problem> {
    new_still(site, upload, Choice::Largest).map_err(|refused| {
        match site.covers(&event.source, event.person.as_deref()) {
            true => Problem::covered(format_args!("event {}", event.id), &event.source),
            false => refused,
        }
    })
}

fn again(site: &Site, id: i64) -> Result<Json<Event>, Problem> {
    let event = site.store.event(id)?;
    event.map(Json).ok_or_else(|| Problem::not_found(format!("there is no event {id}")))
}

/// Confirm the name of an event
#[utoipa::path(
    post, path = "/api/v1/events/{id}/confirm", tag = "events", params(("id" = i64, Path)),
    request_body = Confirmation,
    responses((status = 200, body = Event), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub(super) async fn confirm(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    confirmation: Result<Json<Confirmation>, JsonRejection>,
) -> Result<Json<Event>, Problem> {
    let Json(Confirmation { enroll }) = confirmation?;
    site.compute(move |site| {
        let (event, name, upload) = event_with_name(site, id)?;
        if enroll {
            let still = still_of(site, &event, &upload)?;
            site.edit_people(|folder| {
                // A person who was removed in the meantime must not be enrolled again by this.
                folder.person(&name)?;
                Ok(folder.enroll(&name, vec![still])?)
            })?;
        }
        site.store.confirm_event(id)?;
        site.store.note(caller.name(), "confirmed a name", Some(name.as_str()))?;
        again(site, id)
    })
    .await
}

/// Reject the name of an event: this is not the person
///
/// The picture becomes a counter-example of the person, and the events of that visit become those of a
/// stranger, who can be named.
#[utoipa::path(
    post, path = "/api/v1/events/{id}/reject", tag = "events", params(("id" = i64, Path)),
    responses((status = 200, body = Event), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub(super) async fn reject(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Event>, Problem> {
    site.compute(move |site| {
        let (event, name, upload) = event_with_name(site, id)?;
        let still = still_of(site, &event, &upload)?;
        let sight = sight(site, &event, &still).map_err(|error| named(&upload.name, error))?;
        site.edit_people(|folder| Ok(folder.reject(&name, vec![still])?))?;
        let stranger = site.store.add_stranger(&sight)?;
        // From now on, the pictures belong to a stranger.
        let covered = site.covers(&event.source, None).then_some(&sight.picture.jpeg);
        site.store.reject_event(&event, stranger, covered.map(Vec::as_slice))?;
        site.store.note(caller.name(), "rejected a name", Some(name.as_str()))?;
        again(site, id)
    })
    .await
}

/// The face of a picture, as a sighting of a stranger.
fn sight(site: &Site, event: &Event, still: &NewStill) -> Result<NewSight, Problem> {
    let (face, quality) = (&still.examined.face, &still.examined.quality);
    let embedding = site.engine.embed(vec![still.examined.crop.clone()])?.into_iter().next();
    let mut jpeg = still.bytes.clone();
    if site.covers(&event.source, None) {
        let mut picture = decode(site, &Upload { name: String::new(), bytes: jpeg })?;
        cover(&mut picture, &[face.bbox]);
        jpeg = encode(&picture, PICTURE_QUALITY);
    }
    Ok(NewSight {
        time_ms: event.time_ms,
        source: event.source.clone(),
        weight: weight_inside(face, quality),
        embedding,
        picture: StrangerPicture { jpeg, face: face.bbox.centre() },
    })
}

/// A threshold to evaluate.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ThresholdQuery {
    /// Threshold in degrees. Default: the one in force.
    threshold_deg: Option<f64>,
}

/// The effect of a threshold.
#[derive(Serialize, ToSchema)]
pub(super) struct ThresholdAnswer {
    /// The angle below which a face is named, in degrees.
    in_force_deg: f64,
    /// Whether it was set by the API. Otherwise it is that of the configuration, or the calibrated one.
    set_here: bool,
    /// The evaluated angle.
    threshold_deg: f64,
    /// The share of pairs of different people below that angle, by the model's calibration.
    false_match_rate: Option<f64>,
    /// Strangers of this service with an embedding.
    strangers: usize,
    /// Those of them whose best view would get a name.
    strangers_named: usize,
    /// Events with a name.
    names: usize,
    /// Those of them that would have no name.
    names_lost: usize,
}

/// The data for evaluating a threshold.
struct Measured {
    in_force_deg: f64,
    set_here: bool,
    threshold_deg: f64,
    /// Angles of strangers to the nearest person, and angles at which people were named, in increasing order.
    strangers: Vec<f64>,
    names: Vec<f64>,
}

impl Measured {
    fn new(site: &Site, query: Option<f64>) -> Result<Self, Problem> {
        let metadata = site.engine.embedder().metadata();
        let resolve =
            |request| Threshold::resolve(request, metadata).map_err(|error| Problem::bad(error.to_string()));
        let gallery = site.gallery()?;
        let in_force_deg = match &gallery {
            Some(gallery) => gallery.threshold().angle_deg(),
            None => resolve(site.settings().threshold)?.angle_deg(),
        };
        let threshold_deg = match query {
            Some(degrees) => resolve(ThresholdRequest::AngleDeg(
                crate::identify::parse_angle_deg(&degrees.to_string())
                    .map_err(|error| Problem::bad(error.to_string()))?,
            ))?
            .angle_deg(),
            None => in_force_deg,
        };
        let mut strangers = Vec::new();
        for embedding in site.store.stranger_embeddings()? {
            let Some(gallery) = &gallery else { break };
            // Embeddings of another model cannot be compared.
            let Ok(found) = gallery.identifier().identify(&embedding, Viewpoint::FRONTAL) else { continue };
            strangers.extend(found.nearest.map(|nearest| f64::from(nearest.angle_deg)));
        }
        strangers.sort_by(f64::total_cmp);
        let settings = site.settings();
        let set_here = settings.threshold != settings.configured_threshold();
        Ok(Self { in_force_deg, set_here, threshold_deg, strangers, names: site.store.angles_of_named()? })
    }

    fn answer(&self, site: &Site) -> ThresholdAnswer {
        let calibration = Calibration::from_metadata(site.engine.embedder().metadata()).ok();
        let below = |angles: &[f64]| angles.partition_point(|angle| *angle < self.threshold_deg);
        ThresholdAnswer {
            in_force_deg: self.in_force_deg,
            set_here: self.set_here,
            threshold_deg: self.threshold_deg,
            false_match_rate: calibration.and_then(|table| table.fmr_at(self.threshold_deg)),
            strangers: self.strangers.len(),
            strangers_named: below(&self.strangers),
            names: self.names.len(),
            names_lost: self.names.len() - below(&self.names),
        }
    }

    fn chart(&self) -> Chart {
        let upright = |at: f64, label: &str| Curve {
            label: format!("{label} {at:.1}"),
            points: vec![(at, 0.0), (at, 1.0)],
            ..Curve::default()
        };
        let mut curves = vec![upright(self.in_force_deg, "threshold in force:")];
        if (self.threshold_deg - self.in_force_deg).abs() > 0.05 {
            curves.push(upright(self.threshold_deg, "evaluated:"));
        }
        for (angles, label) in
            [(&self.strangers, "strangers nearer to a person"), (&self.names, "people named at less")]
        {
            let count = angles.len().max(1) as f64;
            // A step function: the share below each angle.
            let mut points = vec![(0.0, 0.0)];
            for (at, angle) in angles.iter().enumerate() {
                points.extend([(*angle, at as f64 / count), (*angle, (at + 1) as f64 / count)]);
            }
            if !angles.is_empty() {
                points.push((AXIS_DEG, 1.0));
                curves.push(Curve {
                    label: format!("{label} ({})", angles.len()),
                    points,
                    ..Curve::default()
                });
            }
        }
        Chart {
            title: "Effect of the threshold".into(),
            x: Axis {
                label: "angle to the nearest person, degrees".into(),
                scale: Scale::Linear(0.0, AXIS_DEG),
            },
            y: Axis { label: "share below that angle".into(), scale: Scale::Linear(0.0, 1.0) },
            curves,
        }
    }
}

/// End of the axis of angles: unrelated people are around 90 degrees.
const AXIS_DEG: f64 = 120.0;

/// Show the effect of a threshold on the strangers and names of this service
///
/// Sources with their own `threshold_deg` keep it.
#[utoipa::path(
    get, path = "/api/v1/threshold", tag = "service", params(ThresholdQuery),
    responses((status = 200, body = ThresholdAnswer), (status = 400, body = Problem))
)]
pub(super) async fn threshold(
    State(site): State<App>,
    query: Result<Query<ThresholdQuery>, QueryRejection>,
) -> Result<Json<ThresholdAnswer>, Problem> {
    let Query(ThresholdQuery { threshold_deg }) = query?;
    site.wait_for(move |site| Ok(Json(Measured::new(site, threshold_deg)?.answer(site)))).await
}

/// A threshold to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewThreshold {
    /// Threshold in degrees.
    #[schema(minimum = 1.0, maximum = 179.0)]
    threshold_deg: f64,
}

/// Set the threshold
///
/// Faces below this angle are named from the next frame on; no source is reopened. The threshold is stored,
/// and replaces that of the configuration until it is deleted.
#[utoipa::path(
    put, path = "/api/v1/threshold", tag = "service", request_body = NewThreshold,
    responses((status = 200, body = ThresholdAnswer), (status = 400, body = Problem))
)]
pub(super) async fn set_threshold(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    threshold: Result<Json<NewThreshold>, JsonRejection>,
) -> Result<Json<ThresholdAnswer>, Problem> {
    let Json(NewThreshold { threshold_deg }) = threshold?;
    if !(LEAST_DEG..=MOST_DEG).contains(&threshold_deg) {
        return Err(Problem::bad(format!(
            "a threshold of {threshold_deg} degrees is invalid: give {LEAST_DEG} to {MOST_DEG}"
        )));
    }
    change_threshold(site, caller, Some(threshold_deg)).await
}

/// Go back to the threshold of the configuration
#[utoipa::path(
    delete, path = "/api/v1/threshold", tag = "service", responses((status = 200, body = ThresholdAnswer))
)]
pub(super) async fn unset_threshold(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ThresholdAnswer>, Problem> {
    change_threshold(site, caller, None).await
}

async fn change_threshold(
    site: App,
    caller: Caller,
    degrees: Option<f64>,
) -> Result<Json<ThresholdAnswer>, Problem> {
    site.wait_for(move |site| {
        site.set_threshold(degrees)?;
        let what = match degrees {
            Some(degrees) => format!("set the threshold to {degrees} degrees"),
            None => "restored the configured threshold".to_owned(),
        };
        site.store.note(caller.name(), &what, None)?;
        Ok(Json(Measured::new(site, None)?.answer(site)))
    })
    .await
}

/// Plot the effect of a threshold on the strangers and names of this service
#[utoipa::path(
    get, path = "/api/v1/threshold/plot.svg", tag = "service", params(ThresholdQuery),
    responses((status = 200, content_type = "image/svg+xml", body = String), (status = 400, body = Problem))
)]
pub(super) async fn plot(
    State(site): State<App>,
    query: Result<Query<ThresholdQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ThresholdQuery { threshold_deg }) = query?;
    let chart = site.wait_for(move |site| Ok(Measured::new(site, threshold_deg)?.chart())).await?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], chart.to_svg()).into_response())
}
