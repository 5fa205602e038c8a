//! Anchors are replaced while requests and streams go on: none fails, what is to be drained is, and what is to be cut is announced
//! and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::BodyExt;
use mesh_control_api::trust::{Document as Signed, Drain, Reissue, Report, Update, drain::Mode};
use mesh_tls::TrustBundle;
use mesh_tls::ca::Authority;
use mesh_trust_rotation::Generation;
use mesh_trust_rotation::crypto::BundleSigner;
use mesh_trust_rotation::document::Document;
use tokio::task::JoinSet;

use crate::controller::{Feed, Watching, soon};
use crate::h2;
use crate::mesh::{Mesh, Proxy, authority};
use crate::policy;
use crate::wire::Wire;

/// One proxy's stream, as the controller has it.
struct Followed {
    watching: Watching,
    updates: Feed<Update>,
}

impl Followed {
    async fn of(mesh: &mut Mesh) -> Self {
        let (watching, updates) = soon("a trust stream", mesh.streams.recv()).await.unwrap();
        Self { watching, updates }
    }

    /// The next report that is so.
    async fn until(&mut self, what: &str, so: impl Fn(&Report) -> bool) -> Report {
        let mut last = None;
        let waiting = async {
            loop {
                let report = self.watching.reports.message().await.unwrap().unwrap();
                if so(&report) {
                    return report;
                }
                last = Some(report);
            }
        };
        match tokio::time::timeout(Duration::from_secs(15), waiting).await {
            Ok(report) => report,
            Err(_) => panic!("{what}: {last:#?}"),
        }
    }

    async fn adopts(&mut self, document: &Signed) {
        let documents = vec![document.clone()];
        let update = Update {
            documents,
            report_every: Some(Duration::from_secs(1).try_into().unwrap()),
            ..Update::default()
        };
        self.updates.send(update).await;
        let payload: Document = serde_json::from_slice(&document.payload).unwrap();
        let generation = payload.generation().0;
        self.until("the bundle", |report| {
            report.loaded.as_ref().unwrap().generation == generation
        })
        .await;
    }

    async fn reissues(&mut self, by: &Authority) {
        let update = Update {
            reissue: Some(Reissue::default()),
            ..Update::default()
        };
        self.updates.send(update).await;
        let anchor = anchor(by);
        self.until("a leaf of the new anchor", |report| {
            report.leaf.as_ref().unwrap().anchor == anchor
        })
        .await;
    }

    async fn drains(&mut self, by: &Authority, mode: Mode, within: Duration) {
        let update = Update {
            drains: vec![Drain {
                anchor: anchor(by),
                mode: mode.into(),
                within: Some(within.try_into().unwrap()),
            }],
            ..Update::default()
        };
        self.updates.send(update).await;
    }

    async fn has_none_of(&mut self, by: &Authority) {
        let anchor = anchor(by);
        self.until("no connection of the old anchor", |report| {
            report.connections.iter().all(|one| one.anchor != anchor)
        })
        .await;
    }
}

struct Rotating {
    mesh: Mesh,
    signer: BundleSigner,
    generation: u64,
    client: Followed,
    server: Followed,
    proxies: [Proxy; 2],
}

impl Rotating {
    async fn start() -> Self {
        let mut mesh = Mesh::start_in_domain();
        let (signer, _) = BundleSigner::generate().unwrap();
        let key: String = signer.public_key().clone().into();
        std::fs::write(mesh.file("bundle-key.pub"), key).unwrap();
        let settings = format!(
            "identity.bundle_key_file = {:?}\n",
            mesh.file("bundle-key.pub")
        );
        let client = mesh.client(&settings).await;
        let followed_client = Followed::of(&mut mesh).await;
        let server = mesh.server(&settings).await;
        let followed_server = Followed::of(&mut mesh).await;
        Self {
            signer,
            generation: 0,
            client: followed_client,
            server: followed_server,
            proxies: [client, server],
            mesh,
        }
    }

    fn document(&mut self, of: &[&Authority]) -> Signed {
        self.generation += 1;
        let anchors = of.iter().map(|authority| authority.anchor().to_vec());
        let document = Document::new("mesh.example", Generation(self.generation), anchors);
        let signed = self.signer.sign(&document.unwrap()).unwrap();
        Signed {
            payload: signed.payload().to_vec(),
            signature: signed.signature().to_vec(),
        }
    }

    /// Everybody trusts `new` too, and has a certificate of it; one after the other, so that old and new meet.
    async fn move_to(&mut self, old: &Authority, new: &Arc<Authority>) {
        let both = self.document(&[old, new]);
        self.client.adopts(&both).await;
        self.server.adopts(&both).await;
        self.mesh.issuing.send_replace(new.clone());
        self.server.reissues(new).await;
        self.client.reissues(new).await;
    }

    async fn drop_all_but(&mut self, new: &Authority) {
        let only = self.document(&[new]);
        self.server.adopts(&only).await;
        self.client.adopts(&only).await;
    }
}

fn anchor(of: &Authority) -> Vec<u8> {
    let bundle = TrustBundle::from_der(1, [of.anchor().clone()]).unwrap();
    bundle.anchor_keys()[0].as_bytes().to_vec()
}

/// Clients that ask until the answer is no longer wanted; each of their requests is answered.
fn load(mesh: &Mesh, stop: &Arc<AtomicBool>) -> JoinSet<usize> {
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let (address, stop) = (mesh.net.web(), stop.clone());
        clients.spawn(async move {
            let mut wire = Wire::connect(address).await;
            let (mut sender, _connection) = h2::connect(address).await;
            let mut answered = 0;
            while !stop.load(SeqCst) {
                let status = if client % 2 == 0 {
                    wire.ask("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 4\r\n\r\nbody")
                        .await
                        .status()
                } else {
                    let request = http::Request::post("http://web.test/")
                        .body(h2::full("body"))
                        .unwrap();
                    let answer = soon("an answer", sender.send_request(request)).await;
                    answer.unwrap().status().as_u16()
                };
                assert_eq!(status, 200, "client {client}, after {answered} answers");
                answered += 1;
            }
            answered
        });
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn three_times_in_a_row_and_no_request_fails() {
    let mut rotating = Rotating::start().await;
    let _app = h2::app(rotating.mesh.net.app(), |request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(h2::full(body))
    })
    .await;
    assert_eq!(
        rotating.client.watching.token.as_deref(),
        Some(&b"token"[..])
    );
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = load(&rotating.mesh, &stop);
    let mut old = rotating.mesh.authority().clone();
    for _ in 0..3 {
        let new = Arc::new(authority());
        rotating.move_to(&old, &new).await;
        rotating
            .client
            .drains(&old, Mode::Wait, Duration::ZERO)
            .await;
        rotating.client.has_none_of(&old).await;
        rotating
            .server
            .drains(&old, Mode::Wait, Duration::ZERO)
            .await;
        rotating.server.has_none_of(&old).await;
        rotating.drop_all_but(&new).await;
        old = new;
    }
    stop.store(true, SeqCst);
    let mut answered = 0;
    while let Some(ended) = clients.join_next().await {
        answered += ended.unwrap();
    }
    assert!(answered > 100, "{answered}");
    for proxy in &rotating.proxies {
        proxy
            .metric_becomes("trust_bundle_generation", &[], 6.0)
            .await;
        assert_eq!(proxy.metric("trust_connections_cut_total", &[]).await, 0.0);
    }
    let open = rotating.proxies[1]
        .metric("trust_connections", &["state=\"open\""])
        .await;
    assert!(open > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_is_waited_for_or_cut_as_ordered() {
    let mut rotating = Rotating::start().await;
    let mesh = &rotating.mesh;
    // Bytes that come back, until the client has had enough.
    let listener = tokio::net::TcpListener::bind(mesh.net.app()).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    mesh.says.policy("other.test:80", policy::opaque("other"));
    let endpoint = policy::meshed_as(
        mesh.net.mesh_port(),
        "server.default.serviceaccount.identity.linkerd.mesh.example",
    );
    mesh.says.endpoints("other.test:80", vec![endpoint]);
    let mut wire = Wire::connect(mesh.net.other()).await;
    wire.send("ping").await;
    assert_eq!(wire.exactly(4).await, b"ping");

    let old = rotating.mesh.authority().clone();
    let new = Arc::new(authority());
    rotating.move_to(&old, &new).await;
    let of_old = anchor(&old);
    for side in [&mut rotating.client, &mut rotating.server] {
        side.drains(&old, Mode::Wait, Duration::ZERO).await;
        let draining = |report: &Report| {
            let one = report.connections.iter().find(|one| one.anchor == of_old);
            one.is_some_and(|one| (one.count, one.draining) == (1, 1) && one.oldest.is_some())
        };
        side.until("what is waited for is named", draining).await;
    }
    wire.send("pong").await;
    assert_eq!(wire.exactly(4).await, b"pong");

    rotating
        .client
        .drains(&old, Mode::Cut, Duration::from_millis(300))
        .await;
    rotating.client.has_none_of(&old).await;
    rotating.server.has_none_of(&old).await;
    assert!(wire.ends_within(Duration::from_secs(5)).await);
    rotating.proxies[0]
        .metric_becomes("trust_connections_cut_total", &[], 1.0)
        .await;
    let report = rotating
        .client
        .until("the count", |report| report.connections_cut == 1)
        .await;
    assert!(report.refused.is_none());
    // And a new one is under the new anchor.
    let mut wire = Wire::connect(rotating.mesh.net.other()).await;
    wire.send("ping").await;
    assert_eq!(wire.exactly(4).await, b"ping");
    let of_new = anchor(&new);
    rotating
        .client
        .until("one of the new anchor", |report| {
            report.connections.iter().any(|one| one.anchor == of_new)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_proxy_begins_with_the_bundle_that_it_kept() {
    let mut mesh = Mesh::start_in_domain();
    let (signer, _) = BundleSigner::generate().unwrap();
    let key: String = signer.public_key().clone().into();
    std::fs::write(mesh.file("bundle-key.pub"), key).unwrap();
    let settings = format!(
        "identity.bundle_key_file = {:?}\nidentity.bundle_file = {:?}\n",
        mesh.file("bundle-key.pub"),
        mesh.file("bundle.json")
    );
    let proxy = mesh.client(&settings).await;
    let mut followed = Followed::of(&mut mesh).await;
    let new = Arc::new(authority());
    let document = Document::new("mesh.example", Generation(9), [new.anchor().to_vec()]).unwrap();
    let signed = signer.sign(&document).unwrap();
    let signed = Signed {
        payload: signed.payload().to_vec(),
        signature: signed.signature().to_vec(),
    };
    followed.adopts(&signed).await;
    drop(proxy);
    // The anchors that it was given know nothing of who signs now.
    mesh.issuing.send_replace(new.clone());
    let proxy = mesh.client(&settings).await;
    let mut again = Followed::of(&mut mesh).await;
    let report = again.until("the first report", |_| true).await;
    assert_eq!(report.highest_generation, 9);
    let of_new = anchor(&new);
    again
        .until("a leaf", |report| {
            report
                .leaf
                .as_ref()
                .is_some_and(|leaf| leaf.anchor == of_new)
        })
        .await;
    proxy
        .metric_becomes("trust_bundle_generation", &[], 9.0)
        .await;
}
