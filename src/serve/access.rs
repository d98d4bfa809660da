//! Access control.
//!
//! - Without a token, only requests whose host names this machine are answered. That excludes pages of other
//!   sites whose name resolves to this machine (DNS rebinding).
//! - Requests that change anything are accepted only from our own pages (`Origin`), and pages of other sites
//!   cannot show our pictures (`Sec-Fetch-Site`).
//! - A token is sent in `Authorization: Bearer`, or in a cookie that pages of other sites do not send.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::site::{App, Site};
use super::tokens::Role;

/// Name of the cookie that holds the token of a page.
pub(super) const COOKIE: &str = "sphereface";

/// The address of the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub IpAddr);

/// Requests with pictures that change nothing.
const QUESTIONS: [&str; 4] = ["/api/v1/recognise", "/api/v1/detect", "/api/v1/embed", "/api/v1/compare"];

/// The role that a request needs; `None` if it needs none.
fn needed(method: &Method, path: &str) -> Option<Role> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    match path {
        "/api/v1/health" | "/api/v1/ready" | "/api/v1/session" | "/api/openapi.json" => None,
        "/api/v1/changes" => Some(Role::Administrator),
        "/metrics" => Some(Role::Reader),
        // The pages are static files without data.
        _ if reads && !path.starts_with("/api/") => None,
        _ if reads => Some(Role::Reader),
        _ if *method == Method::POST && QUESTIONS.contains(&path) => Some(Role::Reader),
        _ => Some(Role::Administrator),
    }
}

/// Passes on requests that are allowed.
pub(super) async fn guard(State(site): State<App>, mut request: Request, next: Next) -> Response {
    site.counts.requests.fetch_add(1, Ordering::Relaxed);
    let client = request.extensions().get::<Client>().map(|client| client.0);
    let per_s = site.settings().config.limits.requests_per_s;
    if client.is_some_and(|client| !site.rates.may_ask(client, per_s, Instant::now())) {
        site.counts.busy.fetch_add(1, Ordering::Relaxed);
        return Problem::too_often(per_s).into_response();
    }
    let response = match check(&site, &request) {
        Ok(role) => {
            request.extensions_mut().insert(Caller(role));
            next.run(request).await
        }
        Err(problem) => {
            site.counts.refused.fetch_add(1, Ordering::Relaxed);
            problem.into_response()
        }
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        site.counts.busy.fetch_add(1, Ordering::Relaxed);
    }
    response
}

/// The caller. Without tokens, every caller is an administrator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller(pub Option<Role>);

impl Caller {
    /// Its name in the record of changes.
    pub fn name(self) -> &'static str {
        self.0.map_or("nobody", Role::name)
    }
}

fn check(site: &Site, request: &Request) -> Result<Option<Role>, Problem> {
    let (headers, method, path) = (request.headers(), request.method(), request.uri().path());
    let forbidden = |detail: &str| Problem::new(StatusCode::FORBIDDEN, detail);
    // HTTP/1.0 has no Host header; a request line may name a host.
    let named = request.uri().authority().map(|authority| authority.as_str());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(named).unwrap_or_default();
    if site.tokens.is_none() && !names_this_machine(host) {
        return Err(forbidden(
            "without tokens this service can only be reached as 127.0.0.1 or localhost: set token = true to use other host names",
        ));
    }
    if path.starts_with("/api/") && is_from_elsewhere(headers, method, host) {
        return Err(forbidden("requests from pages of other sites are refused"));
    }
    let Some(tokens) = &site.tokens else { return Ok(Some(Role::Administrator)) };
    let role = token(headers).and_then(|token| tokens.role(token));
    match (needed(method, path), role) {
        (None, role) => Ok(role),
        (Some(_), None) => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "a token is required: send it as Authorization: Bearer TOKEN",
        )),
        (Some(needed), Some(role)) if role < needed => {
            Err(forbidden("this requires the token of an administrator"))
        }
        (_, role) => Ok(role),
    }
}

/// Whether a host is this machine, by a name that no DNS server can define.
fn names_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a browser states that the request comes from a page of another site.
fn is_from_elsewhere(headers: &HeaderMap, method: &Method, host: &str) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("none"));
    if text("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") {
        return true;
    }
    // Of all requests to another site, a page can read only the answers of a WebSocket.
    let socket = headers.contains_key(header::UPGRADE);
    if (*method == Method::GET || *method == Method::HEAD) && !socket {
        return false;
    }
    let own = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    };
    text("origin").is_some_and(|origin| !own(origin))
}

/// The token of a request.
fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = bearer.and_then(|value| value.split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return Some(token.trim());
    }
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|all| all.split(';')).filter_map(|one| one.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_machine_itself_are_answered_without_a_token() {
        for own in ["127.0.0.1:8470", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8470", "127.9.9.9:1"] {
            assert!(names_this_machine(own), "{own}");
        }
        for other in
            ["", "evil.com", "127.0.0.1.evil.com:8470", "localhost.evil.com", "10.0.0.1:8470", "[::2]:1"]
        {
            assert!(!names_this_machine(other), "{other}");
        }
    }

    #[test]
    fn whatever_is_not_known_to_be_harmless_takes_an_administrator() {
        let role = |method: Method, path: &str| needed(&method, path);
        assert_eq!(role(Method::GET, "/"), None);
        assert_eq!(role(Method::GET, "/api/v1/events"), Some(Role::Reader));
        assert_eq!(role(Method::POST, "/api/v1/recognise"), Some(Role::Reader));
        assert_eq!(role(Method::DELETE, "/api/v1/recognise"), Some(Role::Administrator));
        for (method, path) in [
            (Method::POST, "/api/v1/recognise/"),
            (Method::POST, "/anything"),
            (Method::PUT, "/"),
            (Method::PATCH, "/api/v2/new"),
            (Method::GET, "/api/v1/changes"),
            (Method::OPTIONS, "/api/v1/people"),
        ] {
            assert_eq!(role(method, path), Some(Role::Administrator), "{path}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_turned_away() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let from = |method: Method, pairs: &[(&'static str, &str)]| {
            is_from_elsewhere(&headers(pairs), &method, "127.0.0.1:8470")
        };
        assert!(!from(Method::POST, &[]), "no browser");
        assert!(!from(Method::POST, &[("origin", "http://127.0.0.1:8470")]));
        assert!(!from(Method::GET, &[("origin", "http://evil.com")]), "it cannot read the answer");
        let socket = ("upgrade", "websocket");
        assert!(!from(Method::GET, &[socket]) && from(Method::GET, &[socket, ("origin", "http://evil.com")]));
        for origin in ["http://evil.com", "null", "http://127.0.0.1:9", "http://127.0.0.1:8470.evil.com", "x"]
        {
            assert!(from(Method::POST, &[("origin", origin)]), "{origin}");
        }
        assert!(from(Method::GET, &[("sec-fetch-site", "cross-site")]));
        assert!(from(Method::GET, &[("sec-fetch-site", "same-site")]));
        assert!(!from(Method::GET, &[("sec-fetch-site", "same-origin")]));
        assert!(!from(Method::GET, &[("sec-fetch-site", "none")]));
    }

    #[test]
    fn a_token_is_read_from_the_header_or_the_cookie() {
        let of = |name: header::HeaderName, value: &str| {
            let headers: HeaderMap = [(name, value.parse().unwrap())].into_iter().collect();
            token(&headers).map(str::to_owned)
        };
        assert_eq!(of(header::AUTHORIZATION, "Bearer abc"), Some("abc".into()));
        assert_eq!(of(header::AUTHORIZATION, "bearer  abc "), Some("abc".into()));
        assert_eq!(of(header::AUTHORIZATION, "Basic abc"), None);
        assert_eq!(of(header::COOKIE, "a=b; sphereface=abc"), Some("abc".into()));
        assert_eq!(of(header::COOKIE, "xsphereface=abc"), None);
    }
}
