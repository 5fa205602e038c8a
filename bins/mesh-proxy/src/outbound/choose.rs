//! From a backend to an endpoint and a connection to it.

use std::rc::Rc;
use std::sync::Arc;

use mesh_balance::core::{Pick, SlotId};
use mesh_breaker::{FailureKind, Outcome};
use tokio::time::Instant;

use crate::model::{Backend, BackendKind, Endpoint, Population};
use crate::worker::Worker;
use crate::worker::answer::Refusal;
use crate::worker::upstream::Upstream;

/// The most endpoints that one request or connection is tried on.
const MAX_ATTEMPTS: usize = 5;

/// An endpoint that was chosen, and the balancer's guard on it.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) pick: Option<Pick<Endpoint>>,
}

/// The endpoints that a request was tried on already.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    slots: Vec<SlotId>,
    /// Whether the last of them did not prove to be who it should be.
    untrusted: bool,
}

impl Tried {
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
        self.slots.len() < MAX_ATTEMPTS
    }
}

/// Chooses an endpoint of `backend` that is not among `tried`; waits for the first endpoints of a backend that is new.
pub(crate) async fn choose(
    worker: &Worker,
    backend: &Arc<Backend>,
    tried: &Tried,
) -> Result<Chosen, Refusal> {
    let connections = worker.backend(backend);
    let picker = match backend.kind() {
        BackendKind::Forward(endpoint) if tried.slots.is_empty() => {
            let slot = SlotId {
                index: 0,
                generation: 0,
            };
            return Ok(Chosen {
                upstream: worker.upstream(&connections, slot, endpoint),
                pick: None,
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
        if let Ok(pick) = picker.pick(std::time::Instant::now(), fastrand::u64(..), &tried.slots) {
            let upstream = worker.upstream(&connections, pick.slot(), pick.endpoint());
            return Ok(Chosen {
                upstream,
                pick: Some(pick),
            });
        }
        if !tried.slots.is_empty() {
            return Err(tried.refusal());
        }
        if waited || backend.population() != Population::Unknown {
            return Err(Refusal::NoEndpoints);
        }
        backend
            .ready(Instant::now() + worker.shared.config.balance.ready_timeout)
            .await;
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
                tried.slots.push(pick.slot());
                pick.finish(
                    std::time::Instant::now(),
                    Outcome::Failure(FailureKind::Connect),
                );
            }
            None => tried.slots.push(SlotId {
                index: 0,
                generation: 0,
            }),
        }
    }
}
