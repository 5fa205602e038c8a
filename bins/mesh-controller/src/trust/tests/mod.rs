//! Whole rotations in one process, on a clock of the test's own: what every process presents has to verify, in every second,
//! under what every other one uses.
//!
//! - `changes`: what a change of the roots comes to, and who is not there
//! - `first`: canaries, and those that a cross-certificate carries
//! - `outside`: anchors and issuers that another program makes; `root`: a root's key that is elsewhere
//! - `restored`: records that are older than the mesh, and files that were edited
//! - `schedule`: changes that begin by themselves
//! - `crowds`: very many at once, and what is kept of it
//! - `crashes`: a controller that dies
//! - `several`: controllers that share an etcd
//! - `handed_over`: the one of them who leads dies
//! - `large`: a record that is larger than what etcd takes at once
//! - `quiet`: what those do who follow it
//! - `takeover`: stores from before, and other domains
//! - `dying`: stores that die

mod changes;
mod crashes;
mod crowds;
mod dying;
mod first;
mod handed_over;
mod large;
mod outside;
mod quiet;
mod restored;
mod root;
mod schedule;
mod several;
mod takeover;

use std::time::Duration;

use mesh_control_api::trust as api;
use mesh_discovery::manifests::Rotation as Rotate;
use mesh_tls::{Credentials, LeafKey};
use mesh_trust_rotation::{
    Incarnation, IssuerId, Loaded, Outcome, Phase,
    crypto::{Ed25519, Sha256},
    document::{Pin, SignedDocument},
    lint::Facts,
};

use self::dying::Dying;
use super::*;
use crate::{
    config::OutsideCa,
    store::{Expected, StateStore},
};

const LEAF: Duration = Duration::from_mins(1);

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
    /// It takes no bundle.
    deaf: bool,
    /// It accepts nobody that it is asked about.
    refuses: bool,
}

struct World {
    store: Arc<Dying>,
    /// Who makes anchors and issuers, if it is not the controller.
    outside: Option<OutsideCa>,
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
            deaf: false,
            refuses: false,
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
        let id = self.process.id(&self.identity, trust.record().rotation());
        let canary = published.canary.as_ref();
        let canary = canary.filter(|_| published.canaries.contains(&id));
        let given = canary.unwrap_or(&published.all);
        if given.generation > self.pin.generation() && !self.deaf {
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
        let mut probes = Vec::new();
        if let Some(orders) = &mut self.orders {
            while let Ok(order) = orders.try_recv() {
                self.wanted |= order.reissue.is_some();
                probes.extend(order.probes);
            }
        }
        let answer = |probe: api::Probe| {
            let chain = probe.chain.into_iter().map(CertificateDer::from);
            let chain: Vec<_> = chain.collect();
            let verified = self.bundle.verify(&chain, now).map_err(|it| it.to_string());
            let refused = self.refuses.then(|| "its clock is of last year".to_owned());
            let reason = refused.or(verified.err());
            api::ProbeResult {
                id: probe.id,
                accepted: reason.is_none(),
                reason: reason.unwrap_or_default(),
            }
        };
        let probes = probes.into_iter().map(answer).collect();
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
                probes,
                ..api::Report::default()
            },
            at: now,
        }
    }
}

/// What proxies and an operator ask for in one turn, and where the answers come.
struct Asked {
    batch: Vec<Request>,
    /// By the proxy's place.
    answers: Vec<(usize, oneshot::Receiver<Result<IssuedLeaf, CertifyError>>)>,
    told: Option<oneshot::Receiver<Result<(), CommandError>>>,
}

impl Asked {
    /// Has each proxy follow what it was given, report, and ask for a leaf if it wants one.
    fn of(
        proxies: &mut [Proxy],
        command: Option<Command>,
        trust: &Trust,
        life: Duration,
        now: SystemTime,
    ) -> Self {
        let (mut batch, mut answers) = (Vec::new(), Vec::new());
        for (number, proxy) in proxies.iter_mut().enumerate() {
            let reported = proxy.follow(trust, life, now);
            let record = trust.record();
            let id = proxy.process.id(&proxy.identity, record.rotation());
            if proxy.leaf.is_some() {
                trust.shared.report(id, reported);
            }
            if proxy.wanted {
                let (answer, answered) = oneshot::channel();
                let ask = Ask {
                    csr: proxy.key.csr(&proxy.identity).unwrap(),
                    identity: proxy.identity.clone(),
                    process: Some(proxy.process.clone()),
                    accepted: Shown::Local,
                    joins: false,
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
        Self {
            batch,
            answers,
            told,
        }
    }
}

fn issuer(leaf: &Credentials) -> IssuerId {
    Facts::from_der(&leaf.chain()[1]).unwrap().issuer_id()
}

fn settings() -> Settings {
    Settings {
        leaf_lifetime: LEAF,
        rotation: Rotate::of_leaves(LEAF),
        ..Settings::default()
    }
}

impl World {
    async fn new(proxies: usize) -> Self {
        Self::on(Dying::in_memory(), settings(), proxies).await
    }

    async fn on(store: Arc<Dying>, settings: Settings, proxies: usize) -> Self {
        Self::below(None, store, settings, proxies).await
    }

    async fn below(
        outside: Option<OutsideCa>,
        store: Arc<Dying>,
        settings: Settings,
        proxies: usize,
    ) -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let place = Place::sole(store.clone()).with_outside(outside.clone());
        let (trust, driver) = Trust::open(place, &settings, now).await.unwrap();
        let mut proxies: Vec<_> = (0..proxies)
            .map(|number| Proxy::new(&format!("web-{number}"), &trust))
            .collect();
        for proxy in &mut proxies {
            proxy.connect(&trust);
        }
        Self {
            store,
            outside,
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
        let Asked {
            batch,
            answers,
            told,
        } = Asked::of(
            &mut self.proxies,
            command,
            &self.trust,
            self.settings.leaf_lifetime,
            self.now,
        );
        let failed = self.driver.turn(self.now, batch).await.is_err();
        let died = self.store.is_dead();
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
        self.store.revive();
        let place = Place::sole(self.store.clone()).with_outside(self.outside.clone());
        let opened = Trust::open(place, &self.settings, self.now).await;
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

    /// The names of the keys of anchors and issuers that there are.
    async fn authorities(&self) -> Vec<String> {
        let all = self.store.list("trust/", None, 999).await.unwrap();
        let names = all.into_iter().map(|(key, _)| key);
        names
            .filter(|key| key.starts_with("trust/anchor/") || key.starts_with("trust/issuer/"))
            .collect()
    }

    fn anchor(&self) -> AnchorId {
        self.trust.record().rotation().active().anchor
    }
}

const ROTATE: Command = Command::Rotate { issuer_only: false };
