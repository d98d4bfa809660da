//! Strangers: people who were seen and are not enrolled.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::jpeg;
use super::path::Path;
use super::people::{NewName, enroll_picture};
use crate::gallery::PersonName;
use crate::serve::access::Caller;
use crate::serve::problem::Problem;
use crate::serve::site::App;
use crate::serve::store::Stranger;

/// The people who were seen and are not enrolled.
#[derive(Serialize, ToSchema)]
pub(super) struct Strangers {
    /// The strangers, those seen last first.
    strangers: Vec<Stranger>,
}

/// The person that a stranger turned out to be.
#[derive(Serialize, ToSchema)]
pub(super) struct Named {
    /// The number the stranger had.
    stranger: i64,
    /// The name under which they are enrolled.
    name: String,
    /// Number of their stills.
    stills: usize,
}

/// Another stranger.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Other {
    /// The number of the stranger to merge into.
    into: i64,
}

fn nobody(id: i64) -> Problem {
    Problem::not_found(format!("there is no stranger {id}"))
}

/// List the strangers
#[utoipa::path(get, path = "/api/v1/strangers", tag = "strangers", responses((status = 200, body = Strangers)))]
pub(super) async fn list(State(site): State<App>) -> Result<Json<Strangers>, Problem> {
    site.wait_for(|site| Ok(Json(Strangers { strangers: site.store.strangers()? }))).await
}

/// Show a stranger
#[utoipa::path(
    get, path = "/api/v1/strangers/{id}", tag = "strangers", params(("id" = i64, Path)),
    responses((status = 200, body = Stranger), (status = 404, body = Problem))
)]
pub(super) async fn show(State(site): State<App>, Path(id): Path<i64>) -> Result<Json<Stranger>, Problem> {
    site.wait_for(move |site| Ok(Json(site.store.stranger(id)?.ok_or_else(|| nobody(id))?))).await
}

/// Show the best picture of a stranger
#[utoipa::path(
    get, path = "/api/v1/strangers/{id}/picture", tag = "strangers", params(("id" = i64, Path)),
    responses((status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 404, body = Problem))
)]
pub(super) async fn picture(State(site): State<App>, Path(id): Path<i64>) -> Result<Response, Problem> {
    let picture = site.wait_for(move |site| Ok(site.store.stranger_picture(id)?)).await?;
    jpeg(picture.map(|picture| picture.jpeg), "there is no such stranger")
}

/// Name a stranger
///
/// Their best picture is enrolled, under a new name or that of an enrolled person, and their events become
/// those of that person. Running sources name them from the next frame on.
#[utoipa::path(
    post, path = "/api/v1/strangers/{id}/name", tag = "strangers", params(("id" = i64, Path)), request_body = NewName,
    responses(
        (status = 200, body = Named),
        (status = 404, body = Problem),
        (status = 422, description = "The picture shows no face that can be enrolled", body = Problem)
    )
)]
pub(super) async fn name(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    name: Result<Json<NewName>, JsonRejection>,
) -> Result<Json<Named>, Problem> {
    let name = PersonName::new(&name?.0.name)?;
    site.compute(move |site| {
        let picture = site.store.stranger_picture(id)?.ok_or_else(|| nobody(id))?;
        let file = format!("unknown-{id}.jpg");
        let last_source = site.store.stranger(id)?.ok_or_else(|| nobody(id))?.last_source;
        let enrolled = enroll_picture(site, &name, file, picture.jpeg, picture.face);
        let person = enrolled.map_err(|refused| match site.covers(&last_source, None) {
            true => Problem::covered(format_args!("Unknown {id}"), &last_source),
            false => refused,
        })?;
        site.store.stranger_is(id, name.as_str())?;
        site.store.note(caller.name(), "named a stranger", Some(name.as_str()))?;
        Ok(Json(Named { stranger: id, name: name.to_string(), stills: person.stills.len() }))
    })
    .await
}

/// Merge two strangers
///
/// The events of this stranger become those of the other, who keeps the better view.
#[utoipa::path(
    post, path = "/api/v1/strangers/{id}/merge", tag = "strangers", params(("id" = i64, Path)), request_body = Other,
    responses((status = 200, body = Stranger), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn merge(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    other: Result<Json<Other>, JsonRejection>,
) -> Result<Json<Stranger>, Problem> {
    let Json(Other { into }) = other?;
    site.wait_for(move |site| {
        if id == into {
            return Err(Problem::bad(
                "a stranger cannot be merged with themselves: give the number of another",
            ));
        }
        for one in [id, into] {
            site.store.stranger(one)?.ok_or_else(|| nobody(one))?;
        }
        site.store.merge_strangers(id, into)?;
        site.store.note(caller.name(), "merged two strangers", None)?;
        Ok(Json(site.store.stranger(into)?.ok_or_else(|| nobody(into))?))
    })
    .await
}

/// Ignore a stranger that is not a person
///
/// Events and picture are deleted, and similar detections cause no events for as long as strangers are kept.
#[utoipa::path(
    post, path = "/api/v1/strangers/{id}/ignore", tag = "strangers", params(("id" = i64, Path)),
    responses((status = 200, body = Strangers), (status = 404, body = Problem))
)]
pub(super) async fn ignore(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Strangers>, Problem> {
    site.wait_for(move |site| {
        if !site.store.ignore_stranger(id)? {
            return Err(nobody(id));
        }
        site.store.note(caller.name(), "ignored what is no person", None)?;
        Ok(Json(Strangers { strangers: site.store.strangers()? }))
    })
    .await
}

/// Forget a stranger
///
/// Their events and pictures are deleted too.
#[utoipa::path(
    delete, path = "/api/v1/strangers/{id}", tag = "strangers", params(("id" = i64, Path)),
    responses((status = 200, body = Strangers), (status = 404, body = Problem))
)]
pub(super) async fn forget(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Strangers>, Problem> {
    site.wait_for(move |site| {
        if !site.store.forget_stranger(id)? {
            return Err(nobody(id));
        }
        site.store.note(caller.name(), "forgot a stranger", None)?;
        Ok(Json(Strangers { strangers: site.store.strangers()? }))
    })
    .await
}
