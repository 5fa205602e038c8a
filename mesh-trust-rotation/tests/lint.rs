//! What is wrong with a proposed certificate is said by name.

#![allow(clippy::unwrap_used)] // tests

use std::collections::{BTreeMap, BTreeSet};

use mesh_trust_rotation::lint::{Algorithm, Facts, Finding, Flaw, Role, lint_bridge, lint_first};
use mesh_trust_rotation::{
    ClusterId, Digest, Generation, Mesh, Proposal, Rotation, Settings, UnixTime, WorkloadId,
};

const NOW: UnixTime = UnixTime(1_000_000);
const LATE: UnixTime = UnixTime(1_000_000_000);

fn facts(key: u8, subject: u8, issuer: u8) -> Facts {
    Facts {
        key: Digest::new([key; 32]),
        subject: Digest::new([subject; 32]),
        issuer: Digest::new([issuer; 32]),
        subject_key_id: Some(vec![key]),
        authority_key_id: None,
        algorithm: Algorithm::P256,
        authority: true,
        path_length: None,
        signs_certificates: true,
        constrains_names: false,
        not_before: UnixTime(0),
        not_after: LATE,
        size_bytes: 600,
    }
}

fn east() -> ClusterId {
    ClusterId::new("east").unwrap()
}

fn findings(change: impl FnOnce(&mut Facts, &mut Facts)) -> Vec<Finding> {
    let (old, old_issuer) = (facts(1, 1, 1), facts(2, 2, 1));
    let mesh = Mesh {
        issuers: BTreeMap::from([(east(), old_issuer.issuer_below(old.anchor_id()))]),
        anchor: old.anchor(),
        generation: Generation(1),
        digest: Digest::new([9; 32]),
    };
    let rotation = Rotation::new(Settings::default(), mesh, NOW).unwrap();
    let (mut anchor, mut issuer) = (facts(3, 3, 3), facts(4, 4, 3));
    change(&mut anchor, &mut issuer);
    let issuers = BTreeMap::from([(east(), issuer)]);
    let settings = rotation.settings();
    let needed = NOW
        .after(settings.phase_budget.saturating_mul(9))
        .after(settings.leaf_life);
    // What a mesh may not begin with is what it may not change to, but for what the record knows of others.
    let first = lint_first(&anchor, &issuers, needed);
    let proposal = Proposal {
        anchor: Some(anchor),
        issuers,
        canaries: BTreeSet::new(),
    };
    let found = rotation.lint(NOW, &proposal);
    let of_itself = |finding: &&Finding| !matches!(finding.flaw, Flaw::SameKey | Flaw::SameSubject);
    assert!(found.iter().filter(of_itself).eq(&first));
    found
}

fn one(of: Role, flaw: Flaw, change: impl FnOnce(&mut Facts, &mut Facts)) {
    assert_eq!(findings(change), [Finding { of, flaw }]);
}

#[test]
fn a_sound_proposal_has_no_flaw() {
    assert_eq!(findings(|_, _| {}), []);
}

#[test]
fn each_flaw_has_a_reason_of_its_own() {
    let issuer = || Role::Issuer(east());
    one(Role::Anchor, Flaw::SameKey, |anchor, _| {
        anchor.key = Digest::new([1; 32]);
    });
    one(Role::Anchor, Flaw::NotAuthority, |anchor, _| {
        anchor.authority = false;
    });
    one(Role::Anchor, Flaw::MayNotSign, |anchor, _| {
        anchor.signs_certificates = false;
    });
    one(Role::Anchor, Flaw::NotSelfSigned, |anchor, _| {
        anchor.issuer = Digest::new([8; 32]);
    });
    one(Role::Anchor, Flaw::NameConstraints, |anchor, _| {
        anchor.constrains_names = true;
    });
    one(Role::Anchor, Flaw::NoSubjectKeyId, |anchor, _| {
        anchor.subject_key_id = None;
    });
    one(
        Role::Anchor,
        Flaw::Algorithm(Algorithm::Rsa(1024)),
        |anchor, _| anchor.algorithm = Algorithm::Rsa(1024),
    );
    one(
        Role::Anchor,
        Flaw::TooLarge { bytes: 20_000 },
        |anchor, _| anchor.size_bytes = 20_000,
    );
    let short = Flaw::PathLength {
        allowed: 0,
        needed: 1,
    };
    one(Role::Anchor, short, |anchor, _| {
        anchor.path_length = Some(0);
    });
    one(issuer(), Flaw::SameKey, |_, issuer| {
        issuer.key = Digest::new([2; 32]);
    });
    one(issuer(), Flaw::WrongIssuer, |_, issuer| {
        issuer.issuer = Digest::new([1; 32]);
    });
    one(issuer(), Flaw::KeyIdMismatch, |_, issuer| {
        issuer.authority_key_id = Some(vec![7]);
    });
    one(issuer(), Flaw::OutlivesIssuer, |_, issuer| {
        issuer.not_after = UnixTime(LATE.0 + 1);
    });
}

#[test]
fn a_mesh_begins_with_an_issuer_that_is_another_than_its_anchor() {
    let anchor = facts(3, 3, 3);
    let issuers = |issuer| BTreeMap::from([(east(), issuer)]);
    let found = |issuer| -> Vec<Flaw> {
        let found = lint_first(&anchor, &issuers(issuer), NOW);
        found.into_iter().map(|finding| finding.flaw).collect()
    };
    assert_eq!(found(facts(4, 4, 3)), []);
    assert_eq!(found(facts(3, 4, 3)), [Flaw::SameKey]);
    assert_eq!(found(facts(4, 3, 3)), [Flaw::SameSubject]);
}

#[test]
fn a_new_key_needs_a_new_name() {
    let found = findings(|anchor, issuer| {
        anchor.subject = Digest::new([1; 32]);
        anchor.issuer = anchor.subject;
        issuer.issuer = anchor.subject;
    });
    assert_eq!(
        found,
        [Finding {
            of: Role::Anchor,
            flaw: Flaw::SameSubject
        }]
    );
}

#[test]
fn what_ends_before_the_change_could_is_refused() {
    let found = findings(|anchor, issuer| {
        anchor.not_after = UnixTime(NOW.0 + 3600);
        issuer.not_after = anchor.not_after;
    });
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|finding| matches!(finding.flaw, Flaw::TooShort { .. })),
        "{found:?}"
    );
}

#[test]
fn a_cross_certificate_fits_both_its_ends() {
    let (subject, signer) = (facts(3, 3, 3), facts(1, 1, 1));
    let sound = Facts {
        issuer: signer.subject,
        ..subject.clone()
    };
    assert_eq!(lint_bridge(&sound, &subject, &signer, NOW), []);
    let other_key = Facts {
        key: Digest::new([5; 32]),
        ..sound.clone()
    };
    assert_eq!(
        lint_bridge(&other_key, &subject, &signer, NOW)[0].flaw,
        Flaw::KeyIdMismatch
    );
    let tight = Facts {
        path_length: Some(1),
        ..signer
    };
    assert_eq!(
        lint_bridge(&sound, &subject, &tight, NOW)[0].flaw,
        Flaw::PathLength {
            allowed: 1,
            needed: 2
        }
    );
}

#[test]
fn only_a_known_consumer_that_reloads_goes_first() {
    let old = facts(1, 1, 1);
    let issuer = facts(2, 2, 1).issuer_below(old.anchor_id());
    let issuers = BTreeMap::from([(east(), issuer)]);
    let mesh = Mesh {
        anchor: old.anchor(),
        issuers,
        generation: Generation(1),
        digest: Digest::new([9; 32]),
    };
    let rotation = Rotation::new(Settings::default(), mesh, NOW).unwrap();
    let canary = WorkloadId::new("stranger").unwrap();
    let proposal = Proposal {
        anchor: Some(facts(3, 3, 3)),
        issuers: BTreeMap::from([(east(), facts(4, 4, 3))]),
        canaries: BTreeSet::from([canary.clone()]),
    };
    let found = rotation.lint(NOW, &proposal);
    assert_eq!(
        found,
        [Finding {
            of: Role::Canary(canary),
            flaw: Flaw::UnfitCanary
        }]
    );
    assert!(found[0].to_string().contains("stranger"));
}

/// The last value that is right, and the first that is wrong.
#[test]
fn limits_are_where_they_are_said_to_be() {
    let settings = Settings::default();
    let needed = NOW
        .after(settings.phase_budget.saturating_mul(9))
        .after(settings.leaf_life);
    let anchor_alone = |change: &dyn Fn(&mut Facts)| -> Vec<Flaw> {
        let found = findings(|anchor, _| change(anchor));
        let of_anchor = found.into_iter().filter(|it| it.of == Role::Anchor);
        of_anchor.map(|it| it.flaw).collect()
    };
    assert_eq!(anchor_alone(&|it| it.not_after = needed), []);
    let not_after = UnixTime(needed.0 - 1);
    assert_eq!(
        anchor_alone(&|it| it.not_after = not_after),
        [Flaw::TooShort { not_after, needed }]
    );
    assert_eq!(anchor_alone(&|it| it.not_before = UnixTime(LATE.0 - 1)), []);
    assert_eq!(anchor_alone(&|it| it.not_before = LATE), [Flaw::NeverValid]);
    let most = mesh_trust_rotation::lint::MAX_CERTIFICATE_BYTES;
    assert_eq!(anchor_alone(&|it| it.size_bytes = most), []);
    assert_eq!(most, 16_384);
    let bytes = most + 1;
    assert_eq!(
        anchor_alone(&|it| it.size_bytes = bytes),
        [Flaw::TooLarge { bytes }]
    );
    for bits in [2048, 4096] {
        assert_eq!(anchor_alone(&|it| it.algorithm = Algorithm::Rsa(bits)), []);
    }
    let weak = Algorithm::Rsa(2047);
    assert_eq!(
        anchor_alone(&|it| it.algorithm = weak),
        [Flaw::Algorithm(weak)]
    );
    assert_eq!(anchor_alone(&|it| it.path_length = Some(1)), []);
    // A bridge's signer needs room for the anchor below it, and for that one's issuer.
    let (subject, signer) = (facts(3, 3, 3), facts(1, 1, 1));
    let sound = Facts {
        issuer: signer.subject,
        ..subject.clone()
    };
    let just = Facts {
        path_length: Some(2),
        ..signer.clone()
    };
    assert_eq!(lint_bridge(&sound, &subject, &just, LATE), []);
    let renamed = Facts {
        subject: Digest::new([9; 32]),
        ..sound
    };
    let found = lint_bridge(&renamed, &subject, &signer, NOW);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0].of, &found[0].flaw),
        (&Role::Bridge, &Flaw::WrongIssuer)
    );
}

/// A change of the issuers only is judged by the anchor in use.
#[test]
fn issuers_alone_stand_below_the_anchor_in_use() {
    let old = facts(1, 1, 1);
    let mesh = Mesh {
        issuers: BTreeMap::from([(east(), facts(2, 2, 1).issuer_below(old.anchor_id()))]),
        anchor: old.anchor(),
        generation: Generation(1),
        digest: Digest::new([9; 32]),
    };
    let rotation = Rotation::new(Settings::default(), mesh, NOW).unwrap();
    let found = |issuers: BTreeMap<ClusterId, Facts>| -> Vec<Finding> {
        let proposal = Proposal {
            anchor: None,
            issuers,
            canaries: BTreeSet::new(),
        };
        rotation.lint(NOW, &proposal)
    };
    assert_eq!(found([(east(), facts(4, 4, 1))].into()), []);
    let of = || Role::Issuer(east());
    let one = |flaw| vec![Finding { of: of(), flaw }];
    assert_eq!(
        found([(east(), facts(4, 4, 3))].into()),
        one(Flaw::WrongIssuer)
    );
    let longer = Facts {
        not_after: UnixTime(LATE.0 + 1),
        ..facts(4, 4, 1)
    };
    assert_eq!(found([(east(), longer)].into()), one(Flaw::OutlivesIssuer));
    assert_eq!(found([].into()), one(Flaw::NoIssuer));
    let west = ClusterId::new("west").unwrap();
    let both = found([(east(), facts(4, 4, 1)), (west.clone(), facts(5, 5, 1))].into());
    let unknown = Finding {
        of: Role::Issuer(west),
        flaw: Flaw::UnknownCluster,
    };
    assert_eq!(both, [unknown]);
}

#[test]
fn each_flaw_is_said_in_words_of_its_own() {
    let (allowed, needed) = (0, 1);
    let (not_after, until) = (UnixTime(5), UnixTime(6));
    let all = [
        Flaw::SameKey,
        Flaw::SameSubject,
        Flaw::NotSelfSigned,
        Flaw::NotAuthority,
        Flaw::MayNotSign,
        Flaw::PathLength { allowed, needed },
        Flaw::NameConstraints,
        Flaw::WrongIssuer,
        Flaw::KeyIdMismatch,
        Flaw::NoSubjectKeyId,
        Flaw::Algorithm(Algorithm::Other),
        Flaw::TooShort {
            not_after,
            needed: until,
        },
        Flaw::OutlivesIssuer,
        Flaw::NeverValid,
        Flaw::TooLarge { bytes: 17 },
        Flaw::NoIssuer,
        Flaw::UnknownCluster,
        Flaw::UnfitCanary,
    ];
    let mut said = BTreeSet::new();
    for flaw in all {
        for of in [Role::Anchor, Role::Issuer(east()), Role::Bridge] {
            let flaw = flaw.clone();
            said.insert(Finding { of, flaw }.to_string());
        }
    }
    assert_eq!(said.len(), 18 * 3);
    assert!(said.contains("the anchor has 17 bytes; at most 16384"));
}
