//! Where a service's endpoints are: `Destination.Get` and `Destination.GetProfile`.

mod encoder;
mod profile;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use linkerd2_proxy_api::destination as api;
use mesh_discovery::{
    Messages,
    shared::{Reader, Subscription},
};
use tonic::Status;

use crate::{
    api::Frames,
    mesh::{Mesh, target::Target},
};

pub(crate) use self::encoder::UpdateEncoder;
pub(crate) use self::encoder::{service_metadata, weighted_addr, workload_metadata};

/// Answers who asks for endpoints and profiles.
#[derive(Debug, Clone)]
pub(crate) struct Destinations {
    mesh: Arc<Mesh>,
}

impl Destinations {
    /// Answers from `mesh`.
    #[must_use]
    pub(crate) fn new(mesh: Arc<Mesh>) -> Self {
        Self { mesh }
    }

    /// The endpoints of a service port: all of them at once, then what changes.
    pub(crate) fn endpoints(&self, request: &api::GetDestination) -> Result<Frames, Status> {
        if request.path.parse::<SocketAddr>().is_ok() {
            return Err(Status::invalid_argument(format!(
                "`{}` is an address; Get resolves names of services, GetProfile addresses too",
                request.path
            )));
        }
        let namespace = crate::mesh::workload::namespace(&request.context_token);
        let Some(Target::Service { name, port }) = Target::parse(
            &request.path,
            namespace.as_deref(),
            self.mesh.cluster_domain(),
        ) else {
            return Err(Status::invalid_argument(format!(
                "`{}` is no name of a service; give <name>.<namespace>.svc.{}:<port>",
                request.path,
                self.mesh.cluster_domain()
            )));
        };
        Ok(subscribe(
            self.mesh.registry(),
            mesh_discovery::View::new(name, port),
        ))
    }

    /// What is known of a name or an address, now and whenever it changes.
    pub(crate) fn profile(&self, request: &api::GetDestination) -> Result<Frames, Status> {
        let namespace = crate::mesh::workload::namespace(&request.context_token);
        let target = Target::parse(
            &request.path,
            namespace.as_deref(),
            self.mesh.cluster_domain(),
        )
        .ok_or_else(|| {
            Status::invalid_argument(format!(
                "`{}` is neither the name of a service nor an address with a port",
                request.path
            ))
        })?;
        let domain = self.mesh.cluster_domain().to_owned();
        self.mesh.follow(move |snapshot| {
            Ok(crate::api::frame(&profile::profile(
                snapshot.registry(),
                &target,
                &domain,
            )))
        })
    }
}

/// A stream that holds a place in the view, and one batch of messages at most.
fn subscribe(registry: &Reader, view: mesh_discovery::View) -> Frames {
    struct Reading {
        subscription: Subscription,
        batch: Option<Messages>,
        next: usize,
    }
    let start = Reading {
        subscription: registry.subscribe(view),
        batch: None,
        next: 0,
    };
    Frames::new(stream::unfold(start, async |mut reading| {
        loop {
            let message: Option<Bytes> = reading
                .batch
                .as_ref()
                .and_then(|batch| batch.get(reading.next).cloned());
            if let Some(message) = message {
                reading.next += 1;
                return Some((Ok(message), reading));
            }
            // Nothing is held of a batch that has been sent: an idle stream costs its place alone.
            reading.batch = None;
            reading.next = 0;
            reading.batch = Some(reading.subscription.next().await.ok()?);
        }
    }))
}
