//! The HTTP API, version 1.

mod about;
mod doubts;
mod events;
mod jobs;
mod library;
mod path;
mod people;
mod pictures;
mod sources;
mod strangers;
mod upload;
mod wall;

#[cfg(any(fuzzing, test))]
pub(crate) use upload::{fuzz_json, fuzz_multipart};

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::site::App;
use super::{access, pages};

/// Content security policy of pages: only the service's own content.
const CONTENT_POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; \
                              base-uri 'none'; form-action 'self'; object-src 'none'";

/// Time limit for the next part of a request.
const PART_LIMIT: Duration = Duration::from_secs(30);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "sphereface",
        description = "Cameras and recognition. Where a token is required, send it as `Authorization: Bearer TOKEN`. \
                       Pictures are sent as they are (`Content-Type: image/jpeg`), as `multipart/form-data` (any number of \
                       files), or as JSON with base64. Errors are problem documents (RFC 9457).",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "pictures", description = "Detect, embed, compare and recognise; pictures are not stored"),
        (name = "people", description = "Enrolled people"),
        (name = "strangers", description = "People who were seen and are not enrolled"),
        (name = "events", description = "Who appeared and left, and when"),
        (name = "sources", description = "Cameras, streams and files that are watched"),
        (name = "jobs", description = "Videos that are labelled in the background"),
        (name = "library", description = "Who is in which video and photo of the library"),
        (name = "service", description = "The service itself")
    )
)]
struct Description;

/// Every route with its description.
fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(pictures::recognise))
        .routes(routes!(pictures::detect))
        .routes(routes!(pictures::embed))
        .routes(routes!(pictures::compare))
        .routes(routes!(people::list))
        .routes(routes!(people::show, people::rename, people::remove))
        .routes(routes!(people::enroll))
        .routes(routes!(people::still, people::remove_still))
        .routes(routes!(people::reject))
        .routes(routes!(people::rejected, people::unreject))
        .routes(routes!(strangers::list))
        .routes(routes!(strangers::show, strangers::forget))
        .routes(routes!(strangers::name))
        .routes(routes!(strangers::picture))
        .routes(routes!(strangers::merge))
        .routes(routes!(strangers::ignore))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
        .routes(routes!(events::socket))
        .routes(routes!(events::show))
        .routes(routes!(events::picture))
        .routes(routes!(doubts::list))
        .routes(routes!(doubts::confirm))
        .routes(routes!(doubts::reject))
        .routes(routes!(doubts::threshold, doubts::set_threshold, doubts::unset_threshold))
        .routes(routes!(doubts::plot))
        .routes(routes!(sources::list, sources::add))
        .routes(routes!(sources::show, sources::change, sources::remove))
        .routes(routes!(sources::picture))
        .routes(routes!(sources::video))
        .routes(routes!(wall::wall))
        .routes(routes!(jobs::list, jobs::add))
        .routes(routes!(jobs::show, jobs::remove))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::result))
        .routes(routes!(library::status))
        .routes(routes!(library::people))
        .routes(routes!(library::files))
        .routes(routes!(library::picture))
        .routes(routes!(about::health))
        .routes(routes!(about::ready))
        .routes(routes!(about::version))
        .routes(routes!(about::metrics))
        .routes(routes!(about::changes))
        .routes(routes!(about::outputs))
        .routes(routes!(about::session, about::log_in, about::log_out))
}

/// The description of the API (OpenAPI 3.1), as JSON.
pub fn description() -> String {
    description_of(described().into_openapi())
}

fn description_of(mut api: utoipa::openapi::OpenApi) -> String {
    api.info.version = env!("CARGO_PKG_VERSION").to_owned();
    // Serialising constants does not fail.
    let mut api = serde_json::to_value(api).unwrap_or_default();
    let items = api["paths"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut);
    let operations =
        items.flat_map(|item| item.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut));
    for responses in operations.filter_map(|operation| operation.get_mut("responses")?.as_object_mut()) {
        describe_refusals(responses);
    }
    serde_json::to_string_pretty(&api).unwrap_or_default()
}

/// Refusals are problem documents. Any request may be refused: for a missing token, too many requests, or
/// invalid values.
fn describe_refusals(responses: &mut serde_json::Map<String, Value>) {
    let problem = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
    for response in responses.values_mut() {
        if response["content"]["application/json"] == problem {
            response["content"] = json!({"application/problem+json": problem});
        }
    }
    let other = || json!({"description": "Refused", "content": {"application/problem+json": problem}});
    responses.entry("default").or_insert_with(other);
}

/// The router for all requests.
pub(super) fn router(site: App) -> Router {
    let body = site.settings().config.limits.body_mib << 20;
    let (router, api) = described().split_for_parts();
    let description = description_of(api);
    let describe = move || async move { ([(header::CONTENT_TYPE, "application/json")], description) };
    let header = |name, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    router
        .route("/api/openapi.json", get(describe))
        .merge(pages::routes())
        .fallback(nothing_there)
        .method_not_allowed_fallback(not_that_way)
        .layer(DefaultBodyLimit::max(body))
        .layer(RequestBodyTimeoutLayer::new(PART_LIMIT))
        .layer(middleware::from_fn_with_state(site.clone(), access::guard))
        .layer(CatchPanicLayer::custom(failed))
        .layer(header(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        .layer(header(header::CACHE_CONTROL, "no-store"))
        .with_state(site)
}

async fn nothing_there() -> Problem {
    Problem::not_found("no such resource: see /api/openapi.json")
}

async fn not_that_way() -> Problem {
    let detail = "method not allowed: see /api/openapi.json";
    Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, detail)
}

fn failed(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request failed inside the program");
    let detail = "internal error: see the log of the service";
    Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
}

/// A JPEG, or the problem that there is none.
fn jpeg(bytes: Option<Vec<u8>>, none: &str) -> Result<Response, Problem> {
    let bytes = bytes.ok_or_else(|| Problem::not_found(none))?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg")], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_with_its_answers_and_a_word_about_it() {
        let api: serde_json::Value = serde_json::from_str(&description()).unwrap();
        assert_eq!(api["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = api["paths"].as_object().unwrap();
        let methods = ["get", "post", "patch", "put", "delete"];
        let mut routes = Vec::new();
        for (path, item) in paths {
            for method in methods.iter().filter(|method| item.get(method).is_some()) {
                let operation = &item[method];
                assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 8), "{method} {path}");
                assert!(operation["responses"].get("200").is_some(), "{method} {path}");
                assert!(operation["responses"].get("default").is_some(), "{method} {path}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let in_path = path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap()));
                    assert_eq!(parameter["in"] == "path", in_path, "{method} {path}: {parameter}");
                }
                assert!(!operation["tags"][0].is_null(), "{method} {path}");
                routes.push(format!("{method} {path}"));
            }
        }
        // The number of routes in `described`.
        assert_eq!(routes.len(), 60, "{routes:#?}");
        for schema in ["Problem", "Event", "Stranger", "Recognised", "SourceAnswer"] {
            assert!(!api["components"]["schemas"][schema].is_null(), "{schema}");
        }
    }
}
