//! The control side: watches the controller and publishes snapshots for the data path.
//!
//! - `watched`: a value that is replaced on one side and read on the other; the bounded tables of them.
//! - `channel`: the paced, keepalive-checked connection to the controller.
//! - `outbound`, `profile`: the policy of each target. `destination`, `pool`: the endpoints of each backend. `interned`: what these
//!   have in common.
//! - `inbound`: the policy of each inbound port.
//! - `metered`: counts streams and messages. `unsupported`: what the controller sends and this proxy does not honour.
//!
//! Everything runs on one runtime, apart from the workers'. While the controller is away the last state stays.

pub(crate) mod backoff;
pub mod channel;
mod destination;
mod inbound;
mod interned;
mod metered;
mod outbound;
mod pool;
mod profile;
mod unsupported;
mod watched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use destination::{Destinations, Source};
use futures_util::future::join_all;
use mesh_metrics::{Api, ControlMetrics, ProxyFamilies};
use mesh_policy::inbound::ServerPolicy;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;

use crate::config::Config;
use crate::model::{Backend, Outbound, Target};
pub use unsupported::Unsupported;
use watched::Table;
pub use watched::Watched;

/// The data path's handle on the control side. Cheap to clone; used from any thread and runtime.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
}

/// What the watching tasks share.
#[derive(Debug)]
struct Shared {
    runtime: Handle,
    channels: Channels,
    config: Arc<Config>,
    targets: Table<Target, Outbound>,
    ports: Table<u16, ServerPolicy>,
    destinations: Destinations,
    unsupported: Unsupported,
    metrics: ControlMetrics,
}

/// The connections to the controller, by service.
#[derive(Clone, Debug)]
pub struct Channels {
    /// Endpoints and profiles.
    pub destination: Channel,
    /// Policies.
    pub policy: Channel,
}

impl From<Channel> for Channels {
    /// One connection for everything.
    fn from(channel: Channel) -> Self {
        Self {
            destination: channel.clone(),
            policy: channel,
        }
    }
}

/// Why there is no policy for a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The controller has not named a policy for this authority in time, and there is no address to fall back to.
    #[error("the controller has no policy for {authority}, or does not answer")]
    Unresolved {
        /// The authority.
        authority: Arc<str>,
    },
    /// The controller has said nothing about this address in time. What it is for is not known, so nothing goes there: to
    /// a workload of the mesh it would go in the clear.
    #[error("the controller does not say in time what {address} is")]
    Unanswered {
        /// The address.
        address: SocketAddr,
    },
    /// Too many targets are in use.
    #[error("{target} is one target too many: control.max_targets is {limit}")]
    TooManyTargets {
        /// The target that was refused.
        target: Target,
        /// The limit.
        limit: usize,
    },
}

impl Control {
    /// Makes the handle. The watches run on `runtime`, over `channels`, which come from [`channel::open`].
    #[must_use]
    pub fn new(
        runtime: Handle,
        channels: impl Into<Channels>,
        config: Arc<Config>,
        metrics: &ProxyFamilies,
    ) -> Self {
        let channels = channels.into();
        let settings = &config.control;
        let unsupported = Unsupported::default();
        Self {
            shared: Arc::new(Shared {
                targets: Table::new(
                    settings.max_targets,
                    config
                        .outbound
                        .idle_timeout
                        .unwrap_or(settings.idle_timeout),
                ),
                ports: Table::new(
                    settings.max_ports,
                    config.inbound.idle_timeout.unwrap_or(settings.idle_timeout),
                ),
                destinations: Destinations::new(Source {
                    runtime: runtime.clone(),
                    channel: channels.destination.clone(),
                    settings: settings.clone(),
                    balance: config.balance.clone(),
                    own: config.inbound.ips.clone(),
                    unsupported: unsupported.clone(),
                    streams: metrics.control.stream(Api::Destination),
                    balancers: metrics.balancer.clone(),
                }),
                unsupported,
                metrics: metrics.control.clone(),
                runtime,
                channels,
                config,
            }),
        }
    }

    /// The policy of `target`. The first call for a target starts its watch; all calls wait, at most
    /// `control.policy_timeout` from that start, for a first answer.
    ///
    /// An address that the controller does not know is forwarded to as it is. Hold the `Arc` as long as the target is in
    /// use: unheld, it leaves after `outbound.idle_timeout`.
    ///
    /// # Errors
    /// [`Error::Unresolved`] for an authority, [`Error::Unanswered`] for an address, that has no answer in time; asking again
    /// joins the watch, which goes on.
    /// [`Error::TooManyTargets`] past `control.max_targets`.
    pub async fn outbound(&self, target: Target) -> Result<Arc<Watched<Outbound>>, Error> {
        let shared = &self.shared;
        let provisional = || shared.live(&outbound::provisional(&target, &shared.config));
        let Some((watched, fresh)) = shared.targets.enter(&target, Instant::now(), provisional)
        else {
            return Err(Error::TooManyTargets {
                target,
                limit: shared.config.control.max_targets,
            });
        };
        if fresh {
            let task = outbound::watch(Arc::clone(shared), target.clone(), Arc::clone(&watched));
            shared.runtime.spawn(task);
        }
        let known = first_answer(&watched, shared.config.control.policy_timeout).await;
        match target {
            Target::Authority(authority) if !known || outbound::is_unresolved(&watched.load()) => {
                Err(Error::Unresolved { authority })
            }
            Target::Addr(address) if !known => Err(Error::Unanswered { address }),
            _ => Ok(watched),
        }
    }

    /// The policy of an inbound port: `inbound.default_policy` until the controller answers, which is not waited for
    /// longer than `control.policy_timeout`. Past `control.max_ports`, nobody is let in.
    pub async fn inbound(&self, port: u16) -> Arc<Watched<ServerPolicy>> {
        let shared = &self.shared;
        let provisional = || inbound::default_policy(&shared.config.inbound, port);
        let now = Instant::now();
        let Some((watched, fresh)) = shared.ports.enter(&port, now, provisional) else {
            tracing::warn!(
                port,
                limit = shared.config.control.max_ports,
                "too many inbound ports to watch one more"
            );
            return Arc::new(Watched::new(inbound::closed(&shared.config.inbound), now));
        };
        if fresh {
            shared.runtime.spawn(inbound::watch(
                Arc::clone(shared),
                port,
                Arc::clone(&watched),
            ));
        }
        first_answer(&watched, shared.config.control.policy_timeout).await;
        watched
    }

    /// The policies of several ports, all asked for at once: a controller that does not answer is waited for once.
    pub async fn inbound_all(
        &self,
        ports: impl IntoIterator<Item = u16>,
    ) -> Vec<Arc<Watched<ServerPolicy>>> {
        join_all(ports.into_iter().map(|port| self.inbound(port))).await
    }

    /// What the controller sends that is not honoured.
    #[must_use]
    pub fn unsupported(&self) -> &Unsupported {
        &self.shared.unsupported
    }

    /// The backends that balance over endpoints, by the path of these.
    #[must_use]
    pub fn balancers(&self) -> Vec<(String, Arc<Backend>)> {
        let mut balancers = self.shared.destinations.balancers();
        balancers.sort_by(|a, b| a.0.cmp(&b.0));
        balancers
    }

    /// How many outbound targets and inbound ports are watched.
    #[must_use]
    pub fn watches(&self) -> (usize, usize) {
        (self.shared.targets.len(), self.shared.ports.len())
    }
}

/// Whether the watch has an answer, waiting for it until `patience` after the watch began.
async fn first_answer<T>(watched: &Watched<T>, patience: Duration) -> bool {
    if watched.version() > 0 {
        return true;
    }
    timeout_at(watched.started() + patience, watched.changed(0))
        .await
        .is_ok()
}
