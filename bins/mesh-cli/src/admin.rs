//! The controller's admin socket.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_control_api::admin::admin_client::AdminClient;
use mesh_control_api::admin::{
    ChangeTrustRequest, ExportRootRequest, ExportRootResponse, GetStatusRequest, GetTrustRequest,
    ImportTrustRequest, IssueTokenRequest, IssueTokenResponse, LintTrustRequest,
    ListManifestErrorsRequest, ListServicesRequest, ListTokensRequest, ListWorkloadsRequest,
    ManifestError, PlanTrustRequest, RemoveRootRequest, RequestIssuerRequest, RevokeTokenRequest,
    Service, Status, Token, Trust, TrustPlan, Workload, change_trust_request::Word,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use crate::Error;

/// One question.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long somebody may look on.
const FOLLOWING: Duration = Duration::from_hours(24 * 7);
/// Answers of a list beyond this are not taken.
const LONGEST_LIST: usize = 100_000;

/// A connection to a controller.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    client: AdminClient<Channel>,
    socket: PathBuf,
}

impl Admin {
    /// Connects to the controller whose data folder is `data`.
    ///
    /// # Errors
    /// When nobody answers on its socket.
    pub(crate) async fn connect(data: &Path) -> Result<Self, Error> {
        let socket = data.join("admin.sock");
        let path = socket.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://admin.sock")
            .timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .connect_with_connector(connector)
            .await
            .map_err(|error| Error::Unreachable {
                socket: socket.clone(),
                reason: root(&error),
            })?;
        Ok(Self {
            client: AdminClient::new(channel),
            socket,
        })
    }

    /// Makes a token for `identity`.
    pub(crate) async fn issue_token(
        &self,
        identity: &str,
        lifetime: Option<Duration>,
        controller: Option<String>,
    ) -> Result<IssueTokenResponse, Error> {
        let request = IssueTokenRequest {
            identity: identity.to_owned(),
            lifetime: lifetime.and_then(|lifetime| lifetime.try_into().ok()),
            controller_address: controller.unwrap_or_default(),
        };
        self.answer(self.client.clone().issue_token(request).await)
    }

    /// Every token that can be used.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, Error> {
        self.list(self.client.clone().list_tokens(ListTokensRequest {}).await)
            .await
    }

    /// Makes a token useless.
    pub(crate) async fn revoke_token(&self, id: &str) -> Result<(), Error> {
        let request = RevokeTokenRequest { id: id.to_owned() };
        self.answer(self.client.clone().revoke_token(request).await)
            .map(|_| ())
    }

    /// The controller in a few lines.
    pub(crate) async fn status(&self) -> Result<Status, Error> {
        self.answer(self.client.clone().get_status(GetStatusRequest {}).await)
    }

    /// Every service.
    pub(crate) async fn services(&self) -> Result<Vec<Service>, Error> {
        self.list(
            self.client
                .clone()
                .list_services(ListServicesRequest {})
                .await,
        )
        .await
    }

    /// Every workload.
    pub(crate) async fn workloads(&self) -> Result<Vec<Workload>, Error> {
        self.list(
            self.client
                .clone()
                .list_workloads(ListWorkloadsRequest {})
                .await,
        )
        .await
    }

    /// What is wrong in the manifests.
    pub(crate) async fn manifest_errors(&self) -> Result<Vec<ManifestError>, Error> {
        self.list(
            self.client
                .clone()
                .list_manifest_errors(ListManifestErrorsRequest {})
                .await,
        )
        .await
    }

    /// How trust stands.
    pub(crate) async fn trust(&self) -> Result<Trust, Error> {
        self.answer(self.client.clone().get_trust(GetTrustRequest {}).await)
    }

    /// How trust stands, now and with every change, until `each` says that it is enough.
    pub(crate) async fn follow_trust(
        &self,
        mut each: impl FnMut(&Trust) -> bool,
    ) -> Result<(), Error> {
        let mut request = tonic::Request::new(GetTrustRequest {});
        request.set_timeout(FOLLOWING);
        let answer = self.client.clone().watch_trust(request).await;
        let mut stream = self.answer(answer)?;
        loop {
            let next = stream.message().await;
            match next.map_err(|status| self.failed(&status))? {
                Some(trust) if each(&trust) => {}
                _ => return Ok(()),
            }
        }
    }

    /// What a change would go through.
    pub(crate) async fn plan_trust(&self, issuer_only: bool) -> Result<TrustPlan, Error> {
        let request = PlanTrustRequest { issuer_only };
        self.answer(self.client.clone().plan_trust(request).await)
    }

    /// An operator's word.
    pub(crate) async fn change_trust(&self, word: Word) -> Result<(), Error> {
        let request = ChangeTrustRequest { word: Some(word) };
        let answer = self.client.clone().change_trust(request).await;
        self.answer(answer).map(|_| ())
    }

    /// What is wrong with certificates.
    pub(crate) async fn lint_trust(
        &self,
        anchor_pem: String,
        issuer_pem: String,
    ) -> Result<Vec<String>, Error> {
        let request = LintTrustRequest {
            anchor_pem,
            issuer_pem,
        };
        let answer = self.client.clone().lint_trust(request).await;
        Ok(self.answer(answer)?.findings)
    }

    /// The anchor in use, with its key.
    pub(crate) async fn export_root(&self) -> Result<ExportRootResponse, Error> {
        self.answer(self.client.clone().export_root(ExportRootRequest {}).await)
    }

    /// Has the key of this anchor removed; until when another issuer has to be there.
    pub(crate) async fn remove_root(
        &self,
        anchor: String,
    ) -> Result<Option<prost_types::Timestamp>, Error> {
        let request = RemoveRootRequest { anchor };
        let answer = self.client.clone().remove_root(request).await;
        Ok(self.answer(answer)?.needed_by)
    }

    /// A request for an issuer's certificate, PEM.
    pub(crate) async fn request_issuer(&self, anew: bool) -> Result<String, Error> {
        let request = RequestIssuerRequest { anew };
        let answer = self.client.clone().request_issuer(request).await;
        Ok(self.answer(answer)?.csr_pem)
    }

    /// Brings what was made elsewhere; whether a change has begun.
    pub(crate) async fn import_trust(&self, request: ImportTrustRequest) -> Result<bool, Error> {
        let answer = self.client.clone().import_trust(request).await;
        Ok(self.answer(answer)?.begun)
    }

    async fn list<T>(
        &self,
        answer: Result<tonic::Response<Streaming<T>>, tonic::Status>,
    ) -> Result<Vec<T>, Error> {
        let mut stream = self.answer(answer)?;
        let mut all = Vec::new();
        while all.len() < LONGEST_LIST {
            match stream
                .message()
                .await
                .map_err(|status| self.failed(&status))?
            {
                Some(item) => all.push(item),
                None => break,
            }
        }
        Ok(all)
    }

    fn answer<T>(&self, answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Error> {
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| self.failed(&status))
    }

    fn failed(&self, status: &tonic::Status) -> Error {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Error::Unreachable {
                socket: self.socket.clone(),
                reason: status.message().to_owned(),
            },
            _ => Error::Refused(status.message().to_owned()),
        }
    }
}

/// What is at the bottom of `error`: the system's own words rather than those of each layer above.
fn root(error: &dyn StdError) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    bottom.to_string()
}
