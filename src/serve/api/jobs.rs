//! Videos that are labelled in the background.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, RequestExt};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa::{IntoParams, ToSchema};

use super::path::Path;
use crate::media::Input;
use crate::serve::access::Caller;
use crate::serve::jobs::{LOOK_AT_BYTES, RESULTS, is_video};
use crate::serve::problem::Problem;
use crate::serve::site::{App, Site};
use crate::serve::store::{Job, JobState, rfc3339};

/// Time limit for the next part of an upload.
const PART_LIMIT: Duration = Duration::from_secs(30);
/// Longest name of a job, in characters.
const LONGEST_NAME: usize = 200;
/// Content security policy of the page of a job: it may only play its video.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           img-src 'self' data:; media-src 'self'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// All jobs.
#[derive(Serialize, ToSchema)]
pub(super) struct JobsAnswer {
    /// The newest first.
    jobs: Vec<JobAnswer>,
}

/// A job and its state.
#[derive(Serialize, ToSchema)]
pub(super) struct JobAnswer {
    /// Its number.
    id: i64,
    /// Its name.
    name: String,
    /// Its state.
    state: JobState,
    /// Why it failed, or a limitation of the results.
    reason: Option<String>,
    /// Time of the request (RFC 3339).
    made: String,
    /// Time at which it ended.
    ended: Option<String>,
    /// The share of the work that is done, 0 to 1; `null` if unknown.
    progress: Option<f64>,
    /// Frames processed so far; a file is read twice.
    frames: Option<u64>,
    /// The people seen, under the names that they had then.
    people: Vec<String>,
    /// Addresses of the results, once it is done.
    results: Option<ResultsAnswer>,
}

/// Addresses of the results of a job.
#[derive(Serialize, ToSchema)]
pub(super) struct ResultsAnswer {
    /// A page that shows who appears when, and plays the video.
    page: String,
    /// The video with names.
    video: String,
    /// Every face of every frame, as JSON Lines.
    faces: String,
}

/// A file to label.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJob {
    /// A file below a folder of `allow_inputs`.
    input: String,
}

/// The name of an upload.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    /// The name of the file.
    name: Option<String>,
}

fn none(id: i64) -> Problem {
    Problem::not_found(format!("there is no job {id}"))
}

impl JobAnswer {
    fn of(site: &Site, job: Job) -> Self {
        let done = site.jobs.done(job.id);
        let result = |at: usize| format!("/api/v1/jobs/{}/results/{}", job.id, RESULTS[at].0);
        let results = ResultsAnswer { page: result(0), video: result(1), faces: result(2) };
        Self {
            id: job.id,
            name: job.name,
            reason: job.reason,
            made: rfc3339(job.made_ms),
            ended: job.ended_ms.map(rfc3339),
            progress: match job.state {
                JobState::Done => Some(1.0),
                _ => done.and_then(|done| Some(done.frames as f64 / (done.of.filter(|of| *of > 0)? as f64))),
            },
            frames: done.map(|done| done.frames),
            people: job.people,
            results: (job.state == JobState::Done).then_some(results),
            state: job.state,
        }
    }
}

fn show_job(site: &Site, id: i64) -> Result<Json<JobAnswer>, Problem> {
    let job = site.store.job(id)?.ok_or_else(|| none(id))?;
    Ok(Json(JobAnswer::of(site, job)))
}

/// List the jobs and their states
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", responses((status = 200, body = JobsAnswer)))]
pub(super) async fn list(State(site): State<App>) -> Result<Json<JobsAnswer>, Problem> {
    site.wait_for(|site| {
        let jobs = site.store.jobs()?;
        Ok(Json(JobsAnswer { jobs: jobs.into_iter().map(|job| JobAnswer::of(site, job)).collect() }))
    })
    .await
}

/// Show a job
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = i64, Path)),
    responses((status = 200, body = JobAnswer), (status = 404, body = Problem))
)]
pub(super) async fn show(State(site): State<App>, Path(id): Path<i64>) -> Result<Json<JobAnswer>, Problem> {
    site.wait_for(move |site| show_job(site, id)).await
}

/// Label a video
///
/// The video is the body of the request, or, as JSON, a file below a folder of `allow_inputs`. Jobs are done
/// one after the other; the results are a page, the video with names, and every face as JSON Lines.
#[utoipa::path(
    post, path = "/api/v1/jobs", tag = "jobs", params(UploadQuery),
    request_body(content((Vec<u8> = "video/mp4"), (NewJob = "application/json"))),
    responses(
        (status = 200, body = JobAnswer),
        (status = 400, description = "It is a folder", body = Problem),
        (status = 403, description = "The configuration does not allow that file", body = Problem),
        (status = 413, description = "The video is larger than the service accepts", body = Problem),
        (status = 422, description = "It is not a video", body = Problem),
        (status = 503, description = "The limit of jobs is reached", body = Problem)
    )
)]
pub(super) async fn add(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<UploadQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<JobAnswer>, Problem> {
    let name = query?.0.name;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json")) {
        let new: Result<Json<NewJob>, JsonRejection> = request.extract().await;
        let Json(NewJob { input }) = new?;
        return site.wait_for(move |site| add_file(site, caller, name, &input)).await;
    }
    // An upload takes long and computes nothing.
    let _permit = site.may_stream()?;
    let most_bytes = site.settings().config.jobs.upload_mib << 20;
    if most_bytes == 0 {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "the configuration allows no uploads: see jobs.upload_mib",
        ));
    }
    let declared =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: u64| bytes > most_bytes) {
        return Err(too_large(most_bytes));
    }
    site.wait_for(room).await?;
    let file = site.wait_for(|site| site.jobs.receive().map_err(|error| Problem::inside(&error))).await?;
    receive(request.into_body(), &file, most_bytes).await?;
    site.wait_for(move |site| {
        room(site)?;
        let name = clean(name.as_deref().unwrap_or_default(), "video");
        let id = site.jobs.add_upload(&site.store, &name, file)?;
        site.store.note(caller.name(), "had a video labelled", None)?;
        show_job(site, id)
    })
    .await
}

fn add_file(
    site: &Site,
    caller: Caller,
    name: Option<String>,
    input: &str,
) -> Result<Json<JobAnswer>, Problem> {
    let parsed = Input::parse(input);
    // Opened only if it is allowed, so that a client cannot find out which files exist.
    let file = match &parsed {
        Ok(input @ Input::File(path)) if site.settings().allowed.allows(input) => path.canonicalize().ok(),
        _ => None,
    };
    if file.as_deref().is_some_and(std::path::Path::is_dir) {
        return Err(Problem::bad(format!("{} is a folder: give a video", input.escape_debug())));
    }
    let Some(file) = file.as_deref().and_then(std::path::Path::to_str) else {
        let detail = "the configuration does not allow that file: see allow_inputs there";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    };
    room(site)?;
    let own = std::path::Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or("video");
    let name = clean(name.as_deref().unwrap_or_default(), own);
    let id = site.jobs.add_file(&site.store, &name, file)?;
    site.store.note(caller.name(), "had a video labelled", None)?;
    show_job(site, id)
}

/// A name for display, or `otherwise` if it is empty.
fn clean(name: &str, otherwise: &str) -> String {
    let name = if name.trim().is_empty() { otherwise } else { name };
    name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect()
}

/// Refuses a job if there are too many.
fn room(site: &Site) -> Result<(), Problem> {
    let most = site.settings().config.jobs.most;
    match site.store.jobs()?.len() < most {
        true => Ok(()),
        false => Err(Problem::busy(&format!("there are {most} jobs already: delete a finished one first"))),
    }
}

fn too_large(most_bytes: u64) -> Problem {
    let detail = format!("videos larger than {} MiB are not accepted", most_bytes >> 20);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Writes a body to a file.
async fn receive(body: Body, file: &std::path::Path, most_bytes: u64) -> Result<(), Problem> {
    let inside = |error: std::io::Error| Problem::inside(&error);
    let mut to = tokio::fs::File::create(file).await.map_err(inside)?;
    let (mut parts, mut bytes, mut beginning) = (body.into_data_stream(), 0u64, Vec::new());
    let no_video = || {
        let detail =
            "this is not a supported video: send an mp4, mov, mkv, webm, avi, ogv, flv, wmv or mpg file";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    };
    loop {
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "no part of the video arrived for 30 s");
        let part: Option<Result<Bytes, axum::Error>> =
            tokio::time::timeout(PART_LIMIT, parts.next()).await.map_err(late)?;
        let Some(part) = part else { break };
        let part = part.map_err(|error| Problem::bad(format!("the video was cut off: {error}")))?;
        bytes += part.len() as u64;
        if bytes > most_bytes {
            return Err(too_large(most_bytes));
        }
        if beginning.len() < LOOK_AT_BYTES {
            beginning.extend_from_slice(&part[..part.len().min(LOOK_AT_BYTES)]);
            if beginning.len() >= LOOK_AT_BYTES && !is_video(&beginning) {
                return Err(no_video());
            }
        }
        to.write_all(&part).await.map_err(inside)?;
    }
    if !is_video(&beginning) {
        return Err(no_video());
    }
    to.flush().await.map_err(inside)?;
    to.sync_all().await.map_err(inside)
}

/// Cancel a job
///
/// A cancelled job has no results.
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = i64, Path)),
    responses((status = 200, body = JobAnswer), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn cancel(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<JobAnswer>, Problem> {
    site.wait_for(move |site| {
        let job = site.store.job(id)?.ok_or_else(|| none(id))?;
        if job.state.is_over() {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                format!("job {id} has ended: it is {}", job.state),
            ));
        }
        site.jobs.cancel(&site.store, id)?;
        site.store.note(caller.name(), "cancelled a job", None)?;
        show_job(site, id)
    })
    .await
}

/// Delete a job
///
/// The upload and the results are deleted too.
#[utoipa::path(
    delete, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = i64, Path)),
    responses((status = 200, body = JobsAnswer), (status = 404, body = Problem))
)]
pub(super) async fn remove(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<JobsAnswer>, Problem> {
    let removed = site.wait_for(move |site| {
        site.store.job(id)?.ok_or_else(|| none(id))?;
        site.jobs.remove(&site.store, id)?;
        Ok(site.store.note(caller.name(), "deleted a job", None)?)
    });
    removed.await?;
    list(State(site)).await
}

/// Show a result of a job
///
/// `page.html`, `named.mp4` or `faces.jsonl`. Parts of the video can be requested (`Range`).
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/results/{file}", tag = "jobs",
    params(("id" = i64, Path), ("file" = String, Path)),
    responses((status = 200, content_type = "video/mp4", body = Vec<u8>), (status = 404, body = Problem))
)]
pub(super) async fn result(
    State(site): State<App>,
    Path((id, file)): Path<(i64, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let known = RESULTS.into_iter().find(|(name, _)| *name == file);
    let (name, kind) = known.ok_or_else(|| Problem::not_found("a job has no such result"))?;
    let job = site.wait_for(move |site| site.store.job(id)?.ok_or_else(|| none(id))).await?;
    if job.state != JobState::Done {
        return Err(Problem::not_found(format!("job {id} has no results: it is {}", job.state)));
    }
    let served = ServeFile::new(site.jobs.folder(id).join(name)).oneshot(request).await;
    // Only a missing file fails, which is an answer.
    let mut response = served.map_or_else(|never| match never {}, IntoResponse::into_response);
    let status = response.status();
    if status == StatusCode::NOT_FOUND {
        return Err(Problem::not_found(format!("job {id} has no such result")));
    }
    if status.is_client_error() || status.is_server_error() {
        // Its own answers are no problem documents. The length of the file is in `Content-Range`.
        let length = response.headers_mut().remove(header::CONTENT_RANGE);
        let mut refused = Problem::new(status, "this part of the result cannot be sent").into_response();
        refused.headers_mut().extend(length.map(|length| (header::CONTENT_RANGE, length)));
        return Ok(refused);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if name == RESULTS[0].0 {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    }
    Ok(response)
}
