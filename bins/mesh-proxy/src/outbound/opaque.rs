//! Connections of bytes that are not looked into.

use std::rc::Rc;
use std::sync::Arc;

use mesh_breaker::{FailureKind, Outcome};
use mesh_http::connections::{Connection, Told};
use mesh_http::{Error, tcp};
use mesh_policy::outbound::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};

use super::choose::{Tried, choose};
use super::opaque_policy;
use crate::control::Watched;
use crate::model::{Backend, Outbound};
use crate::worker::Worker;
use crate::worker::stream::Stream;
use crate::worker::upstream::Carriage;

/// Carries `io` to an endpoint of the opaque route, or of the TLS route for `sni`, until both sides have ended.
pub(crate) async fn carry<I>(
    worker: &Rc<Worker>,
    connection: &Connection,
    mut io: I,
    watched: &Arc<Watched<Outbound>>,
    tls: Option<Option<&str>>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let backend = backend(&watched.load(), tls);
    let Some(backend) = backend else {
        tracing::debug!("closed: the policy has no route for opaque connections");
        return Ok(());
    };
    let mut tried = Tried::default();
    let (chosen, mut upstream): (_, Stream) = loop {
        let chosen = match choose(worker, &backend, &tried).await {
            Ok(chosen) => chosen,
            Err(refusal) => {
                return Err(Error::Connect(format!(
                    "{}: {}",
                    backend.meta(),
                    refusal.reason()
                )));
            }
        };
        match chosen.upstream.connect(Carriage::Opaque).await {
            Ok(upstream) => break (chosen, upstream),
            Err(error) => chosen.unreachable(&mut tried, &error),
        }
    };
    let carried = until_closed(connection, tcp::carry(&mut io, &mut upstream, &())).await;
    if let Some(pick) = chosen.pick {
        let outcome = match carried {
            Ok(()) => Outcome::Success,
            Err(_) => Outcome::Failure(FailureKind::Broken),
        };
        pick.finish(std::time::Instant::now(), outcome);
    }
    carried
}

/// Runs `carrying` to its end, or until the connection is told to close.
pub(crate) async fn until_closed(
    connection: &Connection,
    carrying: impl Future<Output = std::io::Result<()>>,
) -> Result<(), Error> {
    tokio::select! {
        carried = carrying => carried.map_err(Error::Io),
        _ = connection.told(Some(Told::Drain)) => Ok(()),
    }
}

fn backend(policy: &Outbound, tls: Option<Option<&str>>) -> Option<Arc<Backend>> {
    let random = fastrand::u64(..);
    match (&policy.protocol, tls) {
        (Protocol::Tls(policy), Some(sni)) => policy.find(sni)?.backends.pick(random).cloned(),
        _ => opaque_policy(policy)?
            .route
            .as_ref()?
            .backends
            .pick(random)
            .cloned(),
    }
}
