//! A change of the anchor in a mesh of two clusters and 40 consumers, in which much goes wrong, as an operator sees it:
//! `cargo run -p mesh-trust-rotation --example a_change_with_trouble --all-features`. It is the session of `docs/operating.md`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::driver::{Driver, Memory, Site, World};
use mesh_trust_rotation::lint::{Algorithm, Facts};
use mesh_trust_rotation::{
    Action, Anchor, AnchorId, ClusterId, Connections, Digest, Drain, Epoch, Event, Gate,
    Generation, Incarnation, Issuer, IssuerId, Loaded, Mesh, NotRecorded, Phase, Proposal, Record,
    Rotation, Settings, UnixTime, WorkloadId,
};

#[allow(dead_code, clippy::print_stdout)] // a test includes this file
fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", session()?);
    Ok(())
}

/// A Friday, 08:00.
const START: UnixTime = UnixTime(1_800_000_000);
const TURN: Duration = Duration::from_mins(10);
const OLD: u8 = 1;
const NEW: u8 = 2;

/// Two clusters in one process, and what goes wrong in them.
struct Trouble {
    now: UnixTime,
    east: Site,
    west: Site,
    /// Nothing is heard of it.
    vm_is_away: bool,
    /// Nothing gets through to this cluster's controller.
    west_is_cut_off: bool,
    /// It has a connection from before.
    db_is_connected: bool,
}

impl World for Trouble {
    fn gather(&mut self, rotation: &Rotation) -> Vec<Event> {
        let mut events = self.east.says(self.now, rotation);
        if !self.west_is_cut_off {
            events.extend(self.west.says(self.now, rotation));
        }
        events.retain(|event| !self.vm_is_away || subject(event) != Some("vm-7"));
        for event in &mut events {
            if let Event::Evidence { evidence, .. } = event
                && evidence.workload.as_str() == "db-1"
                && self.db_is_connected
            {
                evidence.report.connections = Connections::Oldest(anchor(OLD).id);
            }
        }
        events
    }

    fn act(&mut self, action: &Action) -> Option<Event> {
        if self.west_is_cut_off && cluster_of(action) == Some("west") {
            return None;
        }
        if let Action::DrainConnections { cut: true, .. } = action {
            self.db_is_connected = false;
        }
        self.east.takes(action, digest);
        self.west.takes(action, digest);
        action.done(digest)
    }
}

/// The whole session, as text.
pub(crate) fn session() -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    let (east, west) = (ClusterId::new("east")?, ClusterId::new("west")?);
    let mesh = mesh(&east, &west);
    let names = |from: u32, names: &[&str]| -> Result<Vec<WorkloadId>, Box<dyn Error>> {
        let numbered = (from..from + 19).map(|number| format!("web-{number}"));
        let all = numbered.chain(names.iter().map(ToString::to_string));
        Ok(all
            .map(|name| WorkloadId::new(&name))
            .collect::<Result<_, _>>()?)
    };
    let mut trouble = Trouble {
        now: START.before(Duration::from_hours(48)),
        east: Site::new(east.clone(), &mesh).with(names(1, &["db-1"])?),
        west: Site::new(west.clone(), &mesh).with(names(20, &["vm-7"])?),
        vm_is_away: false,
        west_is_cut_off: false,
        db_is_connected: true,
    };
    let record = Record::new(Rotation::new(Settings::default(), mesh, trouble.now)?);
    let (mut store, driver) = (Memory::new(record), Driver::new(Epoch(1), "controller"));
    while trouble.now < START {
        trouble.vm_is_away = trouble.now > START.before(Duration::from_hours(14));
        driver.turn(trouble.now, &mut store, &mut trouble, &Sha256)?;
        trouble.now = trouble.now.after(TURN);
    }

    // The first proposal was put together in haste.
    let mut start = Proposal::to(
        facts(NEW, NEW, NEW),
        [
            (east, facts(102, 202, NEW)),
            (west.clone(), facts(112, 202, NEW)),
        ],
    );
    let good = start.issuers[&west].clone();
    if let Some(issuer) = start.issuers.get_mut(&west) {
        issuer.authority_key_id = Some(vec![OLD]);
    }
    let mut operator = Operator {
        store: &mut store,
        text: &mut text,
    };
    operator.says(START, "start", Event::Start(Box::new(start.clone())));
    start.issuers.insert(west.clone(), good);
    operator.says(START, "start", Event::Start(Box::new(start)));
    for step in operator.store.record().rotation().plan(START) {
        writeln!(
            text,
            "           {:<17} until {}",
            step.phase.to_string(),
            clock(step.earliest)
        )?;
    }

    let (mut last, mut cut_at) = (String::new(), None);
    while store.record().rotation().change().is_some() {
        driver.turn(trouble.now, &mut store, &mut trouble, &Sha256)?;
        let status = status(trouble.now, store.record().rotation());
        if status != last {
            write!(text, "{}  {status}", clock(trouble.now))?;
            last = status;
        }
        let rotation = store.record().rotation();
        if rotation
            .change()
            .is_some_and(|change| change.phase == Phase::Issue)
        {
            let since = *cut_at.get_or_insert(trouble.now);
            trouble.west_is_cut_off = trouble.now < since.after(Duration::from_mins(50));
        }
        let waits = rotation.settings().drain == Drain::Wait;
        if waits && last.contains("connection") && last.lines().count() == 2 {
            let mut settings = rotation.settings().clone();
            settings.drain = Drain::Cut;
            let mut operator = Operator {
                store: &mut store,
                text: &mut text,
            };
            operator.says(
                trouble.now,
                "configure drain: cut",
                Event::Configure(Box::new(settings)),
            );
        }
        trouble.now = trouble.now.after(TURN);
        if trouble.now > START.after(Duration::from_hours(24 * 7)) {
            return Err(format!("it does not end:\n{text}").into());
        }
    }

    // On Monday the machine comes back.
    trouble.vm_is_away = false;
    let back = START.after(Duration::from_hours(24 * 3 + 1));
    driver.turn(back, &mut store, &mut trouble, &Sha256)?;
    let bundles = store.record().rotation().bundles();
    let generation = bundles.current();
    let loaded = |generation: Generation| {
        let digest = bundles.known(generation).and_then(|bundle| bundle.digest);
        digest.map(|digest| Loaded { generation, digest })
    };
    let of_the_day = loaded(generation).ok_or("a bundle has a digest")?;
    let rejoined = |loaded| Event::Rejoined {
        workload: WorkloadId::new("vm-7").unwrap_or_else(|_| unreachable!()),
        incarnation: Incarnation(2),
        loaded,
    };
    let old = Loaded {
        generation: Generation(1),
        digest: digest(&[anchor(OLD).id].into()),
    };
    let mut operator = Operator {
        store: &mut store,
        text: &mut text,
    };
    operator.says(back, "vm-7 joins again, with its old bundle", rejoined(old));
    operator.says(
        back,
        "vm-7 joins again, with the bundle of the day",
        rejoined(of_the_day),
    );
    Ok(text)
}

/// Who says what to the machine, beside the controller.
struct Operator<'a> {
    store: &'a mut Memory,
    text: &'a mut String,
}

impl Operator<'_> {
    fn says(&mut self, now: UnixTime, what: &str, event: Event) {
        let mut record = self.store.record().clone();
        let epoch = record.rotation().epoch();
        let answer = match record.apply(epoch, now, "operator", event, &Sha256) {
            Ok(_) => "taken".to_owned(),
            Err(NotRecorded::Refused(refusal)) => refusal.to_string(),
            Err(other) => other.to_string(),
        };
        *self.store = Memory::new(record);
        let _ = writeln!(self.text, "{}  > {what}: {answer}", clock(now));
    }
}

/// The phase, and the first of what blocks it.
fn status(now: UnixTime, rotation: &Rotation) -> String {
    let Some(change) = rotation.change() else {
        let ended = rotation.last_outcome();
        return format!(
            "idle; how it ended: {}\n",
            ended.map_or(String::new(), |ended| format!("{ended:?}"))
        );
    };
    let gate = rotation.gate(now);
    let mut text = match gate.blockers().len() {
        0 => format!("{}: open\n", change.phase),
        blockers => format!("{}: {blockers} in the way\n", change.phase),
    };
    for blocker in gate.blockers().iter().take(2) {
        let (who, why, since) = (&blocker.who, blocker.why, clock(blocker.since));
        let _ = write!(text, "             {who} {why} since {since}");
        if let Some(until) = blocker.until {
            let _ = write!(text, ", until {}", clock(until));
        }
        let _ = writeln!(text, ": {}", why.help());
    }
    if let Gate::Blocked(blockers) = gate
        && blockers.len() > 2
    {
        let _ = writeln!(text, "             and {} more", blockers.len() - 2);
    }
    text
}

/// The day of the week and the time of the day.
fn clock(at: UnixTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let minutes = at.0 / 60;
    let day = usize::try_from(minutes / 1440 % 7).map_or("", |day| DAYS[day]);
    format!("{day} {:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

fn subject(event: &Event) -> Option<&str> {
    match event {
        Event::Evidence { peer, .. } => Some(peer.as_str()),
        Event::Certify(request) => Some(request.workload.as_str()),
        _ => None,
    }
}

fn cluster_of(action: &Action) -> Option<&str> {
    match action {
        Action::Publish { cluster, .. }
        | Action::SwitchIssuer { cluster, .. }
        | Action::RotateTickets { cluster, .. } => Some(cluster.as_str()),
        _ => None,
    }
}

fn mesh(east: &ClusterId, west: &ClusterId) -> Mesh {
    let issuer = |key| Issuer {
        id: IssuerId::new([key; 32]),
        anchor: anchor(OLD).id,
        not_before: UnixTime(0),
        not_after: UnixTime(4_000_000_000),
        verified: true,
    };
    Mesh {
        anchor: anchor(OLD),
        issuers: [(east.clone(), issuer(101)), (west.clone(), issuer(111))].into(),
        generation: Generation(1),
        digest: digest(&[anchor(OLD).id].into()),
    }
}

fn anchor(key: u8) -> Anchor {
    Anchor {
        id: AnchorId::new([key; 32]),
        subject: Digest::new([key; 32]),
        not_before: UnixTime(0),
        not_after: UnixTime(4_000_000_000),
        tainted: None,
    }
}

/// What certificates of such authorities would say.
fn facts(key: u8, subject: u8, above: u8) -> Facts {
    Facts {
        key: Digest::new([key; 32]),
        subject: Digest::new([subject; 32]),
        issuer: Digest::new([above; 32]),
        subject_key_id: Some(vec![subject]),
        authority_key_id: Some(vec![above]),
        algorithm: Algorithm::P256,
        authority: true,
        path_length: None,
        signs_certificates: true,
        constrains_names: false,
        not_before: UnixTime(0),
        not_after: UnixTime(4_000_000_000),
        size_bytes: 400,
    }
}

fn digest(anchors: &BTreeSet<AnchorId>) -> Digest {
    Digest::new([anchors.iter().map(|anchor| anchor.as_bytes()[0]).sum(); 32])
}
