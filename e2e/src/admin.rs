//! What the controller says over its admin socket, so that a test knows when a manifest has taken effect.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use mesh_control_api::admin::admin_client::AdminClient;
use mesh_control_api::admin::{
    ChangeTrustRequest, ExportRootRequest, ExportRootResponse, GetStatusRequest, GetTrustRequest,
    IssueTokenRequest, ListManifestErrorsRequest, ListServicesRequest, ListWorkloadsRequest,
    PlanTrustRequest, Trust, change_trust_request::Word,
};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use crate::process::PATIENCE;

const POLL: Duration = Duration::from_millis(10);

/// A controller's admin socket; every call is a connection of its own, so that the controller may die in between.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    socket: PathBuf,
}

impl Admin {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            socket: data.join("admin.sock"),
        }
    }

    /// A token for `identity`.
    pub(crate) fn token(&self, identity: &str) -> String {
        let request = IssueTokenRequest {
            identity: identity.to_owned(),
            ..IssueTokenRequest::default()
        };
        self.ask(async |mut client| Ok(client.issue_token(request).await?.into_inner().token))
    }

    /// The identity that the controller's own certificate carries.
    pub(crate) fn controller(&self) -> String {
        self.ask(async |mut client| {
            Ok(client
                .get_status(GetStatusRequest {})
                .await?
                .into_inner()
                .controller_identity)
        })
    }

    /// How trust stands.
    pub(crate) fn trust(&self) -> Trust {
        let request = GetTrustRequest {};
        self.ask(async |mut client| Ok(client.get_trust(request).await?.into_inner()))
    }

    /// An operator's word; what is wrong with it, if it is refused.
    pub(crate) fn change_trust(&self, word: Word) -> Result<(), String> {
        let request = ChangeTrustRequest { word: Some(word) };
        self.ask(async |mut client| {
            let taken = client.change_trust(request).await;
            match taken {
                Ok(_) => Ok(Ok(())),
                Err(status) if status.code() == Code::FailedPrecondition => {
                    Ok(Err(status.message().to_owned()))
                }
                Err(status) => Err(status),
            }
        })
    }

    /// The names of the phases that a rotation would go through.
    pub(crate) fn plan_trust(&self) -> Vec<String> {
        let request = PlanTrustRequest { issuer_only: false };
        let plan = self.ask(async |mut client| Ok(client.plan_trust(request).await?.into_inner()));
        plan.phases.into_iter().map(|phase| phase.name).collect()
    }

    /// The anchor in use, and its private key.
    pub(crate) fn export_root(&self) -> ExportRootResponse {
        let request = ExportRootRequest {};
        self.ask(async |mut client| Ok(client.export_root(request).await?.into_inner()))
    }

    /// Waits until trust stands so that `done` is content; `what` names it in the message.
    pub(crate) fn wait_trust(
        &self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&Trust) -> bool,
    ) -> Trust {
        let deadline = Instant::now() + patience;
        loop {
            let trust = self.trust();
            if done(&trust) {
                return trust;
            }
            assert!(
                Instant::now() < deadline,
                "not in {patience:?}: {what}: {trust:#?}"
            );
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the controller knows the service.
    pub(crate) fn wait_service(&self, name: &str) {
        self.wait(&format!("service {name} is known"), || {
            let services = self.ask(async |mut client| {
                collect(client.list_services(ListServicesRequest {}).await?).await
            });
            services.iter().any(|service| service.name == name)
        });
    }

    /// Waits until the controller knows the workload with this identity, or does not know it at all.
    pub(crate) fn wait_workload(&self, name: &str, identity: Option<&str>) {
        self.wait(
            &format!("workload {name} is known with identity {identity:?}"),
            || {
                let workloads = self.ask(async |mut client| {
                    collect(client.list_workloads(ListWorkloadsRequest {}).await?).await
                });
                let found = workloads.iter().find(|workload| workload.name == name);
                found.map(|workload| workload.identity.as_str()) == identity
            },
        );
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            if Instant::now() > deadline {
                let request = ListManifestErrorsRequest {};
                let errors = self.ask(async |mut client| {
                    collect(client.list_manifest_errors(request).await?).await
                });
                panic!("not in {PATIENCE:?}: {what}; errors in manifests: {errors:#?}");
            }
            std::thread::sleep(POLL);
        }
    }

    fn ask<T>(&self, question: impl AsyncFnOnce(AdminClient<Channel>) -> Result<T, Status>) -> T {
        let answer = runtime().block_on(async {
            let channel = self.connect().await.map_err(|error| format!("{error:?}"))?;
            question(AdminClient::new(channel))
                .await
                .map_err(|status| status.to_string())
        });
        answer.unwrap_or_else(|error| panic!("{}: {error}", self.socket.display()))
    }

    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://admin.sock")
            .timeout(PATIENCE)
            .connect_with_connector(connector)
            .await
    }
}

async fn collect<T>(answer: Response<Streaming<T>>) -> Result<Vec<T>, Status> {
    let mut stream = answer.into_inner();
    let mut all = Vec::new();
    while let Some(one) = stream.message().await? {
        all.push(one);
    }
    Ok(all)
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"))
}
