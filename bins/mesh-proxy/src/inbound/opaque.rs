//! Connections of bytes to the application.

use std::sync::Arc;

use mesh_http::connections::{Connection, Told};
use mesh_http::tcp;
use mesh_policy::inbound::ServerPolicy;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, Failure};
use crate::control::Watched;
use crate::worker::upstream::{Carriage, Upstream};

/// Carries `io` to the application while the policy lets the client in.
pub(super) async fn carry<I>(
    application: &Upstream,
    connection: &Connection,
    mut io: I,
    watched: &Arc<Watched<ServerPolicy>>,
    client: &Client,
) -> Result<(), Failure>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut version = watched.version();
    authorize(&watched.load(), client)?;
    let address = application.endpoint().addr;
    let connected = application.connect(Carriage::Opaque).await;
    let mut upstream = connected.map_err(|error| Failure::Application { address, error })?;
    let denied = async {
        loop {
            version = watched.changed(version).await;
            if let Err(denied) = authorize(&watched.load(), client) {
                return denied;
            }
        }
    };
    tokio::select! {
        carried = tcp::carry(&mut io, &mut upstream, &()) => Ok(carried?),
        denied = denied => Err(denied),
        _ = connection.told(Some(Told::Drain)) => Ok(()),
    }
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
