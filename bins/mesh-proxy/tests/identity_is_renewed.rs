//! The certificate is got with the token of the moment, renewed before it expires, and refused when it is not ours.
//!
//! The controller is at the other end of a pipe in memory and time is virtual, so a day passes in no time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::identity::identity_server::{Identity as Service, IdentityServer};
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use mesh_metrics::{Metrics, ProxyFamilies};
use mesh_proxy::identity::Certifier;
use mesh_proxy::readiness::Certification;
use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::{CredentialReader, Identity, TrustBundle, credential_store, trust_store};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, async_trait};

const NAME: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";
const DAY: Duration = Duration::from_secs(24 * 3600);

type Answer = Box<dyn FnMut(CertifyRequest) -> Result<CertifyResponse, Status> + Send>;

/// Answers Certify as the test says.
struct Issuing(Mutex<Answer>);

#[async_trait]
impl Service for Issuing {
    async fn certify(
        &self,
        request: Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let mut answer = self.0.lock().unwrap();
        (answer)(request.into_inner()).map(Response::new)
    }
}

/// Virtual time as a wall clock.
#[derive(Clone, Copy)]
struct Clock {
    started: SystemTime,
    at: Instant,
    /// How many seconds it is ahead.
    ahead: &'static AtomicU64,
}

impl Clock {
    fn start() -> Self {
        Self {
            started: SystemTime::now(),
            at: Instant::now(),
            ahead: Box::leak(Box::default()),
        }
    }

    fn now(self) -> SystemTime {
        let ahead = Duration::from_secs(self.ahead.load(Relaxed));
        self.started + ahead + self.at.elapsed()
    }
}

struct Running {
    clock: Clock,
    credentials: CredentialReader,
    status: watch::Receiver<Certification>,
    metrics: Metrics<ProxyFamilies>,
    token_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Waits until the certification is so; a virtual week is enough for everything.
    async fn until(&mut self, so: impl FnMut(&Certification) -> bool) -> Certification {
        let changed = self.status.wait_for(so);
        timeout(7 * DAY, changed)
            .await
            .expect("in time")
            .expect("the certifier runs")
            .clone()
    }
}

fn authority(clock: Clock) -> Authority {
    let anchor = Anchor::generate("test", 365 * DAY, clock.now()).unwrap();
    let issuer = anchor.issuer("issuer", 30 * DAY, clock.now()).unwrap();
    Authority::new(anchor.certificate().clone(), issuer).unwrap()
}

fn start(clock: Clock, trusted: &Authority, answer: Answer) -> Running {
    start_as(clock, trusted, answer, |certifier| certifier)
}

/// As `start`, with a certifier that is told more.
fn start_as(
    clock: Clock,
    trusted: &Authority,
    answer: Answer,
    told: impl FnOnce(Certifier) -> Certifier,
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "first").unwrap();
    let (trust_writer, trust) =
        trust_store(TrustBundle::from_pem(0, trusted.anchor_pem().as_bytes()).unwrap());
    let (writer, credentials) = credential_store();
    let metrics = Metrics::proxy("test");
    let (certifier, status) = Certifier::new(
        NAME.parse::<Identity>().unwrap(),
        token_file.clone(),
        pipe(Issuing(Mutex::new(answer))),
        trust,
        writer,
        metrics.families.control.identity(),
        Box::new(move || clock.now()),
    );
    let certifier = told(certifier);
    tokio::spawn(async move {
        let _trust_writer = trust_writer;
        certifier.run().await;
    });
    Running {
        clock,
        credentials,
        status,
        metrics,
        token_file,
        _folder: folder,
    }
}

/// A channel to `service` without a network.
fn pipe(service: Issuing) -> Channel {
    let (connect, connecting) = mpsc::channel::<DuplexStream>(1);
    let incoming = ReceiverStream::new(connecting).map(Ok::<_, io::Error>);
    let server = Server::builder().add_service(IdentityServer::new(service));
    tokio::spawn(server.serve_with_incoming(incoming));
    Endpoint::from_static("http://controller").connect_with_connector_lazy(Connect(connect))
}

struct Connect(mpsc::Sender<DuplexStream>);

impl tower_service::Service<http::Uri> for Connect {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connect = self.0.clone();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            connect
                .send(far)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            Ok(TokioIo::new(near))
        })
    }
}

fn issue(
    authority: &Authority,
    clock: Clock,
    request: &CertifyRequest,
    lifetime: Duration,
) -> CertifyResponse {
    let identity = request.identity.parse().unwrap();
    let leaf = authority
        .issue(
            &request.certificate_signing_request,
            &identity,
            lifetime,
            clock.now(),
        )
        .unwrap();
    CertifyResponse {
        leaf_certificate: leaf.leaf().to_vec(),
        intermediate_certificates: leaf
            .intermediates()
            .iter()
            .map(|der| der.to_vec())
            .collect(),
        valid_until: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaf_is_renewed_before_it_expires_with_the_token_of_the_moment() {
    let clock = Clock::start();
    let authority = Arc::new(authority(clock));
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let answer = Box::new({
        let (authority, tokens) = (Arc::clone(&authority), Arc::clone(&tokens));
        move |request: CertifyRequest| {
            tokens
                .lock()
                .unwrap()
                .push(String::from_utf8(request.token.clone()).unwrap());
            Ok(issue(&authority, clock, &request, DAY))
        }
    });
    let mut running = start(clock, &authority, answer);
    let first = running
        .until(|status| status.not_after.is_some())
        .await
        .not_after
        .unwrap();
    let leaf = running.credentials.load().unwrap();
    assert_eq!(leaf.identity().as_str(), NAME);
    assert_eq!(leaf.not_after(), first);

    std::fs::write(&running.token_file, "second").unwrap();
    running.until(|status| status.not_after > Some(first)).await;
    let age = running.clock.now().duration_since(clock.started).unwrap();
    assert!(
        (DAY.mul_f64(0.6)..DAY.mul_f64(0.71)).contains(&age),
        "{age:?}"
    );
    assert!(running.credentials.load().unwrap().not_after() > first);
    assert_eq!(*tokens.lock().unwrap(), ["first", "second"]);
    let metrics = running.metrics.render().replace("{}", "");
    assert!(
        metrics.contains("control_identity_cert_refreshes_total 2"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn renewals_keep_between_what_is_configured() {
    let hour = DAY / 24;
    for (lifetime, expected) in [(DAY, 2 * hour), (hour, hour)] {
        let clock = Clock::start();
        let authority = Arc::new(authority(clock));
        let issuing = Arc::clone(&authority);
        let answer = move |request: CertifyRequest| Ok(issue(&issuing, clock, &request, lifetime));
        let mut running = start_as(clock, &authority, Box::new(answer), |certifier| {
            certifier.renew_between(hour, 2 * hour)
        });
        let first = running.until(|status| status.not_after.is_some()).await;
        let first = first.not_after;
        running.until(|status| status.not_after > first).await;
        let age = clock.now().duration_since(clock.started).unwrap();
        assert!(
            (expected..expected + Duration::from_secs(60)).contains(&age),
            "{lifetime:?}: {age:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_told_and_tried_again_while_the_leaf_lives() {
    let clock = Clock::start();
    let authority = Arc::new(authority(clock));
    let mut calls = 0;
    let answer = Box::new({
        let authority = Arc::clone(&authority);
        move |request: CertifyRequest| {
            calls += 1;
            match calls {
                2..6 => Err(Status::unavailable("closed for lunch")),
                _ => Ok(issue(&authority, clock, &request, DAY)),
            }
        }
    });
    let mut running = start(clock, &authority, answer);
    let first = running
        .until(|status| status.not_after.is_some())
        .await
        .not_after
        .unwrap();
    let failing = running.until(|status| status.failure.is_some()).await;
    assert_eq!(
        failing.not_after,
        Some(first),
        "the leaf that lives stays in use"
    );
    assert!(failing.failure.unwrap().contains("closed for lunch"));
    running
        .until(|status| status.not_after > Some(first) && status.failure.is_none())
        .await;
    assert!(running.clock.now() < first, "before the old one expired");
    let metrics = running.metrics.render().replace("{}", "");
    assert!(
        metrics.contains("control_identity_cert_refresh_failures_total 4"),
        "{metrics}"
    );
}

/// What was planned by the time of before would be an hour away.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_does_not_put_it_off() {
    let clock = Clock::start();
    let authority = Arc::new(authority(clock));
    clock.ahead.store(3600, Relaxed);
    let issuing = Arc::clone(&authority);
    let answer = move |request: CertifyRequest| match clock.ahead.load(Relaxed) {
        0 => Ok(issue(&issuing, clock, &request, DAY)),
        _ => Err(Status::unavailable("expired")),
    };
    let mut running = start(clock, &authority, Box::new(answer));
    running.until(|status| status.failure.is_some()).await;
    clock.ahead.store(0, Relaxed);
    running.until(|status| status.not_after.is_some()).await;
    let after = clock.at.elapsed();
    assert!(after < Duration::from_secs(60), "{after:?}");
}

/// What the certifier says when Certify is answered so.
async fn refusal(
    answer: impl FnMut(&Authority, Clock, CertifyRequest) -> CertifyResponse + Send + 'static,
) -> String {
    let clock = Clock::start();
    let authority = Arc::new(authority(clock));
    let mut answer = answer;
    let issuing = Arc::clone(&authority);
    let answer = Box::new(move |request: CertifyRequest| Ok(answer(&issuing, clock, request)));
    let mut running = start(clock, &authority, answer);
    let status = running.until(|status| status.failure.is_some()).await;
    assert!(running.credentials.load().is_none(), "it must not be used");
    status.failure.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_ours_is_refused() {
    let other = refusal(|authority, clock, request| {
        let request = CertifyRequest {
            identity: "other.test".to_owned(),
            ..request
        };
        let key = mesh_tls::LeafKey::generate().unwrap();
        let csr = key.csr(&"other.test".parse().unwrap()).unwrap();
        issue(
            authority,
            clock,
            &CertifyRequest {
                certificate_signing_request: csr,
                ..request
            },
            DAY,
        )
    });
    assert!(!other.await.is_empty());
    let stranger =
        refusal(|_, clock, request| issue(&self::authority(clock), clock, &request, DAY));
    assert!(!stranger.await.is_empty());
    let garbage = refusal(|_, _, _| CertifyResponse {
        leaf_certificate: vec![0; 32],
        ..CertifyResponse::default()
    });
    assert!(!garbage.await.is_empty());
    let long = refusal(|authority, clock, request| CertifyResponse {
        intermediate_certificates: vec![Vec::new(); 100],
        ..issue(authority, clock, &request, DAY)
    });
    assert!(long.await.contains("101"));
}

#[tokio::test(start_paused = true)]
async fn a_token_file_that_is_missing_or_empty_is_named() {
    let clock = Clock::start();
    let authority = Arc::new(authority(clock));
    let issuing = Arc::clone(&authority);
    let answer = Box::new(move |request: CertifyRequest| Ok(issue(&issuing, clock, &request, DAY)));
    let mut running = start(clock, &authority, answer);
    std::fs::write(&running.token_file, "").unwrap();
    let empty = running
        .until(|status| status.failure.is_some())
        .await
        .failure
        .unwrap();
    assert!(
        empty.contains("token") && empty.contains("0 bytes"),
        "{empty}"
    );
    std::fs::remove_file(&running.token_file).unwrap();
    let file = running.token_file.display().to_string();
    let missing = running
        .until(|status| {
            status
                .failure
                .as_ref()
                .is_some_and(|why| why.contains("cannot read"))
        })
        .await;
    assert!(missing.failure.unwrap().contains(&file));
    std::fs::write(&running.token_file, "now").unwrap();
    running
        .until(|status| status.not_after.is_some() && status.failure.is_none())
        .await;
}
