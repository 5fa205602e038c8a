//! Connections of bytes that are not looked into.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_breaker::{FailureKind, Outcome};
use mesh_http::connections::{Connection, Told};
use mesh_http::{Error, tcp};
use mesh_metrics::{CloseReason, TlsStatus};
use mesh_policy::outbound::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};

use super::choose::{Tried, choose};
use crate::control::Watched;
use crate::labels::resource;
use crate::model::{Backend, Outbound};
use crate::trust::{Cut, was_cut};
use crate::worker::Worker;
use crate::worker::count::TcpCount;
use crate::worker::stream::Stream;
use crate::worker::upstream::Carriage;

/// Carries `io` to an endpoint of the opaque route, or of the TLS route for `sni`, until both sides have ended.
pub(crate) async fn carry<I>(
    worker: &Rc<Worker>,
    connection: &Connection,
    mut io: I,
    watched: &Arc<Watched<Outbound>>,
    sni: Option<&str>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let policy = watched.load_full();
    let Some(backend) = backend(&policy, sni) else {
        tracing::debug!("closed: the policy has no route for opaque connections");
        return Ok(());
    };
    let mut tried = Tried::default();
    let (mut chosen, mut upstream): (_, Stream) = loop {
        let chosen = match choose(worker, &backend, &mut tried).await {
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
    // What is balanced by is how long connecting takes; how long a connection lives says nothing of its endpoint.
    if let Some(pick) = &mut chosen.pick {
        let now = Instant::now();
        pick.responded(now);
        pick.answering(now);
    }
    let tls = match &chosen.upstream.endpoint().identity {
        Some(_) => TlsStatus::Mutual,
        None => TlsStatus::Plaintext,
    };
    let families = &worker.shared.metrics.families;
    let count = TcpCount::open(
        &families.outbound_tcp,
        &resource(&policy.meta),
        TlsStatus::Plaintext,
        tls,
    );
    let cut = upstream.cut();
    let carrying = until_cut(cut.as_deref(), tcp::carry(&mut io, &mut upstream, &count));
    let carried = until_closed(connection, carrying).await;
    count.close(match &carried {
        Ok(()) => CloseReason::Done,
        Err(_) => CloseReason::Error,
    });
    if let Some(pick) = chosen.pick {
        let outcome = match carried {
            Ok(()) => Outcome::Success,
            Err(_) => Outcome::Failure(FailureKind::Broken),
        };
        pick.finish(Instant::now(), outcome);
    }
    carried
}

/// Runs `carrying` to its end, or until the connection is told to close.
pub(crate) async fn until_closed(
    connection: &Connection,
    carrying: impl Future<Output = std::io::Result<()>>,
) -> Result<(), Error> {
    // After a switch, bytes come in that begin no head.
    let _in_flight = connection.activity().request();
    tokio::select! {
        carried = carrying => carried.map_err(Error::Io),
        _ = connection.told(Some(Told::Drain)) => Ok(()),
    }
}

/// Runs `carrying` to its end, or until the connection to the endpoint is cut: it may be waiting for the client alone.
async fn until_cut(
    cut: Option<&Cut>,
    carrying: impl Future<Output = std::io::Result<()>>,
) -> std::io::Result<()> {
    let Some(cut) = cut else {
        return carrying.await;
    };
    tokio::select! {
        carried = carrying => carried,
        () = cut.fired() => Err(was_cut()),
    }
}

fn backend(policy: &Outbound, sni: Option<&str>) -> Option<Arc<Backend>> {
    let random = fastrand::u64(..);
    let picked = match &policy.protocol {
        Protocol::Tls(policy) => policy.pick(sni, random),
        Protocol::Opaque(policy) | Protocol::Detect { opaque: policy, .. } => policy.pick(random),
        Protocol::Http1(_) | Protocol::Http2(_) | Protocol::Grpc(_) => None,
    };
    picked.cloned()
}
