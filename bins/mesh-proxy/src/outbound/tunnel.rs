//! Streams of HTTP/2 connections that carry another protocol.

use std::sync::Arc;
use std::time::Instant;

use http::Request;
use http::uri::Authority;
use mesh_breaker::Outcome;
use mesh_http::Incoming;
use mesh_policy::outbound::Timeouts;

use super::exchange::{Answered, Exchange};
use super::http::Http;
use super::record::Asked;
use crate::model::Backend;
use crate::worker::answer::Refusal;
use crate::worker::body::RequestBody;
use crate::worker::tunnel;

impl Http {
    /// Sends an extended CONNECT as any request; what its stream is for is carried once it is answered, and may last.
    pub(super) async fn tunnel(
        &self,
        mut request: Request<Incoming>,
        backend: &Arc<Backend>,
        authority: &Authority,
        asked: &Asked,
        timeouts: Timeouts,
    ) -> Result<Box<Answered>, Refusal> {
        let client = request.body_mut().take_offer();
        let mut request = RequestBody::of(request, &self.activity);
        let exchange = Exchange::new(&self.worker, backend, authority, asked);
        let mut answered = exchange.run(&mut request, timeouts).await?;
        if let Some(upstream) = answered.response.body_mut().take_tunnel() {
            let (held, pick) = answered.reply.take_connection();
            let in_flight = self.activity.request();
            tokio::task::spawn_local(async move {
                if let Err(error) = tunnel::carry(client, upstream).await {
                    tracing::debug!(%error, "a stream that carries another protocol failed");
                }
                if let Some(pick) = pick {
                    pick.finish(Instant::now(), Outcome::Success);
                }
                drop((held, in_flight));
            });
        }
        Ok(answered)
    }
}
