//! The admin server: `/live`, `/ready`, `/metrics`, `/balancers` and `/config`, over HTTP/1; and `/shutdown` where that is permitted.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::{Shared, balancers};

/// The largest request head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a client may take to send a head, also between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live: probes and scrapers open new ones.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    let places = Arc::new(Semaphore::new(shared.config.admin.max_connections));
    loop {
        // The semaphore is never closed; past the limit clients wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    connection(stream, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept");
                // Out of file descriptors, most likely: busy waiting would not help.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let local = stream
        .peer_addr()
        .is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    let service = service_fn(move |request| {
        let response = respond(&request, &shared, local);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_LIFETIME, connection).await {
        tracing::debug!(%error, "an admin connection failed");
    }
}

/// `local`: whether the client is on this machine.
fn respond(request: &Request<Incoming>, shared: &Shared, local: bool) -> Response<Full<Bytes>> {
    if shared.config.admin.shutdown && request.uri().path() == "/shutdown" {
        return shutdown(request.method(), shared, local);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return reply(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "expected GET or HEAD\n",
        );
    }
    match request.uri().path() {
        "/live" => reply(StatusCode::OK, TEXT, "live\n"),
        "/ready" => ready(shared),
        "/metrics" => metrics(request, shared),
        "/balancers" => reply(StatusCode::OK, JSON, balancers::show(&shared.control)),
        "/config" => reply(StatusCode::OK, JSON, config(shared)),
        _ => reply(
            StatusCode::NOT_FOUND,
            TEXT,
            "expected /live, /ready, /metrics, /balancers or /config\n",
        ),
    }
}

fn shutdown(method: &Method, shared: &Shared, local: bool) -> Response<Full<Bytes>> {
    if *method != Method::POST {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "expected POST\n");
    }
    if !local {
        return reply(StatusCode::FORBIDDEN, TEXT, "expected from this machine\n");
    }
    shared.end.notify_one();
    reply(StatusCode::OK, TEXT, "draining\n")
}

fn ready(shared: &Shared) -> Response<Full<Bytes>> {
    let missing = shared.readiness.missing(SystemTime::now());
    let (status, mut lines) = if missing.is_empty() {
        (StatusCode::OK, vec!["ready".to_owned()])
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing)
    };
    lines.extend(shared.readiness.warnings());
    reply(status, TEXT, lines.join("\n") + "\n")
}

fn metrics(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let (kind, text) = shared.metrics.negotiate(accept);
    reply(StatusCode::OK, kind, text)
}

fn config(shared: &Shared) -> String {
    let mut json = shared.config.to_json();
    json["unsupported"] = shared.control.unsupported().fields().into();
    format!("{json:#}\n")
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
