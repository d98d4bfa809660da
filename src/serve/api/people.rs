//! The enrolled people.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::path::Path;
use super::pictures::{decode, named};
use super::upload::{JsonPictures, Upload, Uploads};
use crate::gallery::{
    Choice, Enrolled, GalleryError, GalleryFolder, NewStill, Person, PersonName, Rejected, Still,
    examine_picture,
};
use crate::serve::access::Caller;
use crate::serve::problem::Problem;
use crate::serve::site::{App, Site};

/// The enrolled people.
#[derive(Serialize, ToSchema)]
pub(super) struct People {
    /// The people, by name.
    people: Vec<PersonAnswer>,
}

/// An enrolled person.
#[derive(Serialize, ToSchema)]
pub(super) struct PersonAnswer {
    /// The name.
    name: String,
    /// Their stills.
    stills: Vec<StillAnswer>,
    /// Counter-examples: pictures of others who were mistaken for them.
    rejected: Vec<StillAnswer>,
}

/// A still of a person.
#[derive(Serialize, ToSchema)]
pub(super) struct StillAnswer {
    /// Its file name.
    file: String,
    /// Address of the picture.
    picture: String,
    /// Its problems as a template.
    problems: Vec<String>,
}

/// The result of an enrolment.
#[derive(Serialize, ToSchema)]
pub(super) struct EnrolledAnswer {
    /// The person as they are now.
    person: PersonAnswer,
    /// Stills that are new.
    added: usize,
    /// Stills that were enrolled before.
    known: usize,
}

/// A new name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewName {
    /// The name.
    pub name: String,
}

/// The face of a still to use.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EnrollQuery {
    /// Its number from the left, or a point x,y on it. Default: the largest face.
    face: Option<String>,
}

/// The deleted person or stranger.
#[derive(Serialize, ToSchema)]
pub(super) struct Forgotten {
    /// The person, or "Unknown 3".
    who: String,
    /// Number of their events.
    events: usize,
}

impl PersonAnswer {
    fn of(person: &Person) -> Self {
        let name = person.name.to_string();
        let still = |place: &str, still: &Still| StillAnswer {
            picture: format!("/api/v1/people/{}/{place}/{}", percent(&name), percent(&still.file)),
            file: still.file.clone(),
            problems: still.quality.verdict().iter().map(ToString::to_string).collect(),
        };
        let stills = person.stills.iter().map(|one| still("stills", one)).collect();
        let rejected = person.rejected.iter().map(|one| still("rejected", one)).collect();
        Self { stills, rejected, name }
    }
}

/// A text, percent-encoded as a part of an address.
pub(super) fn percent(text: &str) -> String {
    let mut address = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => address.push(byte.into()),
            other => address += &format!("%{other:02X}"),
        }
    }
    address
}

/// List the people
#[utoipa::path(get, path = "/api/v1/people", tag = "people", responses((status = 200, body = People)))]
pub(super) async fn list(State(site): State<App>) -> Result<Json<People>, Problem> {
    site.wait_for(|site| {
        let people = match site.people_folder()? {
            Some(folder) => folder.people()?,
            None => Vec::new(),
        };
        Ok(Json(People { people: people.iter().map(PersonAnswer::of).collect() }))
    })
    .await
}

/// Show a person
#[utoipa::path(
    get, path = "/api/v1/people/{name}", tag = "people", params(("name" = String, Path)),
    responses((status = 200, body = PersonAnswer), (status = 404, body = Problem))
)]
pub(super) async fn show(
    State(site): State<App>,
    Path(name): Path<String>,
) -> Result<Json<PersonAnswer>, Problem> {
    site.wait_for(move |site| Ok(Json(PersonAnswer::of(&person(site, &name)?.1)))).await
}

/// Enrol a person, or add stills to one
///
/// If a still shows several faces, the largest is used. Either all stills are enrolled or none. Running
/// sources name the person from the next frame on.
#[utoipa::path(
    post, path = "/api/v1/people/{name}/stills", tag = "people", params(("name" = String, Path), EnrollQuery),
    request_body(content(
        (Vec<u8> = "image/jpeg"), (JsonPictures = "application/json"), (Vec<u8> = "multipart/form-data")
    )),
    responses(
        (status = 200, body = EnrolledAnswer),
        (status = 409, description = "The face is already enrolled as another person", body = Problem),
        (status = 422, description = "A picture shows no face", body = Problem)
    )
)]
pub(super) async fn enroll(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    query: Result<Query<EnrollQuery>, QueryRejection>,
    uploads: Uploads,
) -> Result<Json<EnrolledAnswer>, Problem> {
    let Query(EnrollQuery { face }) = query?;
    let choice = face.map(|face| face.parse::<Choice>().map_err(Problem::bad)).transpose()?;
    let name = PersonName::new(&name)?;
    site.compute(move |site| {
        let examine = |upload: &Upload| new_still(site, upload, choice.unwrap_or_default());
        let stills: Vec<NewStill> = uploads.pictures.iter().map(examine).collect::<Result<_, _>>()?;
        let enrolled = site.edit_people(|folder| Ok(folder.enroll(&name, stills)?))?;
        let Enrolled { person, added, known } = enrolled;
        site.store.note(caller.name(), "enrolled", Some(name.as_str()))?;
        Ok(Json(EnrolledAnswer { person: PersonAnswer::of(&person), added, known }))
    })
    .await
}

/// The face of a picture, to be enrolled.
pub(super) fn new_still(site: &Site, upload: &Upload, choice: Choice) -> Result<NewStill, Problem> {
    let picture = decode(site, upload)?;
    let examined = examine_picture(&picture, choice, site.engine.detector())
        .map_err(|error| named(&upload.name, error))?;
    Ok(NewStill { file_name: upload.name.clone(), bytes: upload.bytes.clone(), examined })
}

/// Show a still of a person
#[utoipa::path(
    get, path = "/api/v1/people/{name}/stills/{file}", tag = "people",
    params(("name" = String, Path), ("file" = String, Path)),
    responses((status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 404, body = Problem))
)]
pub(super) async fn still(
    State(site): State<App>,
    Path((name, file)): Path<(String, String)>,
) -> Result<Response, Problem> {
    site.wait_for(move |site| {
        let (_, person) = person(site, &name)?;
        picture_of(&person, &person.stills, "stills", &file)
    })
    .await
}

/// Show a counter-example of a person
#[utoipa::path(
    get, path = "/api/v1/people/{name}/rejected/{file}", tag = "people",
    params(("name" = String, Path), ("file" = String, Path)),
    responses((status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 404, body = Problem))
)]
pub(super) async fn rejected(
    State(site): State<App>,
    Path((name, file)): Path<(String, String)>,
) -> Result<Response, Problem> {
    site.wait_for(move |site| {
        let (_, person) = person(site, &name)?;
        picture_of(&person, &person.rejected, "rejected", &file)
    })
    .await
}

/// A picture of a person's folder.
fn picture_of(person: &Person, stills: &[Still], place: &str, file: &str) -> Result<Response, Problem> {
    // Only files that the index of the person mentions, which are plain file names.
    let still = stills.iter().find(|still| still.file == file);
    let still = still.ok_or_else(|| Problem::not_found(format!("{} has no such still", person.name)))?;
    let bytes = std::fs::read(person.folder.join(place).join(&still.file))
        .map_err(|error| Problem::inside(&error))?;
    let kind = image::guess_format(&bytes).map_or("application/octet-stream", |kind| kind.to_mime_type());
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

/// Remove a still of a person
///
/// The only still of a person cannot be removed: remove the person.
#[utoipa::path(
    delete, path = "/api/v1/people/{name}/stills/{file}", tag = "people",
    params(("name" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = PersonAnswer), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn remove_still(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path((name, file)): Path<(String, String)>,
) -> Result<Json<PersonAnswer>, Problem> {
    let name = PersonName::new(&name)?;
    site.compute(move |site| {
        let person = site.edit_people(|folder| Ok(folder.remove_still(&name, &file)?))?;
        site.store.note(caller.name(), "removed a still", Some(name.as_str()))?;
        Ok(Json(PersonAnswer::of(&person)))
    })
    .await
}

/// Reject pictures: this is not the person
///
/// The faces become counter-examples: a face that is nearer to one of them than to the person is no longer
/// given that name.
#[utoipa::path(
    post, path = "/api/v1/people/{name}/rejected", tag = "people", params(("name" = String, Path), EnrollQuery),
    request_body(content(
        (Vec<u8> = "image/jpeg"), (JsonPictures = "application/json"), (Vec<u8> = "multipart/form-data")
    )),
    responses(
        (status = 200, body = EnrolledAnswer), (status = 404, body = Problem),
        (status = 409, description = "It is one of the person's own stills", body = Problem),
        (status = 422, description = "A picture shows no face", body = Problem)
    )
)]
pub(super) async fn reject(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    query: Result<Query<EnrollQuery>, QueryRejection>,
    uploads: Uploads,
) -> Result<Json<EnrolledAnswer>, Problem> {
    let Query(EnrollQuery { face }) = query?;
    let choice = face.map(|face| face.parse::<Choice>().map_err(Problem::bad)).transpose()?;
    let name = PersonName::new(&name)?;
    site.compute(move |site| {
        let examine = |upload: &Upload| new_still(site, upload, choice.unwrap_or_default());
        let stills: Vec<NewStill> = uploads.pictures.iter().map(examine).collect::<Result<_, _>>()?;
        let Rejected { person, added, known } =
            site.edit_people(|folder| Ok(folder.reject(&name, stills)?))?;
        site.store.note(caller.name(), "rejected a picture", Some(name.as_str()))?;
        Ok(Json(EnrolledAnswer { person: PersonAnswer::of(&person), added, known }))
    })
    .await
}

/// Remove a counter-example of a person
#[utoipa::path(
    delete, path = "/api/v1/people/{name}/rejected/{file}", tag = "people",
    params(("name" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = PersonAnswer), (status = 404, body = Problem))
)]
pub(super) async fn unreject(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path((name, file)): Path<(String, String)>,
) -> Result<Json<PersonAnswer>, Problem> {
    let name = PersonName::new(&name)?;
    site.compute(move |site| {
        let person = site.edit_people(|folder| Ok(folder.unreject(&name, &file)?))?;
        site.store.note(caller.name(), "removed a counter-example", Some(name.as_str()))?;
        Ok(Json(PersonAnswer::of(&person)))
    })
    .await
}

/// Rename a person
///
/// Their events get the new name too. Videos that were labelled before keep the old name.
#[utoipa::path(
    patch, path = "/api/v1/people/{name}", tag = "people", params(("name" = String, Path)), request_body = NewName,
    responses((status = 200, body = PersonAnswer), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn rename(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    to: Result<Json<NewName>, axum::extract::rejection::JsonRejection>,
) -> Result<Json<PersonAnswer>, Problem> {
    let (name, to) = (PersonName::new(&name)?, PersonName::new(&to?.0.name)?);
    site.compute(move |site| {
        let person = site.edit_people(|folder| Ok(folder.rename(&name, &to)?))?;
        site.store.rename_person(name.as_str(), to.as_str())?;
        site.store.note(caller.name(), "renamed", Some(to.as_str()))?;
        Ok(Json(PersonAnswer::of(&person)))
    })
    .await
}

/// Remove a person
///
/// Their stills, embeddings, events, pictures, and the labelled videos that name them, also by a former name,
/// are deleted too.
#[utoipa::path(
    delete, path = "/api/v1/people/{name}", tag = "people", params(("name" = String, Path)),
    responses((status = 200, body = Forgotten), (status = 404, body = Problem))
)]
pub(super) async fn remove(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Forgotten>, Problem> {
    let name = PersonName::new(&name)?;
    site.compute(move |site| {
        site.edit_people(|folder| Ok(folder.remove(&name)?))?;
        let events = site.store.forget_person(name.as_str())?;
        site.jobs.forget(&site.store, name.as_str())?;
        // Without the name: nothing about them is kept.
        site.store.note(caller.name(), "removed a person", None)?;
        Ok(Json(Forgotten { who: name.to_string(), events }))
    })
    .await
}

/// A person of the service's gallery.
fn person(site: &Site, name: &str) -> Result<(GalleryFolder, Person), Problem> {
    let name = PersonName::new(name)?;
    let nobody = || GalleryError::Unknown(name.to_string());
    let folder = site.people_folder()?.ok_or_else(nobody)?;
    let person = folder.person(&name)?;
    Ok((folder, person))
}

/// Enrols a stranger's picture; returns the person.
pub(super) fn enroll_picture(
    site: &Site,
    name: &PersonName,
    file_name: String,
    jpeg: Vec<u8>,
    face: [f32; 2],
) -> Result<Person, Problem> {
    let upload = Upload { name: file_name, bytes: jpeg };
    let still = new_still(site, &upload, Choice::At(face))?;
    Ok(site.edit_people(|folder| Ok(folder.enroll(name, vec![still])?))?.person)
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn a_name_is_one_part_of_an_address_whatever_it_holds() {
        assert_eq!(percent("Ada Lovelace"), "Ada%20Lovelace");
        assert_eq!(percent("../é?#\"<"), "..%2F%C3%A9%3F%23%22%3C");
    }
}
