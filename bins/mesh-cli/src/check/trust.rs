//! What is wrong with the roots of trust: from what was seen to what to do.

use std::time::{Duration, SystemTime};

use mesh_control_api::admin::{Status, Trust};

use super::findings::Finding;
use crate::duration;
use crate::error::count;
use crate::token::remaining;

/// A change that should have begun by itself so long ago has not for a reason.
const OVERDUE: Duration = Duration::from_secs(600);
/// What ends sooner and is not replaced by itself wants attention.
const ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);
/// Who stands in the way for longer does not just take its time.
const BLOCKS_LONG: Duration = Duration::from_secs(600);
/// An operator reads no more than this.
const MAX_BLOCKERS: usize = 10;

pub(super) fn findings(status: &Status, trust: &Trust, now: SystemTime, found: &mut Vec<Finding>) {
    ends(status, trust, now, found);
    root(trust, now, found);
    change(trust, now, found);
    for anchor in trust
        .anchors
        .iter()
        .filter(|anchor| anchor.state == "tainted")
    {
        let name: String = anchor.id.chars().take(16).collect();
        found.push(Finding::bad(
            "trust",
            format!("anchor {name} is tainted, and still trusted"),
            "run `mesh trust rotate`, unless a change is underway",
        ));
    }
    if !trust.quarantined.is_empty() {
        let who = trust.quarantined.join(", ");
        found.push(Finding::bad(
            "trust",
            format!("left behind: {who}"),
            "have them join again with a token, or declare that they are gone: `mesh trust left WORKLOAD`",
        ));
    }
    if !trust.start_only.is_empty() {
        // Nothing is wrong until something is to be replaced.
        let who = count(trust.start_only.len(), "workload");
        let text = format!("{who} read roots only at start: a change of the anchor waits for them");
        found.push(Finding::good("trust", text));
    }
}

/// Anchor and issuer: when they end, and that something is done about it before.
fn ends(status: &Status, trust: &Trust, now: SystemTime, found: &mut Vec<Finding>) {
    let certificates = [
        ("anchor", status.anchor_expires_at),
        ("issuer", status.issuer_expires_at),
    ];
    let next = trust.next.as_ref();
    let overdue = next.filter(|next| {
        let at = next.at.and_then(|at| SystemTime::try_from(at).ok());
        at.and_then(|at| now.duration_since(at).ok())
            .is_some_and(|late| late > OVERDUE)
    });
    for (name, expires) in certificates {
        if expires.is_none() {
            continue;
        }
        let Some(left) = remaining(expires, now) else {
            found.push(Finding::bad(
                name,
                "has expired: nobody trusts new certificates",
                "`mesh trust status` says why it was not replaced; start every proxy again once there is another",
            ));
            continue;
        };
        let ends = format!("ends in {}", duration::show(left));
        let plan = match (&trust.change, next) {
            (Some(_), _) => "; a change is underway".to_owned(),
            (None, Some(next)) => {
                let begins = remaining(next.at, now).unwrap_or_default();
                let begins = duration::show(begins);
                format!("; the {} is replaced by itself in {begins}", next.kind)
            }
            (None, None) => String::new(),
        };
        let elsewhere = trust
            .root
            .as_ref()
            .is_some_and(|root| root.needed_by.is_some());
        let unattended = trust.change.is_none() && next.is_none() && !elsewhere;
        found.push(match overdue {
            None if unattended && left < ENDS_SOON => Finding::bad(
                name,
                ends,
                "`mesh trust rotate` replaces it; nothing says that it is replaced by itself",
            ),
            None => Finding::good(name, format!("{ends}{plan}")),
            Some(next) if next.frozen => Finding::bad(
                name,
                format!("{ends}, and a freeze holds its replacement back"),
                "see `spec.rotation.freeze` of the MeshConfig; it is over in time by itself",
            ),
            Some(_) => Finding::bad(
                name,
                format!("{ends}, and its replacement has not begun"),
                "`mesh trust rotate` says why; see what the controller logs",
            ),
        });
    }
}

/// What somebody else has to bring.
fn root(trust: &Trust, now: SystemTime, found: &mut Vec<Finding>) {
    if trust.root.as_ref().is_some_and(|it| it.bridges_impossible) {
        found.push(Finding::bad(
            "root",
            "cross-certificates are asked for, and none can be made: the anchor's key is not with the controller",
            "set `spec.rotation.bridges` of the MeshConfig to false, or bring the key back",
        ));
    }
    let Some(root) = trust.root.as_ref().filter(|root| root.needed_by.is_some()) else {
        return;
    };
    let left = remaining(root.needed_by, now).unwrap_or_default();
    let text = format!(
        "another issuer has to be brought within {}",
        duration::show(left)
    );
    let advice = match root.kind.as_str() {
        "outside" => format!("have whoever writes in {} make another", root.folder),
        _ => "`mesh trust issuer-request`, and have it signed where the root's key is".to_owned(),
    };
    let underway = trust.change.is_some();
    found.push(if left < ENDS_SOON && !underway {
        Finding::bad("root", text, advice)
    } else {
        Finding::good("root", text)
    });
    if root.offer == "refused" {
        found.push(Finding::bad(
            "root",
            format!(
                "what the outside authority wrote is refused: {}",
                root.detail
            ),
            "put it right; what was in force before stays",
        ));
    }
}

fn change(trust: &Trust, now: SystemTime, found: &mut Vec<Finding>) {
    let Some(change) = &trust.change else {
        // Without a change, what blocks is a restore or an anchor in other hands.
        for blocker in trust.blockers.iter().take(MAX_BLOCKERS) {
            let text = format!("{} {}", blocker.who, blocker.why);
            found.push(Finding::bad("trust", text, blocker.help.clone()));
        }
        return;
    };
    let text = format!(
        "a change of the {} is underway: {} of {} ready",
        change.kind, trust.ready, trust.consumers
    );
    if change.paused {
        found.push(Finding::bad(
            "trust",
            format!("{text}, and it was paused"),
            "`mesh trust resume` or `mesh trust abort`",
        ));
    } else {
        found.push(Finding::good("trust", text));
    }
    let long = trust.blockers.iter().filter(|blocker| {
        let since = blocker.since.and_then(|at| SystemTime::try_from(at).ok());
        let for_long = since.and_then(|since| now.duration_since(since).ok());
        // What time alone ends needs nobody.
        blocker.until.is_none() && for_long.is_some_and(|time| time > BLOCKS_LONG)
    });
    for blocker in long.take(MAX_BLOCKERS) {
        let text = format!("{} {}", blocker.who, blocker.why);
        found.push(Finding::bad("trust", text, blocker.help.clone()));
    }
}

#[cfg(test)]
mod tests {
    use mesh_control_api::admin::{TrustAnchor, TrustBlocker, TrustChange, TrustNext};

    use super::*;

    fn at(now: SystemTime, seconds: i64) -> Option<prost_types::Timestamp> {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 {
            now - distance
        } else {
            now + distance
        };
        Some(time.into())
    }

    fn seen(now: SystemTime) -> (Status, Trust) {
        let status = Status {
            anchor_expires_at: at(now, 540),
            issuer_expires_at: at(now, 540),
            ..Status::default()
        };
        let next = TrustNext {
            kind: "anchor".to_owned(),
            at: at(now, 120),
            frozen: false,
        };
        let trust = Trust {
            next: Some(next),
            ..Trust::default()
        };
        (status, trust)
    }

    fn wrong(status: &Status, trust: &Trust, now: SystemTime) -> Vec<String> {
        let mut found = Vec::new();
        findings(status, trust, now, &mut found);
        let wrong = found.into_iter().filter(|finding| finding.advice.is_some());
        wrong.map(|finding| finding.text).collect()
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn minutes_are_enough_if_the_schedule_says_so() {
        let (status, trust) = seen(now());
        assert_eq!(wrong(&status, &trust, now()), [""; 0]);
    }

    #[test]
    fn what_should_have_begun_and_has_not_is_wrong() {
        let (status, mut trust) = seen(now());
        trust.next.as_mut().unwrap().at = at(now(), -601);
        let found = wrong(&status, &trust, now());
        assert!(found[0].contains("has not begun"), "{found:?}");
        trust.next.as_mut().unwrap().frozen = true;
        let found = wrong(&status, &trust, now());
        assert!(found[0].contains("a freeze"), "{found:?}");
    }

    #[test]
    fn what_has_ended_is_wrong() {
        let (mut status, trust) = seen(now());
        status.issuer_expires_at = at(now(), -1);
        let found = wrong(&status, &trust, now());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("has expired"), "{found:?}");
    }

    #[test]
    fn who_blocks_for_long_is_named_and_what_time_ends_is_not() {
        let (status, mut trust) = seen(now());
        trust.change = Some(TrustChange::default());
        let blocker = |who: &str, since, until| TrustBlocker {
            who: who.to_owned(),
            why: "is silent".to_owned(),
            since: at(now(), since),
            until,
            help: "start it".to_owned(),
        };
        trust.blockers = vec![
            blocker("web", -3600, None),
            blocker("soon", -60, None),
            blocker("time", -3600, at(now(), 60)),
        ];
        assert_eq!(wrong(&status, &trust, now()), ["web is silent"]);
        trust.change.as_mut().unwrap().paused = true;
        assert!(wrong(&status, &trust, now())[0].contains("paused"));
    }

    #[test]
    fn what_somebody_else_has_to_bring_is_wrong_when_it_is_soon_or_was_refused() {
        let (status, mut trust) = seen(now());
        trust.root = Some(mesh_control_api::admin::TrustRoot {
            kind: "outside".to_owned(),
            folder: "/ca".to_owned(),
            offer: "in force".to_owned(),
            needed_by: at(now(), 60 * 86_400),
            ..Default::default()
        });
        assert_eq!(wrong(&status, &trust, now()), [""; 0]);
        let root = trust.root.as_mut().unwrap();
        root.needed_by = at(now(), 86_400);
        (root.offer, root.detail) = ("refused".to_owned(), "tls.crt:1: validity".to_owned());
        let found = wrong(&status, &trust, now());
        assert!(found[0].contains("within 24 h"), "{found:?}");
        assert!(found[1].contains("tls.crt:1"), "{found:?}");
        trust.root.as_mut().unwrap().bridges_impossible = true;
        let found = wrong(&status, &trust, now());
        assert!(found[0].contains("cross-certificates"), "{found:?}");
    }

    #[test]
    fn the_tainted_and_the_lost_are_named() {
        let (status, mut trust) = seen(now());
        trust.quarantined = vec!["shop/web-1@web".to_owned()];
        trust.anchors = vec![TrustAnchor {
            id: "ab".repeat(32),
            not_after: None,
            state: "tainted".to_owned(),
        }];
        let found = wrong(&status, &trust, now());
        assert!(
            found[0].contains("abababababababab is tainted"),
            "{found:?}"
        );
        assert!(found[1].contains("shop/web-1"), "{found:?}");
    }
}
