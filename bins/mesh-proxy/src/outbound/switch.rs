//! Requests that may switch their connection to another protocol: upgrades and CONNECT.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use http::header::HOST;
use http::uri::Authority;
use http::{Method, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_balance::core::Pick;
use mesh_breaker::{FailureKind, Outcome};
use mesh_http::Incoming;
use mesh_http::client::NoAnswer;
use mesh_http::connections::Connection;
use mesh_http::{Error, Prefixed, tcp};
use mesh_policy::outbound::Timeouts;

use super::choose::{Tried, choose};
use super::exchange::{Answered, set_host};
use super::http::Http;
use super::opaque::until_closed;
use super::record::{Asked, Attempt};
use crate::model::{Backend, Endpoint};
use crate::worker::answer::Refusal;
use crate::worker::body::RequestBody;
use crate::worker::deadlines::Deadlines;
use crate::worker::stream::Stream;
use crate::worker::upstream::{Held, interim};

/// A connection that switches protocols: both of its ends, as they will be once the heads have been sent.
#[derive(Debug)]
pub(crate) struct Switch {
    client: OnUpgrade,
    upstream: Prefixed<Stream>,
    /// In flight until the tunnel ends.
    pick: Option<Pick<Arc<Endpoint>>>,
}

/// One request that may switch protocols.
pub(super) struct Switching<'a> {
    pub(super) http: &'a Http,
    pub(super) backend: &'a Arc<Backend>,
    pub(super) authority: &'a Authority,
    pub(super) asked: &'a Asked,
}

impl Switching<'_> {
    /// Sends `request` within the route's deadlines until the head of the response has come. What a connection is switched to may
    /// last.
    pub(super) async fn run(
        &self,
        request: Request<Incoming>,
        timeouts: Timeouts,
    ) -> Result<Box<Answered>, Refusal> {
        let attempt = Cell::new(None);
        let sending = self.send(request, &attempt);
        let Some(mut deadlines) = Deadlines::new(timeouts, None) else {
            return sending.await;
        };
        tokio::select! {
            answered = sending => answered,
            () = deadlines.passed() => {
                if let Some(attempt) = attempt.take() {
                    attempt.failed(FailureKind::Timeout);
                }
                Err(Refusal::Deadline)
            }
        }
    }

    /// Sends `request` over a connection of its own, in HTTP/1. `attempt` holds who has it until the response has come.
    async fn send(
        &self,
        mut request: Request<Incoming>,
        attempt: &Cell<Option<Attempt>>,
    ) -> Result<Box<Answered>, Refusal> {
        let client = hyper::upgrade::on(&mut request);
        let connect = request.method() == Method::CONNECT;
        let mut request = RequestBody::of(request, &self.http.activity);
        let mut tried = Tried::default();
        let (mut chosen, mut sender) = loop {
            let chosen = choose(&self.http.worker, self.backend, &mut tried).await?;
            match chosen.upstream.switchable().await {
                Ok(connected) => break (chosen, connected),
                Err(error) => chosen.unreachable(&mut tried, &error),
            }
        };
        let replaced = chosen.upstream.endpoint().authority_override.as_ref();
        // A target in absolute form outranks Host (RFC 9112, section 3.2.2).
        let absolute = request.uri().scheme().is_some();
        if replaced.is_some() || absolute || !request.headers().contains_key(HOST) {
            set_host(&mut request, replaced.unwrap_or(self.authority));
        }
        let (taps, endpoint) = (&self.http.worker.shared.taps, chosen.upstream.endpoint());
        let tapped = self.asked.tap(taps, &request, endpoint);
        attempt.set(Some(self.asked.attempt(
            Instant::now(),
            chosen.pick.take(),
            tapped,
        )));
        let gate = interim(request.body().gate());
        let sent = sender.send(&mut request, gate).await;
        // It is there, set above; only the deadline takes it, which ends this.
        let Some(mut attempt) = attempt.take() else {
            return Err(Refusal::Broken);
        };
        let response = match sent {
            Ok(response) => response,
            Err(NoAnswer { error, .. }) => {
                tracing::debug!(endpoint = %chosen.upstream.endpoint().addr, %error, "broke off");
                attempt.failed(FailureKind::Broken);
                return Err(Refusal::Broken);
            }
        };
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || (connect && response.status().is_success());
        if switched {
            let Some(upstream) = sender.switched() else {
                attempt.failed(FailureKind::Broken);
                return Err(Refusal::Broken);
            };
            let pick = attempt.take_pick();
            *self.http.switch.borrow_mut() = Some(Switch {
                client,
                upstream,
                pick,
            });
        }
        Ok(Answered::new(response, attempt, Held::Nothing))
    }
}

impl Switch {
    /// Carries the bytes of both sides until they have ended.
    pub(crate) async fn carry(self, connection: &Connection) -> Result<(), Error> {
        let mut client = TokioIo::new(self.client.await?);
        let mut upstream = self.upstream;
        let carried = until_closed(connection, tcp::carry(&mut client, &mut upstream, &())).await;
        if let Some(pick) = self.pick {
            pick.finish(std::time::Instant::now(), Outcome::Success);
        }
        carried
    }
}
