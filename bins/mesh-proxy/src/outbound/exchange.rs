//! The sending of one request to whichever endpoint takes it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Body;
use mesh_breaker::FailureKind;
use mesh_http::Incoming;
use mesh_http::body::Observed;
use mesh_http::headers::{self, OrigProto};
use mesh_metrics::RetryHandle;
use mesh_policy::StatusSet;
use mesh_policy::outbound::Timeouts;

use super::choose::{Tried, choose};
use super::http::Answer;
use super::record::{Asked, Attempt, Reply};
use crate::model::{Backend, Endpoint};
use crate::worker::Worker;
use crate::worker::answer::Refusal;
use crate::worker::body::{Arriving, RequestBody, ResponseBody};
use crate::worker::deadlines::Deadlines;
use crate::worker::expect;
use crate::worker::tunnel;
use crate::worker::upstream::{Again, Carriage, Held};

/// How often a request is sent anew after a connection turned out to be closed.
const MAX_RESENDS: usize = 3;
/// How often it is sent anew after an endpoint turned it away unread, or was not heard of any more.
const MAX_REFUSED: usize = 2;
/// The most bytes of an answer that nobody gets which are read to keep its connection.
const MAX_DISCARDED_BYTES: usize = 64 * 1024;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// One request, one backend.
pub(super) struct Exchange<'a> {
    worker: &'a Worker,
    backend: &'a Arc<Backend>,
    authority: &'a Authority,
    asked: &'a Asked,
    /// The endpoint that has the request now.
    attempt: Cell<Option<Attempt>>,
    /// What an earlier endpoint answered: passed on only if the request is not sent again.
    earlier: Cell<Option<Box<Answered>>>,
}

/// An endpoint's answer, of which only the head has come.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<Arriving>,
    pub(super) reply: Reply,
    pub(super) deadlines: Option<Box<Deadlines>>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        backend: &'a Arc<Backend>,
        authority: &'a Authority,
        asked: &'a Asked,
    ) -> Self {
        Self {
            worker,
            backend,
            authority,
            asked,
            attempt: Cell::new(None),
            earlier: Cell::new(None),
        }
    }

    /// Sends `request` within the route's deadlines.
    pub(super) async fn run(
        &self,
        request: &mut Request<RequestBody>,
        timeouts: Timeouts,
    ) -> Result<Box<Answered>, Refusal> {
        let mut tried = Tried::none(self.asked.started());
        let Some(mut deadlines) = Deadlines::new(timeouts, request.body().progress()) else {
            return self.send(request, &mut tried).await;
        };
        let answered = tokio::select! {
            sent = self.send(request, &mut tried) => sent?,
            () = deadlines.passed() => return Err(self.late()),
        };
        Ok(answered.within(deadlines))
    }

    /// Sends `request` to an endpoint; to another when one cannot be connected to, as nothing was sent then.
    pub(super) async fn send(
        &self,
        request: &mut Request<RequestBody>,
        tried: &mut Tried,
    ) -> Result<Box<Answered>, Refusal> {
        let original = Original::of(request);
        let (mut resends, mut refused) = (0, 0);
        loop {
            let chosen = choose(self.worker, self.backend, tried).await?;
            let carriage = chosen.upstream.carriage(original.version, request.body());
            let (lease, at) = match chosen.upstream.at_hand(carriage) {
                Some(lease) => (lease, chosen.at),
                None => match chosen.upstream.lease(carriage, resends > 0).await {
                    Ok(lease) => (lease, Instant::now()),
                    Err(error) => {
                        chosen.unreachable(tried, &error);
                        continue;
                    }
                },
            };
            tunnel::permitted(request, &lease).await?;
            original.prepare(
                request,
                chosen.upstream.endpoint(),
                carriage,
                self.authority,
            );
            if !self.sends_anew(request) {
                return Err(Refusal::Broken);
            }
            tried.sent_to(&chosen);
            let endpoint = chosen.upstream.endpoint();
            let tapped = self.asked.tap(&self.worker.shared.taps, request, endpoint);
            self.attempt
                .set(Some(self.asked.attempt(at, chosen.pick, tapped)));
            let unanswered = match chosen.upstream.send(lease, request).await {
                Ok((response, held)) => match self.attempt.take() {
                    Some(attempt) => return Ok(Answered::new(response, attempt, held)),
                    // Taken only where a deadline has passed, which ends this.
                    None => return Err(Refusal::Deadline),
                },
                Err(unanswered) => unanswered,
            };
            let sends_again = match unanswered.again {
                Again::No => false,
                // It came to a connection that had closed: that is no fault of the endpoint's.
                Again::Unnoticed => resends < MAX_RESENDS,
                Again::Refused | Again::Unheard => refused < MAX_REFUSED,
            };
            let blamed = matches!(unanswered.again, Again::Refused | Again::Unheard);
            if blamed || !sends_again {
                self.fail(FailureKind::Broken);
            }
            if !sends_again {
                let error = unanswered.error;
                tracing::debug!(endpoint = %chosen.upstream.endpoint().addr, %error, "broke off");
                return Err(if error.is_unprocessed() {
                    Refusal::Unprocessed
                } else {
                    Refusal::Broken
                });
            }
            if blamed {
                tried.avoid_last();
                refused += 1;
            } else {
                resends += 1;
            }
        }
    }

    /// Keeps an answer until the request is sent again.
    pub(super) fn keep(&self, mut answered: Box<Answered>) {
        let trailers = answered.response.body().peeked_trailers();
        answered.reply.settle(trailers);
        self.earlier.set(Some(answered));
    }

    /// The answer that was kept, if the request was not sent again.
    pub(super) fn take_kept(&self) -> Option<Box<Answered>> {
        self.earlier.take()
    }

    /// What counts the retries of the request's route.
    pub(super) fn retries(&self) -> &RetryHandle {
        let families = &self.worker.shared.metrics.families;
        self.asked.retries(families)
    }

    /// The time for this attempt has passed.
    pub(super) fn timed_out(&self) -> Refusal {
        self.fail(FailureKind::Timeout);
        Refusal::TryDeadline
    }

    /// The deadline of the request has passed.
    pub(super) fn late(&self) -> Refusal {
        self.fail(FailureKind::Timeout);
        if let Some(earlier) = self.earlier.take() {
            earlier.discard();
        }
        Refusal::Deadline
    }

    /// Lets go of an earlier answer, as `request` is sent again. `false` when it cannot be.
    fn sends_anew(&self, request: &Request<RequestBody>) -> bool {
        if !request.body().take_over() {
            return false;
        }
        if let Some(earlier) = self.earlier.take() {
            earlier.discard();
        }
        true
    }

    fn fail(&self, kind: FailureKind) {
        if let Some(attempt) = self.attempt.take() {
            attempt.failed(kind);
        }
    }
}

impl Answered {
    /// Boxed, as it is handed through all who asked for it.
    pub(super) fn new(response: Response<Incoming>, attempt: Attempt, held: Held) -> Box<Self> {
        let reply = Reply::new(attempt, held, &response);
        Box::new(Self {
            response: response.map(Arriving::from),
            reply,
            deadlines: None,
        })
    }

    /// The route says which statuses are failures, if it does.
    pub(super) fn judge(&mut self, failures: Option<&StatusSet>) {
        if let Some(failures) = failures {
            self.reply.judge(self.response.status(), failures);
        }
    }

    /// What is left of it is bound by `deadlines`.
    pub(super) fn within(mut self: Box<Self>, mut deadlines: Deadlines) -> Box<Self> {
        deadlines.moved();
        self.deadlines = Some(Box::new(deadlines));
        self
    }

    /// The answer to the application.
    pub(super) fn pass_on(self: Box<Self>, asked: Asked) -> Answer {
        let Self {
            response,
            mut reply,
            deadlines,
        } = *self;
        let tapped = reply.take_tapped();
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let mut response = response.map(|body| ResponseBody::Upstream {
            body: Observed::new(body, reply.passed_on(asked)),
            deadlines,
            failed: None,
        });
        if response.version() != Version::HTTP_2 && !switched {
            headers::remove_hop_by_hop(response.headers_mut());
        }
        headers::remove_rare(response.headers_mut(), &headers::ORIG_PROTO);
        expect::end_after(&mut response);
        match tapped {
            Some(tapped) => tapped.watch(response),
            None => response,
        }
    }

    /// Nobody is answered with it. A body that is short and comes soon is read to its end, so that its connection can carry the
    /// next request.
    pub(super) fn discard(self) {
        let mut body = self.response.into_body();
        let held = self.reply.discarded(body.peeked_trailers());
        if body.is_end_stream() {
            held.complete();
            return;
        }
        let reading = async move {
            let mut left = MAX_DISCARDED_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
            if body.is_end_stream() {
                held.complete();
            }
        };
        tokio::task::spawn_local(tokio::time::timeout(DISCARD_TIMEOUT, reading));
    }
}

/// A request's form as the client sent it, from which each attempt starts.
#[derive(Clone, Copy)]
struct Original {
    version: Version,
    absolute_form: bool,
}

impl Original {
    fn of(request: &Request<RequestBody>) -> Self {
        Self {
            version: request.version(),
            absolute_form: request.uri().scheme().is_some(),
        }
    }

    /// Gives `request` the form in which `endpoint` takes it.
    fn prepare(
        self,
        request: &mut Request<RequestBody>,
        endpoint: &Endpoint,
        carriage: Carriage,
        authority: &Authority,
    ) {
        let replaced = endpoint.authority_override.as_ref();
        let authority = replaced.unwrap_or(authority);
        if carriage == Carriage::Http2 {
            if self.version == Version::HTTP_2 {
                if replaced.is_some() || request.uri().authority().is_none() {
                    headers::to_absolute(request.uri_mut(), authority.clone());
                }
                return;
            }
            let Self {
                version,
                absolute_form,
            } = self;
            request.headers_mut().insert(
                headers::ORIG_PROTO,
                OrigProto {
                    version,
                    absolute_form,
                }
                .value(),
            );
            // It goes along with the authority: linkerd2-proxy hands on what `Host` there is, and makes none.
            if replaced.is_some() || absolute_form || !request.headers().contains_key(HOST) {
                set_host(request, authority);
            }
            headers::to_absolute(request.uri_mut(), authority.clone());
            *request.version_mut() = Version::HTTP_2;
            return;
        }
        headers::remove_rare(request.headers_mut(), &headers::ORIG_PROTO);
        // A target in absolute form outranks Host (RFC 9112, section 3.2.2).
        if replaced.is_some() || self.absolute_form || !request.headers().contains_key(HOST) {
            set_host(request, authority);
        }
        if !self.absolute_form {
            headers::to_origin(request.uri_mut());
        }
        *request.version_mut() = self.version;
    }
}

/// Names `authority` in `request`.
pub(super) fn set_host(request: &mut Request<RequestBody>, authority: &Authority) {
    // An authority consists of bytes that a header value may have.
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
}
