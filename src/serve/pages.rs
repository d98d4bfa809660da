//! The pages: files that are part of the program, without any external content.

use axum::Router;
use axum::http::header;
use axum::routing::get;

use super::site::App;

/// Path, kind and content of every file.
const FILES: [(&str, &str, &str); 18] = [
    ("/", "text/html; charset=utf-8", include_str!("pages/index.html")),
    ("/people", "text/html; charset=utf-8", include_str!("pages/people.html")),
    ("/strangers", "text/html; charset=utf-8", include_str!("pages/strangers.html")),
    ("/events", "text/html; charset=utf-8", include_str!("pages/events.html")),
    ("/doubts", "text/html; charset=utf-8", include_str!("pages/doubts.html")),
    ("/videos", "text/html; charset=utf-8", include_str!("pages/videos.html")),
    ("/library", "text/html; charset=utf-8", include_str!("pages/library.html")),
    ("/sources", "text/html; charset=utf-8", include_str!("pages/sources.html")),
    ("/threshold", "text/html; charset=utf-8", include_str!("pages/threshold.html")),
    ("/login", "text/html; charset=utf-8", include_str!("pages/login.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("pages/style.css")),
    ("/common.js", "text/javascript; charset=utf-8", include_str!("pages/common.js")),
    ("/pages.js", "text/javascript; charset=utf-8", include_str!("pages/pages.js")),
    ("/review.js", "text/javascript; charset=utf-8", include_str!("pages/review.js")),
    ("/videos.js", "text/javascript; charset=utf-8", include_str!("pages/videos.js")),
    ("/library.js", "text/javascript; charset=utf-8", include_str!("pages/library.js")),
    ("/sources.js", "text/javascript; charset=utf-8", include_str!("pages/sources.js")),
    ("/icon.svg", "image/svg+xml", include_str!("pages/icon.svg")),
];

/// The routes of all files.
pub(super) fn routes() -> Router<App> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { ([(header::CONTENT_TYPE, kind)], content) }))
    })
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn pages_load_nothing_from_elsewhere_and_no_text_becomes_markup() {
        for (path, _, content) in FILES {
            for word in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                let found = content.replace("http://www.w3.org/2000/svg", "").contains(word);
                assert!(!found, "{path} has {word}");
            }
            // The policy forbids scripts and styles in a page.
            for word in ["onclick=", "onload=", "style=\"", "<style", "<script>"] {
                assert!(!content.contains(word), "{path} has {word}");
            }
        }
    }
}
