//! How trust looks to people, and as JSON.

use std::time::SystemTime;

use mesh_control_api::admin::trust_phase::State;
use mesh_control_api::admin::{Trust, TrustChange, TrustNext, TrustPhase, TrustPlan, TrustRoot};
use serde_json::{Value, json};

use crate::duration;
use crate::output::{Output, Table, Tone};
use crate::token::{left, remaining};

/// Everything, in a screenful.
pub(super) fn status(output: &mut Output, trust: &Trust, now: SystemTime) {
    match &trust.change {
        None => {
            let last = match trust.last_outcome.as_str() {
                "" => String::new(),
                outcome => format!(" The last change: {outcome}."),
            };
            let generation = trust.generation;
            let line = format!("Nothing changes.{last} Bundle generation {generation}.");
            output.line(&output.paint(Tone::Good, &line));
            // Where the root's key is elsewhere, somebody is to bring one before.
            let here = |root: &TrustRoot| root.kind != "put away";
            if let Some(next) = &trust.next
                && trust.root.as_ref().is_none_or(here)
            {
                output.line(&next_line(next, now));
            }
        }
        Some(change) => {
            output.line(&output.paint(Tone::Bold, &heading(change, now)));
            for phase in &change.phases {
                output.line(&phase_line(output, phase, trust, now));
            }
        }
    }
    if let Some(root) = &trust.root {
        root_lines(output, root, now);
    }
    if let Some(change) = &trust.change {
        for (what, who) in [
            ("Go first", &change.canaries),
            ("Carried by a cross-certificate", &change.carried),
        ] {
            if !who.is_empty() {
                let who: Vec<_> = who.iter().map(|who| without_identity(who)).collect();
                output.line(&format!("{what}: {}", who.join(", ")));
            }
        }
    }
    if !trust.blockers.is_empty() {
        output.line("");
        output.line(&output.paint(Tone::Bold, "In the way:"));
        for blocker in trust.blockers.iter().take(MAX_BLOCKERS) {
            let since = ago(blocker.since, now);
            let until = remaining(blocker.until, now);
            let until = until.map_or(String::new(), |left| {
                format!(", over in {} at the latest", duration::show(left))
            });
            output.line(&format!(
                "  {} {}, for {since}{until}",
                shortened(&blocker.who),
                blocker.why
            ));
            output.line(&output.paint(Tone::Faint, &format!("    {}", blocker.help)));
        }
        let more = trust.blockers.len().saturating_sub(MAX_BLOCKERS);
        if more > 0 {
            output.line(&format!("  and {more} more (--json has all of them)"));
        }
    }
    if !trust.quarantined.is_empty() {
        output.line("");
        output.line(&format!(
            "Quarantined, until they join again: {}",
            trust.quarantined.join(", ")
        ));
    }
    if !trust.start_only.is_empty() {
        output.line("");
        output.line(&format!(
            "Say nothing of what they trust: {}",
            trust.start_only.join(", ")
        ));
    }
    output.line("");
    let mut table = Table::new(&["ANCHOR", "STATE", "ENDS IN"]);
    for anchor in &trust.anchors {
        let id = anchor.id.chars().take(16).collect();
        table.row([id, anchor.state.clone(), left(anchor.not_after, now)]);
    }
    output.table(&table);
    let mut table = Table::new(&["ISSUER", "BELOW", "ENDS IN", ""]);
    for issuer in &trust.issuers {
        let signs = if issuer.signs { "signs" } else { "" };
        table.row([
            issuer.id.chars().take(16).collect(),
            issuer.anchor.chars().take(16).collect(),
            left(issuer.not_after, now),
            signs.to_owned(),
        ]);
    }
    output.table(&table);
}

/// One line: the phase, a bar, and who is first in the way.
pub(super) fn progress(trust: &Trust) -> String {
    let Some(change) = &trust.change else {
        return "nothing changes".to_owned();
    };
    let present = change.phases.iter().position(is_present).unwrap_or(0);
    let name = change.phases.get(present).map_or("", |phase| &phase.name);
    let first = trust.blockers.first().map_or(String::new(), |blocker| {
        format!("   {} {}", shortened(&blocker.who), blocker.why)
    });
    format!(
        "{}/{} {name:<18} {} {}/{}{first}",
        present + 1,
        change.phases.len(),
        bar(trust.ready, trust.consumers),
        trust.ready,
        trust.consumers
    )
}

/// What a change would go through.
pub(super) fn plan(output: &mut Output, plan: &TrustPlan, now: SystemTime) {
    output.line(&output.paint(
        Tone::Bold,
        &format!("Gates wait for {} workloads.", plan.consumers.len()),
    ));
    let mut table = Table::new(&["PHASE", "LEFT IN, AT THE EARLIEST"]);
    for phase in &plan.phases {
        let earliest = remaining(phase.earliest, now);
        let earliest = earliest.map_or_else(|| "at once".to_owned(), duration::show);
        table.row([phase.name.clone(), earliest]);
    }
    output.table(&table);
    if !plan.canaries.is_empty() {
        let who: Vec<_> = plan
            .canaries
            .iter()
            .map(|who| without_identity(who))
            .collect();
        output.line(&format!("Go first: {}", who.join(", ")));
    }
    if plan.bridges {
        output.line(
            "Cross-certificates are made: `mesh trust carry` has them carry who does not trust the new anchor yet.",
        );
    }
    for warning in &plan.warnings {
        output.line(&output.paint(Tone::Bad, warning));
    }
}

/// The status as JSON.
pub(super) fn json(trust: &Trust) -> Value {
    let change = trust.change.as_ref().map(|change| {
        json!({
            "kind": change.kind,
            "mode": change.mode,
            "startedAt": seconds(change.started_at),
            "paused": change.paused,
            "phases": change.phases.iter().map(phase_json).collect::<Vec<_>>(),
            "canaries": change.canaries,
            "carried": change.carried,
        })
    });
    let blockers = trust.blockers.iter().map(|blocker| {
        json!({
            "who": blocker.who,
            "why": blocker.why,
            "since": seconds(blocker.since),
            "until": seconds(blocker.until),
            "help": blocker.help,
        })
    });
    let anchors = trust.anchors.iter().map(
        |anchor| json!({ "id": anchor.id, "state": anchor.state, "notAfter": seconds(anchor.not_after) }),
    );
    let issuers = trust.issuers.iter().map(|issuer| {
        json!({
            "id": issuer.id,
            "anchor": issuer.anchor,
            "notAfter": seconds(issuer.not_after),
            "signs": issuer.signs,
        })
    });
    json!({
        "trustDomain": trust.trust_domain,
        "change": change,
        "lastOutcome": trust.last_outcome,
        "generation": trust.generation,
        "bundleDigest": trust.bundle_digest,
        "bundleKey": trust.bundle_key,
        "anchors": anchors.collect::<Vec<_>>(),
        "issuers": issuers.collect::<Vec<_>>(),
        "blockers": blockers.collect::<Vec<_>>(),
        "consumers": trust.consumers,
        "ready": trust.ready,
        "quarantined": trust.quarantined,
        "startOnly": trust.start_only,
        "auditLength": trust.audit_length,
        "auditHead": trust.audit_head,
        "root": trust.root.as_ref().map(|root| json!({
            "kind": root.kind,
            "folder": root.folder,
            "offer": root.offer,
            "detail": root.detail,
            "since": seconds(root.since),
            "neededBy": seconds(root.needed_by),
        })),
        "next": trust.next.as_ref().map(|next| json!({
            "kind": next.kind,
            "at": seconds(next.at),
            "frozen": next.frozen,
        })),
    })
}

/// A plan as JSON.
pub(super) fn plan_json(plan: &TrustPlan) -> Value {
    json!({
        "phases": plan.phases.iter().map(phase_json).collect::<Vec<_>>(),
        "consumers": plan.consumers,
        "warnings": plan.warnings,
        "canaries": plan.canaries,
        "bridges": plan.bridges,
    })
}

fn heading(change: &TrustChange, now: SystemTime) -> String {
    let mode = match change.mode.as_str() {
        "normal" => String::new(),
        mode => format!(", {mode}"),
    };
    let paused = if change.paused { ", paused" } else { "" };
    let since = ago(change.started_at, now);
    format!(
        "A change of the {}{mode}{paused}, for {since}:",
        change.kind
    )
}

/// Where anchors and issuers come from, unless they are made by the controller.
fn root_lines(output: &mut Output, root: &TrustRoot, now: SystemTime) {
    let needed = remaining(root.needed_by, now).map(duration::show);
    let needed = needed.map_or_else(|| "now".to_owned(), |left| format!("within {left}"));
    if root.kind == "put away" {
        output.line(&format!(
            "The anchor's key is not here: another issuer is needed {needed} (`mesh trust issuer-request`)."
        ));
    }
    if root.kind == "outside" {
        output.line(&format!(
            "Anchors and issuers come from {}; another issuer is needed {needed}.",
            root.folder
        ));
        let detail = match root.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        let line = format!("  What is there: {}{detail}", root.offer);
        match root.offer.as_str() {
            "" => {}
            "refused" => output.line(&output.paint(Tone::Bad, &line)),
            _ => output.line(&line),
        }
    }
}

/// What begins by itself.
fn next_line(next: &TrustNext, now: SystemTime) -> String {
    let due = remaining(next.at, now).filter(|left| !left.is_zero());
    let when = match (due, next.frozen) {
        (Some(left), _) => format!("in {}", duration::show(left)),
        (None, true) => "when the freeze ends".to_owned(),
        (None, false) => "now".to_owned(),
    };
    format!("The {} is replaced by itself {when}.", next.kind)
}

fn phase_line(output: &Output, phase: &TrustPhase, trust: &Trust, now: SystemTime) -> String {
    let earliest = || match remaining(phase.earliest, now) {
        Some(left) => format!("not before {} from now", duration::show(left)),
        None => String::new(),
    };
    let (tone, text) = match phase.state() {
        State::Done => (Tone::Good, format!("  done  {}", phase.name)),
        State::Now => {
            let bar = bar(trust.ready, trust.consumers);
            let (ready, all) = (trust.ready, trust.consumers);
            let line = format!(
                "  now   {:<18} {bar} {ready}/{all}  {}",
                phase.name,
                earliest()
            );
            (Tone::Bold, line)
        }
        State::Later | State::Unspecified => {
            let line = format!("        {:<18} {}", phase.name, earliest());
            (Tone::Faint, line)
        }
    };
    output.paint(tone, text.trim_end())
}

fn is_present(phase: &TrustPhase) -> bool {
    phase.state() == State::Now
}

fn bar(part: u64, whole: u64) -> String {
    let filled = match whole {
        0 => BAR,
        // At most BAR of them.
        _ => usize::try_from(part.min(whole) * BAR as u64 / whole).unwrap_or(BAR),
    };
    format!("[{}{}]", "#".repeat(filled), ".".repeat(BAR - filled))
}

fn without_identity(who: &str) -> &str {
    who.split_once('@').map_or(who, |(before, _)| before)
}

/// Without identities, which are long and seldom needed to tell workloads apart.
fn shortened(who: &str) -> String {
    match who.split_once('@') {
        Some((before, _)) if who.starts_with("workload `") => format!("{before}`"),
        _ => who.to_owned(),
    }
}

fn ago(time: Option<prost_types::Timestamp>, now: SystemTime) -> String {
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    let since = time.and_then(|time| now.duration_since(time).ok());
    duration::show(since.unwrap_or_default())
}

fn phase_json(phase: &TrustPhase) -> Value {
    let state = match phase.state() {
        State::Done => "done",
        State::Now => "now",
        State::Later | State::Unspecified => "later",
    };
    json!({ "name": phase.name, "state": state, "earliest": seconds(phase.earliest) })
}

fn seconds(time: Option<prost_types::Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds)
}

const BAR: usize = 20;
const MAX_BLOCKERS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_when_everybody_is_ready_and_not_before() {
        assert_eq!(bar(0, 0), format!("[{}]", "#".repeat(BAR)));
        assert_eq!(bar(3, 3), format!("[{}]", "#".repeat(BAR)));
        assert!(bar(999, 1000).ends_with(".]"));
        assert_eq!(bar(0, 3), format!("[{}]", ".".repeat(BAR)));
    }

    #[test]
    fn a_freeze_is_named_only_once_it_holds_something_back() {
        let now = SystemTime::UNIX_EPOCH;
        let mut next = TrustNext {
            kind: "anchor".to_owned(),
            at: Some((now + std::time::Duration::from_secs(90)).into()),
            frozen: true,
        };
        let soon = next_line(&next, now);
        assert!(soon.contains("in 90 s"), "{soon}");
        next.at = Some(now.into());
        let held = next_line(&next, now);
        assert!(held.contains("when the freeze ends"), "{held}");
    }

    #[test]
    fn identities_are_left_out_of_names() {
        assert_eq!(shortened("workload `shop/web@x.y`"), "workload `shop/web`");
        assert_eq!(shortened("the operator"), "the operator");
    }
}
