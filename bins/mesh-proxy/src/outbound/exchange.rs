//! The sending of one request to whichever endpoint takes it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use mesh_breaker::FailureKind;
use mesh_http::body::Observed;
use mesh_http::headers::{self, OrigProto};
use mesh_policy::outbound::Timeouts;

use super::choose::{Tried, choose};
use super::http::Answer;
use super::record::{Asked, Attempt, Record};
use crate::model::{Backend, Endpoint};
use crate::worker::Worker;
use crate::worker::answer::Refusal;
use crate::worker::body::{RequestBody, ResponseBody};
use crate::worker::deadlines::Deadlines;
use crate::worker::expect;
use crate::worker::upstream::Carriage;

/// How often a request is sent anew after a connection turned out to be closed.
const MAX_RESENDS: usize = 3;

/// One request, one backend.
pub(super) struct Exchange<'a> {
    worker: &'a Worker,
    backend: &'a Arc<Backend>,
    authority: &'a Authority,
    asked: RefCell<&'a mut Option<Asked>>,
    /// The endpoint that has the request now.
    attempt: Cell<Option<Attempt>>,
}

impl<'a> Exchange<'a> {
    /// `asked` goes into the response; it stays where it is when there is none.
    pub(super) fn new(
        worker: &'a Worker,
        backend: &'a Arc<Backend>,
        authority: &'a Authority,
        asked: &'a mut Option<Asked>,
    ) -> Self {
        Self {
            worker,
            backend,
            authority,
            asked: RefCell::new(asked),
            attempt: Cell::new(None),
        }
    }

    /// Sends `request` within the route's deadlines.
    pub(super) async fn run(
        &self,
        request: Request<RequestBody>,
        timeouts: Timeouts,
    ) -> Result<Answer, Refusal> {
        let Some(mut deadlines) = Deadlines::new(timeouts, request.body().progress()) else {
            let (response, record) = self.send(request).await?;
            return Ok(respond(response, record, None));
        };
        let (response, record) = tokio::select! {
            sent = self.send(request) => sent?,
            () = deadlines.passed() => return Err(self.late()),
        };
        deadlines.moved();
        Ok(respond(response, record, Some(Box::new(deadlines))))
    }

    /// Sends `request` to an endpoint; to another when one cannot be connected to, as nothing was sent then.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Record), Refusal> {
        let original = Original {
            version: request.version(),
            absolute_form: request.uri().scheme().is_some(),
        };
        let mut tried = Tried::default();
        let mut resends = 0;
        loop {
            let chosen = choose(self.worker, self.backend, &tried).await?;
            let carriage = chosen.upstream.carriage(original.version, request.body());
            let lease = match chosen.upstream.lease(carriage, resends > 0).await {
                Ok(lease) => lease,
                Err(error) => {
                    chosen.unreachable(&mut tried, &error);
                    continue;
                }
            };
            original.prepare(
                &mut request,
                chosen.upstream.endpoint(),
                carriage,
                self.authority,
            );
            let attempt = self
                .asked
                .borrow()
                .as_ref()
                .map(|asked| asked.attempt(chosen.pick));
            self.attempt.set(attempt);
            let unanswered = match chosen.upstream.send(lease, request).await {
                Ok((response, held)) => {
                    let (asked, attempt) = (self.asked.borrow_mut().take(), self.attempt.take());
                    // Both are there: they are taken here and where the exchange ends without a response.
                    let (Some(asked), Some(attempt)) = (asked, attempt) else {
                        return Err(Refusal::Broken);
                    };
                    let record =
                        Record::new(asked, attempt, held, response.status(), response.headers());
                    return Ok((response, record));
                }
                Err(unanswered) => unanswered,
            };
            match unanswered.again {
                // The connection had closed unnoticed; that is no fault of the endpoint's.
                Some(again) if resends < MAX_RESENDS => request = *again,
                _ => {
                    let error = unanswered.error;
                    tracing::debug!(endpoint = %chosen.upstream.endpoint().addr, %error, "broke off");
                    self.fail(FailureKind::Broken);
                    return Err(Refusal::Broken);
                }
            }
            resends += 1;
        }
    }

    fn late(&self) -> Refusal {
        self.fail(FailureKind::Timeout);
        Refusal::Deadline
    }

    fn fail(&self, kind: FailureKind) {
        if let Some(attempt) = self.attempt.take() {
            attempt.failed(kind);
        }
    }
}

/// A request's form as the client sent it, from which each attempt starts.
#[derive(Clone, Copy)]
struct Original {
    version: Version,
    absolute_form: bool,
}

impl Original {
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
        request.headers_mut().remove(headers::ORIG_PROTO);
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

/// The answer to the application: the endpoint's response, its body watched by `record`.
pub(super) fn respond(
    response: Response<Incoming>,
    record: Record,
    deadlines: Option<Box<Deadlines>>,
) -> Answer {
    let mut response = response.map(|body| ResponseBody::Upstream {
        body: Observed::new(body, record),
        deadlines,
        failed: None,
    });
    if response.version() != Version::HTTP_2 {
        headers::remove_hop_by_hop(response.headers_mut());
    }
    response.headers_mut().remove(headers::ORIG_PROTO);
    expect::end_after(&mut response);
    response
}
