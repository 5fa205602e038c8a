//! Endpoints that answer as they are told to and count what they are asked, and the policies that lead to them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use linkerd2_proxy_api::destination::WeightedAddr;
use linkerd2_proxy_api::outbound::backend::balance_p2c::{self, PenaltyPeakEwma};
use linkerd2_proxy_api::outbound::failure_accrual::{ConsecutiveFailures, Kind};
use linkerd2_proxy_api::outbound::{
    EjectionConfig, ExponentialBackoff, FailureAccrual, OutboundPolicy, backend,
};
use serde_json::Value as Json;

use crate::controller::soon;
use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{App, Message, Wire, app};

pub const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
pub const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// The answer of a rate limit that is reached, with this `Retry-After`.
pub fn limited(retry_after: &str) -> String {
    format!(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: {retry_after}\r\ncontent-length: 0\r\n\r\n"
    )
}

/// An endpoint outside the mesh.
pub struct Told {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _app: App,
}

#[derive(Debug)]
struct State {
    answers: Vec<String>,
    asked_at: Vec<Instant>,
}

impl Told {
    pub async fn start(address: SocketAddr, answer: impl Into<String>) -> Self {
        let state = Arc::new(Mutex::new(State {
            answers: vec![answer.into()],
            asked_at: Vec::new(),
        }));
        let shared = state.clone();
        let app = app(address, move |mut wire| {
            let state = shared.clone();
            async move {
                while wire.request().await.is_some() {
                    let answer = {
                        let mut state = state.lock().unwrap();
                        state.asked_at.push(Instant::now());
                        let turn = (state.asked_at.len() - 1) % state.answers.len();
                        state.answers[turn].clone()
                    };
                    if !wire.offer(answer).await {
                        return;
                    }
                }
            }
        })
        .await;
        Self {
            address,
            state,
            _app: app,
        }
    }

    /// From now on it answers with these in turn.
    pub fn answers(&self, answers: &[&str]) {
        let mut state = self.state.lock().unwrap();
        state.asked_at.clear();
        state.answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
    }

    /// How often it was asked since it answers as it does.
    pub fn asked(&self) -> usize {
        self.asked_at().len()
    }

    pub fn asked_at(&self) -> Vec<Instant> {
        self.state.lock().unwrap().asked_at.clone()
    }

    /// Whether it was asked, to be asked anywhere.
    pub fn asked_when_told(&self) -> impl Fn() -> bool + Clone + Send + 'static {
        let state = self.state.clone();
        move || !state.lock().unwrap().asked_at.is_empty()
    }

    pub fn endpoint(&self) -> WeightedAddr {
        policy::plain(self.address)
    }
}

/// So many endpoints of `web.test:80` that answer well.
pub async fn endpoints(mesh: &Mesh, count: u16) -> Vec<Told> {
    let mut endpoints = Vec::new();
    for index in 0..count {
        endpoints.push(Told::start(mesh.net.plain(index), OK).await);
    }
    let all = endpoints.iter().map(Told::endpoint).collect();
    mesh.says.endpoints("web.test:80", all);
    endpoints
}

/// Sends so many requests, one after the other, each from a client of its own.
pub async fn ask(mesh: &Mesh, requests: usize) -> Vec<Message> {
    let mut answers = Vec::new();
    for _ in 0..requests {
        answers.push(crate::wire::ask(mesh.net.web(), GET).await);
    }
    answers
}

/// Sends requests, one after the other, until each of these was asked so often. How often that is depends on how long the
/// first answers took: whoever was slow then is not asked for a while.
pub async fn ask_until(mesh: &Mesh, asked: &[&Told], times: usize) -> Vec<Message> {
    let mut answers = Vec::new();
    soon("every endpoint is asked", async {
        while asked.iter().any(|told| told.asked() < times) {
            answers.append(&mut ask(mesh, 1).await);
        }
    })
    .await;
    answers
}

/// Sends one request, and leaves without waiting for more of the answer than its head.
pub async fn ask_and_leave(mesh: &Mesh) -> u16 {
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(GET).await;
    wire.head().await.unwrap().status()
}

pub fn statuses(answers: &[Message]) -> Vec<u16> {
    answers.iter().map(Message::status).collect()
}

/// The service `web` whose load is this.
pub fn loaded(load: &balance_p2c::Load) -> OutboundPolicy {
    policy::changed(|rule| {
        let Some(backend::Kind::Balancer(balancer)) = policy::backend(rule)
            .backend
            .as_mut()
            .and_then(|backend| backend.kind.as_mut())
        else {
            panic!("not a balancer")
        };
        balancer.load = Some(*load);
    })
}

/// `PenaltyPeakEwma` with Linkerd's defaults, but that a slow answer is soon forgotten.
pub fn penalized() -> PenaltyPeakEwma {
    let seconds = |seconds| policy::duration(Duration::from_secs(seconds));
    PenaltyPeakEwma {
        default_rtt: policy::duration(Duration::from_millis(30)),
        decay: policy::duration(Duration::from_millis(200)),
        penalty: seconds(5),
        max_retry_after: seconds(300),
        penalty_decay: seconds(10),
    }
}

/// The same policy with a breaker for HTTP.
pub fn broken_by(mut policy: OutboundPolicy, accrual: FailureAccrual) -> OutboundPolicy {
    let detect = policy::detect(&mut policy);
    detect.http1.as_mut().unwrap().failure_accrual = Some(accrual);
    detect.http2.as_mut().unwrap().failure_accrual = Some(accrual);
    policy
}

/// A wait of this long, without jitter.
pub fn backoff(wait: Duration) -> ExponentialBackoff {
    ExponentialBackoff {
        min_backoff: policy::duration(wait),
        max_backoff: policy::duration(Duration::from_secs(60)),
        jitter_ratio: 0.0,
        respect_retry_after_hint: false,
    }
}

/// Open after so many failures in a row.
pub fn consecutive(max_failures: u32, backoff: ExponentialBackoff) -> FailureAccrual {
    FailureAccrual {
        kind: Some(Kind::ConsecutiveFailures(ConsecutiveFailures {
            max_failures,
            backoff: Some(backoff),
        })),
        ejection: None,
    }
}

/// At least so many endpoints stay in use.
pub fn with_floor(accrual: FailureAccrual, min_ready_endpoints: u32) -> FailureAccrual {
    FailureAccrual {
        ejection: Some(EjectionConfig {
            min_ready_endpoints,
        }),
        ..accrual
    }
}

/// What `/balancers` says of an endpoint in the balancer for HTTP, which is the one that was asked.
pub async fn endpoint_becomes(
    proxy: &Proxy,
    address: SocketAddr,
    so: impl Fn(&Json) -> bool,
) -> Json {
    let found = |body: &str| -> Option<Json> {
        let told: Json = serde_json::from_str(body).unwrap();
        let balancers = told["balancers"].as_array().unwrap();
        let endpoints = balancers
            .iter()
            .flat_map(|balancer| balancer["endpoints"].as_array().unwrap());
        let mut of_address =
            endpoints.filter(|endpoint| endpoint["address"] == address.to_string());
        of_address.find(|endpoint| so(endpoint)).cloned()
    };
    let body = proxy
        .until("/balancers", |body| found(body).is_some())
        .await;
    found(&body).unwrap()
}
