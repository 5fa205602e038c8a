//! Trust bundles are taken from the stream when the pinned key signed them, used by all before that is said, and anything else
//! is refused and reported.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use mesh_control_api::trust::refused::Reason;
use mesh_control_api::trust::trust_server::{Trust, TrustServer};
use mesh_control_api::trust::{
    Document as Signed, Probe, Reissue, Report, RotateTickets, Since, Update,
};
use mesh_proxy::trust::{Dialled, Follower, Process, Start};
use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::{
    ClientAuth, CredentialWriter, Identity, LeafKey, Tls, TrustBundle, TrustReader,
    credential_store, trust_store,
};
use mesh_trust_rotation::Generation;
use mesh_trust_rotation::crypto::BundleSigner;
use mesh_trust_rotation::document::{Document, Pin};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming, async_trait};

const NAME: &str = "web.default.serviceaccount.identity.linkerd.mesh.example";
const DOMAIN: &str = "mesh.example";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Nothing a test waits for takes this long, unless it is broken.
const DEADLINE: Duration = Duration::from_secs(3600);

/// One stream, as the controller has it.
struct Session {
    token: Option<Vec<u8>>,
    reports: Streaming<Report>,
    updates: mpsc::Sender<Result<Update, Status>>,
}

impl Session {
    async fn report(&mut self) -> Report {
        let report = timeout(DEADLINE, self.reports.message()).await;
        report
            .expect("a report")
            .unwrap()
            .expect("the stream is up")
    }

    /// The next report that is so; those before it are passed over.
    async fn until(&mut self, so: impl Fn(&Report) -> bool) -> Report {
        loop {
            let report = self.report().await;
            if so(&report) {
                return report;
            }
        }
    }

    async fn send(&self, update: Update) {
        self.updates.send(Ok(update)).await.unwrap();
    }

    async fn give(&self, documents: Vec<Signed>) {
        self.send(Update {
            documents,
            ..Update::default()
        })
        .await;
    }
}

/// Hands each stream to the test.
struct Service {
    calls: mpsc::UnboundedSender<Session>,
    /// What there is for who was away; a controller of before does not know the question.
    of_the_day: Option<watch::Receiver<Vec<Signed>>>,
    /// The generations that were asked after.
    asked: mpsc::UnboundedSender<u64>,
    /// So many streams are not answered at all.
    silent: AtomicUsize,
}

#[async_trait]
impl Trust for Service {
    type WatchStream = ReceiverStream<Result<Update, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<Report>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let left = |left: usize| left.checked_sub(1);
        let silent = &self.silent;
        if silent.fetch_update(Relaxed, Relaxed, left).is_ok() {
            std::future::pending::<()>().await;
        }
        let token = request.metadata().get_bin("mesh-trust-token-bin");
        let token = token.map(|token| token.to_bytes().unwrap().to_vec());
        let (updates, receiver) = mpsc::channel(16);
        let _ = self.calls.send(Session {
            token,
            reports: request.into_inner(),
            updates,
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn catch_up(&self, since: Request<Since>) -> Result<Response<Update>, Status> {
        let _ = self.asked.send(since.into_inner().highest_generation);
        let documents = self.of_the_day.as_ref().map(|given| given.borrow().clone());
        let unknown = || Status::unimplemented("as a controller of before");
        Ok(Response::new(Update {
            documents: documents.ok_or_else(unknown)?,
            ..Update::default()
        }))
    }
}

/// A follower and the controller that it follows.
struct Running {
    signer: BundleSigner,
    old: Authority,
    new: Authority,
    trust: TrustReader,
    tls: Tls,
    credentials: CredentialWriter,
    reissues: watch::Receiver<Option<SystemTime>>,
    sessions: mpsc::UnboundedReceiver<Session>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn start() -> Self {
        let (calls, sessions) = mpsc::unbounded_channel();
        let (asked, _) = mpsc::unbounded_channel();
        let service = Service {
            calls,
            of_the_day: None,
            asked,
            silent: AtomicUsize::new(0),
        };
        let server = Server::builder().add_service(TrustServer::new(service));
        Self::start_with(server, sessions, false)
    }

    /// One whose certificate the follower's first bundle does not verify. It says what generations it was asked after.
    fn mistrusted(
        of_the_day: watch::Receiver<Vec<Signed>>,
        silent: usize,
    ) -> (Self, mpsc::UnboundedReceiver<u64>) {
        let (calls, sessions) = mpsc::unbounded_channel();
        let (asked, questions) = mpsc::unbounded_channel();
        let service = Service {
            calls,
            of_the_day: Some(of_the_day),
            asked,
            silent: AtomicUsize::new(silent),
        };
        let server = Server::builder().add_service(TrustServer::new(service));
        (Self::start_with(server, sessions, true), questions)
    }

    fn start_with(
        server: tonic::transport::server::Router,
        sessions: mpsc::UnboundedReceiver<Session>,
        mistrusted: bool,
    ) -> Self {
        let (connect, connecting) = mpsc::channel::<DuplexStream>(1);
        let incoming = ReceiverStream::new(connecting).map(Ok::<_, io::Error>);
        tokio::spawn(server.serve_with_incoming(incoming));
        let (old, new) = (authority(), authority());
        let (signer, _) = BundleSigner::generate().unwrap();
        let first = TrustBundle::from_der(0, [old.anchor().clone()]).unwrap();
        let (writer, trust) = trust_store(first);
        let (credentials, reader) = credential_store();
        let tls = Tls::new(trust.clone(), reader.clone());
        let channel = move |verified: Option<TrustReader>| {
            let connect = connect.clone();
            let connector = tower::service_fn(move |_| {
                let connect = connect.clone();
                let first = verified
                    .as_ref()
                    .is_some_and(|it| it.load().generation() == 0);
                async move {
                    if first {
                        return Err(io::Error::other(mesh_tls::Error::UntrustedIssuer));
                    }
                    let (near, far) = tokio::io::duplex(64 * 1024);
                    connect.send(far).await.map_err(io::Error::other)?;
                    Ok(TokioIo::new(near))
                }
            });
            Endpoint::from_static("http://controller.test").connect_with_connector_lazy(connector)
        };
        let unverified = channel.clone();
        let channel = channel(mistrusted.then(|| trust.clone()));
        let dial = move |_| {
            Ok(Dialled {
                channel: channel.clone(),
                token: Some(b"the token".to_vec()),
                provisional: false,
            })
        };
        let follower = Follower::new(
            Process::new(77, "the-workload", SystemTime::now()),
            Start::with(Pin::new(DOMAIN, signer.public_key().clone(), Generation(0))),
            Arc::new(writer),
            reader,
            Box::new(dial),
            (Duration::from_millis(10), Duration::from_millis(20)),
        )
        .catching_up_over(Box::new(move |_| Some(unverified(None))));
        Self {
            signer,
            old,
            new,
            trust,
            tls,
            credentials,
            reissues: follower.reissues(),
            sessions,
            task: tokio::spawn(follower.run()),
        }
    }

    async fn session(&mut self) -> Session {
        let session = timeout(DEADLINE, self.sessions.recv()).await;
        session.expect("a stream").expect("the server runs")
    }

    fn both(&self, generation: u64) -> Signed {
        let anchors = [&self.old, &self.new].map(|authority| authority.anchor().to_vec());
        let document = Document::new(DOMAIN, Generation(generation), anchors).unwrap();
        signed(&self.signer, &document)
    }

    fn certify(&self, authority: &Authority) {
        let (key, name) = (LeafKey::generate().unwrap(), identity());
        let csr = key.csr(&name).unwrap();
        let leaf = authority.issue(&csr, &name, DAY, SystemTime::now());
        let chain = leaf.unwrap().into_chain();
        self.credentials.set(key.credentials(chain).unwrap());
    }
}

fn identity() -> Identity {
    NAME.parse().unwrap()
}

fn authority() -> Authority {
    let now = SystemTime::now();
    let anchor = Anchor::generate("root", 365 * DAY, now).unwrap();
    let issuer = anchor.issuer("issuer", 30 * DAY, now).unwrap();
    Authority::new(anchor.certificate().clone(), issuer).unwrap()
}

fn signed(signer: &BundleSigner, document: &Document) -> Signed {
    let signed = signer.sign(document).unwrap();
    Signed {
        payload: signed.payload().to_vec(),
        signature: signed.signature().to_vec(),
    }
}

fn generation(report: &Report) -> u64 {
    report.loaded.as_ref().unwrap().generation
}

#[tokio::test(start_paused = true)]
async fn a_signed_bundle_is_used_and_then_acknowledged() {
    let mut running = Running::start();
    let mut session = running.session().await;
    assert_eq!(session.token.as_deref(), Some(&b"the token"[..]));
    let first = session.report().await;
    assert_eq!((generation(&first), first.sequence), (0, 1));
    assert_eq!(
        (first.process.len(), &*first.workload),
        (16, "the-workload")
    );
    assert!(first.incarnation > 0 && first.leaf.is_none());
    assert_eq!(first.bundle_key, running.signer.public_key().as_bytes());

    session.give(vec![running.both(4)]).await;
    let report = session.until(|report| generation(report) == 4).await;
    let bundle = running.trust.load();
    assert_eq!((bundle.generation(), bundle.anchors().len()), (4, 2));
    let loaded = report.loaded.unwrap();
    assert_eq!(loaded.digest, bundle.digest().as_bytes());
    assert_eq!((report.highest_generation, report.refused), (4, None));
    assert!(report.sequence > first.sequence && report.process == first.process);

    // Its leaf is reported with the keys that it leads to, old or new.
    for authority in [&running.old, &running.new] {
        running.certify(authority);
        let anchor = TrustBundle::from_der(1, [authority.anchor().clone()]).unwrap();
        let anchor = anchor.anchor_keys()[0];
        let leads = |report: &Report| {
            let leaf = report.leaf.as_ref();
            leaf.is_some_and(|leaf| leaf.anchor == anchor.as_bytes())
        };
        let leaf = session.until(leads).await.leaf.unwrap();
        assert_eq!(leaf.issuer.len(), 32);
        assert_ne!(leaf.issuer, leaf.anchor);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_while_a_handshake_is_under_an_older_bundle() {
    let mut running = Running::start();
    running.certify(&running.old);
    let mut session = running.session().await;
    session.report().await;
    let server = running.tls.server(&[], ClientAuth::Required);
    let (near, far) = tokio::io::duplex(16 * 1024);
    let slow = tokio::spawn(async move { server.accept(far).await.map(drop) });
    tokio::task::yield_now().await;

    session.give(vec![running.both(4)]).await;
    session.until(|report| report.highest_generation == 4).await;
    // For as long as it goes on, reports come and name what it is under.
    for _ in 0..5 {
        let report = session.report().await;
        assert_eq!((generation(&report), report.highest_generation), (0, 4));
    }
    drop(near);
    assert!(slow.await.unwrap().is_err());
    assert_eq!(generation(&session.report().await), 4);
}

#[tokio::test(start_paused = true)]
async fn what_the_pinned_key_does_not_vouch_for_is_refused_and_reported() {
    let mut running = Running::start();
    let mut session = running.session().await;
    session.give(vec![running.both(4)]).await;
    session.until(|report| generation(report) == 4).await;
    let before = running.trust.load();

    let (thief, _) = BundleSigner::generate().unwrap();
    let forged = Document::new(DOMAIN, Generation(5), [running.new.anchor().to_vec()]).unwrap();
    let refused = [
        (signed(&thief, &forged), Reason::Signature),
        (running.both(3), Reason::Stale),
        (running.both(u64::MAX), Reason::Leap),
        (running.both(4 + 1025), Reason::Leap),
        (Signed::default(), Reason::Signature),
    ];
    for (index, (document, reason)) in (1..).zip(refused) {
        session.give(vec![document]).await;
        let report = session
            .until(|report| report.refused.as_ref().is_some_and(|it| it.total == index))
            .await;
        let it = report.refused.unwrap();
        assert_eq!(it.reason(), reason);
        assert!(!it.detail.is_empty() && it.detail.len() <= 512);
        assert_eq!(report.highest_generation, 4);
        assert_eq!(*running.trust.load(), *before);
    }
    // And what is right is still taken.
    session.give(vec![running.both(5)]).await;
    session.until(|report| generation(report) == 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_opened_again_and_loses_nothing() {
    let mut running = Running::start();
    let mut session = running.session().await;
    session.give(vec![running.both(4)]).await;
    let last = session.until(|report| generation(report) == 4).await;
    drop(session);
    let mut session = running.session().await;
    let again = session.report().await;
    assert_eq!((generation(&again), again.highest_generation), (4, 4));
    assert!(again.sequence > last.sequence);
    assert_eq!(
        (again.process, again.incarnation),
        (last.process, last.incarnation)
    );
    session.give(vec![running.both(4), running.both(6)]).await;
    session.until(|report| generation(report) == 6).await;
}

#[tokio::test(start_paused = true)]
async fn who_was_away_takes_the_bundle_of_the_day_by_the_pinned_key() {
    let (give, given) = watch::channel(Vec::new());
    let (mut running, mut asked) = Running::mistrusted(given, 0);
    // There may be nothing yet; it is asked again.
    for _ in 0..3 {
        let question = timeout(DEADLINE, asked.recv()).await;
        assert_eq!(question.expect("it asks"), Some(0));
    }
    assert_eq!(running.trust.load().generation(), 0);
    assert_eq!(*running.reissues.borrow(), None);

    give.send(vec![running.both(4)]).unwrap();
    let mut session = running.session().await;
    let report = session.report().await;
    assert_eq!((generation(&report), report.highest_generation), (4, 4));
    assert_eq!(running.trust.load().anchors().len(), 2);
    // The certificate may be as old as the bundle was.
    assert!(running.reissues.borrow().is_some());
}

#[tokio::test(start_paused = true)]
async fn who_was_away_takes_nothing_that_the_pinned_key_did_not_sign() {
    let (give, given) = watch::channel(Vec::new());
    let (mut running, mut asked) = Running::mistrusted(given, 0);
    let before = running.trust.load();
    let (thief, _) = BundleSigner::generate().unwrap();
    let forged = Document::new(DOMAIN, Generation(5), [running.new.anchor().to_vec()]).unwrap();
    for refused in [
        signed(&thief, &forged),
        running.both(u64::MAX),
        Signed::default(),
    ] {
        give.send(vec![refused]).unwrap();
        // The answer to the second question from now is the new one, and judged before the third is asked.
        for _ in 0..3 {
            let question = timeout(DEADLINE, asked.recv()).await;
            assert_eq!(question.expect("it asks"), Some(0));
        }
        assert_eq!(*running.trust.load(), *before);
        assert!(running.sessions.try_recv().is_err(), "nobody is verified");
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_cannot_be_verified_is_told_and_gives_documents_but_no_orders() {
    let (_give, given) = watch::channel(Vec::new());
    let (mut running, _asked) = Running::mistrusted(given, 0);
    running.certify(&running.old);
    let mut session = running.session().await;
    let report = session.report().await;
    assert_eq!(generation(&report), 0);
    let leaf = report.leaf.expect("who it is");
    assert!(!leaf.issuer.is_empty());

    let update = Update {
        reissue: Some(Reissue::default()),
        rotate_tickets: Some(RotateTickets { generation: 9 }),
        probes: vec![Probe::default()],
        ..Update::default()
    };
    session.send(update).await;
    let (thief, _) = BundleSigner::generate().unwrap();
    let forged = Document::new(DOMAIN, Generation(5), [running.new.anchor().to_vec()]).unwrap();
    session.give(vec![signed(&thief, &forged)]).await;
    let report = session.until(|report| report.refused.is_some()).await;
    assert_eq!((report.tickets, report.probes.len()), (0, 0));
    assert_eq!(*running.reissues.borrow(), None, "no order is taken");
    session.give(vec![running.both(4)]).await;
    session.until(|report| generation(report) == 4).await;
    // Now it can be verified, and is followed.
    let mut session = running.session().await;
    assert_eq!(generation(&session.report().await), 4);
    session
        .send(Update {
            rotate_tickets: Some(RotateTickets { generation: 9 }),
            ..Update::default()
        })
        .await;
    session.until(|report| report.tickets == 9).await;
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_verified_and_says_nothing_is_not_waited_for() {
    let (_give, given) = watch::channel(Vec::new());
    let (mut running, _asked) = Running::mistrusted(given, 2);
    running.certify(&running.old);
    let mut session = running.session().await;
    assert_eq!(generation(&session.report().await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_know_the_stream_is_asked_rarely() {
    let (_calls, sessions) = mpsc::unbounded_channel();
    let (asked, mut questions) = mpsc::unbounded_channel();
    let unknown = tower::service_fn(move |_: http::Request<tonic::body::Body>| {
        let _ = asked.send(tokio::time::Instant::now());
        std::future::ready(Ok::<_, std::convert::Infallible>(
            Status::unimplemented("stock").into_http::<tonic::body::Body>(),
        ))
    });
    let running = Running::start_with(
        Server::builder().add_service(Stock(unknown)),
        sessions,
        false,
    );
    let first = questions.recv().await.unwrap();
    let second = questions.recv().await.unwrap();
    assert!(second - first >= Duration::from_secs(300));
    assert_eq!(running.trust.load().generation(), 0);
}

#[tokio::test(start_paused = true)]
async fn orders_are_followed_and_answered() {
    let mut running = Running::start();
    running.certify(&running.old);
    let mut session = running.session().await;
    session
        .send(Update {
            rotate_tickets: Some(RotateTickets { generation: 9 }),
            ..Update::default()
        })
        .await;
    let report = session.until(|report| report.tickets == 9).await;

    // To whoever has a certificate of that issuer already, this is no order.
    let order = |issuer: Vec<u8>| Update {
        reissue: Some(Reissue {
            within: None,
            issuer,
        }),
        ..Update::default()
    };
    session.send(order(report.leaf.unwrap().issuer)).await;
    session.send(order(vec![7; 32])).await;
    running.reissues.changed().await.unwrap();
    assert!(running.reissues.borrow().unwrap() <= SystemTime::now());

    let probe = |id, authority: &Authority, anchor: &Authority| {
        let (key, name) = (LeafKey::generate().unwrap(), identity());
        let csr = key.csr(&name).unwrap();
        let leaf = authority
            .issue(&csr, &name, DAY, SystemTime::now())
            .unwrap();
        let bundle = TrustBundle::from_der(1, [anchor.anchor().clone()]).unwrap();
        Probe {
            id,
            anchor: bundle.anchor_keys()[0].as_bytes().to_vec(),
            chain: leaf.chain().iter().map(|der| der.to_vec()).collect(),
        }
    };
    let probes = vec![
        probe(1, &running.old, &running.old),
        probe(2, &running.new, &running.new),
        probe(3, &running.old, &running.new),
    ];
    session
        .send(Update {
            probes,
            ..Update::default()
        })
        .await;
    let report = session.until(|report| !report.probes.is_empty()).await;
    let verdicts: Vec<_> = report
        .probes
        .iter()
        .map(|it| (it.id, it.accepted))
        .collect();
    assert_eq!(verdicts, [(1, true), (2, false), (3, false)]);
    assert!(report.probes[2].reason.contains("leads to"));
}

/// Something at the path of the trust service that is none.
#[derive(Clone)]
struct Stock<S>(S);

impl<S> tonic::server::NamedService for Stock<S> {
    const NAME: &'static str = "mesh.trust.v1.Trust";
}

impl<S, R> tower_service::Service<R> for Stock<S>
where
    S: tower_service::Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}
