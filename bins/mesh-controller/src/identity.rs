//! `Identity.Certify`: certificates for those who prove who they are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use mesh_metrics::{ControllerMetrics, Refusal, TokenEvent};
use mesh_tls::Identity;
use tokio::sync::Semaphore;
use tonic::Status;
use tracing::{debug, info, warn};

use crate::{
    listener::{Peer, come_back},
    tokens::{TokenError, Tokens},
    trust::{Ask, CertifyError, Process, Trust},
};

/// Issues leaves. Proof of an identity is a join token bound to it or, over TLS, a live certificate of it, unless the
/// identity's last token was revoked.
#[derive(Debug)]
pub(crate) struct Certifier {
    trust: Arc<Trust>,
    tokens: Tokens,
    metrics: ControllerMetrics,
    places: Semaphore,
    refusals: AtomicU64,
}

impl Certifier {
    /// Issues up to `max_certifications` at a time.
    #[must_use]
    pub(crate) fn new(
        trust: Arc<Trust>,
        tokens: Tokens,
        metrics: ControllerMetrics,
        max_certifications: u32,
    ) -> Self {
        Self {
            trust,
            tokens,
            metrics,
            places: Semaphore::new(max_certifications as usize),
            refusals: AtomicU64::new(0),
        }
    }

    pub(crate) async fn certify(
        &self,
        request: CertifyRequest,
        process: Option<Process>,
        peer: &Peer,
    ) -> Result<CertifyResponse, Status> {
        let _place = self.places.try_acquire().map_err(|_| {
            come_back(
                "as many certificates as allowed are being issued (max-certifications)".into(),
            )
        })?;
        let issued = self.issue(&request, process, peer, SystemTime::now()).await;
        issued.map_err(|(refusal, status)| {
            self.metrics.certificate_refused(refusal);
            self.log_refusal(&request.identity, peer, &status);
            status
        })
    }

    async fn issue(
        &self,
        request: &CertifyRequest,
        process: Option<Process>,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<CertifyResponse, (Refusal, Status)> {
        let invalid = |error: &mesh_tls::Error| {
            (
                Refusal::Request,
                Status::invalid_argument(error.to_string()),
            )
        };
        let identity = Identity::parse(&request.identity).map_err(|error| invalid(&error))?;
        let joins = self.prove(&identity, &request.token, peer, now).await?;
        let ask = Ask {
            csr: request.certificate_signing_request.clone(),
            identity: identity.clone(),
            process,
            accepted: peer.accepted,
            joins,
        };
        let leaf = self.trust.certify(ask).await.map_err(|error| match error {
            CertifyError::Tls(error) => match error {
                mesh_tls::Error::WrongTrustDomain { .. } => (
                    Refusal::Identity,
                    Status::permission_denied(error.to_string()),
                ),
                mesh_tls::Error::Expired { .. }
                | mesh_tls::Error::NotYetValid { .. }
                | mesh_tls::Error::InvalidLifetime { .. }
                | mesh_tls::Error::Generate { .. } => {
                    (Refusal::Authority, Status::unavailable(error.to_string()))
                }
                _ => invalid(&error),
            },
            error => (Refusal::Authority, Status::unavailable(error.to_string())),
        })?;
        self.metrics.certificate_issued();
        debug!(%identity, peer = %peer.address, "issued a certificate");
        Ok(CertifyResponse {
            leaf_certificate: leaf.leaf().to_vec(),
            intermediate_certificates: leaf.intermediates().iter().map(|c| c.to_vec()).collect(),
            valid_until: Some(leaf.not_after().into()),
        })
    }

    /// Has the peer prove `identity`; whether it did so by a token. That is looked at whenever there is one that the
    /// certificate does not make needless.
    async fn prove(
        &self,
        identity: &Identity,
        token: &[u8],
        peer: &Peer,
        now: SystemTime,
    ) -> Result<bool, (Refusal, Status)> {
        let own = peer.identity(now);
        let unavailable = |error: TokenError| {
            let status = Status::unavailable(error.to_string());
            (Refusal::Authority, status)
        };
        if own == Some(identity) {
            let barred = self.tokens.is_barred(identity, now).await;
            if !barred.map_err(unavailable)? {
                return Ok(false);
            }
        }
        if token.is_empty() {
            return Err(match own {
                Some(own) if own == identity => (
                    Refusal::Identity,
                    Status::permission_denied(format!(
                        "the join token of {identity} was revoked: its certificates are renewed again once there is another token"
                    )),
                ),
                Some(own) => (
                    Refusal::Identity,
                    Status::permission_denied(format!(
                        "the client certificate is of {own}, not of {identity}"
                    )),
                ),
                None => (
                    Refusal::Unauthenticated,
                    Status::unauthenticated(
                        "no proof of the identity: send a join token, or use a client certificate",
                    ),
                ),
            });
        }
        let text = std::str::from_utf8(token).unwrap_or_default();
        let record = self.tokens.verify(text, now).await.map_err(|error| {
            if let TokenError::Store(_) | TokenError::Random = error {
                return unavailable(error);
            }
            self.metrics.token(TokenEvent::Refused);
            (
                Refusal::Unauthenticated,
                Status::unauthenticated(error.to_string()),
            )
        })?;
        if record.identity != identity.as_str() {
            self.metrics.token(TokenEvent::Refused);
            return Err((
                Refusal::Identity,
                Status::permission_denied(format!(
                    "the join token {} is for {}, not for {identity}",
                    record.id, record.identity
                )),
            ));
        }
        self.metrics.token(TokenEvent::Used);
        info!(%identity, token = record.id, peer = %peer.address, "joined with a token");
        Ok(true)
    }

    /// Who speaks: by its live certificate, or by a join token where it has shown none. What one may do by a certificate
    /// ends when the token it came by is revoked.
    pub(crate) async fn identify(
        &self,
        token: Option<&[u8]>,
        peer: &Peer,
    ) -> Result<Identity, Status> {
        let now = SystemTime::now();
        let unavailable = |error: TokenError| Status::unavailable(error.to_string());
        if let Some(own) = peer.identity(now) {
            let barred = self.tokens.is_barred(own, now).await;
            if !barred.map_err(unavailable)? {
                return Ok(own.clone());
            }
        }
        let text = token.and_then(|token| std::str::from_utf8(token).ok());
        let text = text.ok_or_else(|| {
            Status::unauthenticated(
                "no proof of who reports: use a client certificate, or send a join token",
            )
        })?;
        let record = self.tokens.verify(text, now).await;
        let record = record.map_err(|error| match error {
            TokenError::Store(_) | TokenError::Random => unavailable(error),
            error => Status::unauthenticated(error.to_string()),
        })?;
        Identity::parse(&record.identity).map_err(|error| Status::internal(error.to_string()))
    }

    /// Every refusal counts; of many, only every power of two is logged, so that nobody can fill the disk.
    fn log_refusal(&self, identity: &str, peer: &Peer, status: &Status) {
        let refusals = self.refusals.fetch_add(1, Ordering::Relaxed) + 1;
        if refusals <= LOGGED_REFUSALS || refusals.is_power_of_two() {
            let identity: String = identity.chars().take(253).collect();
            warn!(
                ?identity,
                peer = %peer.address,
                code = ?status.code(),
                reason = status.message(),
                refusals,
                "refused to certify"
            );
        }
    }
}

const LOGGED_REFUSALS: u64 = 100;
