//! `mesh token --stock-proxy`: everything a stock linkerd2-proxy is started with, for one workload of the manifests.
//!
//! A proxy of ours makes its key in memory. A stock one reads its key, the request for its certificate and its token
//! from files, and all else from its environment.

mod environment;
mod folder;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use mesh_control_api::JoinToken;
use mesh_control_api::admin::Workload;
use mesh_tls::{Identity, LeafKey};

use self::environment::Environment;
use self::folder::NewFolder;
use crate::admin::Admin;
use crate::args::StockProxy;
use crate::output::Output;
use crate::token::left;
use crate::{Error, data};

pub(crate) async fn run(options: StockProxy) -> Result<ExitCode, Error> {
    // Without a subcommand, the command line has both.
    let (folder, wanted) = options.folder.zip(options.workload).unwrap_or_default();
    let admin = Admin::connect(&data::find(options.data.data)?).await?;
    let workload = find(admin.workloads().await?, &wanted)?;
    let status = admin.status().await?;
    let refused = |reason: String| Error::StockProxy {
        subject: wanted.clone(),
        reason,
    };
    let identity =
        Identity::parse(&workload.identity).map_err(|error| refused(error.to_string()))?;
    if identity.is_spiffe() {
        return Err(refused(format!(
            "its identity is {identity}, which a linkerd2-proxy proves by a SPIFFE agent alone, without a token; give the workload a \
             name as identity"
        )));
    }
    let key = LeafKey::generate().map_err(|error| refused(error.to_string()))?;
    let csr = key
        .csr(&identity)
        .map_err(|error| refused(error.to_string()))?;

    let folder = NewFolder::at(&folder)?;
    environment::check_folder(folder.path())?;
    let lifetime = options.lifetime.unwrap_or(TOKEN_LIFETIME);
    let issued = admin
        .issue_token(identity.as_str(), Some(lifetime), options.controller)
        .await?;
    let write = || {
        let token = JoinToken::parse(&issued.token).map_err(|error| refused(error.to_string()))?;
        let anchors = &issued.bundle_pem;
        let environment =
            Environment::new(folder.path(), &workload, &status, &token, anchors)?.to_text();
        folder.write_private("key.p8", key.to_pkcs8_der().secret_pkcs8_der())?;
        folder.write_private("csr.der", &csr)?;
        folder.write_private("token", issued.token.as_bytes())?;
        folder.write_public("trust-anchors.pem", anchors.as_bytes())?;
        folder.write_private("proxy.env", environment.as_bytes())?;
        Ok(environment)
    };
    let text = match write() {
        Ok(text) => text,
        Err(error) => {
            // Nobody is going to use it, and it would be good for as long as any other.
            if let Err(why) = admin.revoke_token(&issued.id).await {
                eprintln!(
                    "token {0} is still good, as it could not be revoked: {why}; mesh token revoke {0}",
                    issued.id
                );
            }
            return Err(error);
        }
    };

    // Only the variables on standard output, so that they can be put into a file of another kind.
    let mut output = Output::new();
    output.line(text.trim_end());
    let path = folder.path().display();
    eprintln!(
        "{path} is ready for {identity}; the folder must be readable by the user whom the proxy runs as, and by nobody else\n\
         start it:  (set -a; . {path}/proxy.env; exec linkerd2-proxy)   or in a systemd unit: EnvironmentFile={path}/proxy.env\n\
         token {}: good for {}; the proxy needs one whenever it starts. Renew it: mesh token create --identity {identity} > {path}/token",
        issued.id,
        left(issued.expires_at, SystemTime::now()),
    );
    Ok(ExitCode::SUCCESS)
}

/// The workload that is meant, if a stock proxy can stand before it.
fn find(workloads: Vec<Workload>, wanted: &str) -> Result<Workload, Error> {
    let refused = |reason: String| Error::StockProxy {
        subject: wanted.to_owned(),
        reason,
    };
    let (namespace, name) = wanted
        .split_once('/')
        .unwrap_or((DEFAULT_NAMESPACE, wanted));
    let workload = workloads
        .into_iter()
        .find(|workload| workload.namespace == namespace && workload.name == name)
        .ok_or_else(|| {
            refused(format!(
                "the manifests have no Workload {name} in the namespace {namespace}"
            ))
        })?;
    if workload.identity.is_empty() {
        return Err(refused(
            "the Workload is not meshed; write `meshed: true` into its spec".to_owned(),
        ));
    }
    if let Some(port) = workload.ports.iter().find(|port| port.mesh_port != 0) {
        return Err(refused(format!(
            "its port {} has meshPort {}, and a linkerd2-proxy has no listener for each port; take out meshPort, write \
             `meshed: true`, and redirect the port to {}",
            port.port,
            port.mesh_port,
            environment::INBOUND_PORT
        )));
    }
    Ok(workload)
}

const DEFAULT_NAMESPACE: &str = "default";
/// The token lies beside the key, which does not expire, and is needed at each start.
const TOKEN_LIFETIME: Duration = Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use mesh_control_api::TokenSecret;
    use mesh_control_api::admin::admin_server::{Admin as Service, AdminServer};
    use mesh_control_api::admin::{
        GetStatusRequest, IssueTokenRequest, IssueTokenResponse, ListManifestErrorsRequest,
        ListServicesRequest, ListTokensRequest, ListWorkloadsRequest, Listener, ManifestError,
        RevokeTokenRequest, RevokeTokenResponse, Status as Mesh, Token, WorkloadPort,
    };
    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{Request, Response, Status, async_trait};

    use super::*;
    use crate::args::Data;

    /// A controller that speaks TLS at its address, and notes which tokens come and go.
    struct Controller {
        address: &'static str,
        tokens: Arc<Mutex<Vec<&'static str>>>,
    }

    use mesh_control_api::admin as api;

    type Items<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

    fn items<T>(items: Vec<T>) -> Result<Response<Items<T>>, Status> {
        let items: Vec<_> = items.into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(items)))
    }

    #[async_trait]
    impl Service for Controller {
        async fn issue_token(
            &self,
            request: Request<IssueTokenRequest>,
        ) -> Result<Response<IssueTokenResponse>, Status> {
            self.tokens.lock().unwrap().push("issued");
            let token = JoinToken {
                controller_address: self.address.into(),
                controller_name: "controller.example".into(),
                bundle_digest: "sha256:00".into(),
                identity: request.into_inner().identity,
                id: "t1".into(),
                secret: TokenSecret::from_random([7; 32]),
            };
            Ok(Response::new(IssueTokenResponse {
                token: token.to_text(),
                id: token.id,
                expires_at: None,
                bundle_pem: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
            }))
        }

        async fn revoke_token(
            &self,
            request: Request<RevokeTokenRequest>,
        ) -> Result<Response<RevokeTokenResponse>, Status> {
            assert_eq!(request.into_inner().id, "t1");
            self.tokens.lock().unwrap().push("revoked");
            Ok(Response::new(RevokeTokenResponse {}))
        }

        async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<Mesh>, Status> {
            Ok(Response::new(Mesh {
                listeners: vec![Listener {
                    address: self.address.into(),
                    tls: true,
                }],
                ..Mesh::default()
            }))
        }

        type ListTokensStream = Items<Token>;
        async fn list_tokens(
            &self,
            _: Request<ListTokensRequest>,
        ) -> Result<Response<Items<Token>>, Status> {
            items(Vec::new())
        }

        type ListServicesStream = Items<mesh_control_api::admin::Service>;
        async fn list_services(
            &self,
            _: Request<ListServicesRequest>,
        ) -> Result<Response<Self::ListServicesStream>, Status> {
            items(Vec::new())
        }

        type ListWorkloadsStream = Items<Workload>;
        async fn list_workloads(
            &self,
            _: Request<ListWorkloadsRequest>,
        ) -> Result<Response<Items<Workload>>, Status> {
            items(vec![workload("web.example", 0)])
        }

        type ListManifestErrorsStream = Items<ManifestError>;
        async fn list_manifest_errors(
            &self,
            _: Request<ListManifestErrorsRequest>,
        ) -> Result<Response<Items<ManifestError>>, Status> {
            items(Vec::new())
        }

        async fn get_trust(
            &self,
            _: Request<api::GetTrustRequest>,
        ) -> Result<Response<api::Trust>, Status> {
            not_asked()
        }

        type WatchTrustStream = Items<api::Trust>;
        async fn watch_trust(
            &self,
            _: Request<api::GetTrustRequest>,
        ) -> Result<Response<Items<api::Trust>>, Status> {
            not_asked()
        }

        async fn plan_trust(
            &self,
            _: Request<api::PlanTrustRequest>,
        ) -> Result<Response<api::TrustPlan>, Status> {
            not_asked()
        }

        async fn change_trust(
            &self,
            _: Request<api::ChangeTrustRequest>,
        ) -> Result<Response<api::ChangeTrustResponse>, Status> {
            not_asked()
        }

        async fn lint_trust(
            &self,
            _: Request<api::LintTrustRequest>,
        ) -> Result<Response<api::LintTrustResponse>, Status> {
            not_asked()
        }

        async fn remove_root(
            &self,
            _: Request<api::RemoveRootRequest>,
        ) -> Result<Response<api::RemoveRootResponse>, Status> {
            not_asked()
        }

        async fn request_issuer(
            &self,
            _: Request<api::RequestIssuerRequest>,
        ) -> Result<Response<api::RequestIssuerResponse>, Status> {
            not_asked()
        }

        async fn import_trust(
            &self,
            _: Request<api::ImportTrustRequest>,
        ) -> Result<Response<api::ImportTrustResponse>, Status> {
            not_asked()
        }

        async fn export_root(
            &self,
            _: Request<api::ExportRootRequest>,
        ) -> Result<Response<api::ExportRootResponse>, Status> {
            not_asked()
        }
    }

    fn not_asked<T>() -> Result<Response<T>, Status> {
        Err(Status::unimplemented("nobody asks this here"))
    }

    /// What came of writing into `folder`, under a controller at `address`, and of its tokens.
    async fn write(
        folder: &Path,
        address: &'static str,
    ) -> (Result<ExitCode, Error>, Vec<&'static str>) {
        let data = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(data.path().join("admin.sock")).unwrap();
        let tokens = Arc::<Mutex<Vec<_>>>::default();
        let controller = Controller {
            address,
            tokens: Arc::clone(&tokens),
        };
        let serving = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AdminServer::new(controller))
                .serve_with_incoming(UnixListenerStream::new(socket)),
        );
        let options = StockProxy {
            folder: Some(folder.to_owned()),
            workload: Some("web-1".to_owned()),
            lifetime: None,
            controller: None,
            data: Data {
                data: Some(data.path().to_owned()),
            },
        };
        let outcome = run(options).await;
        serving.abort();
        let tokens = tokens.lock().unwrap().clone();
        (outcome, tokens)
    }

    #[tokio::test]
    async fn an_attempt_that_fails_leaves_no_token() {
        let base = tempfile::tempdir().unwrap();
        let (done, tokens) = write(&base.path().join("new"), "10.0.0.1:8443").await;
        assert_eq!(
            (done.unwrap(), &tokens[..]),
            (ExitCode::SUCCESS, &["issued"][..])
        );

        // The name of the folder is known before.
        let (failed, tokens) = write(&base.path().join("it's"), "10.0.0.1:8443").await;
        assert!(failed.unwrap_err().to_string().contains("choose a folder"));
        assert_eq!(tokens, [""; 0]);

        // Where the controller is reached, only the token tells.
        let (failed, tokens) = write(&base.path().join("other"), "127.0.0.1:8443").await;
        assert!(failed.unwrap_err().to_string().contains("--tls always"));
        assert_eq!(tokens, ["issued", "revoked"]);
    }

    fn workload(identity: &str, mesh_port: u32) -> Workload {
        Workload {
            namespace: "default".into(),
            name: "web-1".into(),
            identity: identity.into(),
            ports: vec![WorkloadPort {
                port: 8080,
                mesh_port,
                ..WorkloadPort::default()
            }],
            ..Workload::default()
        }
    }

    #[test]
    fn a_workload_is_found_with_or_without_its_namespace() {
        let all = || vec![workload("web.example", 0)];
        assert_eq!(find(all(), "web-1").unwrap().name, "web-1");
        assert_eq!(find(all(), "default/web-1").unwrap().name, "web-1");
        for missing in ["web-2", "other/web-1"] {
            let error = find(all(), missing).unwrap_err().to_string();
            assert!(error.contains("have no Workload"), "{error}");
        }
    }

    #[test]
    fn what_no_stock_proxy_can_stand_before_is_refused() {
        let error = |workload| find(vec![workload], "web-1").unwrap_err().to_string();
        assert!(error(workload("", 0)).contains("`meshed: true`"));
        assert!(error(workload("web.example", 14143)).contains("take out meshPort"));
    }
}
