//! Pictures in a request: as the body, as multipart, or as base64 in JSON.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use base64::Engine as _;
use image::RgbImage;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

#[cfg(any(fuzzing, test))]
use crate::identify::ThresholdRequest;
use crate::media::{still_of_bytes, still_size};
#[cfg(any(fuzzing, test))]
use crate::serve::SourceConfig;
use crate::serve::config::MOST_PICTURES;
use crate::serve::problem::Problem;
use crate::serve::site::App;

/// Time limit for the body of a request.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// A picture as it was sent.
pub(super) struct Upload {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The pictures of a request, at least one, with the permit to process them.
pub(super) struct Uploads {
    pub pictures: Vec<Upload>,
    _permit: OwnedSemaphorePermit,
}

/// Pictures as JSON.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonPictures {
    #[serde(deserialize_with = "few")]
    pictures: Vec<JsonPicture>,
}

/// Reads no more pictures than any service accepts: an empty one takes two bytes of a body and fifty of memory.
fn few<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<JsonPicture>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<JsonPicture>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of pictures")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut pictures = Vec::new();
            while let Some(picture) = list.next_element()? {
                pictures.push(picture);
                if pictures.len() > MOST_PICTURES {
                    let reason = format!("more than {MOST_PICTURES} pictures per request are not accepted");
                    return Err(A::Error::custom(reason));
                }
            }
            Ok(pictures)
        }
    }

    list.deserialize_seq(Few)
}

/// A picture as JSON.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonPicture {
    /// Its name in the answer.
    name: Option<String>,
    /// The bytes of a jpg, png, webp, bmp, tiff, gif, heic or avif file, or a `data:` address.
    base64: String,
}

impl FromRequest<App> for Uploads {
    type Rejection = Problem;

    async fn from_request(request: Request, site: &App) -> Result<Self, Problem> {
        let permit = site.may_work()?;
        let most = site.settings().config.limits.pictures;
        let late =
            |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the pictures took longer than 30 s to arrive");
        let pictures = tokio::time::timeout(BODY_LIMIT, read(request, site, most)).await.map_err(late)??;
        match pictures.len() {
            0 => Err(Problem::bad("there is no picture in the request")),
            count if count > most => Err(too_many(most)),
            _ => Ok(Self { pictures, _permit: permit }),
        }
    }
}

fn too_many(most: usize) -> Problem {
    Problem::bad(format!("more than {most} pictures per request are not accepted: send fewer"))
}

async fn read(request: Request, site: &App, most: usize) -> Result<Vec<Upload>, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    if kind.starts_with("multipart/form-data") {
        return read_parts(Multipart::from_request(request, site).await, most).await;
    }
    let bytes = Bytes::from_request(request, site).await?;
    if kind.starts_with("application/json") {
        return read_json(&bytes, most);
    }
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    // `curl --data-binary` labels every body as a form.
    Ok(vec![Upload { name: "picture".into(), bytes: bytes.into() }])
}

fn read_json(bytes: &[u8], most: usize) -> Result<Vec<Upload>, Problem> {
    let sent: JsonPictures = serde_json::from_slice(bytes)
        .map_err(|error| Problem::bad(format!("the JSON is invalid: {error}")))?;
    if sent.pictures.len() > most {
        return Err(too_many(most));
    }
    sent.pictures.into_iter().enumerate().map(decode_base64).collect()
}

async fn read_parts(
    parts: Result<Multipart, axum::extract::multipart::MultipartRejection>,
    most: usize,
) -> Result<Vec<Upload>, Problem> {
    let mut parts = parts.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let mut pictures = Vec::new();
    while let Some(part) = parts.next_field().await? {
        let number = pictures.len() + 1;
        let name = part.file_name().or(part.name()).filter(|name| !name.is_empty()).map(str::to_owned);
        let bytes = part.bytes().await?.into();
        pictures.push(Upload { name: name.unwrap_or_else(|| format!("picture-{number}")), bytes });
        if pictures.len() > most {
            return Err(too_many(most));
        }
    }
    Ok(pictures)
}

fn decode_base64((at, picture): (usize, JsonPicture)) -> Result<Upload, Problem> {
    let JsonPicture { name, base64 } = picture;
    let name = name.unwrap_or_else(|| format!("picture-{}", at + 1));
    let text = match base64.strip_prefix("data:") {
        Some(rest) => rest.split_once(',').map_or("", |(_, text)| text),
        None => &base64,
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .map_err(|error| Problem::bad(format!("{} is not base64: {error}", name.escape_debug())))?;
    Ok(Upload { name, bytes })
}

impl Upload {
    /// Its pixels, upright. More than `megapixels` million are refused before decoding.
    ///
    /// # Errors
    /// When it is not a picture, too large, or truncated.
    pub fn decode(&self, megapixels: u64) -> Result<RgbImage, Problem> {
        let name = self.name.escape_debug().to_string();
        let [width, height] = still_size(name.as_ref(), &self.bytes)?;
        if u64::from(width) * u64::from(height) > megapixels * 1_000_000 {
            let detail = format!(
                "{name} has {width}x{height} pixels, and more than {megapixels} million are not accepted: make it smaller"
            );
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        let still = still_of_bytes(name.as_ref(), &self.bytes)?;
        match still.damage {
            Some(damage) => {
                let detail = format!("{name}: {damage}: copy it again, or give another still");
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
            }
            None => Ok(still.picture),
        }
    }
}

/// Pictures as JSON.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz_json(bytes: &[u8]) {
    if let Ok(pictures) = read_json(bytes, 16) {
        pictures.iter().for_each(|picture| drop(picture.decode(50)));
    }
    if let Ok(source) = serde_json::from_slice::<SourceConfig>(bytes) {
        drop(source.settings("gallery".as_ref(), ThresholdRequest::Default));
    }
}

/// Pictures as multipart, its parts bounded by `x`.
#[cfg(any(fuzzing, test))]
#[allow(clippy::unwrap_used)]
pub(crate) fn fuzz_multipart(bytes: &[u8]) {
    let request = Request::builder().header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
    let request = request.body(axum::body::Body::from(bytes.to_vec())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let parts = async { read_parts(Multipart::from_request(request, &()).await, 16).await };
    if let Ok(pictures) = runtime.block_on(parts) {
        pictures.iter().for_each(|picture| drop(picture.decode(50)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    #[test]
    fn bodies_of_any_bytes_are_survived() {
        let mut png = std::io::Cursor::new(Vec::new());
        RgbImage::new(8, 8).write_to(&mut png, image::ImageFormat::Png).unwrap();
        let base64 = base64::engine::general_purpose::STANDARD.encode(png.get_ref());
        let json = serde_json::json!({"pictures": [
            {"name": "a.png", "base64": &base64},
            {"base64": format!("data:image/png;base64,{base64}")}
        ]});
        let json = json.to_string();
        assert_eq!(read_json(json.as_bytes(), 2).unwrap().len(), 2);
        assert!(read_json(json.as_bytes(), 1).is_err(), "more than are accepted");
        mutations::survived_by("http_json", "two-pictures.json", json.as_bytes(), 500);
        let source = serde_json::to_vec(&SourceConfig::new("door", "rtsp://camera/1")).unwrap();
        mutations::survived_by("http_json", "source.json", &source, 500);
        let many = format!(r#"{{"pictures": [{}{{}}]}}"#, r#"{"base64": ""},"#.repeat(MOST_PICTURES + 1));
        let refused = serde_json::from_str::<JsonPictures>(&many).err().unwrap().to_string();
        // Not because of the last one, which is invalid: the rest is not read.
        assert!(refused.starts_with("more than 1000 pictures per request are not accepted"), "{refused}");
        let head = "--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a.png\"\r\n\r\n";
        let parts = [head.as_bytes(), png.get_ref(), b"\r\n--x--\r\n"].concat();
        mutations::survived_by("http_multipart", "one-picture", &parts, 500);
    }
}
