//! Whole rotations in one process, on a clock of the test's own: what every process presents has to verify, in every second,
//! under what every other one uses.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use mesh_control_api::trust as api;
use mesh_tls::{Credentials, LeafKey};
use mesh_trust_rotation::{
    Incarnation, IssuerId, Loaded, Outcome, Phase,
    crypto::{Ed25519, Sha256},
    document::{Pin, SignedDocument},
    lint::Facts,
};

use super::*;
use crate::store::{Expected, StoreFuture, Version, Versioned};

const LEAF: Duration = Duration::from_mins(1);

/// A store in memory that dies at a write, before or after it has taken effect.
#[derive(Debug, Default)]
struct Memory {
    values: Mutex<BTreeMap<String, Versioned>>,
    version: AtomicU64,
    /// Writes until it dies; negative: never.
    left: AtomicI64,
    after: std::sync::atomic::AtomicBool,
    dead: std::sync::atomic::AtomicBool,
    writes: AtomicU64,
}

impl Memory {
    fn new() -> Arc<Self> {
        let memory = Self::default();
        memory.left.store(-1, Ordering::SeqCst);
        Arc::new(memory)
    }

    fn dies(&self) -> bool {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let dies = self.left.fetch_sub(1, Ordering::SeqCst) == 0;
        if dies {
            self.dead.store(true, Ordering::SeqCst);
        }
        dies
    }

    fn change(
        &self,
        key: &str,
        expected: Option<Version>,
        value: Option<Vec<u8>>,
    ) -> Result<Version, StoreError> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(StoreError::Io("dead".into()));
        }
        let after = self.after.load(Ordering::SeqCst);
        let dies = self.dies();
        if dies && !after {
            return Err(StoreError::Io("dies before a write".into()));
        }
        let mut values = self.values.lock().unwrap();
        let found = values.get(key).map(|found| found.version);
        if found != expected {
            let expected = expected.map_or(Expected::Absent, Expected::At);
            let key = key.to_owned();
            return Err(StoreError::Conflict {
                key,
                expected,
                found,
            });
        }
        let version = Version::of(self.version.fetch_add(1, Ordering::SeqCst) + 1);
        match value {
            Some(value) => values.insert(key.to_owned(), Versioned { version, value }),
            None => values.remove(key),
        };
        if dies {
            return Err(StoreError::Io("dies after a write".into()));
        }
        Ok(version)
    }

    fn keys(&self) -> Vec<String> {
        self.values.lock().unwrap().keys().cloned().collect()
    }
}

impl StateStore for Memory {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>> {
        let found = self.values.lock().unwrap().get(key).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn put(&self, key: &str, expected: Expected, value: Vec<u8>) -> StoreFuture<'_, Version> {
        let expected = match expected {
            Expected::Absent => None,
            Expected::At(version) => Some(version),
        };
        let done = self.change(key, expected, Some(value));
        Box::pin(async move { done })
    }

    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()> {
        let done = self.change(key, Some(expected), None);
        Box::pin(async move { done.map(|_| ()) })
    }

    fn list(
        &self,
        prefix: &str,
        _: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let values = self.values.lock().unwrap();
        let found = values
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Box::pin(async move { Ok(found) })
    }
}

/// A process that does what mesh-proxy does, in no time.
struct Proxy {
    identity: Identity,
    process: Process,
    key: LeafKey,
    pin: Pin,
    bundle: TrustBundle,
    leaf: Option<Credentials>,
    wanted: bool,
    sequence: u64,
    orders: Option<mpsc::Receiver<api::Update>>,
}

struct World {
    store: Arc<Memory>,
    settings: Settings,
    now: SystemTime,
    trust: Trust,
    driver: Driver,
    proxies: Vec<Proxy>,
    refusals: Vec<String>,
    restarts: u64,
}

fn digest(bundle: &TrustBundle) -> mesh_trust_rotation::Digest {
    mesh_trust_rotation::Digest::new(*bundle.digest().as_bytes())
}

impl Proxy {
    fn new(name: &str, trust: &Trust) -> Self {
        let domain = trust.trust_domain();
        let bundle = trust.bundle();
        let process = Process {
            process: format!("p{name}"),
            incarnation: Incarnation(7),
            workload: format!("shop:{name}"),
            loaded: None,
        };
        let key = trust.shared.signer.public_key().clone();
        Self {
            identity: Identity::linkerd(name, "shop", "linkerd", &domain).unwrap(),
            pin: Pin::new(domain.as_str(), key, Generation(0)),
            process: Process {
                loaded: Some(Loaded {
                    generation: Generation(0),
                    digest: digest(&bundle),
                }),
                ..process
            },
            key: LeafKey::generate().unwrap(),
            bundle,
            leaf: None,
            wanted: true,
            sequence: 0,
            orders: None,
        }
    }

    fn connect(&mut self, trust: &Trust) {
        let (sender, orders) = mpsc::channel(16);
        let id = self.process.id(&self.identity, trust.record().rotation());
        trust.shared.sessions.opened(id, 1, sender);
        self.orders = Some(orders);
    }

    fn follow(&mut self, trust: &Trust, life: Duration, now: SystemTime) -> Reported {
        let published = trust.shared.published.borrow().clone();
        let given = &published.all;
        if given.generation > self.pin.generation() {
            let signed = SignedDocument::new(
                given.document.payload.clone(),
                given.document.signature.clone(),
            );
            let document = self.pin.accept(&signed, &Ed25519).unwrap();
            let anchors = document
                .anchors()
                .map(|anchor| CertificateDer::from(anchor.to_vec()));
            self.bundle = TrustBundle::from_der(document.generation().0, anchors).unwrap();
            self.process.loaded = Some(Loaded {
                generation: document.generation(),
                digest: digest(&self.bundle),
            });
        }
        if let Some(orders) = &mut self.orders {
            while let Ok(order) = orders.try_recv() {
                self.wanted |= order.reissue.is_some();
            }
        }
        let left = |leaf: &Credentials| leaf.not_after().duration_since(now).unwrap_or_default();
        self.wanted |= self.leaf.as_ref().is_none_or(|leaf| left(leaf) < life / 3);
        self.sequence += 1;
        let leaf = self.leaf.as_ref().map(|leaf| api::Leaf {
            issuer: issuer(leaf).as_bytes().to_vec(),
            anchor: Vec::new(),
            not_after: Some(leaf.not_after().into()),
        });
        Reported {
            process: self.process.clone(),
            report: api::Report {
                sequence: self.sequence,
                leaf,
                ..api::Report::default()
            },
            at: now,
        }
    }
}

fn issuer(leaf: &Credentials) -> IssuerId {
    Facts::from_der(&leaf.chain()[1]).unwrap().issuer_id()
}

fn settings() -> Settings {
    Settings {
        leaf_lifetime: LEAF,
        ..Settings::default()
    }
}

impl World {
    async fn new(proxies: usize) -> Self {
        Self::on(Memory::new(), settings(), proxies).await
    }

    async fn on(store: Arc<Memory>, settings: Settings, proxies: usize) -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (trust, driver) = Trust::open(store.clone(), &settings, now).await.unwrap();
        let mut proxies: Vec<_> = (0..proxies)
            .map(|number| Proxy::new(&format!("web-{number}"), &trust))
            .collect();
        for proxy in &mut proxies {
            proxy.connect(&trust);
        }
        Self {
            store,
            settings,
            now,
            trust,
            driver,
            proxies,
            refusals: Vec::new(),
            restarts: 0,
        }
    }

    /// A second passes. True if the controller died in it and was started again.
    async fn second(&mut self, command: Option<Command>) -> bool {
        self.now += Duration::from_secs(1);
        let (mut batch, mut answers) = (Vec::new(), Vec::new());
        for (number, proxy) in self.proxies.iter_mut().enumerate() {
            let reported = proxy.follow(&self.trust, self.settings.leaf_lifetime, self.now);
            let rotation = self.trust.record();
            let id = proxy.process.id(&proxy.identity, rotation.rotation());
            if proxy.leaf.is_some() {
                self.trust.shared.report(id, reported);
            }
            if proxy.wanted {
                let (answer, answered) = oneshot::channel();
                let ask = Ask {
                    csr: proxy.key.csr(&proxy.identity).unwrap(),
                    identity: proxy.identity.clone(),
                    process: Some(proxy.process.clone()),
                    accepted: Shown::Local,
                };
                batch.push(Request::Certify(ask, answer));
                answers.push((number, answered));
            }
        }
        let told = command.map(|command| {
            let (answer, answered) = oneshot::channel();
            batch.push(Request::Command(command, answer));
            answered
        });
        let failed = self.driver.turn(self.now, batch).await.is_err();
        let died = self.store.dead.load(Ordering::SeqCst);
        assert!(died || !failed);
        for (number, mut answered) in answers {
            match answered.try_recv() {
                Ok(Ok(leaf)) => {
                    let proxy = &mut self.proxies[number];
                    proxy.leaf = Some(proxy.key.credentials(leaf.into_chain()).unwrap());
                    proxy.wanted = false;
                }
                Ok(Err(error)) => self.refusals.push(error.to_string()),
                Err(_) => assert!(died, "an answer was lost"),
            }
        }
        if let Some(mut told) = told {
            match told.try_recv() {
                Ok(taken) => assert!(died || taken.is_ok(), "{taken:?}"),
                Err(_) => assert!(died, "an operator's answer was lost"),
            }
        }
        if died {
            self.restart().await;
        }
        self.check();
        died
    }

    /// The controller's process is gone, and another one begins on the same store.
    async fn restart(&mut self) {
        self.restarts += 1;
        self.store.dead.store(false, Ordering::SeqCst);
        self.store.left.store(-1, Ordering::SeqCst);
        let opened = Trust::open(self.store.clone(), &self.settings, self.now).await;
        (self.trust, self.driver) = opened.unwrap();
        for proxy in &mut self.proxies {
            proxy.connect(&self.trust);
        }
    }

    /// What anybody presents verifies under what anybody uses.
    fn check(&self) {
        let own = self.trust.bundle();
        for one in &self.proxies {
            let Some(leaf) = &one.leaf else { continue };
            leaf.verify(&own, self.now).unwrap();
            for other in &self.proxies {
                leaf.verify(&other.bundle, self.now).unwrap();
            }
        }
    }

    fn rotation_ended(&self) -> bool {
        self.trust.record().rotation().change().is_none()
    }

    async fn seconds(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.second(None).await;
        }
    }

    /// Until nothing changes any more; the seconds it took.
    async fn until_ended(&mut self) -> usize {
        for second in 0..600 {
            if self.rotation_ended() {
                return second;
            }
            self.second(None).await;
        }
        let record = self.trust.record();
        let gate = record.rotation().gate(unix(self.now));
        let phase = record.rotation().change().map(|change| change.phase);
        panic!("{phase:?}: {gate:#?}");
    }

    fn anchor(&self) -> AnchorId {
        self.trust.record().rotation().active().anchor
    }
}

/// With leaves so short that a rotation takes few turns.
async fn quick(proxies: usize) -> World {
    let settings = Settings {
        leaf_lifetime: Duration::from_secs(15),
        ..Settings::default()
    };
    World::on(Memory::new(), settings, proxies).await
}

const ROTATE: Command = Command::Rotate { issuer_only: false };

#[tokio::test]
async fn three_rotations_in_a_row_and_everybody_trusts_everybody_all_the_time() {
    let mut world = World::new(3).await;
    world.seconds(3).await;
    for _ in 0..3 {
        let before = world.anchor();
        world.second(Some(ROTATE)).await;
        let took = world.until_ended().await;
        assert!(took < 100, "{took} s with leaves of a minute");
        let record = world.trust.record();
        assert_eq!(record.rotation().last_outcome(), Some(Outcome::Completed));
        assert_ne!(world.anchor(), before);
        record.audit().verify(&Sha256).unwrap();
        world.seconds(2).await;
        for proxy in &world.proxies {
            assert_eq!(proxy.bundle.anchors().len(), 1);
        }
        let mut keys = world.store.keys();
        keys.retain(|key| key.starts_with("trust/anchor/") || key.starts_with("trust/issuer/"));
        assert_eq!(keys.len(), 2, "the old keys are destroyed: {keys:?}");
    }
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn killed_at_any_write_of_a_rotation_it_ends_in_the_same_place() {
    let mut world = quick(2).await;
    world.seconds(3).await;
    let before = world.store.writes.load(Ordering::SeqCst);
    world.second(Some(ROTATE)).await;
    world.until_ended().await;
    let writes = world.store.writes.load(Ordering::SeqCst) - before;
    assert!(writes > 10, "{writes}");
    let mut killed = 0;
    for at in 0..writes {
        for after in [false, true] {
            let mut world = quick(2).await;
            world.seconds(3).await;
            let old = world.anchor();
            world.store.after.store(after, Ordering::SeqCst);
            world
                .store
                .left
                .store(i64::try_from(at).unwrap(), Ordering::SeqCst);
            world.second(Some(ROTATE)).await;
            if world.rotation_ended() && world.anchor() == old {
                // It died before the operator's word was on record, and the operator was told so.
                world.second(Some(ROTATE)).await;
            }
            world.until_ended().await;
            world.seconds(20).await;
            killed += world.restarts;
            let record = world.trust.record();
            let outcome = record.rotation().last_outcome();
            assert_eq!(outcome, Some(Outcome::Completed), "write {at}, {after}");
            assert_ne!(world.anchor(), old);
            let mut keys = world.store.keys();
            keys.retain(|key| key.starts_with("trust/anchor/") || key.starts_with("trust/issuer/"));
            assert_eq!(keys.len(), 2, "write {at}, {after}: {keys:?}");
            assert_eq!(world.refusals, [""; 0], "write {at}, {after}");
        }
    }
    println!("killed before and after each of {writes} writes of a rotation: {killed} deaths");
    assert!(killed >= writes);
}

#[tokio::test]
async fn who_is_away_is_named_and_is_let_in_again_when_it_comes_back() {
    let mut world = World::new(3).await;
    world.seconds(3).await;
    let away = world.proxies.pop().unwrap();
    world.second(Some(ROTATE)).await;
    world.seconds(5).await;
    let record = world.trust.record();
    let gate = record.rotation().gate(unix(world.now));
    let text: Vec<String> = gate.blockers().iter().map(ToString::to_string).collect();
    assert_eq!(
        record.rotation().change().unwrap().phase,
        Phase::Distribute,
        "{text:?}"
    );
    assert!(text[0].contains("shop/web-2@"), "{text:?}");
    // Its lease of ten minutes ends; then the others go on.
    for _ in 0..640 {
        world.second(None).await;
    }
    world.until_ended().await;
    // It comes back with what it had: the bundle of before does not do.
    let mut back = away;
    back.connect(&world.trust);
    back.leaf = None;
    back.orders = None;
    world.proxies.push(back);
    world.seconds(3).await;
    assert!(world.proxies[2].leaf.is_some(), "{:?}", world.refusals);
}

#[tokio::test]
async fn an_abort_leads_back_and_destroys_the_new_keys() {
    for seconds in [0, 1, 4, 30] {
        let mut world = World::new(2).await;
        world.seconds(3).await;
        let old = world.anchor();
        world.second(Some(ROTATE)).await;
        world.seconds(seconds).await;
        world
            .second(Some(Command::Event(Box::new(Event::Abort))))
            .await;
        world.until_ended().await;
        world.seconds(5).await;
        assert_eq!(world.anchor(), old);
        let outcome = world.trust.record().rotation().last_outcome();
        assert_eq!(outcome, Some(Outcome::SafelyAborted), "after {seconds} s");
        let mut keys = world.store.keys();
        keys.retain(|key| key.starts_with("trust/anchor/") || key.starts_with("trust/issuer/"));
        assert_eq!(keys.len(), 2, "after {seconds} s: {keys:?}");
    }
}

#[tokio::test]
async fn an_emergency_refuses_the_tainted_anchor_everywhere() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let old = world.anchor();
    world
        .second(Some(Command::Event(Box::new(Event::Taint(old)))))
        .await;
    world.second(Some(ROTATE)).await;
    let took = world.until_ended().await;
    assert!(took < 30, "{took} s");
    world.seconds(2).await;
    assert_ne!(world.anchor(), old);
    for proxy in &world.proxies {
        assert_eq!(proxy.bundle.anchors().len(), 1);
    }
}

/// As it was written before there was a record.
async fn legacy(store: &Memory, now: SystemTime) -> TrustBundle {
    let day = Duration::from_hours(24);
    let anchor = mesh_tls::ca::Anchor::generate("root.cluster.local", day * 3650, now).unwrap();
    let issuer = anchor
        .issuer("issuer.cluster.local", day * 365, now)
        .unwrap();
    let value = serde_json::json!({
        "anchor": anchor.certificate_pem(),
        "anchor_key": anchor.key_pem().expose(),
        "issuer": issuer.chain_pem(),
        "issuer_key": issuer.key_pem().expose(),
    });
    let value = serde_json::to_vec(&value).unwrap();
    store
        .put(record::LEGACY, Expected::Absent, value)
        .await
        .unwrap();
    TrustBundle::from_pem(1, anchor.certificate_pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn the_authority_of_a_store_without_a_record_is_taken_over_and_its_leaves_are_waited_for() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for at in -1..8 {
        let store = Memory::new();
        let bundle = legacy(&store, now).await;
        store.left.store(at, Ordering::SeqCst);
        if at >= 0 {
            let died = Trust::open(store.clone(), &settings(), now).await;
            assert!(died.is_err(), "write {at}");
            store.dead.store(false, Ordering::SeqCst);
            store.left.store(-1, Ordering::SeqCst);
        }
        let mut world = World::on(store, settings(), 2).await;
        assert_eq!(world.trust.bundle().digest(), bundle.digest(), "write {at}");
        assert!(!world.store.keys().iter().any(|key| key == record::LEGACY));
        if at < 0 {
            world.second(Some(ROTATE)).await;
            world.seconds(10).await;
            let gate = world.trust.record().rotation().gate(unix(world.now));
            assert!(
                gate.blockers()[0].to_string().contains("has not listed"),
                "{gate:?}"
            );
            world.until_ended().await;
        }
    }
}

#[tokio::test]
async fn the_anchor_stays_and_the_issuer_is_renewed_in_time() {
    let day = Duration::from_hours(24);
    let mut world = World::new(0).await;
    let (anchor, ends) = (world.anchor(), world.trust.issuer_not_after());
    world.now += day * 240;
    world.seconds(200).await;
    assert_eq!(world.trust.issuer_not_after(), ends);
    world.now += day * 10;
    world.seconds(200).await;
    assert!(world.trust.issuer_not_after() > ends);
    assert_eq!(world.anchor(), anchor);
    assert!(world.rotation_ended());
}

#[tokio::test]
async fn identities_of_other_domains_are_refused_until_the_domain_changes() {
    let mut world = World::new(0).await;
    let domain = TrustDomain::parse("b.example").unwrap();
    let web = Identity::linkerd("web", "shop", "linkerd", &domain).unwrap();
    let ask = move || Ask {
        csr: LeafKey::generate().unwrap().csr(&web).unwrap(),
        identity: web.clone(),
        process: None,
        accepted: Shown::Local,
    };
    let refused = world.trust.certify(ask()).await.unwrap_err();
    assert!(matches!(refused, CertifyError::Tls(_)), "{refused}");
    world.driver.follow_settings(Settings {
        trust_domain: domain,
        ..settings()
    });
    world.second(None).await;
    let identity = world.trust.identity();
    assert!(identity.as_str().ends_with(".linkerd.b.example"));
    let trust = world.trust.clone();
    let asking = tokio::spawn(async move { trust.certify(ask()).await });
    tokio::task::yield_now().await;
    let request = world.driver.next_request().await;
    world.driver.turn(world.now, vec![request]).await.unwrap();
    asking.await.unwrap().unwrap();
}

#[tokio::test]
async fn keys_are_not_printed() {
    let world = World::new(1).await;
    let printed = format!("{:?} {:?}", world.trust, world.driver);
    assert!(!printed.contains("PRIVATE"), "{printed}");
}
