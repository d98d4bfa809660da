//! Refusals as problem documents (RFC 9457), with the sentences of the command line.

use axum::Json;
use axum::extract::multipart::MultipartError;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::config::ConfigError;
use super::store::StoreError;
use crate::detect::DetectError;
use crate::engine::{EngineError, RecogniseError};
use crate::gallery::{GalleryError, StillError};
use crate::media::MediaError;

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status defines the type.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// The problem in a sentence.
    detail: String,
    #[serde(skip)]
    retry_after_s: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("refused");
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The same with the name of the picture or file.
    pub fn about(self, name: &str) -> Self {
        Self { detail: format!("{}: {}", name.escape_debug(), self.detail), ..self }
    }

    /// No face can be taken from a picture in which it is covered.
    pub fn covered(what: impl std::fmt::Display, source: &str) -> Self {
        let detail = format!(
            "the face in the picture of {what} is covered, as `redact` of the source {source} requires: enrol another picture"
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// Too many requests at a time.
    pub fn busy(detail: &str) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// Too many requests of one client.
    pub fn too_often(per_s: u32) -> Self {
        let detail = format!("more than {per_s} requests per second: retry later");
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// An internal failure. Its cause is in the log only, so that no path is revealed.
    pub fn inside(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        tracing::error!("{text}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error: see the log of the service")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after_s = self.retry_after_s;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::inside(&error)
    }
}

impl From<DetectError> for Problem {
    fn from(error: DetectError) -> Self {
        Self::inside(&error)
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Threshold(_) => Self::bad(error.to_string()),
            _ => Self::inside(&error),
        }
    }
}

impl From<RecogniseError> for Problem {
    fn from(error: RecogniseError) -> Self {
        Self::inside(&error)
    }
}

impl From<GalleryError> for Problem {
    fn from(error: GalleryError) -> Self {
        let status = match &error {
            GalleryError::Name { .. } => StatusCode::BAD_REQUEST,
            GalleryError::EnrolledAs { .. } | GalleryError::NameTaken(_) | GalleryError::OnlyStill { .. } => {
                StatusCode::CONFLICT
            }
            GalleryError::NoSuchStill { .. } => StatusCode::NOT_FOUND,
            GalleryError::Unknown(name) => {
                return Self::not_found(format!("nobody named {name} is enrolled"));
            }
            _ => return Self::inside(&error),
        };
        Self::new(status, error.to_string())
    }
}

impl From<MediaError> for Problem {
    fn from(error: MediaError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl From<StillError> for Problem {
    fn from(error: StillError) -> Self {
        match error {
            StillError::Detect(error) => error.into(),
            StillError::Read(_) => Self::inside(&error),
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::bad(error.to_string())
    }
}

/// Rejections of axum, with their messages.
macro_rules! rejections {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), rejection.body_text())
            }
        }
    )*};
}

rejections!(JsonRejection, BytesRejection, PathRejection, QueryRejection, MultipartError);
