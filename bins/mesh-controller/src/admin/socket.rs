//! The admin API's Unix socket.

use std::{sync::Arc, time::Duration};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use mesh_control_api::admin::admin_server::AdminServer;
use tokio::{
    net::UnixListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};

use super::AdminService;
use crate::listener::stopped;

/// Accepts and serves until `stop` turns true. Who may open the socket is the controller's own user.
pub(crate) async fn serve(
    listener: UnixListener,
    service: AdminService,
    mut stop: watch::Receiver<bool>,
) {
    let service = AdminServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        connections.spawn(async move {
            // A connection that fails is the client's loss alone.
            let _ = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

const MAX_CONNECTIONS: usize = 64;
const MAX_STREAMS: u32 = 64;
const MAX_REQUEST_BYTES: usize = 64 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
