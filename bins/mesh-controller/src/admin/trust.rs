//! What `mesh trust` asks: how trust stands, and an operator's words about it.

use std::time::SystemTime;

use mesh_control_api::admin::{self as api, change_trust_request::Word, trust_phase::State};
use mesh_trust_rotation::{
    AnchorId, Blocker, Change, Event, Gate, Kind, Mode, Outcome, Phase, Reason, Rotation, Standing,
    Step, Subject, UnixTime, WorkloadId,
};
use tonic::Status;

use super::root;
use crate::trust::{Command, CommandError, OwnClock, Trust, system, unix};

/// How trust stands at `now`.
pub(super) fn describe(trust: &Trust, now: SystemTime) -> api::Trust {
    let record = trust.record();
    let rotation = record.rotation();
    let at = unix(now);
    let gate = rotation.gate(at);
    let required = || {
        let all = rotation.consumers().iter();
        all.filter(|(_, consumer)| consumer.is_required())
    };
    let blocking = |id: &WorkloadId| {
        let mut blockers = gate.blockers().iter();
        blockers.any(|blocker| matches!(&blocker.who, Subject::Workload(who) if who == id))
    };
    let named = |wanted: &dyn Fn(&mesh_trust_rotation::Consumer) -> bool| {
        let all = rotation.consumers().iter();
        let some = all.filter(|(_, consumer)| wanted(consumer));
        some.take(MAX_LISTED)
            .map(|(id, _)| id.to_string())
            .collect()
    };
    let bundle = trust.bundle();
    api::Trust {
        trust_domain: trust.trust_domain().to_string(),
        change: rotation
            .change()
            .map(|change| describe_change(rotation, change, at)),
        last_outcome: match rotation.last_outcome() {
            None => String::new(),
            Some(Outcome::Completed) => "completed".to_owned(),
            Some(Outcome::SafelyAborted) => "safely aborted".to_owned(),
        },
        generation: bundle.generation(),
        bundle_digest: bundle.digest().to_string(),
        bundle_key: trust.bundle_key(),
        anchors: anchors(rotation),
        issuers: issuers(rotation),
        blockers: blockers(&gate, trust),
        consumers: required().count() as u64,
        ready: required().filter(|(id, _)| !blocking(id)).count() as u64,
        quarantined: named(&|consumer| matches!(consumer.standing, Standing::Quarantined { .. })),
        start_only: named(&|consumer| consumer.class.needs_probe() && consumer.is_required()),
        audit_length: record.audit().length(),
        audit_head: record.audit().head().to_string(),
        next: next(trust, now).filter(|_| rotation.change().is_none()),
        root: Some(root::describe(trust)),
    }
}

/// What a change would go through if it began now.
pub(super) async fn plan(trust: &Trust, issuer_only: bool) -> Result<api::TrustPlan, Status> {
    let (steps, canaries) = trust
        .plan(issuer_only)
        .await
        .map_err(|error| refused(&error))?;
    let record = trust.record();
    let rotation = record.rotation();
    let required = rotation.consumers().iter();
    let required = required.filter(|(_, consumer)| consumer.is_required());
    let mut warnings = Vec::new();
    for (id, consumer) in required.clone() {
        if consumer.class.needs_probe() {
            warnings.push(format!(
                "`{id}` does not say what it trusts, as a proxy that reads its roots only at start: the change waits in `distribute` until it renews its certificate no more"
            ));
        }
    }
    warnings.truncate(MAX_LISTED);
    let first = steps.first().map(|step| step.phase);
    Ok(api::TrustPlan {
        phases: steps
            .iter()
            .map(|step| phase(step.phase, first, Some(step)))
            .collect(),
        consumers: required
            .take(MAX_LISTED)
            .map(|(id, _)| id.to_string())
            .collect(),
        warnings,
        canaries: canaries.iter().map(ToString::to_string).collect(),
        bridges: rotation.settings().bridges && !issuer_only,
    })
}

/// An operator's word, on record when this returns.
pub(super) async fn change(trust: &Trust, request: api::ChangeTrustRequest) -> Result<(), Status> {
    let event = |event| Command::Event(Box::new(event));
    let record = trust.record();
    let rotation = record.rotation();
    let word = request
        .word
        .ok_or_else(|| Status::invalid_argument("`word` is missing"))?;
    let command = match word {
        Word::Rotate(rotate) => Command::Rotate {
            issuer_only: rotate.issuer_only,
        },
        Word::Pause(_) => event(Event::Pause),
        Word::Resume(_) => event(Event::Resume),
        Word::Abort(_) => event(Event::Abort),
        Word::Taint(taint) => event(Event::Taint(anchor(rotation, &taint.anchor)?)),
        Word::LeaveBehind(leave) => {
            let change = rotation.change();
            let phase = change.map_or(Phase::Preflight, |change| change.phase);
            let breaks = leave.workloads.iter().map(|name| workload(rotation, name));
            let breaks = breaks.collect::<Result<_, _>>()?;
            event(Event::Override { phase, breaks })
        }
        Word::Carry(carry) => {
            let carried = carry.workloads.iter().map(|name| workload(rotation, name));
            event(Event::CarryByBridge(carried.collect::<Result<_, _>>()?))
        }
        Word::Restored(_) => event(Event::Restored),
        Word::DeclareLeft(left) => event(Event::Left(workload(rotation, &left.workload)?)),
    };
    trust
        .command(command)
        .await
        .map_err(|error| refused(&error))
}

/// What is wrong with certificates that are to become anchor and issuer.
pub(super) fn lint(
    trust: &Trust,
    request: &api::LintTrustRequest,
    now: SystemTime,
) -> Result<api::LintTrustResponse, Status> {
    let findings = trust
        .lint(&request.anchor_pem, &request.issuer_pem, now)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(api::LintTrustResponse { findings })
}

pub(super) fn refused(error: &CommandError) -> Status {
    match error {
        CommandError::Stopping => Status::unavailable(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}

fn named(workloads: &std::collections::BTreeSet<WorkloadId>) -> Vec<String> {
    let listed = workloads.iter().take(MAX_LISTED);
    listed.map(ToString::to_string).collect()
}

/// The one anchor whose name begins so.
fn anchor(rotation: &Rotation, prefix: &str) -> Result<AnchorId, Status> {
    let anchors = rotation.anchors().keys();
    let mut found = anchors.filter(|id| !prefix.is_empty() && id.to_string().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(*one),
        (None, _) => Err(Status::invalid_argument(format!(
            "no anchor's name begins with `{prefix}`; `mesh trust status` lists them"
        ))),
        _ => Err(Status::invalid_argument(format!(
            "the names of several anchors begin with `{prefix}`"
        ))),
    }
}

/// The workload of this name, with or without its identity.
fn workload(rotation: &Rotation, name: &str) -> Result<WorkloadId, Status> {
    let consumers = rotation.consumers().keys();
    let mut found = consumers.filter(|id| {
        let short = id.as_str().split_once('@').map(|(short, _)| short);
        id.as_str() == name || short == Some(name)
    });
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(Status::invalid_argument(format!(
            "nobody is known as `{name}`; `mesh trust status` names who blocks"
        ))),
        _ => Err(Status::invalid_argument(format!(
            "several are known as `{name}`; give the identity too, as `mesh trust status` prints it"
        ))),
    }
}

fn describe_change(rotation: &Rotation, change: &Change, at: UnixTime) -> api::TrustChange {
    let remaining = rotation.plan(at);
    let step = |phase: Phase| remaining.iter().find(|step| step.phase == phase);
    let mut phases = Vec::new();
    let mut next = Some(Phase::Preflight);
    while let Some(one) = next {
        phases.push(phase(one, Some(change.phase), step(one)));
        next = one.next(change.kind, change.mode);
    }
    api::TrustChange {
        canaries: named(&change.canaries),
        carried: named(&change.bridged),
        kind: kind(change.kind),
        mode: match change.mode {
            Mode::Normal => "normal",
            Mode::Reverting => "reverting",
            Mode::Emergency => "emergency",
        }
        .to_owned(),
        started_at: Some(system(change.started).into()),
        paused: change.paused.is_some(),
        phases,
    }
}

/// What begins by itself next.
fn next(trust: &Trust, now: SystemTime) -> Option<api::TrustNext> {
    let (next, frozen) = trust.next_change(now)?;
    Some(api::TrustNext {
        kind: kind(next.kind),
        at: Some(system(next.at).into()),
        frozen,
    })
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Anchor => "anchor",
        Kind::Issuer => "issuer",
    }
    .to_owned()
}

fn phase(phase: Phase, present: Option<Phase>, step: Option<&Step>) -> api::TrustPhase {
    let state = match present {
        Some(present) if phase < present => State::Done,
        Some(present) if phase == present => State::Now,
        _ => State::Later,
    };
    api::TrustPhase {
        name: phase.to_string(),
        state: state.into(),
        earliest: step.map(|step| system(step.earliest).into()),
    }
}

fn anchors(rotation: &Rotation) -> Vec<api::TrustAnchor> {
    let change = rotation.change();
    let standby = rotation.standby().map(|side| side.anchor);
    let state = |id: AnchorId, tainted: bool| match change {
        _ if tainted => "tainted",
        Some(change) if change.is_leaving(id) => "to go",
        Some(change) if change.to.anchor == id && rotation.active().anchor != id => "to come",
        _ if rotation.active().anchor == id => "in use",
        _ if standby == Some(id) => "standby",
        _ => "retiring",
    };
    let all = rotation.anchors().values();
    all.map(|anchor| api::TrustAnchor {
        id: anchor.id.to_string(),
        not_after: Some(system(anchor.not_after).into()),
        state: state(anchor.id, anchor.tainted.is_some()).to_owned(),
    })
    .collect()
}

fn issuers(rotation: &Rotation) -> Vec<api::TrustIssuer> {
    let signs = |id| {
        rotation
            .clusters()
            .values()
            .any(|cluster| cluster.signer == id)
    };
    let all = rotation.issuers().values();
    all.map(|issuer| api::TrustIssuer {
        id: issuer.id.to_string(),
        anchor: issuer.anchor.to_string(),
        not_after: Some(system(issuer.not_after).into()),
        signs: signs(issuer.id),
    })
    .collect()
}

fn blockers(gate: &Gate, trust: &Trust) -> Vec<api::TrustBlocker> {
    let disbelieved = trust.disbelieved();
    let own = trust.own_clock();
    let describe = |blocker: &Blocker| {
        let refused = match (&blocker.who, blocker.why) {
            (Subject::Workload(who), Reason::ForeignBundle) => disbelieved.get(who),
            _ => None,
        };
        let why = refused.map(|why| {
            format!(
                "says that it trusts the new anchor, and does not accept a certificate of it: {why}"
            )
        });
        let verifies = "see its clock and what it verifies with; start it again".to_owned();
        let help = clock(blocker, trust, own).or(refused.map(|_| verifies));
        api::TrustBlocker {
            who: blocker.who.to_string(),
            why: why.unwrap_or_else(|| blocker.why.to_string()),
            since: Some(system(blocker.since).into()),
            until: blocker.until.map(|until| system(until).into()),
            help: help.unwrap_or_else(|| blocker.why.help().to_owned()),
        }
    };
    // It may be in the way of nothing yet; but of what is next.
    let changes = trust.record().rotation().change().is_some();
    let own = own.filter(|_| changes || !gate.blockers().is_empty());
    let own = own.map(|own| api::TrustBlocker {
        who: "this controller".to_owned(),
        why: format!("its clock is {}", off(own)),
        help: "set its clock".to_owned(),
        ..api::TrustBlocker::default()
    });
    let all = gate.blockers().iter().map(describe);
    own.into_iter().chain(all).take(MAX_LISTED).collect()
}

/// How this controller's clock is off.
fn off(own: OwnClock) -> String {
    let OwnClock { ahead, by, of } = own;
    let direction = if ahead < 0 { "behind" } else { "ahead of" };
    let seconds = ahead.unsigned_abs();
    format!("{seconds} s {direction} those of {by} of {of} workloads")
}

/// What helps whose clock is off: nothing else does before that.
fn clock(blocker: &Blocker, trust: &Trust, own: Option<OwnClock>) -> Option<String> {
    let Subject::Workload(who) = &blocker.who else {
        return None;
    };
    let ahead = trust.clock_ahead(who)?;
    if let Some(own) = own {
        return Some(format!("set this controller's clock: it is {}", off(own)));
    }
    let seconds = ahead.unsigned_abs();
    let direction = if ahead < 0 { "behind" } else { "ahead of" };
    Some(format!(
        "set its clock: it is {seconds} s {direction} this controller's"
    ))
}

/// An operator reads no more than this, and messages stay small.
const MAX_LISTED: usize = 1000;
