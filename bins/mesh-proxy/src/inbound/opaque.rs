//! Connections of bytes to the application.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_http::connections::{Connection, Told};
use mesh_http::tcp;
use mesh_metrics::{CloseReason, TlsStatus};
use mesh_policy::inbound::ServerPolicy;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, Failure, server_labels};
use crate::control::Watched;
use crate::worker::Worker;
use crate::worker::count::TcpCount;
use crate::worker::upstream::Carriage;

/// Carries `io` to the application while the policy lets the client in.
pub(super) async fn carry<I>(
    worker: &Worker,
    application: SocketAddr,
    connection: &Connection,
    mut io: I,
    watched: &Arc<Watched<ServerPolicy>>,
    client: &Client,
) -> Result<(), Failure>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut version = watched.version();
    let policy = watched.load_full();
    authorize(&policy, client)?;
    let upstream = worker.application(application);
    let connected = upstream.connect(Carriage::Opaque).await;
    let mut upstream = connected.map_err(|error| Failure::Application {
        address: application,
        error,
    })?;
    let families = &worker.shared.metrics.families;
    let labels = server_labels(&policy.labels, application.port());
    let count = TcpCount::open(
        &families.inbound_tcp,
        &labels,
        client.peer.tls_status(),
        TlsStatus::Plaintext,
    );
    let denied = async {
        loop {
            version = watched.changed(version).await;
            if let Err(denied) = authorize(&watched.load(), client) {
                return denied;
            }
        }
    };
    let (reason, ended) = tokio::select! {
        carried = tcp::carry(&mut io, &mut upstream, &count) => match carried {
            Ok(()) => (CloseReason::Done, Ok(())),
            Err(error) => (CloseReason::Error, Err(error.into())),
        },
        denied = denied => (CloseReason::Unauthorized, Err(denied)),
        _ = connection.told(Some(Told::Drain)) => (CloseReason::Shutdown, Ok(())),
    };
    count.close(reason);
    ended
}

fn authorize(policy: &ServerPolicy, client: &Client) -> Result<(), Failure> {
    match policy
        .authorize(client.address.ip(), client.peer.for_policy())
        .reason()
    {
        Some(reason) => Err(Failure::Denied(reason)),
        None => Ok(()),
    }
}
