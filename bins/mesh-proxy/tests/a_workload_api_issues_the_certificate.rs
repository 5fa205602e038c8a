//! A SPIFFE Workload API issues the certificate: what it streams is in use at once, what does not fit is refused and the
//! last one stays, and a stream that breaks is opened again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(unix)]

mod controller;
mod process;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use controller::{DEADLINE, soon};
use mesh_control_api::spiffe::spiffe_workload_api_server::{
    SpiffeWorkloadApi, SpiffeWorkloadApiServer,
};
use mesh_control_api::spiffe::{X509svid, X509svidRequest, X509svidResponse};
use mesh_metrics::Metrics;
use mesh_proxy::config::{SocketPath, Value};
use mesh_proxy::identity::Clock;
use mesh_proxy::identity::workload_api::WorkloadApi;
use mesh_proxy::readiness::Certification;
use mesh_tls::ca::Authority;
use mesh_tls::{
    CredentialReader, Identity, LeafKey, Tls, TrustBundle, TrustWriter, credential_store,
    trust_store,
};
use process::{HOUR, Proxy, authority, free_address};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

const NAME: &str = "spiffe://mesh.example/ns/shop/sa/web";
const OTHER: &str = "spiffe://mesh.example/ns/shop/sa/db";

type Feed = mpsc::Sender<Result<X509svidResponse, Status>>;

/// Hands each stream to the test.
struct Agent(mpsc::UnboundedSender<Feed>);

#[async_trait]
impl SpiffeWorkloadApi for Agent {
    type FetchX509SVIDStream = ReceiverStream<Result<X509svidResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let header = request.metadata().get("workload.spiffe.io");
        if header.is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("security header missing"));
        }
        let (feed, messages) = mpsc::channel(4);
        self.0.send(feed).map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// Serves the API at `socket`; gives the streams.
fn agent(socket: &Path) -> mpsc::UnboundedReceiver<Feed> {
    let (streams, opened) = mpsc::unbounded_channel();
    let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let service = SpiffeWorkloadApiServer::new(Agent(streams));
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    opened
}

/// What an agent would issue for `name`.
fn svid(authority: &Authority, name: &str, lifetime: Duration) -> X509svid {
    let key = LeafKey::generate().unwrap();
    let identity: Identity = name.parse().unwrap();
    let csr = key.csr(&identity).unwrap();
    let leaf = authority.issue(&csr, &identity, lifetime, SystemTime::now());
    let chain = leaf.unwrap().into_chain();
    X509svid {
        spiffe_id: name.to_owned(),
        x509_svid: chain.iter().flat_map(|one| one.to_vec()).collect(),
        x509_svid_key: key.to_pkcs8_der().secret_pkcs8_der().to_vec(),
        bundle: authority.anchor().to_vec(),
    }
}

fn response(svids: Vec<X509svid>) -> Result<X509svidResponse, Status> {
    Ok(X509svidResponse { svids })
}

struct Following {
    credentials: CredentialReader,
    status: watch::Receiver<Certification>,
    _trust: TrustWriter,
}

impl Following {
    fn start(socket: &Path, trusted: &Authority) -> Self {
        Self::at(socket, trusted, Box::new(SystemTime::now))
    }

    fn at(socket: &Path, trusted: &Authority, clock: Clock) -> Self {
        let bundle = TrustBundle::from_pem(0, trusted.anchor_pem().as_bytes()).unwrap();
        let (trust_writer, trust) = trust_store(bundle);
        let (writer, credentials) = credential_store();
        let (api, status) = WorkloadApi::new(
            NAME.parse().unwrap(),
            SocketPath::parse(&format!("unix://{}", socket.display())).unwrap(),
            trust,
            writer,
            Metrics::proxy("test").families.control.identity(),
            clock,
        );
        tokio::spawn(api.run());
        Self {
            credentials,
            status,
            _trust: trust_writer,
        }
    }

    async fn until(&mut self, so: impl FnMut(&Certification) -> bool) -> Certification {
        soon("a certification", self.status.wait_for(so))
            .await
            .unwrap()
            .clone()
    }

    fn leaf(&self) -> Vec<u8> {
        self.credentials.load().unwrap().chain()[0].to_vec()
    }
}

#[tokio::test]
async fn what_is_streamed_is_in_use() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let mut opened = agent(&socket);
    let mut following = Following::start(&socket, &authority);
    let feed = soon("a stream", opened.recv()).await.unwrap();

    let first = svid(&authority, NAME, HOUR);
    let others = vec![svid(&authority, OTHER, HOUR), first];
    feed.send(response(others)).await.unwrap();
    let certified = following.until(|status| status.not_after.is_some()).await;
    assert_eq!(certified.failure, None);
    let leaf = following.leaf();

    let second = svid(&authority, NAME, 2 * HOUR);
    feed.send(response(vec![second])).await.unwrap();
    following
        .until(|status| status.not_after > certified.not_after)
        .await;
    assert_ne!(
        following.leaf(),
        leaf,
        "another certificate, by the same stream"
    );

    let leaf = following.leaf();
    drop(feed);
    following
        .until(|status| {
            status
                .failure
                .as_ref()
                .is_some_and(|why| why.contains("ended"))
        })
        .await;
    let feed = soon("another stream", opened.recv()).await.unwrap();
    assert_eq!(following.leaf(), leaf, "the last one stays meanwhile");
    feed.send(response(vec![svid(&authority, NAME, HOUR)]))
        .await
        .unwrap();
    following.until(|status| status.failure.is_none()).await;
    assert_ne!(following.leaf(), leaf);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_the_last_stays() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let mut following = Following::start(&socket, &authority);
    let absent = following.until(|status| status.failure.is_some()).await;
    assert!(
        absent.failure.unwrap().contains("agent.sock"),
        "nobody is there yet"
    );
    let mut opened = agent(&socket);
    let feed = soon("a stream", opened.recv()).await.unwrap();
    feed.send(response(vec![svid(&authority, NAME, HOUR)]))
        .await
        .unwrap();
    following
        .until(|status| status.not_after.is_some() && status.failure.is_none())
        .await;
    let leaf = following.leaf();

    let good = svid(&authority, NAME, HOUR);
    let stranger = svid(&process::authority(), NAME, HOUR);
    let masked = X509svid {
        spiffe_id: NAME.to_owned(),
        ..svid(&authority, OTHER, HOUR)
    };
    let other_key = X509svid {
        x509_svid_key: stranger.x509_svid_key.clone(),
        ..good.clone()
    };
    let cut = X509svid {
        x509_svid: good.x509_svid[..100].to_vec(),
        ..good.clone()
    };
    let empty = X509svid {
        x509_svid: Vec::new(),
        ..good.clone()
    };
    for (svids, why) in [
        (vec![], "issues 0 certificates"),
        (
            vec![svid(&authority, OTHER, HOUR)],
            "none of them for spiffe://mesh.example/ns/shop/sa/web",
        ),
        (vec![stranger], "no anchor"),
        (
            vec![masked],
            "expected spiffe://mesh.example/ns/shop/sa/web",
        ),
        (vec![other_key], "does not match"),
        (vec![cut], "each DER"),
        (vec![empty], "empty"),
    ] {
        feed.send(response(svids)).await.unwrap();
        let status = following
            .until(|status| {
                status
                    .failure
                    .as_ref()
                    .is_some_and(|failure| failure.contains(why))
            })
            .await;
        assert!(status.not_after.is_some(), "{why}");
        assert_eq!(following.leaf(), leaf, "{why}");
    }
    feed.send(response(vec![good])).await.unwrap();
    following.until(|status| status.failure.is_none()).await;
}

#[tokio::test]
async fn what_was_refused_is_asked_for_anew_while_there_is_none() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let mut opened = agent(&socket);
    let issued = svid(&authority, NAME, HOUR);
    // A machine that boots with a clock of the past sets it by and by; what the agent has stays as it is.
    let set = Arc::new(AtomicBool::new(false));
    let is_set = Arc::clone(&set);
    let clock = Box::new(move || match is_set.load(Ordering::SeqCst) {
        true => SystemTime::now(),
        false => SystemTime::now() - 24 * HOUR,
    });
    let mut following = Following::at(&socket, &authority, clock);
    let feed = soon("a stream", opened.recv()).await.unwrap();
    feed.send(response(vec![issued.clone()])).await.unwrap();
    let early = following.until(|status| status.failure.is_some()).await;
    assert!(early.not_after.is_none(), "{early:?}");

    set.store(true, Ordering::SeqCst);
    let anew = soon("another stream", opened.recv()).await.unwrap();
    anew.send(response(vec![issued])).await.unwrap();
    following
        .until(|status| status.not_after.is_some() && status.failure.is_none())
        .await;
}

#[tokio::test]
async fn what_was_refused_is_asked_for_anew_before_the_last_is_no_good() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let mut opened = agent(&socket);
    let mut following = Following::start(&socket, &authority);
    let feed = soon("a stream", opened.recv()).await.unwrap();
    let good = svid(&authority, NAME, HOUR);
    feed.send(response(vec![good.clone()])).await.unwrap();
    following.until(|status| status.not_after.is_some()).await;
    let stranger = svid(&process::authority(), NAME, HOUR);
    feed.send(response(vec![stranger])).await.unwrap();
    following.until(|status| status.failure.is_some()).await;

    // Time goes by while nothing else happens.
    tokio::time::pause();
    let anew = opened.recv().await.unwrap();
    anew.send(response(vec![good])).await.unwrap();
    following
        .status
        .wait_for(|status| status.failure.is_none())
        .await
        .unwrap();
}

#[test]
fn a_key_is_not_shown() {
    let shown = format!("{:?}", svid(&authority(), NAME, HOUR));
    assert!(shown.contains(NAME) && !shown.contains("key"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_serves_with_what_it_is_issued_and_is_not_restarted() {
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let mut opened = agent(&socket);
    let inbound = free_address();
    let mut proxy = Proxy::stand_in(
        &[
            ("DESTINATION_SVC_ADDR", "localhost.:1"),
            ("POLICY_SVC_ADDR", "localhost.:1"),
            ("POLICY_WORKLOAD", "w"),
            ("IDENTITY_SERVER_ID", NAME),
            ("IDENTITY_SERVER_NAME", "web.shop.example"),
            ("IDENTITY_TRUST_ANCHORS", &authority.anchor_pem()),
            (
                "IDENTITY_SPIRE_WORKLOAD_API_ADDRESS",
                &format!("unix://{}", socket.display()),
            ),
            ("INBOUND_LISTEN_ADDR", &inbound.to_string()),
            ("OUTBOUND_LISTEN_ADDR", &free_address().to_string()),
        ],
        folder,
    );
    let feed = soon("a stream", opened.recv()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let issued = svid(&authority, NAME, HOUR);
        feed.send(response(vec![issued.clone()])).await.unwrap();
        proxy.until("/ready", |status, _| status == 200).await;
        let served = soon("its certificate", async {
            loop {
                let served = served(&authority, inbound).await;
                if issued.x509_svid.starts_with(&served) {
                    return served;
                }
                tokio::time::sleep(DEADLINE / 1000).await;
            }
        });
        seen.push(served.await);
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(
        proxy.process.try_wait().unwrap(),
        None,
        "one process all along"
    );
}

/// The leaf that a peer shows at `address`.
async fn served(authority: &Authority, address: std::net::SocketAddr) -> Vec<u8> {
    let bundle = TrustBundle::from_pem(0, authority.anchor_pem().as_bytes()).unwrap();
    let (_trust_writer, trust) = trust_store(bundle);
    let (_writer, credentials) = credential_store();
    let tls = Tls::new(trust, credentials);
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = "web.shop.example".try_into().unwrap();
    let client = tls.anonymous_client(&[b"h2"]);
    let stream = client
        .connect(tcp, &NAME.parse().unwrap(), Some(name))
        .await
        .unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].to_vec()
}
