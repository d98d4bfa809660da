//! Incoming connections, with limits on their number and their time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::access::Client;
use super::site::Site;
use super::{api, lock};

/// Time limit for the head of a request, and for an idle connection between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for a TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// The most bytes of the head of a request.
const MOST_HEAD_BYTES: usize = 64 * 1024;
/// Pause when no connection can be accepted, for example because there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until the service ends, and then finishes the open ones.
pub(super) async fn answer(listener: std::net::TcpListener, site: Arc<Site>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the service cannot listen: {error}"),
    };
    let mut ending = site.ending.clone();
    let places = Arc::new(Semaphore::new(site.settings().config.limits.connections));
    let router = api::router(Arc::clone(&site));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            // It also ends when the sender is dropped.
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // A client that connects when all places are taken is refused before anything is read.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (router, ending) = (router.clone(), site.ending.clone());
        let tls = lock(&site.tls).clone();
        open.spawn(async move {
            let client = Client(peer.ip().to_canonical());
            match tls {
                None => converse(stream, client, router, ending).await,
                Some(tls) => {
                    let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await;
                    if let Ok(Ok(stream)) = shaken {
                        converse(stream, client, router, ending).await;
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Answers the requests of a connection.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: Client,
    router: Router,
    mut ending: watch::Receiver<bool>,
) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        request.map(axum::body::Body::new)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = pin!(connection);
    // Errors of a broken connection are not reported.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
