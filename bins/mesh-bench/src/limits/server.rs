//! Endpoints with a rate limit and a latency, which count what they are sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::net::TcpListener;

use crate::args::Limiter;
use crate::error::Error;

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    bucket: Mutex<Option<Bucket>>,
    latency: Duration,
    pub(crate) admitted: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Server {
    /// Admits `limit` requests a second, or any number, and answers each after `latency` on average.
    pub(crate) async fn start(
        limit: Option<f64>,
        limiter: Limiter,
        latency: Duration,
    ) -> Result<Arc<Self>, Error> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(Error::io("an endpoint cannot listen"))?;
        let address = listener
            .local_addr()
            .map_err(Error::io("an endpoint has no address"))?;
        let server = Arc::new(Self {
            address,
            bucket: Mutex::new(limit.map(|limit| Bucket::new(limiter, limit))),
            latency,
            admitted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, server.clone()));
        Ok(server)
    }

    /// Begins to count: over any time from now on no more than the limit is admitted.
    pub(crate) fn begin(&self) {
        if let Some(bucket) = &mut *self.bucket() {
            *bucket = Bucket::new(bucket.limiter, bucket.limit);
        }
    }

    /// From now on it admits so many a second.
    pub(crate) fn limit(&self, limit: f64) {
        if let Some(bucket) = &mut *self.bucket() {
            bucket.limit = limit;
        }
    }

    async fn answer(self: Arc<Self>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let admits = match &mut *self.bucket() {
            Some(bucket) => bucket.admits(Instant::now()),
            None => true,
        };
        let mut response = Response::new(Empty::new());
        if admits {
            self.admitted.fetch_add(1, Ordering::Relaxed);
            // Half of it constant, half exponential.
            let half = self.latency / 2;
            tokio::time::sleep(half + half.mul_f64(-(1.0 - fastrand::f64()).ln())).await;
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            let second = http::HeaderValue::from_static("1");
            response.headers_mut().insert("retry-after", second);
        }
        Ok(response)
    }

    fn bucket(&self) -> std::sync::MutexGuard<'_, Option<Bucket>> {
        // What is in it is whole after each step.
        self.bucket
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files: some will end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let server = server.clone();
        let answer = service_fn(move |_| server.clone().answer());
        // How a connection ends is its client's business.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// What is left of a limit.
#[derive(Debug)]
struct Bucket {
    limiter: Limiter,
    limit: f64,
    tokens: f64,
    since: Instant,
}

impl Bucket {
    /// A bucket is empty at first.
    fn new(limiter: Limiter, limit: f64) -> Self {
        Self {
            limiter,
            limit,
            tokens: match limiter {
                Limiter::Bucket => 0.0,
                Limiter::Window => limit,
            },
            since: Instant::now(),
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        match self.limiter {
            Limiter::Bucket => {
                let new = (now - self.since).as_secs_f64() * self.limit;
                self.tokens = (self.tokens + new).min(self.limit);
                self.since = now;
            }
            Limiter::Window => {
                let windows = (now - self.since).as_secs();
                if windows > 0 {
                    self.since += Duration::from_secs(windows);
                    self.tokens = self.limit;
                }
                self.tokens = self.tokens.min(self.limit);
            }
        }
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_admitted() {
        for limiter in [Limiter::Bucket, Limiter::Window] {
            let mut bucket = Bucket::new(limiter, 100.0);
            let start = bucket.since;
            let at = |ms: u64| start + Duration::from_millis(ms);
            let admitted = (0..2_000).filter(|ms| bucket.admits(at(*ms))).count();
            assert!((199..=200).contains(&admitted), "{limiter:?}: {admitted}");
            bucket.limit = 10.0;
            let admitted = (2_000..12_000).filter(|ms| bucket.admits(at(*ms))).count();
            assert!((99..=101).contains(&admitted), "{limiter:?}: {admitted}");
        }
    }
}
