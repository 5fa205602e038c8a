//! What `mesh.admin.v1` answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use futures_util::stream;
use mesh_control_api::admin::{self as api, admin_server::Admin};
use mesh_discovery::Name;
use mesh_metrics::{ControllerMetrics, TokenEvent};
use mesh_tls::Identity;
use tonic::{Request, Response, Status};
use tracing::info;

use super::{root, trust};
use crate::{
    config::HostPort,
    listener::StreamAdmission,
    mesh::Mesh,
    policy::port_protocol,
    readiness::Readiness,
    tokens::{DEFAULT_LIFETIME, TokenError, TokenRecord, TokenTerms, Tokens},
    trust::Trust,
};

/// Answers the `mesh` command.
#[derive(Debug)]
pub(crate) struct AdminService {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) tokens: Tokens,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: ControllerMetrics,
    pub(crate) streams: Arc<StreamAdmission>,
    /// Where the proxy API is served, and whether over TLS.
    pub(crate) listeners: Vec<(SocketAddr, bool)>,
    /// `host:port` that tokens name unless told otherwise. A listener on all addresses says nothing of how it is reached.
    pub(crate) advertised: Option<String>,
}

/// Who follows a change reads no faster than this.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The list is as it was when it was asked for: one snapshot, sent item by item.
fn items<T: Send + 'static>(items: Vec<T>) -> Response<Items<T>> {
    Response::new(Box::pin(stream::iter(items.into_iter().map(Ok))))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn issue_token(
        &self,
        request: Request<api::IssueTokenRequest>,
    ) -> Result<Response<api::IssueTokenResponse>, Status> {
        let request = request.into_inner();
        let invalid = |reason: String| Status::invalid_argument(reason);
        let identity =
            Identity::parse(&request.identity).map_err(|error| invalid(error.to_string()))?;
        identity
            .require_trust_domain(&self.trust.trust_domain())
            .map_err(|error| invalid(error.to_string()))?;
        let lifetime = request
            .lifetime
            .map_or(Ok(DEFAULT_LIFETIME), Duration::try_from)
            .map_err(|_| invalid("a token's lifetime cannot be negative".to_owned()))?;
        let controller_address = if request.controller_address.is_empty() {
            self.advertised.clone().ok_or_else(|| {
                Status::failed_precondition(
                    "the controller does not know by which address it is reached: set `advertise`, or name one",
                )
            })?
        } else {
            let address: HostPort = request.controller_address.parse().map_err(invalid)?;
            address.into()
        };
        let bundle = self.trust.bundle();
        let terms = TokenTerms {
            identity,
            lifetime,
            controller_address,
            controller_name: self.trust.identity().as_str().to_owned(),
            bundle_digest: bundle.digest().to_string(),
        };
        let (token, record) = self
            .tokens
            .issue(terms, SystemTime::now())
            .await
            .map_err(|error| status(&error))?;
        self.metrics.token(TokenEvent::Issued);
        info!(
            token = record.id,
            identity = record.identity,
            "issued a join token"
        );
        Ok(Response::new(api::IssueTokenResponse {
            token: token.to_text(),
            id: record.id,
            expires_at: Some(record.expires_at.into()),
            bundle_pem: bundle.to_pem(),
        }))
    }

    type ListTokensStream = Items<api::Token>;

    async fn list_tokens(
        &self,
        _: Request<api::ListTokensRequest>,
    ) -> Result<Response<Self::ListTokensStream>, Status> {
        let tokens = self
            .tokens
            .list(SystemTime::now())
            .await
            .map_err(|error| status(&error))?;
        Ok(items(tokens.into_iter().map(token).collect()))
    }

    async fn revoke_token(
        &self,
        request: Request<api::RevokeTokenRequest>,
    ) -> Result<Response<api::RevokeTokenResponse>, Status> {
        let id = request.into_inner().id;
        self.tokens
            .revoke(&id, SystemTime::now())
            .await
            .map_err(|error| status(&error))?;
        self.metrics.token(TokenEvent::Revoked);
        info!(token = id, "revoked a join token");
        Ok(Response::new(api::RevokeTokenResponse {}))
    }

    async fn get_status(
        &self,
        _: Request<api::GetStatusRequest>,
    ) -> Result<Response<api::Status>, Status> {
        let settings = self.mesh.settings();
        let bundle = self.trust.bundle();
        let not_ready = self.readiness.obstacles(SystemTime::now());
        let (services, workloads) = {
            let registry = self.mesh.registry().read();
            (registry.services().count(), registry.workload_count())
        };
        let listeners = self.listeners.iter().map(|(address, tls)| api::Listener {
            address: address.to_string(),
            tls: *tls,
        });
        Ok(Response::new(api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: self.trust.trust_domain().to_string(),
            controller_identity: self.trust.identity().as_str().to_owned(),
            bundle_digest: bundle.digest().to_string(),
            bundle_pem: bundle.to_pem(),
            anchor_expires_at: Some(self.trust.anchor_not_after().into()),
            issuer_expires_at: Some(self.trust.issuer_not_after().into()),
            listeners: listeners.collect(),
            ready: not_ready.is_empty(),
            not_ready,
            services: services as u64,
            workloads: workloads as u64,
            manifest_errors: self.mesh.problems().len() as u64,
            streams: self.streams.open(),
            leaf_lifetime: settings.leaf_lifetime.try_into().ok(),
            default_inbound_policy: settings.default_policy.as_str().to_owned(),
            cluster_domain: self.mesh.cluster_domain().to_owned(),
        }))
    }

    type ListServicesStream = Items<api::Service>;

    async fn list_services(
        &self,
        _: Request<api::ListServicesRequest>,
    ) -> Result<Response<Self::ListServicesStream>, Status> {
        Ok(items(services(&self.mesh)))
    }

    type ListWorkloadsStream = Items<api::Workload>;

    async fn list_workloads(
        &self,
        _: Request<api::ListWorkloadsRequest>,
    ) -> Result<Response<Self::ListWorkloadsStream>, Status> {
        Ok(items(workloads(&self.mesh)))
    }

    type ListManifestErrorsStream = Items<api::ManifestError>;

    async fn list_manifest_errors(
        &self,
        _: Request<api::ListManifestErrorsRequest>,
    ) -> Result<Response<Self::ListManifestErrorsStream>, Status> {
        let problems = self.mesh.problems();
        let errors = problems.iter().map(|problem| api::ManifestError {
            file: problem.file.clone(),
            line: u32::try_from(problem.line).unwrap_or(u32::MAX),
            field: problem.field.clone(),
            reason: problem.reason.clone(),
            kept: problem.kept,
        });
        Ok(items(errors.collect()))
    }

    async fn get_trust(
        &self,
        _: Request<api::GetTrustRequest>,
    ) -> Result<Response<api::Trust>, Status> {
        Ok(Response::new(trust::describe(
            &self.trust,
            SystemTime::now(),
        )))
    }

    type WatchTrustStream = Items<api::Trust>;

    async fn watch_trust(
        &self,
        _: Request<api::GetTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        let (trust, changes) = (self.trust.clone(), self.trust.changes());
        let first = true;
        let states = stream::unfold(
            (trust, changes, first),
            |(trust, mut changes, first)| async move {
                if !first {
                    changes.changed().await.ok()?;
                    tokio::time::sleep(WATCH_INTERVAL).await;
                    changes.borrow_and_update();
                }
                let now = trust::describe(&trust, SystemTime::now());
                Some((Ok(now), (trust, changes, false)))
            },
        );
        Ok(Response::new(Box::pin(states)))
    }

    async fn plan_trust(
        &self,
        request: Request<api::PlanTrustRequest>,
    ) -> Result<Response<api::TrustPlan>, Status> {
        let issuer_only = request.into_inner().issuer_only;
        trust::plan(&self.trust, issuer_only)
            .await
            .map(Response::new)
    }

    async fn change_trust(
        &self,
        request: Request<api::ChangeTrustRequest>,
    ) -> Result<Response<api::ChangeTrustResponse>, Status> {
        trust::change(&self.trust, request.into_inner()).await?;
        Ok(Response::new(api::ChangeTrustResponse {}))
    }

    async fn lint_trust(
        &self,
        request: Request<api::LintTrustRequest>,
    ) -> Result<Response<api::LintTrustResponse>, Status> {
        let request = request.into_inner();
        trust::lint(&self.trust, &request, SystemTime::now()).map(Response::new)
    }

    async fn export_root(
        &self,
        _: Request<api::ExportRootRequest>,
    ) -> Result<Response<api::ExportRootResponse>, Status> {
        info!("exports the key of the trust anchor");
        root::export(&self.trust).await.map(Response::new)
    }

    async fn remove_root(
        &self,
        request: Request<api::RemoveRootRequest>,
    ) -> Result<Response<api::RemoveRootResponse>, Status> {
        let removed = root::remove(&self.trust, request.into_inner()).await;
        removed.map(Response::new)
    }

    async fn request_issuer(
        &self,
        request: Request<api::RequestIssuerRequest>,
    ) -> Result<Response<api::RequestIssuerResponse>, Status> {
        let anew = request.into_inner().anew;
        let made = root::request_issuer(&self.trust, anew).await;
        made.map(Response::new)
    }

    async fn import_trust(
        &self,
        request: Request<api::ImportTrustRequest>,
    ) -> Result<Response<api::ImportTrustResponse>, Status> {
        let taken = root::import(&self.trust, request.into_inner()).await;
        taken.map(Response::new)
    }
}

fn services(mesh: &Mesh) -> Vec<api::Service> {
    let registry = mesh.registry().read();
    let domain = mesh.cluster_domain();
    let describe = |service: mesh_discovery::ServiceRef<'_>| {
        let ports = service.spec().ports.iter().map(|port| {
            let endpoints = registry.endpoints(&service.view(port.port));
            let meshed = endpoints.iter().filter(|e| e.identity().is_some()).count();
            api::ServicePort {
                name: port.name.clone().unwrap_or_default(),
                port: port.port.into(),
                protocol: port_protocol(&service, port).to_string(),
                endpoints: endpoints.len() as u64,
                meshed: meshed as u64,
            }
        });
        let addresses = service.spec().cluster_ips.iter();
        api::Service {
            namespace: service.namespace().to_owned(),
            name: service.name().to_owned(),
            authority: format!("{}.{}.svc.{domain}", service.name(), service.namespace()),
            cluster_ips: addresses.map(ToString::to_string).collect(),
            ports: ports.collect(),
        }
    };
    registry.services().map(describe).collect()
}

fn workloads(mesh: &Mesh) -> Vec<api::Workload> {
    let registry = mesh.registry().read();
    let mut selected_by: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
    for service in registry.services() {
        for workload in service.workloads() {
            let services = selected_by.entry(workload.id()).or_default();
            services.insert(service.id().to_string());
        }
    }
    let describe = |workload: mesh_discovery::WorkloadRef<'_>| {
        let ports = workload.ports().into_iter().map(|port| api::WorkloadPort {
            name: port.name.unwrap_or_default(),
            port: port.port.into(),
            mesh_port: port.mesh_port.unwrap_or_default().into(),
            protocol: port.protocol.to_string(),
        });
        let identity = workload.identity().filter(|_| workload.is_meshed());
        let services = selected_by.remove(&workload.id()).unwrap_or_default();
        api::Workload {
            namespace: workload.namespace().to_owned(),
            name: workload.name().to_owned(),
            identity: identity.unwrap_or_default().to_owned(),
            zone: workload.zone().unwrap_or_default().to_owned(),
            addresses: workload
                .addresses()
                .iter()
                .map(ToString::to_string)
                .collect(),
            ready: workload.is_ready(),
            ports: ports.collect(),
            services: services.into_iter().collect(),
        }
    };
    registry.workloads().into_iter().map(describe).collect()
}

fn token(record: TokenRecord) -> api::Token {
    api::Token {
        id: record.id,
        identity: record.identity,
        issued_at: Some(record.issued_at.into()),
        expires_at: Some(record.expires_at.into()),
    }
}

fn status(error: &TokenError) -> Status {
    let reason = error.to_string();
    match error {
        TokenError::Lifetime { .. } => Status::invalid_argument(reason),
        TokenError::TooMany | TokenError::TooManyBarred => Status::resource_exhausted(reason),
        TokenError::Unknown => Status::not_found("there is no join token of that id"),
        _ => Status::unavailable(reason),
    }
}
