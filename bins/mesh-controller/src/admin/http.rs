//! `/live`, `/ready`, `/metrics`, `/config`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_metrics::{ControllerMetrics, Metrics};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};

use crate::{listener::stopped, readiness::Readiness};

/// Serves what probes and scrapers ask for.
#[derive(Clone)]
pub(crate) struct HttpAdmin {
    readiness: Readiness,
    metrics: Metrics<ControllerMetrics>,
    /// The configuration in force, as JSON.
    config: Arc<str>,
}

impl HttpAdmin {
    pub(crate) fn new(
        readiness: Readiness,
        metrics: Metrics<ControllerMetrics>,
        config: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            readiness,
            metrics,
            config: config.into(),
        }
    }

    /// Accepts and serves until `stop` turns true.
    pub(crate) async fn serve(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stopped(&mut stop) => return,
            };
            let Ok((stream, _)) = accepted else {
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            let admin = self.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let response = admin.answer(&request);
                    async move { Ok::<_, Infallible>(response) }
                });
                // A connection that fails is the client's loss alone.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(MAX_HEADER_BYTES)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(place);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        const TEXT: &str = "text/plain; charset=utf-8";
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, TEXT, "live\n"),
            "/ready" => {
                let obstacles = self.readiness.obstacles(std::time::SystemTime::now());
                if obstacles.is_empty() {
                    text(StatusCode::OK, TEXT, "ready\n")
                } else {
                    let reasons = obstacles.join("\n") + "\n";
                    text(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons)
                }
            }
            "/metrics" => {
                let accept = request.headers().get(header::ACCEPT);
                let accept = accept.and_then(|value| value.to_str().ok());
                let (media_type, metrics) = self.metrics.negotiate(accept);
                text(StatusCode::OK, media_type, metrics)
            }
            "/config" => text(StatusCode::OK, "application/json", self.config.to_string()),
            _ => text(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /live /ready /metrics /config\n",
            ),
        }
    }
}

fn text(
    status: StatusCode,
    media_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

const MAX_CONNECTIONS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
