//! What a mesh is told and asked, second by second, in a dozen changes: every gate with what is in its way, everything that is
//! due, every refusal. Each session is compared with a file of `tests/sessions`, which was read by somebody before it was kept.
//!
//! `SESSIONS=write cargo test -p mesh-trust-rotation --test sessions` writes them anew: read the difference.

#![allow(clippy::unwrap_used)] // tests

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use mesh_trust_rotation::lint::{Algorithm, Facts};
use mesh_trust_rotation::{
    Action, Anchor, AnchorId, Blocker, Bridge, Class, ClusterId, Connections, Digest, Drain, Epoch,
    Event, Evidence, Generation, Incarnation, Issuer, IssuerId, Loaded, Mesh, Phase, Proposal,
    Reason, Report, Request, Rotation, Scope, Settings, Source, Standing, Subject, UnixTime,
    WorkloadId,
};

const START: u64 = 1_000_000;
const OLD: u8 = 1;
const NEW: u8 = 2;
const THIRD: u8 = 3;

/// A second is long here: leaves live for ten, evidence is fresh for three.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.leaf_life = seconds(10);
    settings.backdate = seconds(1);
    settings.skew = seconds(1);
    settings.freshness = seconds(3);
    settings.consumer_lease = seconds(20);
    settings.signing_lease = seconds(2);
    settings.soak = seconds(2);
    settings.trust_hold = seconds(3);
    settings.phase_budget = seconds(4);
    settings.unreported_connection_life = seconds(8);
    settings.reissue_batch = 2;
    settings.emergency_quorum = 60;
    settings.emergency_deadline = seconds(12);
    settings
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn anchor(number: u8) -> AnchorId {
    AnchorId::new([number; 32])
}

/// Of an anchor, in a cluster.
fn issuer(number: u8, cluster: u8) -> IssuerId {
    IssuerId::new([number * 10 + cluster; 32])
}

fn cluster(number: u8) -> ClusterId {
    ClusterId::new(["east", "west"][usize::from(number)]).unwrap()
}

fn workload(name: &str) -> WorkloadId {
    WorkloadId::new(name).unwrap()
}

fn digest(anchors: &BTreeSet<AnchorId>) -> Digest {
    let bits = anchors.iter().map(|anchor| 1 << anchor.as_bytes()[0]);
    Digest::new([bits.sum(); 32])
}

fn facts(key: u8, above: u8) -> Facts {
    Facts {
        key: Digest::new([key; 32]),
        subject: Digest::new([key; 32]),
        issuer: Digest::new([above; 32]),
        subject_key_id: Some(vec![key]),
        authority_key_id: Some(vec![above]),
        algorithm: Algorithm::P256,
        authority: true,
        path_length: None,
        signs_certificates: true,
        constrains_names: false,
        not_before: UnixTime(0),
        not_after: UnixTime(START + 1000),
        size_bytes: 400,
    }
}

fn proposal(number: u8, canaries: &[&str]) -> Proposal {
    let issuers = [0, 1].map(|at| (cluster(at), facts(number * 10 + at, number)));
    let mut proposal = Proposal::to(facts(number, number), issuers);
    proposal.canaries = canaries.iter().map(|name| workload(name)).collect();
    proposal
}

/// A process that may or may not do its part.
#[derive(Clone)]
struct Process {
    cluster: u8,
    class: Class,
    incarnation: u64,
    loaded: Loaded,
    leaf: Option<(IssuerId, UnixTime)>,
    connections: Connections,
    silent: bool,
    /// It does not load what it is given.
    stuck: bool,
    asked: bool,
}

struct Session {
    now: UnixTime,
    rotation: Rotation,
    processes: BTreeMap<WorkloadId, Process>,
    cut_off: [bool; 2],
    /// Whether new issuers are seen to verify, and cross-certificates are made.
    keys_at_hand: bool,
    bridges_end: u64,
    last: String,
    knew: String,
    text: String,
}

impl Session {
    /// Two clusters and these consumers, which have leaves already.
    fn new(settings: Settings, consumers: &[(&str, u8, Class)]) -> Self {
        Self::until_the_end(START + 1000, settings, consumers)
    }

    /// The same, and the issuers that they have end then.
    fn until_the_end(end: u64, settings: Settings, consumers: &[(&str, u8, Class)]) -> Self {
        let issuers = [0, 1].map(|at| {
            let below = Issuer {
                id: issuer(OLD, at),
                anchor: anchor(OLD),
                not_before: UnixTime(0),
                not_after: UnixTime(end),
                verified: true,
            };
            (cluster(at), below)
        });
        let mesh = Mesh {
            anchor: Anchor {
                id: anchor(OLD),
                subject: Digest::new([OLD; 32]),
                not_before: UnixTime(0),
                not_after: UnixTime(START + 1000),
                tainted: None,
            },
            issuers: issuers.into(),
            generation: Generation(1),
            digest: digest(&[anchor(OLD)].into()),
        };
        let process = |cluster, class| Process {
            cluster,
            class,
            incarnation: 1,
            loaded: Loaded {
                generation: Generation(1),
                digest: mesh.digest,
            },
            leaf: None,
            connections: Connections::None,
            silent: false,
            stuck: false,
            asked: true,
        };
        let processes = consumers
            .iter()
            .map(|(name, at, class)| (workload(name), process(*at, *class)))
            .collect();
        let mut session = Self {
            now: UnixTime(START),
            rotation: Rotation::new(settings, mesh, UnixTime(START)).unwrap(),
            processes,
            cut_off: [false; 2],
            keys_at_hand: true,
            bridges_end: START + 1000,
            last: String::new(),
            knew: String::new(),
            text: String::new(),
        };
        session.turn();
        session.turn();
        session
    }

    fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(&workload(name)).unwrap()
    }

    fn line(&mut self, what: &str) {
        let _ = writeln!(self.text, "{:+} {what}", self.now.0 - START);
    }

    /// An operator, or the world, says something.
    fn says(&mut self, what: &str, event: Event) -> Vec<Action> {
        let answer = self.rotation.handle(self.now, event);
        let said = match &answer {
            Ok(_) => "taken".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        self.line(&format!("> {what}: {said}"));
        self.look();
        answer.unwrap_or_default()
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let shown = format!("{event:?}");
        let answer = self.rotation.handle(self.now, event);
        answer.unwrap_or_else(|refusal| {
            let name = shown.split([' ', '(', '{']).next().unwrap_or_default();
            self.line(&format!("{name} refused: {refusal}"));
            Vec::new()
        })
    }

    fn taint(&mut self, number: u8) {
        self.says(&format!("taint {number}"), Event::Taint(anchor(number)));
    }

    fn leave_behind(&mut self, phase: Phase, names: &[&str]) {
        let breaks = names.iter().map(|name| workload(name)).collect();
        let what = format!("leave behind {}", names.join(" "));
        self.says(&what, Event::Override { phase, breaks });
    }

    fn start(&mut self, proposal: Proposal) {
        self.says("start", Event::Start(Box::new(proposal)));
    }

    /// The cross-certificates of the record.
    fn bridges(&self) -> String {
        let json = serde_json::to_value(&self.rotation).unwrap();
        let all: Vec<Bridge> = serde_json::from_value(json["bridges"].clone()).unwrap();
        let one = |it: Bridge| {
            let (subject, signer) = (it.subject.as_bytes()[0], it.signer.as_bytes()[0]);
            format!(
                "; {subject} certified by {signer} until {}",
                at(it.not_after)
            )
        };
        all.into_iter().map(one).collect()
    }

    /// What is and what is in the way, if it is not as before.
    fn look(&mut self) {
        let mut text = String::new();
        let rotation = &self.rotation;
        let bundles = rotation.bundles();
        let set = |generation: Generation| {
            let anchors = bundles
                .known(generation)
                .map(|bundle| bundle.anchors.iter());
            let named = anchors
                .into_iter()
                .flatten()
                .map(|it| number(it.as_bytes()));
            format!(
                "{}={{{}}}",
                generation.0,
                named.collect::<Vec<_>>().join(" ")
            )
        };
        let phase = rotation.change().map_or("idle".to_owned(), |change| {
            format!("{:?} {}", change.mode, change.phase)
        });
        let _ = write!(text, "{phase} bundle {}", set(bundles.current()));
        if let Some(canary) = bundles.canary() {
            let _ = write!(text, " canaries {}", set(canary));
        }
        let _ = writeln!(text, " last {:?}", rotation.last_outcome());
        let anchors = rotation.anchors().values().map(|known| {
            let tainted = if known.tainted.is_some() { "!" } else { "" };
            format!("{}{tainted}", number(known.id.as_bytes()))
        });
        let issuers = rotation.issuers().keys().map(|id| number(id.as_bytes()));
        let (anchors, issuers): (Vec<_>, Vec<_>) = (anchors.collect(), issuers.collect());
        let knows = format!("knows {} with {}", anchors.join(" "), issuers.join(" "));
        let mut knows = format!("{knows}{}", self.bridges());
        if let Some(side) = rotation.standby() {
            let _ = write!(knows, "; standby {}", number(side.anchor.as_bytes()));
        }
        if let Some(since) = rotation.restoring_since() {
            let _ = write!(knows, "; learning since {}", at(since));
        }
        for blocker in rotation.gate(self.now).blockers() {
            let _ = writeln!(text, "     {}", shown(blocker));
        }
        for action in rotation.pending(self.now) {
            let _ = writeln!(text, "     due: {}", due(&action));
        }
        let away = rotation.consumers().iter();
        for (name, known) in away.filter(|(_, known)| !known.is_required()) {
            if let Standing::Quarantined { cause, .. } = known.standing {
                let _ = writeln!(text, "     {} is quarantined: {cause:?}", name.as_str());
            }
        }
        let steps = rotation.plan(self.now);
        let steps = steps
            .iter()
            .map(|step| format!("{} {}", step.phase, at(step.earliest)));
        // It moves with the clock: not by itself a reason to be printed.
        let plan = steps.collect::<Vec<_>>().join(", ");
        if text != self.last || knows != self.knew {
            self.line(text.trim_end());
            if knows != self.knew {
                let _ = writeln!(self.text, "     {knows}");
                self.knew = knows;
            }
            if !plan.is_empty() {
                let _ = writeln!(self.text, "     then {plan}");
            }
            self.last = text;
        }
    }

    /// A second, in which whoever can does their part.
    fn turn(&mut self) {
        self.now.0 += 1;
        for at in 0..2 {
            if self.cut_off[usize::from(at)] {
                continue;
            }
            let here = self.processes.iter().filter(|(_, it)| it.cluster == at);
            let consumers = here.map(|(name, it)| (name.clone(), it.class)).collect();
            let cluster = cluster(at);
            for issuer in self.rotation.authorised(&cluster) {
                let cluster = cluster.clone();
                self.tell(Event::SigningLease { cluster, issuer });
            }
            self.tell(Event::Inventory { cluster, consumers });
        }
        for action in self.rotation.pending(self.now) {
            self.act(&action);
        }
        for name in self.processes.keys().cloned().collect::<Vec<_>>() {
            self.part_of(&name);
        }
        self.look();
        self.tell(Event::Tick);
        self.look();
    }

    /// It asks for a leaf, whatever it was told, with a bundle that will do.
    fn asks(&mut self, name: &str) {
        let it = &self.processes[&workload(name)];
        let request = Request {
            workload: workload(name),
            cluster: cluster(it.cluster),
            class: it.class,
            incarnation: Incarnation(it.incarnation),
            loaded: Some(self.processes[&workload("web")].loaded),
            accepted: None,
        };
        self.says(&format!("{name} asks for a leaf"), Event::Certify(request));
    }

    /// Somebody who is not in the inventory yet asks for a leaf.
    fn somebody_asks(&mut self, class: Class, loaded: Option<Loaded>, accepted: Option<u8>) {
        let with = loaded.map_or(0, |loaded| loaded.generation.0);
        let what = format!("somebody asks, with bundle {with}, having accepted {accepted:?}");
        let request = Request {
            workload: workload("somebody"),
            cluster: cluster(0),
            class,
            incarnation: Incarnation(1),
            loaded,
            accepted: accepted.map(anchor),
        };
        self.says(&what, Event::Certify(request));
    }

    /// A process ends, and another one begins.
    fn restart(&mut self, name: &str) {
        let generation = self.rotation.bundles().current();
        let known = self.rotation.bundles().known(generation).unwrap();
        let loaded = known.digest.map(|digest| Loaded { generation, digest });
        let it = self.process(name);
        it.incarnation += 1;
        it.leaf = None;
        it.asked = true;
        it.loaded = loaded.unwrap_or(it.loaded);
        let event = Event::Joined {
            workload: workload(name),
            cluster: cluster(it.cluster),
            class: it.class,
            incarnation: Incarnation(it.incarnation),
        };
        self.says(&format!("{name} starts again"), event);
    }

    fn turns(&mut self, count: u32) {
        for _ in 0..count {
            self.turn();
        }
    }

    /// Turns until this phase is there.
    fn until(&mut self, phase: Option<Phase>) {
        for _ in 0..60 {
            if self.rotation.change().map(|change| change.phase) == phase {
                return;
            }
            self.turn();
        }
        panic!("{phase:?} does not come:\n{}", self.text);
    }

    fn act(&mut self, action: &Action) {
        let here = |at: &ClusterId| {
            *at == cluster(0) && !self.cut_off[0] || *at == cluster(1) && !self.cut_off[1]
        };
        match action {
            Action::Publish { cluster, .. }
            | Action::SwitchIssuer { cluster, .. }
            | Action::RotateTickets { cluster, .. }
                if !here(cluster) =>
            {
                return;
            }
            Action::VerifyIssuer { .. } | Action::MakeBridge { .. } if !self.keys_at_hand => return,
            Action::MakeBridge { subject, signer } => {
                let not_after = UnixTime(self.bridges_end);
                self.tell(Event::BridgeMade(Bridge {
                    subject: *subject,
                    signer: *signer,
                    not_after,
                }));
            }
            Action::Publish {
                cluster: at,
                scope,
                generation,
                anchors,
            } => {
                let change = self.rotation.change();
                let canaries = change
                    .map(|change| change.canaries.clone())
                    .unwrap_or_default();
                for (name, it) in &mut self.processes {
                    let meant = *scope == Scope::All || canaries.contains(name);
                    if cluster(it.cluster) == *at
                        && meant
                        && !(it.silent || it.stuck)
                        && it.class != Class::StartOnly
                    {
                        it.loaded = Loaded {
                            generation: *generation,
                            digest: digest(anchors),
                        };
                    }
                }
            }
            Action::Restart { workloads, .. } => {
                for name in workloads {
                    let generation = self.rotation.bundles().current();
                    let digest = self.rotation.bundles().known(generation).unwrap().digest;
                    let it = self.processes.get_mut(name).unwrap();
                    it.incarnation += 1;
                    it.leaf = None;
                    it.loaded = Loaded {
                        generation,
                        digest: digest.unwrap(),
                    };
                    let event = Event::Joined {
                        workload: name.clone(),
                        cluster: cluster(it.cluster),
                        class: it.class,
                        incarnation: Incarnation(it.incarnation),
                    };
                    self.tell(event);
                }
            }
            Action::Reissue { workloads, .. } => {
                for name in workloads {
                    self.processes.get_mut(name).unwrap().asked = true;
                }
            }
            Action::DrainConnections { workload, cut, .. } if *cut => {
                self.processes.get_mut(workload).unwrap().connections = Connections::None;
            }
            Action::Probe { workload, anchor } => {
                let it = &self.processes[workload];
                let generation = it.loaded.generation;
                let has = self.rotation.bundles().known(generation);
                if !it.silent && has.is_some_and(|bundle| bundle.anchors.contains(anchor)) {
                    let event = self.evidence(workload, Source::Probe(*anchor));
                    self.tell(event);
                }
            }
            _ => {}
        }
        if let Some(event) = action.done(digest) {
            self.tell(event);
        }
    }

    fn part_of(&mut self, name: &WorkloadId) {
        let it = self.processes[name].clone();
        let known = self.rotation.consumers().get(name);
        if it.silent || known.is_some_and(|known| !known.is_required()) {
            return;
        }
        let half = self.rotation.settings().leaf_life / 2;
        if it.asked || it.leaf.is_none_or(|(_, ends)| ends.since(self.now) < half) {
            let request = Request {
                workload: name.clone(),
                cluster: cluster(it.cluster),
                class: it.class,
                incarnation: Incarnation(it.incarnation),
                loaded: Some(it.loaded),
                accepted: None,
            };
            let request = Request {
                accepted: it.class.needs_probe().then(|| {
                    let signer = self.rotation.active().anchor;
                    self.rotation
                        .change()
                        .map_or(signer, |change| change.incumbent)
                }),
                ..request
            };
            for action in self.tell(Event::Certify(request)) {
                if let Action::Sign {
                    issuer, not_after, ..
                } = &action
                {
                    let signed = due(&action);
                    let mine = self.processes.get_mut(name).unwrap();
                    let before = mine.leaf.map(|(issuer, _)| issuer);
                    mine.leaf = Some((*issuer, *not_after));
                    mine.asked = false;
                    if before != Some(*issuer) {
                        self.line(&signed);
                    }
                }
            }
        }
        let event = self.evidence(name, Source::Acknowledgement);
        self.tell(event);
    }

    fn evidence(&self, name: &WorkloadId, source: Source) -> Event {
        let it = &self.processes[name];
        let probe = matches!(source, Source::Probe(_));
        let report = Report {
            sequence: self.now.0 * 2 + u64::from(!probe),
            at: self.now,
            loaded: (it.class != Class::StartOnly).then_some(it.loaded),
            leaf: it.leaf,
            connections: it.connections,
        };
        let evidence = Evidence {
            workload: name.clone(),
            incarnation: Incarnation(it.incarnation),
            source,
            report,
        };
        Event::Evidence {
            peer: name.clone(),
            evidence,
        }
    }

    /// Compares the session with its file.
    fn ends(self, name: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions");
        let file = folder.join(name).with_extension("txt");
        if std::env::var("SESSIONS").is_ok_and(|what| what == "write") {
            std::fs::write(&file, &self.text).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        for (number, (kept, said)) in kept.lines().zip(self.text.lines()).enumerate() {
            assert_eq!(kept, said, "{}:{}", file.display(), number + 1);
        }
        assert!(kept == self.text, "{}: not as long", file.display());
    }
}

fn number(bytes: &[u8; 32]) -> String {
    bytes[0].to_string()
}

/// A time, as seconds since the start.
fn at(time: UnixTime) -> String {
    match time.0.checked_sub(START) {
        Some(since) => format!("{since:+}"),
        None => time.0.to_string(),
    }
}

fn shown(blocker: &Blocker) -> String {
    let who = match &blocker.who {
        Subject::Cluster(id) => id.as_str().to_owned(),
        Subject::Workload(id) => id.as_str().to_owned(),
        Subject::Anchor(id) => format!("anchor {}", number(id.as_bytes())),
        Subject::Issuer(_, id) => format!("issuer {}", number(id.as_bytes())),
        other => format!("{other:?}"),
    };
    let until = blocker
        .until
        .map_or(String::new(), |until| format!(" until {}", at(until)));
    format!("{who} {:?} since {}{until}", blocker.why, at(blocker.since))
}

fn due(action: &Action) -> String {
    let names = |workloads: &[WorkloadId]| {
        let names = workloads.iter().map(WorkloadId::as_str);
        names.collect::<Vec<_>>().join(" ")
    };
    match action {
        Action::Compose { generation, .. } => format!("compose {}", generation.0),
        Action::Publish {
            cluster,
            scope,
            generation,
            ..
        } => format!(
            "publish {} in {} to {scope:?}",
            generation.0,
            cluster.as_str()
        ),
        Action::VerifyIssuer { issuer } => format!("verify {}", number(issuer.as_bytes())),
        Action::MakeBridge { subject, signer } => {
            format!(
                "certify {} by {}",
                number(subject.as_bytes()),
                number(signer.as_bytes())
            )
        }
        Action::SwitchIssuer { cluster, issuer } => {
            format!(
                "sign with {} in {}",
                number(issuer.as_bytes()),
                cluster.as_str()
            )
        }
        Action::Probe { workload, anchor } => {
            format!(
                "probe {} with {}",
                workload.as_str(),
                number(anchor.as_bytes())
            )
        }
        Action::Reissue { workloads, .. } => format!("reissue {}", names(workloads)),
        Action::Restart {
            workloads,
            started_before,
        } => format!(
            "restart {} of before {}",
            names(workloads),
            at(*started_before)
        ),
        Action::RotateTickets {
            cluster,
            generation,
        } => {
            format!("tickets {} in {}", generation.0, cluster.as_str())
        }
        Action::DrainConnections {
            workload,
            anchor,
            cut,
        } => format!(
            "drain {} of {}, cut {cut}",
            workload.as_str(),
            number(anchor.as_bytes())
        ),
        Action::RetireAnchor { anchor } => format!("put {} away", number(anchor.as_bytes())),
        Action::Sign {
            workload,
            issuer,
            not_before,
            not_after,
            bridge,
        } => format!(
            "{} is signed by {} from {} until {}{}",
            workload.as_str(),
            number(issuer.as_bytes()),
            at(*not_before),
            at(*not_after),
            if bridge.is_some() {
                " with a bridge"
            } else {
                ""
            }
        ),
        other => format!("{other:?}"),
    }
}

const THREE: &[(&str, u8, Class)] = &[
    ("web", 0, Class::Reloading),
    ("db", 1, Class::Reloading),
    ("control", 0, Class::ControlPlane),
];

#[test]
fn everybody_does_their_part() {
    let mut session = Session::new(settings(), THREE);
    session.process("db").connections = Connections::Oldest(anchor(OLD));
    session.start(proposal(NEW, &["web"]));
    session.until(Some(Phase::LeafConverged));
    session.says("start", Event::Start(Box::new(proposal(THIRD, &[]))));
    // Somebody new, from an old template and from the one of the day.
    for generation in [1, 2] {
        let digests = [anchor(OLD), anchor(NEW)];
        let known = digests.into_iter().take(generation).collect();
        let loaded = Some(Loaded {
            generation: Generation(generation as u64),
            digest: digest(&known),
        });
        session.somebody_asks(Class::Reloading, loaded, None);
    }
    session.says("it has left", Event::Left(workload("somebody")));
    session.process("control").connections = Connections::Oldest(anchor(NEW));
    session.until(Some(Phase::Drain));
    session.turns(2);
    let returned = |number, until| Event::LeaseReturned {
        cluster: cluster(1),
        issuer: issuer(number, 1),
        entered: UnixTime(START + until),
    };
    session.says("a lease is returned", returned(NEW, 2));
    session.says("a lease is returned", returned(OLD, 12));
    session.turns(11);
    session.process("db").connections = Connections::None;
    session.until(None);
    session.turns(2);
    // The next one, with a connection that nobody knows of, and one that is cut.
    session.process("web").connections = Connections::Unknown;
    session.process("db").connections = Connections::Oldest(anchor(NEW));
    let mut cut = settings();
    cut.drain = Drain::Cut;
    session.says("configure", Event::Configure(Box::new(cut)));
    session.start(proposal(THIRD, &[]));
    session.until(None);
    session.ends("everybody");
}

#[test]
fn a_change_stands_still_where_it_is_told_to() {
    let settings = || {
        let mut settings = settings();
        settings.pause_in = BTreeSet::from([Phase::Preflight, Phase::Issue, Phase::Retirement]);
        settings
    };
    let mut session = Session::new(settings(), THREE);
    session.start(proposal(NEW, &["web"]));
    for phase in [Phase::Preflight, Phase::Issue, Phase::Retirement] {
        session.until(Some(phase));
        session.turns(8);
        let stands = session.rotation.change().map(|change| change.phase);
        assert_eq!(stands, Some(phase));
        session.says("resume", Event::Resume);
    }
    session.until(None);
    // Who goes back, or flees, is not held up.
    session.start(proposal(THIRD, &[]));
    session.says("resume", Event::Resume);
    session.until(Some(Phase::Issue));
    session.says("abort", Event::Abort);
    session.until(None);
    session.ends("stands_still");
}

#[test]
fn an_operator_pauses_and_aborts() {
    let mut session = Session::new(settings(), THREE);
    session.says("abort", Event::Abort);
    session.says("pause", Event::Pause);
    session.says("resume", Event::Resume);
    session.start(proposal(NEW, &["web"]));
    session.says("abort", Event::Abort);
    session.turn();
    session.start(proposal(NEW, &["web"]));
    session.until(Some(Phase::CanarySigning));
    session.says("pause", Event::Pause);
    session.turns(3);
    session.says("pause", Event::Pause);
    session.says("resume", Event::Resume);
    session.until(Some(Phase::LeafConverged));
    session.turn();
    session.says("abort", Event::Abort);
    session.says("abort", Event::Abort);
    session.until(None);
    session.turn();
    session.start(proposal(NEW, &[]));
    session.until(Some(Phase::Retirement));
    session.says("abort", Event::Abort);
    session.until(None);
    session.ends("pauses_and_aborts");
}

#[test]
fn some_are_slow_or_away() {
    let mut session = Session::new(settings(), THREE);
    session.keys_at_hand = false;
    session.start(proposal(NEW, &[]));
    session.turn();
    session.keys_at_hand = true;
    session.process("db").silent = true;
    session.until(Some(Phase::Distribute));
    let mut stranger = session.evidence(&workload("web"), Source::Acknowledgement);
    if let Event::Evidence { peer, evidence } = &mut stranger {
        *peer = workload("stranger");
        evidence.workload = workload("stranger");
    }
    session.says("a stranger reports", stranger);
    session.turns(5);
    session.says("the stranger has left", Event::Left(workload("stranger")));
    session.cut_off[1] = true;
    session.turns(5);
    session.cut_off[1] = false;
    session.until(Some(Phase::Issue));
    session.cut_off[0] = true;
    session.turns(5);
    session.cut_off[0] = false;
    session.until(Some(Phase::Drain));
    // It comes back with what it had, and then with the bundle of the day.
    let process = session.process("db");
    process.silent = false;
    process.incarnation = 2;
    let joins = |loaded| Event::Rejoined {
        workload: workload("db"),
        incarnation: Incarnation(2),
        loaded,
    };
    let before = session.processes[&workload("db")].loaded;
    session.asks("db");
    session.says("db joins again", joins(before));
    let today = session.processes[&workload("web")].loaded;
    session.process("db").loaded = today;
    session.process("db").asked = true;
    session.says("db joins again", joins(today));
    // Somebody edits what east gives out.
    let edited = Loaded {
        generation: Generation(today.generation.0 + 3),
        digest: Digest::new([77; 32]),
    };
    let served = |loaded: Loaded| Event::Served {
        cluster: cluster(0),
        loaded,
        highest: loaded.generation,
    };
    session.says("east serves something else", served(edited));
    session.turn();
    session.says("east serves an old one", served(today));
    session.until(None);
    session.ends("slow_or_away");
}

#[test]
fn a_key_in_use_is_stolen() {
    let mut session = Session::new(settings(), THREE);
    session.says("standby", Event::Standby(Box::new(proposal(NEW, &[]))));
    session.turns(2);
    session.says("standby", Event::Standby(Box::new(proposal(THIRD, &[]))));
    session.turns(2);
    session.process("db").silent = true;
    session.process("web").connections = Connections::Oldest(anchor(OLD));
    session.taint(OLD);
    session.says("abort", Event::Abort);
    session.leave_behind(Phase::Preflight, &["db"]);
    session.until(Some(Phase::Distribute));
    session.turns(4);
    session.leave_behind(Phase::Issue, &["db"]);
    session.leave_behind(Phase::Distribute, &["web"]);
    session.leave_behind(Phase::Distribute, &["db"]);
    session.asks("db");
    session.until(None);
    session.turn();
    session.start(proposal(OLD, &[]));
    session.ends("stolen");
}

#[test]
fn an_emergency_waits_for_its_deadline() {
    let mut tight = settings();
    tight.emergency_quorum = 67;
    let mut session = Session::new(tight, THREE);
    session.taint(OLD);
    session.turn();
    session.process("db").silent = true;
    session.start(proposal(NEW, &["web"]));
    session.until(Some(Phase::Distribute));
    for _ in 0..12 {
        session.turn();
        session.leave_behind(Phase::Distribute, &["db"]);
    }
    session.until(Some(Phase::Issue));
    // The anchor that it leads to is stolen as well.
    session.taint(NEW);
    session.turn();
    session.start(proposal(THIRD, &[]));
    session.until(None);
    session.turn();
    session.ends("deadline");
}

#[test]
fn the_new_key_is_stolen() {
    let mut session = Session::new(settings(), THREE);
    session.start(proposal(NEW, &[]));
    session.taint(NEW);
    session.turn();
    session.start(proposal(THIRD, &["web"]));
    session.until(Some(Phase::Issue));
    session.taint(THIRD);
    session.until(None);
    session.turn();
    session.ends("new_stolen");
}

#[test]
fn a_standby_is_stolen() {
    let mut session = Session::new(settings(), THREE);
    session.says("standby", Event::Standby(Box::new(proposal(NEW, &[]))));
    session.turns(2);
    session.taint(NEW);
    session.turns(2);
    session.says("standby", Event::Standby(Box::new(proposal(THIRD, &[]))));
    session.turn();
    let issuers = [0, 1].map(|at| (cluster(at), facts(50 + at, OLD)));
    let only = Proposal {
        anchor: None,
        issuers: issuers.into(),
        canaries: [workload("web")].into(),
    };
    session.says("standby", Event::Standby(Box::new(only.clone())));
    session.start(only);
    session.says("standby", Event::Standby(Box::new(proposal(NEW, &[]))));
    session.until(Some(Phase::LeafConverged));
    session.taint(OLD);
    session.until(None);
    session.turn();
    session.ends("standby_stolen");
}

#[test]
fn only_the_issuers_change() {
    let mut session = Session::new(settings(), THREE);
    let issuers = |from: u8| [0, 1].map(|at| (cluster(at), facts(from + at, OLD)));
    let only = |from| Proposal {
        anchor: None,
        issuers: issuers(from).into(),
        canaries: [workload("web")].into(),
    };
    session.start(only(40));
    session.says("abort", Event::Abort);
    session.turn();
    session.start(only(50));
    session.until(None);
    session.turn();
    session.start(only(60));
    session.until(Some(Phase::LeafConverged));
    session.says("abort", Event::Abort);
    session.until(None);
    session.turn();
    session.start(only(70));
    session.until(Some(Phase::Issue));
    session.taint(OLD);
    session.turns(2);
    session.start(only(80));
    session.ends("issuers");
}

#[test]
fn a_store_is_restored() {
    let mut session = Session::new(settings(), THREE);
    session.start(proposal(NEW, &["web"]));
    session.until(Some(Phase::Issue));
    let backup = session.rotation.clone();
    session.until(Some(Phase::LeafConverged));
    session.turns(2);
    session.rotation = backup;
    session.process("db").silent = true;
    session.says("restored", Event::Restored);
    session.says("start", Event::Start(Box::new(proposal(THIRD, &[]))));
    session.turns(2);
    let generation = session.processes[&workload("web")].loaded.generation;
    let loaded = session.processes[&workload("web")].loaded;
    for (at, above) in [(0, 0), (1, 5)] {
        let served = Event::Served {
            cluster: cluster(at),
            loaded,
            highest: Generation(generation.0 + above),
        };
        session.says("a cluster says what it serves", served);
    }
    session.turn();
    session.process("db").leaf = Some((issuer(9, 9), UnixTime(START + 50)));
    session.process("db").silent = false;
    session.turn();
    session.process("db").leaf = None;
    session.until(None);
    session.ends("restored");
}

#[test]
fn cross_certificates_carry_stragglers() {
    let mut with = settings();
    with.bridges = true;
    with.consumer_lease = seconds(60);
    let mut session = Session::new(with, THREE);
    session.bridges_end = START + 45;
    session.keys_at_hand = false;
    session.start(proposal(NEW, &[]));
    let carry =
        |names: &[&str]| Event::CarryByBridge(names.iter().map(|it| workload(it)).collect());
    session.says("carry", carry(&["db"]));
    session.turns(2);
    session.keys_at_hand = true;
    session.process("db").silent = true;
    session.until(Some(Phase::Distribute));
    session.says("carry", carry(&["nobody"]));
    session.says("carry", carry(&["db", "web"]));
    let mut without = session.rotation.settings().clone();
    without.bridges = false;
    session.says("configure", Event::Configure(Box::new(without)));
    session.until(Some(Phase::Issue));
    session.says("carry", carry(&["db"]));
    session.until(Some(Phase::LeafConverged));
    session.turns(26);
    session.until(None);
    session.turn();
    session.ends("bridges");
}

#[test]
fn some_read_roots_only_at_start() {
    let all: &[(&str, u8, Class)] = &[
        ("stock-1", 0, Class::StartOnly),
        ("stock-2", 0, Class::StartOnly),
        ("web", 1, Class::Reloading),
        ("gateway", 1, Class::External),
    ];
    let mut session = Session::new(settings(), all);
    session.start(proposal(NEW, &["web"]));
    session.until(Some(Phase::LeafConverged));
    for accepted in [None, Some(9), Some(OLD), Some(NEW)] {
        session.somebody_asks(Class::StartOnly, None, accepted);
    }
    session.says("it has left", Event::Left(workload("somebody")));
    session.until(None);
    session.turn();
    session.ends("start_only");
}

#[test]
fn time_is_short() {
    let mut patient = settings();
    patient.consumer_lease = seconds(60);
    let mut session = Session::new(patient, THREE);
    let mut late = proposal(NEW, &[]);
    if let Some(anchor) = &mut late.anchor {
        anchor.not_before = UnixTime(START + 8);
        anchor.not_after = UnixTime(START + 56);
    }
    for facts in late.issuers.values_mut() {
        facts.not_before = UnixTime(START + 6);
        facts.not_after = UnixTime(START + 54);
    }
    session.start(late);
    session.until(Some(Phase::LeafConverged));
    session.process("db").silent = true;
    session.turns(30);
    session.says("abort", Event::Abort);
    session.process("db").silent = false;
    session.turns(30);
    session.ends("time");
}

#[test]
fn a_key_in_use_is_stolen_in_the_middle() {
    let mut patient = settings();
    patient.emergency_quorum = 100;
    patient.bridges = true;
    let mut session = Session::new(patient, THREE);
    session.start(proposal(NEW, &["web"]));
    session.process("db").silent = true;
    session.until(Some(Phase::Distribute));
    session.turns(4);
    session.says("pause", Event::Pause);
    session.taint(OLD);
    for _ in 0..12 {
        session.turn();
        session.leave_behind(Phase::Distribute, &["db"]);
    }
    session.says("a cross-certificate", bridge(OLD, NEW, 90));
    session.until(None);
    session.turn();
    session.ends("stolen_midway");
}

fn bridge(subject: u8, signer: u8, until: u64) -> Event {
    Event::BridgeMade(Bridge {
        subject: anchor(subject),
        signer: anchor(signer),
        not_after: UnixTime(START + until),
    })
}

#[test]
fn cross_certificates_are_kept_while_they_are_of_use() {
    let mut with = settings();
    with.bridges = true;
    let mut session = Session::new(with, THREE);
    session.says("standby", Event::Standby(Box::new(proposal(THIRD, &[]))));
    session.turns(2);
    session.keys_at_hand = false;
    session.start(proposal(NEW, &[]));
    session.says("one of nobody", bridge(9, OLD, 90));
    session.says("one that has ended", bridge(NEW, OLD, 4));
    session.says("one", bridge(NEW, OLD, 80));
    session.says("a longer one", bridge(NEW, OLD, 90));
    session.says("a shorter one", bridge(NEW, OLD, 70));
    session.says("the same", bridge(NEW, OLD, 90));
    session.says("by another signer", bridge(NEW, THIRD, 50));
    session.says("of another subject", bridge(THIRD, OLD, 50));
    session.says("the other way", bridge(OLD, NEW, 60));
    session.keys_at_hand = true;
    session.until(Some(Phase::Distribute));
    session.says("abort", Event::Abort);
    let carry = Event::CarryByBridge([workload("db")].into());
    session.says("carry", carry.clone());
    session.until(None);
    session.turns(2);
    let issuers = [0, 1].map(|at| (cluster(at), facts(50 + at, OLD)));
    session.start(Proposal {
        anchor: None,
        issuers: issuers.into(),
        canaries: BTreeSet::new(),
    });
    session.until(Some(Phase::TrustConverged));
    session.says("carry", carry);
    session.until(None);
    session.ends("bridges_kept");
}

/// A bridge that ends too soon to carry anybody for a phase and a leaf's life.
#[test]
fn a_cross_certificate_that_ends_soon_carries_nobody() {
    let mut with = settings();
    with.bridges = true;
    let mut session = Session::new(with, THREE);
    session.bridges_end = START + 18;
    session.start(proposal(NEW, &[]));
    session.until(Some(Phase::Distribute));
    let carry = Event::CarryByBridge([workload("db")].into());
    session.says("carry", carry.clone());
    session.turn();
    session.says("carry", carry.clone());
    session.says("a longer one", bridge(NEW, OLD, 22));
    session.says("carry", carry);
    session.ends("bridges_end");
}

#[test]
fn a_store_is_restored_while_nothing_changes() {
    let mut session = Session::new(settings(), THREE);
    session.says("restored", Event::Restored);
    session.start(proposal(NEW, &[]));
    session.says("standby", Event::Standby(Box::new(proposal(NEW, &[]))));
    session.turn();
    let loaded = session.processes[&workload("web")].loaded;
    for at in 0..2 {
        let cluster = cluster(at);
        let highest = loaded.generation;
        let mut loaded = loaded;
        if at == 1 {
            // By another hand, after the backup was made.
            loaded.generation = Generation(5);
            loaded.digest = Digest::new([77; 32]);
        }
        session.says(
            "a cluster says what it serves",
            Event::Served {
                cluster,
                loaded,
                highest,
            },
        );
    }
    session.turns(4);
    session.start(proposal(NEW, &[]));
    session.ends("restored_idle");
}

/// Generations that nobody gave out are believed up to a step, so that nobody locks everybody out.
#[test]
fn what_a_cluster_says_it_serves_is_believed_up_to_a_step() {
    use mesh_trust_rotation::document::MAX_STEP;
    let says = |served: u64, highest: u64| {
        let mut session = Session::new(settings(), THREE);
        session.start(proposal(NEW, &[]));
        session.until(Some(Phase::TrustConverged));
        let before = session.rotation.bundles().current();
        assert_eq!(
            (before, session.rotation.bundles().highest()),
            (Generation(2), before)
        );
        let loaded = Loaded {
            generation: Generation(served),
            digest: Digest::new([77; 32]),
        };
        let event = Event::Served {
            cluster: cluster(0),
            loaded,
            highest: Generation(highest),
        };
        session.says("east serves something", event.clone());
        let once = session.rotation.clone();
        session.says("east serves something", event);
        assert_eq!(session.rotation, once);
        let bundles = session.rotation.bundles();
        (bundles.current().0, bundles.highest().0)
    };
    // Of an older generation, or of one that cannot be: it is put right with what there is.
    assert_eq!(says(1, 2), (2, 2));
    assert_eq!(says(2 + MAX_STEP + 1, 2), (2, 2));
    assert_eq!(says(1, 2 + MAX_STEP + 1), (2, 2));
    // Of this one or a later one: whoever has taken it takes only something newer.
    assert_eq!(says(2, 2), (3, 3));
    assert_eq!(says(2 + MAX_STEP, 2), (3 + MAX_STEP, 3 + MAX_STEP));
    assert_eq!(says(1, 2 + MAX_STEP), (2, 2 + MAX_STEP));
}

#[test]
fn who_reads_roots_only_at_start_is_led_away_from_a_stolen_key() {
    let all: &[(&str, u8, Class)] = &[("stock", 0, Class::StartOnly), ("web", 1, Class::Reloading)];
    let mut session = Session::new(settings(), all);
    session.says("standby", Event::Standby(Box::new(proposal(NEW, &[]))));
    session.turns(3);
    session.taint(OLD);
    session.until(Some(Phase::Retirement));
    session.restart("stock");
    session.turns(3);
    session.restart("stock");
    session.until(None);
    session.ends("start_only_stolen");
}

/// A retirement begins before its bundle is given out: who starts in between reads the tainted anchor once more.
#[test]
fn who_starts_before_the_last_bundle_is_given_out_has_to_start_again() {
    let all: &[(&str, u8, Class)] = &[("stock", 0, Class::StartOnly), ("web", 1, Class::Reloading)];
    for seconds in 1..=2 {
        let mut session = Session::new(settings(), all);
        session.says("standby", Event::Standby(Box::new(proposal(NEW, &[]))));
        session.turns(3);
        session.taint(OLD);
        session.until(Some(Phase::Retirement));
        session.turns(seconds);
        session.restart("stock");
        session.turns(6);
        let gate = session.rotation.gate(session.now);
        let stock = gate
            .blockers()
            .iter()
            .find(|blocker| blocker.who.to_string().contains("stock"));
        assert_eq!(
            stock.map(|blocker| blocker.why),
            Some(Reason::OldBundle),
            "{seconds} s after: {gate:?}"
        );
        session.restart("stock");
        session.until(None);
        session.ends(&format!("start_only_stolen_{seconds}"));
    }
}

/// Whoever started when the last old leaf had ended has no connection from before; a second sooner, it may.
#[test]
fn connections_that_nobody_knows_of_end_with_their_process() {
    for (name, after) in [("restarted_late", 14), ("restarted_soon", 13)] {
        let mut session = Session::new(settings(), THREE);
        session.process("web").connections = Connections::Unknown;
        session.start(proposal(NEW, &[]));
        session.until(Some(Phase::Drain));
        session.turns(after);
        session.restart("web");
        session.until(None);
        session.ends(name);
    }
}

#[test]
fn a_cluster_that_is_cut_off_is_left_behind_by_its_consumers_names() {
    let four: &[(&str, u8, Class)] = &[
        ("web", 0, Class::Reloading),
        ("api", 0, Class::Reloading),
        ("shop", 0, Class::Reloading),
        ("db", 1, Class::Reloading),
        ("cache", 1, Class::Reloading),
    ];
    let mut session = Session::new(settings(), four);
    session.taint(OLD);
    session.cut_off[1] = true;
    session.start(proposal(NEW, &[]));
    session.until(Some(Phase::Distribute));
    session.turns(5);
    session.leave_behind(Phase::Distribute, &["db"]);
    session.leave_behind(Phase::Distribute, &["db", "cache"]);
    session.until(None);
    session.ends("cut_off");
}

/// Who is carried and heard serves a new leaf, and does not trust its peers' by itself.
#[test]
fn who_is_carried_has_to_load_the_new_anchor_before_the_old_one_goes() {
    let mut with = settings();
    with.bridges = true;
    with.consumer_lease = seconds(60);
    let mut session = Session::new(with, THREE);
    session.start(proposal(NEW, &[]));
    session.process("db").stuck = true;
    session.until(Some(Phase::Distribute));
    session.says("carry", Event::CarryByBridge([workload("db")].into()));
    session.until(Some(Phase::LeafConverged));
    session.turns(5);
    session.process("db").stuck = false;
    let loaded = session.processes[&workload("web")].loaded;
    session.process("db").loaded = loaded;
    session.until(None);
    session.ends("carried");
}

#[test]
fn the_side_in_use_ends_soon() {
    let mut patient = settings();
    patient.consumer_lease = seconds(60);
    let mut session = Session::until_the_end(START + 46, patient, THREE);
    session.start(proposal(NEW, &[]));
    session.until(Some(Phase::LeafConverged));
    session.process("db").silent = true;
    session.turns(26);
    // Going back would not help, and waiting neither.
    session.taint(OLD);
    session.turns(2);
    session.leave_behind(Phase::LeafConverged, &["db"]);
    session.until(None);
    session.ends("old_ends");

    // In the drain nobody needs it any more.
    let mut session = Session::until_the_end(START + 40, settings(), THREE);
    session.process("db").connections = Connections::Oldest(anchor(OLD));
    session.start(proposal(NEW, &[]));
    session.until(Some(Phase::Drain));
    session.turns(35);
    session.process("db").connections = Connections::None;
    session.until(None);
    session.ends("old_ends_in_drain");
}

#[test]
fn a_standby_that_may_have_signed_is_stolen() {
    let restored = |session: &mut Session| {
        session.says("restored", Event::Restored);
        for at in 0..2 {
            let loaded = session.processes[&workload("web")].loaded;
            let event = Event::Served {
                cluster: cluster(at),
                loaded,
                highest: loaded.generation,
            };
            session.says("a cluster says what it serves", event);
        }
        session.turns(5);
    };
    let mut session = Session::new(settings(), THREE);
    session.says("standby", Event::Standby(Box::new(proposal(NEW, &[]))));
    session.turns(3);
    restored(&mut session);
    session.taint(NEW);
    session.until(None);
    session.turn();
    // Nothing of it is given out again.
    restored(&mut session);
    session.turns(12);
    // Again, while the anchor changes, and while the issuers do.
    session.says("standby", Event::Standby(Box::new(proposal(THIRD, &[]))));
    session.turns(3);
    session.start(proposal(4, &[]));
    session.turns(3);
    restored(&mut session);
    session.taint(THIRD);
    session.until(None);
    session.turns(14);
    session.says("standby", Event::Standby(Box::new(proposal(5, &[]))));
    session.turns(3);
    let issuers = [0, 1].map(|at| (cluster(at), facts(60 + at, 4)));
    session.start(Proposal {
        anchor: None,
        issuers: issuers.into(),
        canaries: BTreeSet::new(),
    });
    session.turns(2);
    restored(&mut session);
    session.taint(5);
    session.until(None);
    session.ends("standby_used");
}

/// The backup is older than a bundle that is out, which only the consumers tell of.
#[test]
fn a_store_is_restored_that_does_not_know_the_last_bundle() {
    let mut session = Session::new(settings(), THREE);
    session.start(proposal(NEW, &[]));
    let backup = session.rotation.clone();
    session.until(Some(Phase::TrustConverged));
    session.rotation = backup;
    session.says("restored", Event::Restored);
    for at in 0..2 {
        let loaded = Loaded {
            generation: Generation(1),
            digest: digest(&[anchor(OLD)].into()),
        };
        let event = Event::Served {
            cluster: cluster(at),
            loaded,
            highest: loaded.generation,
        };
        session.says("a cluster says what it serves", event);
    }
    session.turns(3);
    session.until(Some(Phase::TrustConverged));
    session.ends("restored_older");
}

/// Its key is still to be put away; that it is stolen as well concerns nobody.
#[test]
fn a_key_that_nobody_uses_any_more_is_stolen() {
    let mut session = Session::new(settings(), THREE);
    session.start(proposal(NEW, &[]));
    session.until(None);
    session.start(proposal(THIRD, &[]));
    session.taint(OLD);
    session.taint(OLD);
    session.taint(9);
    session.turn();
    session.says("leads", Event::Lead(Epoch(2)));
    session.says("leads", Event::Lead(Epoch(2)));
    session.says("leads", Event::Lead(Epoch(1)));
    session.ends("stolen_unused");
}

#[test]
fn processes_join_once_and_strangers_are_counted() {
    let mut session = Session::new(settings(), THREE);
    let joins = |incarnation| Event::Joined {
        workload: workload("web"),
        cluster: cluster(0),
        class: Class::Reloading,
        incarnation: Incarnation(incarnation),
    };
    session.says("web joins", joins(3));
    let once = session.rotation.clone();
    session.says("web joins", joins(3));
    assert_eq!(session.rotation, once);
    session.says("web joins", joins(2));
    let mut refused = 0;
    for number in 0..Rotation::MAX_UNDECLARED + 1 {
        let mut event = session.evidence(&workload("db"), Source::Acknowledgement);
        if let Event::Evidence { peer, evidence } = &mut event {
            *peer = workload(&format!("stranger-{number}"));
            evidence.workload = peer.clone();
        }
        refused += u32::from(session.rotation.handle(session.now, event).is_err());
    }
    assert_eq!(refused, 1);
    // Nobody has noticed yet that its lease is over.
    session.now.0 += 30;
    session.asks("db");
    session.ends("joins");
}

#[test]
fn a_lease_becomes_shorter_when_no_leaf_outlives_it() {
    let mut session = Session::new(settings(), THREE);
    let with = |life: u64, lease: u64| {
        let mut other = settings();
        other.leaf_life = seconds(life);
        other.consumer_lease = seconds(lease);
        Event::Configure(Box::new(other))
    };
    session.says("leaves of 5, leases of 10", with(5, 10));
    session.says("leaves of 5, leases of 12", with(5, 12));
    session.says("leaves of 5, leases of 13", with(5, 13));
    session.turns(7);
    session.says("leaves of 4, leases of 6", with(4, 6));
    session.says("leaves of 4, leases of 7", with(4, 7));
    session.says("leaves of 5, leases of 7", with(5, 7));
    session.says("leaves of 5, leases of 6", with(5, 6));
    session.says("leaves of 10, leases of 20", with(10, 20));
    session.turns(3);
    session.ends("leases");
}

/// What is not known to be without effect is undone by the gates.
#[test]
fn a_store_is_restored_before_new_issuers_signed() {
    let mut session = Session::new(settings(), THREE);
    let issuers = [0, 1].map(|at| (cluster(at), facts(50 + at, OLD)));
    session.keys_at_hand = false;
    session.start(Proposal {
        anchor: None,
        issuers: issuers.into(),
        canaries: BTreeSet::new(),
    });
    session.says("restored", Event::Restored);
    for at in 0..2 {
        let loaded = session.processes[&workload("web")].loaded;
        let event = Event::Served {
            cluster: cluster(at),
            loaded,
            highest: loaded.generation,
        };
        session.says("a cluster says what it serves", event);
    }
    session.turns(5);
    session.says("abort", Event::Abort);
    session.until(None);
    session.ends("restored_issuers");
}
