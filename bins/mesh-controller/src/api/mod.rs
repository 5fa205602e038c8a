//! The proxy API: which call goes where, who may make it, and how its messages travel.

mod framed;

use std::{sync::Arc, time::SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use mesh_control_api::metadata;
use mesh_metrics::{Api, ControllerMetrics};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Status, body::Body};

use crate::{
    destination::Destinations,
    identity::Certifier,
    listener::{Admitted, Peer, StreamAdmission},
    policy::{InboundPolicies, OutboundPolicies},
    trust::{Process, Trust},
};

pub(crate) use self::framed::{Frames, frame};
use self::framed::{binary, read_many, read_one, respond};

/// Destination, OutboundPolicies, InboundServerPolicies and Identity of `linkerd2-proxy-api`.
#[derive(Clone, Debug)]
pub(crate) struct ProxyApi {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    destinations: Destinations,
    outbound: OutboundPolicies,
    inbound: InboundPolicies,
    certifier: Certifier,
    trust: Arc<Trust>,
    streams: Arc<StreamAdmission>,
    metrics: ControllerMetrics,
}

impl ProxyApi {
    /// Serves these.
    #[must_use]
    pub(crate) fn new(
        destinations: Destinations,
        outbound: OutboundPolicies,
        inbound: InboundPolicies,
        certifier: Certifier,
        trust: Arc<Trust>,
        streams: Arc<StreamAdmission>,
        metrics: &ControllerMetrics,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                destinations,
                outbound,
                inbound,
                certifier,
                trust,
                streams,
                metrics: metrics.clone(),
            }),
        }
    }

    /// Whether whoever has no certificate of the mesh may make the call at `path`.
    pub(crate) fn is_open_to_strangers(path: &str) -> bool {
        matches!(
            Call::at(path),
            Some(Call::Certify | Call::WatchTrust | Call::CatchUp)
        )
    }

    /// Answers one request. What is wrong with it is a gRPC status in the answer.
    pub(crate) async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        self.inner
            .dispatch(request)
            .await
            .unwrap_or_else(Status::into_http)
    }
}

impl Inner {
    async fn dispatch(&self, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let mut peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(|| Status::internal("a request without a connection"))?;
        let call = Call::at(request.uri().path()).ok_or_else(|| {
            Status::unimplemented("this controller has no such call in its proxy API")
        })?;
        if let Some(leaf) = &peer.leaf
            && !self.trust.believes(leaf).await
        {
            // It may be anybody's work: it is a stranger, who needs a token.
            (peer.certified, peer.leaf) = (None, None);
        }
        call.authorize(&peer, SystemTime::now())?;
        match call {
            Call::Certify => {
                let process = Process::of_metadata(request.headers());
                let reply = self
                    .certifier
                    .certify(read_one(request).await?, process, &peer)
                    .await;
                Ok(respond(Frames::one(frame(&reply?))))
            }
            Call::GetOutbound => {
                let policy = self.outbound.current(&read_one(request).await?)?;
                Ok(respond(Frames::one(policy)))
            }
            Call::GetInbound => {
                let policy = self.inbound.current(&read_one(request).await?)?;
                Ok(respond(Frames::one(policy)))
            }
            Call::GetDestination => {
                let place = self.streams.admit()?;
                let body = self.destinations.endpoints(&read_one(request).await?)?;
                Ok(self.stream(Api::Destination, body, place))
            }
            Call::GetProfile => {
                let place = self.streams.admit()?;
                let body = self.destinations.profile(&read_one(request).await?)?;
                Ok(self.stream(Api::Profile, body, place))
            }
            Call::WatchOutbound => {
                let place = self.streams.admit()?;
                let body = self.outbound.watch(&read_one(request).await?)?;
                Ok(self.stream(Api::OutboundPolicy, body, place))
            }
            Call::WatchInbound => {
                let place = self.streams.admit()?;
                let body = self.inbound.watch(&read_one(request).await?)?;
                Ok(self.stream(Api::InboundPolicy, body, place))
            }
            Call::WatchTrust => {
                let place = self.streams.admit()?;
                let token = binary(request.headers(), metadata::TOKEN);
                let identity = self.certifier.identify(token.as_deref(), &peer).await?;
                let body = self.trust.watch(identity, peer.leaf, read_many(request));
                Ok(self.stream(Api::Trust, body, place))
            }
            Call::CatchUp => {
                let update = self.trust.catch_up(&read_one(request).await?)?;
                Ok(respond(Frames::one(frame(&update))))
            }
        }
    }
}

impl Inner {
    fn stream(&self, api: Api, body: Frames, place: OwnedSemaphorePermit) -> Response<Body> {
        respond(Admitted::new(body, place, self.metrics.subscribers(api)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Certify,
    GetDestination,
    GetProfile,
    GetOutbound,
    WatchOutbound,
    GetInbound,
    WatchInbound,
    WatchTrust,
    CatchUp,
}

impl Call {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/io.linkerd.proxy.identity.Identity/Certify" => Self::Certify,
            "/io.linkerd.proxy.destination.Destination/Get" => Self::GetDestination,
            "/io.linkerd.proxy.destination.Destination/GetProfile" => Self::GetProfile,
            "/io.linkerd.proxy.outbound.OutboundPolicies/Get" => Self::GetOutbound,
            "/io.linkerd.proxy.outbound.OutboundPolicies/Watch" => Self::WatchOutbound,
            "/io.linkerd.proxy.inbound.InboundServerPolicies/GetPort" => Self::GetInbound,
            "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort" => Self::WatchInbound,
            "/mesh.trust.v1.Trust/Watch" => Self::WatchTrust,
            "/mesh.trust.v1.Trust/CatchUp" => Self::CatchUp,
            _ => return None,
        })
    }

    /// Over TLS, whoever has no certificate of the mesh may only ask for one. Plaintext comes from this host alone.
    fn authorize(self, peer: &Peer, now: SystemTime) -> Result<(), Status> {
        // Who reports proves itself by a token where there is no certificate. Bundles are no secret.
        let open = matches!(self, Self::Certify | Self::WatchTrust | Self::CatchUp);
        if open || !peer.tls || peer.identity(now).is_some() {
            return Ok(());
        }
        Err(Status::unauthenticated(
            "this call needs a client certificate of the mesh; get one from Certify with a join token",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trust::Shown;

    #[test]
    fn without_a_certificate_tls_peers_may_only_ask_for_one() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let until = now + Duration::from_secs(1);
        let peer = |tls, identity: Option<&str>| Peer {
            address: "192.0.2.1:1".parse().unwrap(),
            tls,
            certified: identity.map(|identity| (identity.parse().unwrap(), until)),
            leaf: None,
            accepted: Shown::Chain(None),
        };
        for call in [Call::GetDestination, Call::WatchInbound, Call::GetOutbound] {
            assert_eq!(
                call.authorize(&peer(true, None), now).unwrap_err().code(),
                tonic::Code::Unauthenticated
            );
            assert!(call.authorize(&peer(true, Some("a.example")), now).is_ok());
            assert!(
                call.authorize(&peer(true, Some("a.example")), until)
                    .is_err()
            );
            assert!(call.authorize(&peer(false, None), now).is_ok());
        }
        assert!(Call::Certify.authorize(&peer(true, None), now).is_ok());
    }
}
