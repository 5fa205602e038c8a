//! A real controller process, and clients that speak to it as proxies and the `mesh` command do.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations
)]

pub mod raw;

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::identity::{
    CertifyRequest, CertifyResponse, identity_client::IdentityClient,
};
use mesh_control_api::admin::{IssueTokenRequest, admin_client::AdminClient};
use mesh_controller::Announcement;
use mesh_tls::{Identity, LeafKey};
use tokio::net::{TcpStream, UnixStream};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with `data` and `manifests` in it, and the controller that serves from it.
pub struct Controller {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
    announcement: Option<Announcement>,
}

impl Controller {
    /// Starts one on free ports; `arguments` are added to its command line.
    pub async fn start(manifests: &[(&str, &str)], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        let mut controller = Self {
            folder,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            child: None,
            announcement: None,
        };
        for (name, text) in manifests {
            controller.write(name, text);
        }
        controller.restart().await;
        controller
    }

    /// Starts it again on the same folder, and waits until it serves.
    pub async fn restart(&mut self) {
        self.stop_hard();
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let child = self
            .command()
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(&self.arguments)
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        self.child = Some(child);
        let path = self.data().join("controller.json");
        let announcement = until("controller.json", || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
                panic!("the controller ended with {status}: {log}");
            }
            let text = fs::read(&path).ok()?;
            let read: Announcement = serde_json::from_slice(&text).unwrap();
            (read.pid == pid).then_some(read)
        })
        .await;
        self.announcement = Some(announcement);
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-controller"));
        command
            .arg("--data")
            .arg(self.data())
            .arg("--manifests")
            .arg(self.manifests())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    pub fn announcement(&self) -> &Announcement {
        self.announcement.as_ref().unwrap()
    }

    /// Puts a manifest in the place of the one of that name.
    pub fn write(&self, name: &str, text: &str) {
        let scratch = self.folder.path().join("scratch");
        fs::write(&scratch, text).unwrap();
        fs::rename(scratch, self.manifests().join(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.manifests().join(name)).unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.stop_hard();
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        until("the process's end", || child.try_wait().unwrap()).await
    }

    fn stop_hard(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The proxy API in plaintext.
    pub fn proxy_api(&self) -> Channel {
        plaintext(self.announcement().grpc)
    }

    pub async fn admin(&self) -> AdminClient<Channel> {
        let socket = self.data().join("admin.sock");
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://admin.sock")
            .timeout(PATIENCE)
            .connect_with_connector(connector)
            .await
            .unwrap();
        AdminClient::new(channel)
    }

    /// A token for `identity`; its id comes second.
    pub async fn token(&self, identity: &str, lifetime: Duration) -> (String, String) {
        let issued = self
            .admin()
            .await
            .issue_token(IssueTokenRequest {
                identity: identity.to_owned(),
                lifetime: Some(lifetime.try_into().unwrap()),
                controller_address: String::new(),
            })
            .await
            .unwrap()
            .into_inner();
        (issued.token, issued.id)
    }

    /// Waits until the only series of a metric family has this value.
    pub async fn wait_metric(&self, family: &str, value: u64) {
        let end = format!(" {value}");
        within(async {
            loop {
                let (_, metrics) = self.get("/metrics").await;
                if metrics
                    .lines()
                    .any(|line| line.starts_with(family) && line.ends_with(&end))
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// A GET on the admin port: the status code and the body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        within(async {
            let mut stream = TcpStream::connect(self.announcement().admin).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let code = head.split(' ').nth(1).unwrap().parse().unwrap();
            (code, body.to_owned())
        })
        .await
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop_hard();
    }
}

pub fn plaintext(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_timeout(PATIENCE)
        .connect_lazy()
}

pub const DAY: Duration = Duration::from_hours(24);

/// The identity that a service account of the namespace `default` has.
pub fn identity(name: &str) -> String {
    format!("{name}.default.serviceaccount.identity.linkerd.cluster.local")
}

/// Asks for a certificate with a fresh key.
pub async fn certify(
    channel: Channel,
    identity: &str,
    token: &str,
) -> Result<(LeafKey, CertifyResponse), Status> {
    let key = LeafKey::generate().unwrap();
    let csr = key.csr(&Identity::parse(identity).unwrap()).unwrap();
    let response = certify_csr(channel, identity, token, csr).await?;
    Ok((key, response))
}

pub async fn certify_csr(
    channel: Channel,
    identity: &str,
    token: &str,
    certificate_signing_request: Vec<u8>,
) -> Result<CertifyResponse, Status> {
    let request = CertifyRequest {
        identity: identity.to_owned(),
        token: token.as_bytes().to_vec(),
        certificate_signing_request,
    };
    within(IdentityClient::new(channel).certify(request))
        .await
        .map(tonic::Response::into_inner)
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn run(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().unwrap()
}

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// A service `name` on port 80 that leads to port 8080 of the workloads labelled `app: <name>`; `more` is YAML added to the
/// port.
pub fn service(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         selector: {{app: {name}}}\n  ports: [{{port: 80, targetPort: 8080{more}}}]\n"
    )
}

/// The `number`th workload of the service `app`, at 127.77.0.<number>, its proxy's mesh port 14143.
pub fn workload(app: &str, number: u8) -> String {
    format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
         metadata: {{name: {app}-{number}, namespace: default, labels: {{app: {app}}}}}\nspec:\n  \
         serviceAccount: {app}\n  zone: zone-{number}\n  addresses: [127.77.0.{number}]\n  \
         ports: [{{port: 8080, meshPort: 14143}}]\n"
    )
}
