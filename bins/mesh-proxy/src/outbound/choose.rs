//! From a backend to an endpoint and a connection to it.

use std::rc::Rc;
use std::sync::Arc;

use mesh_balance::core::{Pick, PickError, Picker, SlotId};
use mesh_breaker::{FailureKind, Outcome};
use tokio::time::Instant;

use crate::model::{Backend, BackendKind, Endpoint, Population};
use crate::worker::Worker;
use crate::worker::answer::Refusal;
use crate::worker::upstream::Upstream;

/// The most endpoints that one request or connection is tried on.
const MAX_ATTEMPTS: usize = 5;

/// The place of the endpoint of a backend that has one.
const ONLY: SlotId = SlotId {
    index: 0,
    generation: 0,
};

/// An endpoint that was chosen, and the balancer's guard on it.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) pick: Option<Pick<Arc<Endpoint>>>,
    /// When it was chosen.
    pub(crate) at: std::time::Instant,
}

/// The endpoints that a request was tried on already.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// When the request came, until the first choice.
    came: Option<std::time::Instant>,
    /// First those that could not be connected to, then those that are avoided.
    slots: Vec<SlotId>,
    unreachable: usize,
    /// Whether the last that could not be connected to did not prove to be who it should be.
    untrusted: bool,
    /// The one that has the request.
    last: Option<SlotId>,
}

impl Tried {
    /// None, for a request that came at this moment.
    pub(crate) fn none(came: std::time::Instant) -> Self {
        Self {
            came: Some(came),
            ..Self::default()
        }
    }

    /// The request was sent to this one.
    pub(crate) fn sent_to(&mut self, chosen: &Chosen) {
        self.last = chosen.pick.as_ref().map(Pick::slot);
    }

    /// The one that had the request last is chosen again only if there is no other.
    pub(crate) fn avoid_last(&mut self) {
        if let Some(last) = self.last.take()
            && !self.slots.contains(&last)
        {
            self.slots.push(last);
        }
    }

    fn unreachable(&mut self, slot: SlotId) {
        self.slots.retain(|avoided| *avoided != slot);
        self.slots.insert(self.unreachable, slot);
        self.unreachable += 1;
    }

    /// What is answered when there is no other.
    fn refusal(&self) -> Refusal {
        if self.untrusted {
            Refusal::Untrusted
        } else {
            Refusal::Connect
        }
    }

    /// Whether one more may be tried.
    fn may_try(&self) -> bool {
        self.unreachable < MAX_ATTEMPTS
    }

    /// An endpoint that was not tried; else one that is avoided.
    fn pick(
        &self,
        picker: &Picker<Arc<Endpoint>>,
        now: std::time::Instant,
    ) -> Result<Pick<Arc<Endpoint>>, PickError> {
        let pick = |not: &[SlotId]| picker.pick(now, fastrand::u64(..), not);
        match pick(&self.slots) {
            Err(_) if self.unreachable < self.slots.len() => pick(&self.slots[..self.unreachable]),
            picked => picked,
        }
    }
}

/// Chooses an endpoint of `backend` that is not among `tried`; waits for the first endpoints of a backend that is new.
pub(crate) async fn choose(
    worker: &Worker,
    backend: &Arc<Backend>,
    tried: &mut Tried,
) -> Result<Chosen, Refusal> {
    let mut at = tried.came.take().unwrap_or_else(std::time::Instant::now);
    let connections = worker.backend(backend);
    let picker = match backend.kind() {
        BackendKind::Forward(endpoint) if tried.unreachable == 0 => {
            return Ok(Chosen {
                upstream: worker.upstream(&connections, ONLY, endpoint),
                pick: None,
                at,
            });
        }
        BackendKind::Forward(_) => return Err(tried.refusal()),
        BackendKind::Balancer(picker) => picker,
    };
    if !tried.may_try() {
        return Err(tried.refusal());
    }
    let mut waited = false;
    loop {
        match tried.pick(picker, at) {
            Ok(pick) => {
                backend.sent(&pick);
                let upstream = worker.upstream(&connections, pick.slot(), pick.endpoint());
                return Ok(Chosen {
                    upstream,
                    pick: Some(pick),
                    at,
                });
            }
            // Waiting here would only make it late: who asked knows better what a later answer is worth.
            Err(PickError::Limited { retry_after }) => {
                backend.metrics().inspect(|metrics| metrics.shed());
                return Err(Refusal::Limited { retry_after });
            }
            Err(_) => {}
        }
        if tried.unreachable > 0 {
            return Err(tried.refusal());
        }
        if waited || backend.population() != Population::Unknown {
            backend.metrics().inspect(|metrics| metrics.unavailable());
            return Err(Refusal::NoEndpoints);
        }
        let (_place, until) = backend.place(Instant::now()).ok_or(Refusal::QueueFull)?;
        backend.ready(until).await;
        at = std::time::Instant::now();
        waited = true;
    }
}

impl Chosen {
    /// The endpoint could not be connected to: it is not tried again.
    pub(crate) fn unreachable(self, tried: &mut Tried, error: &mesh_http::Error) {
        let endpoint = self.upstream.endpoint().addr;
        if self.upstream.warns() {
            tracing::warn!(%endpoint, %error, "an endpoint cannot be connected to");
        } else {
            tracing::debug!(%endpoint, %error, "an endpoint cannot be connected to");
        }
        tried.untrusted = matches!(error, mesh_http::Error::Untrusted(_));
        match self.pick {
            Some(pick) => {
                tried.unreachable(pick.slot());
                pick.finish(
                    std::time::Instant::now(),
                    Outcome::Failure(FailureKind::Connect),
                );
            }
            None => tried.unreachable(ONLY),
        }
    }
}
