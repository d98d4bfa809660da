//! Queries to the library: who is in which video and photo.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use chrono::NaiveDate;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::jpeg;
use super::path::Path;
use super::people::percent;
use crate::library::{self, Found, FoundFile, Kind, KindStatus, PersonSummary, Query as Asked, Subject};
use crate::report::Span;
use crate::serve::problem::Problem;
use crate::serve::site::{App, Site};

/// Default number of files per answer.
const USUAL_FILES: usize = 100;
/// The most files per answer.
const MOST_FILES: usize = 1000;
/// The most people per query.
const MOST_PEOPLE: usize = 20;
/// The most failed files per answer.
const MOST_FAILED: usize = 100;

/// The state of the library.
#[derive(Serialize, ToSchema)]
pub(super) struct LibraryAnswer {
    /// The folder or database.
    place: String,
    /// Videos.
    videos: KindAnswer,
    /// Photos.
    photos: KindAnswer,
    /// Files that no longer exist anywhere. Their analyses are kept.
    missing: i64,
    /// Tracks of faces.
    tracks: i64,
    /// Tracks that have a name.
    named: i64,
    /// Workers with a heartbeat in the last minute.
    workers: i64,
    /// Files that cannot be analysed, 100 at most.
    failures: Vec<FailureAnswer>,
}

/// Files of one kind.
#[derive(Serialize, ToSchema)]
pub(super) struct KindAnswer {
    /// Files that were analysed.
    done: i64,
    /// Files that are not analysed yet.
    due: i64,
    /// Files that cannot be analysed.
    failed: i64,
    /// Duration of the analysed files, in seconds.
    duration_s: f64,
}

/// A file that cannot be analysed.
#[derive(Serialize, ToSchema)]
pub(super) struct FailureAnswer {
    /// Its path.
    path: String,
    /// The reason.
    error: String,
}

/// The people with a name.
#[derive(Serialize, ToSchema)]
pub(super) struct LibraryPeople {
    /// The people, those in most files first.
    people: Vec<LibraryPerson>,
}

/// A person of the library.
#[derive(Serialize, ToSchema)]
pub(super) struct LibraryPerson {
    /// The name.
    name: String,
    /// Videos with this person.
    videos: i64,
    /// Photos with this person.
    photos: i64,
    /// Time in videos, in seconds.
    screen_s: f64,
    /// Time at which the first file with this person was taken, without a time zone.
    first: String,
    /// Time at which the last one was taken.
    last: String,
}

/// Files that were found.
#[derive(Serialize, ToSchema)]
pub(super) struct LibraryFiles {
    /// Total number of files found.
    count: usize,
    /// The files, in the order in which they were taken.
    files: Vec<FileAnswer>,
}

/// A file of the library.
#[derive(Serialize, ToSchema)]
pub(super) struct FileAnswer {
    /// Digest of its content.
    content: String,
    /// Its paths; empty if it no longer exists anywhere.
    paths: Vec<String>,
    /// `video` or `photo`.
    kind: &'static str,
    /// Time at which it was taken, without a time zone.
    taken: String,
    /// Duration of a video, in seconds.
    duration_s: f64,
    /// The people requested.
    people: Vec<PresentAnswer>,
    /// Starts and ends in seconds of the spans with any of them, or with all of them in one picture if that
    /// was requested. Empty in a photo.
    spans_s: Vec<[f64; 2]>,
}

/// A person in a file.
#[derive(Serialize, ToSchema)]
pub(super) struct PresentAnswer {
    /// The name; `null` for a stranger.
    name: Option<String>,
    /// The number of a stranger.
    stranger: Option<i64>,
    /// Starts and ends in seconds; empty in a photo.
    spans_s: Vec<[f64; 2]>,
    /// Frames that show them.
    frames: i64,
    /// The smallest angle to a template in degrees; 0 for a stranger.
    angle_deg: f64,
    /// Address of their picture. There is none if the workers store no pictures.
    picture: String,
}

/// A query for files.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the question, which has several values of one name")]
pub(super) struct FindQuery {
    /// A person who must be in the file. If repeated, all of them must be.
    #[param(required = false)]
    person: Vec<String>,
    /// A stranger who must be in the file, by number.
    #[param(required = false)]
    stranger: Vec<i64>,
    /// Whether they must be in one picture.
    together: Option<bool>,
    /// Files taken on this day or later, `2019-07-14`.
    #[param(value_type = Option<String>, format = Date)]
    after: Option<NaiveDate>,
    /// Files taken before this day.
    #[param(value_type = Option<String>, format = Date)]
    before: Option<NaiveDate>,
    /// `video` or `photo`.
    kind: Option<String>,
    /// Maximum number of files, 1 to 1000. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Number of files to skip at the beginning.
    skip: Option<usize>,
}

/// A parsed query.
struct Wanted {
    asked: Asked,
    limit: usize,
    skip: usize,
}

impl Wanted {
    fn read(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut wanted = Self { asked: Asked::default(), limit: USUAL_FILES, skip: 0 };
        for (key, text) in pairs {
            let bad =
                |reason: &str| Problem::bad(format!("{key} = {} is invalid: {reason}", text.escape_debug()));
            let whole = |low: usize, high: usize| {
                let number = text.parse().ok().filter(|number| (low..=high).contains(number));
                number.ok_or_else(|| bad(&format!("give a number from {low} to {high}")))
            };
            let asked = &mut wanted.asked;
            match key.as_str() {
                "person" => asked.with.push(Subject::Named(text.clone())),
                "stranger" => {
                    let number = text.parse().map_err(|_| bad("give the number of a stranger"))?;
                    asked.with.push(Subject::Stranger(number));
                }
                "together" => asked.together = text.parse().map_err(|_| bad("give true or false"))?,
                "after" => asked.from_s = Some(day(&text).ok_or_else(|| bad("give a day, 2019-07-14"))?),
                "before" => asked.before_s = Some(day(&text).ok_or_else(|| bad("give a day, 2019-07-14"))?),
                "kind" => {
                    let kind = [Kind::Video, Kind::Photo].into_iter().find(|kind| kind.name() == text);
                    asked.kind = Some(kind.ok_or_else(|| bad("give video or photo"))?);
                }
                "limit" => wanted.limit = whole(1, MOST_FILES)?,
                "skip" => wanted.skip = whole(0, 1 << 31)?,
                _ => {
                    let known = "person, stranger, together, after, before, kind, limit and skip";
                    return Err(Problem::bad(format!(
                        "there is no parameter {}: use {known}",
                        key.escape_debug()
                    )));
                }
            }
        }
        match wanted.asked.with.len() {
            0 => Err(Problem::bad("give person or stranger")),
            1..=MOST_PEOPLE => Ok(wanted),
            _ => Err(Problem::bad(format!("give at most {MOST_PEOPLE} people"))),
        }
    }
}

/// The first second of a day.
fn day(text: &str) -> Option<i64> {
    let day: NaiveDate = text.parse().ok()?;
    Some(day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp())
}

/// Queries the library.
async fn ask<T: Send + 'static>(
    site: &App,
    question: impl FnOnce(&library::Library, &Site) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    site.wait_for(move |site| {
        let library = site.shelf.library(site.settings().config.library.as_ref())?;
        question(&library, site)
    })
    .await
}

/// Show the state of the library
///
/// The library is that of the configuration (`[library]`), filled by `sphereface library`. The service only
/// reads it.
#[utoipa::path(
    get, path = "/api/v1/library", tag = "library",
    responses((status = 200, body = LibraryAnswer), (status = 404, description = "No library is shown", body = Problem))
)]
pub(super) async fn status(State(site): State<App>) -> Result<Json<LibraryAnswer>, Problem> {
    ask(&site, |library, _| {
        let status = library.status()?;
        let failures = status.failures.into_iter().take(MOST_FAILED);
        Ok(Json(LibraryAnswer {
            place: library.place().to_owned(),
            videos: KindAnswer::of(&status.videos),
            photos: KindAnswer::of(&status.photos),
            missing: status.missing,
            tracks: status.tracks,
            named: status.named,
            workers: status.workers,
            failures: failures.map(|one| FailureAnswer { path: one.path, error: one.error }).collect(),
        }))
    })
    .await
}

/// List the people of the library
#[utoipa::path(
    get, path = "/api/v1/library/people", tag = "library",
    responses((status = 200, body = LibraryPeople), (status = 404, description = "No library is shown", body = Problem))
)]
pub(super) async fn people(State(site): State<App>) -> Result<Json<LibraryPeople>, Problem> {
    ask(&site, |library, _| {
        Ok(Json(LibraryPeople { people: library.people()?.into_iter().map(LibraryPerson::of).collect() }))
    })
    .await
}

/// Find the files with a person
///
/// `person=Ada&person=Boris&together=true` finds the files with both in one picture.
#[utoipa::path(
    get, path = "/api/v1/library/files", tag = "library", params(FindQuery),
    responses(
        (status = 200, body = LibraryFiles),
        (status = 400, body = Problem),
        (status = 404, description = "No library is shown, or a person is in no file", body = Problem)
    )
)]
pub(super) async fn files(
    State(site): State<App>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<LibraryFiles>, Problem> {
    let Query(pairs) = query?;
    let wanted = Wanted::read(pairs)?;
    ask(&site, move |library, _| {
        let found = library.find(&wanted.asked)?;
        let count = found.len();
        let files = found.iter().skip(wanted.skip).take(wanted.limit).map(FileAnswer::of).collect();
        Ok(Json(LibraryFiles { count, files }))
    })
    .await
}

/// Show the picture of a person in a file
#[utoipa::path(
    get, path = "/api/v1/library/pictures/{content}/{track}", tag = "library",
    params(("content" = String, Path), ("track" = i64, Path)),
    responses((status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 404, body = Problem))
)]
pub(super) async fn picture(
    State(site): State<App>,
    Path((content, track)): Path<(String, i64)>,
) -> Result<Response, Problem> {
    let picture = ask(&site, move |library, _| Ok(library.picture(&content, track)?)).await?;
    jpeg(picture, "there is no such picture")
}

impl KindAnswer {
    fn of(status: &KindStatus) -> Self {
        let KindStatus { done, due, failed, duration_ns, .. } = *status;
        Self { done, due, failed, duration_s: duration_ns as f64 / 1e9 }
    }
}

impl LibraryPerson {
    fn of(one: PersonSummary) -> Self {
        Self {
            videos: one.videos,
            photos: one.photos,
            screen_s: one.screen_ns as f64 / 1e9,
            first: library::date(one.first_s),
            last: library::date(one.last_s),
            name: one.name,
        }
    }
}

impl FileAnswer {
    fn of(file: &FoundFile) -> Self {
        Self {
            content: file.content.clone(),
            paths: file.paths.clone(),
            kind: file.kind.name(),
            taken: library::date(file.taken_s),
            duration_s: file.duration_ns as f64 / 1e9,
            people: file.people.iter().map(|one| PresentAnswer::of(one, &file.content)).collect(),
            spans_s: seconds(&file.spans),
        }
    }
}

impl PresentAnswer {
    fn of(one: &Found, content: &str) -> Self {
        let (name, stranger) = match &one.who {
            Subject::Named(name) => (Some(name.clone()), None),
            Subject::Stranger(number) => (None, Some(*number)),
        };
        let picture = format!("/api/v1/library/pictures/{}/{}", percent(content), one.track);
        Self {
            name,
            stranger,
            spans_s: seconds(&one.spans),
            frames: one.frames,
            angle_deg: one.angle_deg,
            picture,
        }
    }
}

fn seconds(spans: &[Span]) -> Vec<[f64; 2]> {
    spans.iter().map(|span| [span.start_ns as f64 / 1e9, span.end_ns as f64 / 1e9]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Wanted, Problem> {
        Wanted::read(pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn a_question_is_read_whole_or_refused_with_a_reason() {
        let all = [
            ("person", "Ada & <Bo>"),
            ("stranger", "3"),
            ("together", "true"),
            ("after", "1970-01-02"),
            ("before", "1970-01-03"),
            ("kind", "photo"),
            ("limit", "7"),
            ("skip", "2"),
        ];
        let Ok(wanted) = read(&all) else { panic!("it is refused") };
        let with = [Subject::Named("Ada & <Bo>".into()), Subject::Stranger(3)];
        assert_eq!((&wanted.asked.with[..], wanted.asked.together), (&with[..], true));
        assert_eq!((wanted.asked.from_s, wanted.asked.before_s), (Some(86_400), Some(2 * 86_400)));
        assert_eq!((wanted.asked.kind, wanted.limit, wanted.skip), (Some(Kind::Photo), 7, 2));
        for (wrong, reason) in [
            (("together", "perhaps"), "true or false"),
            (("after", "yesterday"), "2019-07-14"),
            (("kind", "film"), "video or photo"),
            (("limit", "0"), "1 to 1000"),
            (("stranger", "Ada"), "number of a stranger"),
            (("whom", "Ada"), "there is no parameter whom"),
        ] {
            let problem = read(&[("person", "Ada"), wrong]).map(|_| ()).unwrap_err();
            assert!(format!("{problem:?}").contains(reason), "{wrong:?}: {problem:?}");
        }
        assert!(format!("{:?}", read(&[]).map(|_| ()).unwrap_err()).contains("person or stranger"));
    }
}
