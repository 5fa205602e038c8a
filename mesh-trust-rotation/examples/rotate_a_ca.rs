//! A CA in one process goes from one anchor to another: `cargo run -p mesh-trust-rotation --example rotate_a_ca --all-features`.

#![allow(clippy::print_stdout)] // what it shows

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::error::Error;

use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::driver::{Driver, Store, World};
use mesh_trust_rotation::lint::Facts;
use mesh_trust_rotation::x509::bundle_digest;
use mesh_trust_rotation::{
    Action, AnchorId, Class, ClusterId, Connections, Effect, Epoch, Event, Evidence, Generation,
    Incarnation, IssuerId, Loaded, Mesh, Outcome, Proposal, Record, Report, Request, Rotation,
    Settings, Source, UnixTime, WorkloadId,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Keeps the record in memory.
struct Memory(u64, Record);

impl Store for Memory {
    type Error = Infallible;

    fn read(&mut self) -> Result<(u64, Record), Infallible> {
        Ok((self.0, self.1.clone()))
    }

    fn write(&mut self, version: u64, record: &Record) -> Result<bool, Infallible> {
        let current = version == self.0;
        if current {
            *self = Self(version + 1, record.clone());
        }
        Ok(current)
    }
}

/// One cluster with one workload.
struct Here {
    now: UnixTime,
    cluster: ClusterId,
    web: WorkloadId,
    certificates: BTreeMap<AnchorId, Vec<u8>>,
    loaded: Loaded,
    leaf: Option<(IssuerId, UnixTime)>,
}

impl World for Here {
    fn gather(&mut self, rotation: &Rotation) -> Vec<Event> {
        let (cluster, workload, now) = (self.cluster.clone(), self.web.clone(), self.now);
        let consumers = BTreeMap::from([(workload.clone(), Class::Reloading)]);
        let mut events = vec![Event::Inventory {
            cluster: cluster.clone(),
            consumers,
        }];
        let authorised = rotation.authorised(&cluster).into_iter();
        events.extend(authorised.map(|issuer| Event::SigningLease {
            cluster: cluster.clone(),
            issuer,
        }));
        let (incarnation, loaded) = (Incarnation(1), Some(self.loaded));
        let report = Report {
            sequence: now.0,
            at: now,
            loaded,
            leaf: self.leaf,
            connections: Connections::None,
        };
        let evidence = Evidence {
            workload: workload.clone(),
            incarnation,
            source: Source::Acknowledgement,
            report,
        };
        events.push(Event::Evidence {
            peer: workload.clone(),
            evidence,
        });
        let class = Class::Reloading;
        events.push(Event::Certify(Request {
            workload,
            cluster,
            class,
            incarnation,
            loaded,
            accepted: None,
        }));
        events
    }

    fn act(&mut self, action: &Action) -> Option<Event> {
        // Renewals with the same issuer are many.
        let renewal = matches!((action, self.leaf), (Action::Sign { issuer, .. }, Some((last, _))) if *issuer == last);
        if !renewal {
            println!("{}  {action:?}", self.now);
        }
        Some(Event::Confirmed(match action.clone() {
            Action::Compose {
                generation,
                anchors,
            } => {
                let anchors = anchors
                    .iter()
                    .filter_map(|anchor| self.certificates.get(anchor));
                Effect::Composed {
                    generation,
                    digest: bundle_digest(anchors.map(Vec::as_slice)),
                }
            }
            Action::Publish {
                cluster,
                scope,
                generation,
                anchors,
            } => {
                let anchors = anchors
                    .iter()
                    .filter_map(|anchor| self.certificates.get(anchor));
                let digest = bundle_digest(anchors.map(Vec::as_slice));
                self.loaded = Loaded { generation, digest };
                Effect::Published {
                    cluster,
                    scope,
                    generation,
                    digest,
                }
            }
            Action::Sign {
                issuer, not_after, ..
            } => {
                self.leaf = Some((issuer, not_after));
                return None;
            }
            Action::VerifyIssuer { issuer } => Effect::IssuerVerified { issuer },
            Action::SwitchIssuer { cluster, issuer } => Effect::IssuerSwitched { cluster, issuer },
            Action::RotateTickets {
                cluster,
                generation,
            } => Effect::TicketsRotated {
                cluster,
                generation,
            },
            Action::RetireAnchor { anchor } => Effect::AnchorRetired { anchor },
            _ => return None,
        }))
    }
}

/// An anchor and an issuer below it.
fn authority(name: &str) -> Result<(Vec<u8>, Facts, Facts), Box<dyn Error>> {
    let params = |name: String| -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    };
    let (above, below) = (
        params(format!("{name} anchor"))?,
        params(format!("{name} issuer"))?,
    );
    let key = KeyPair::generate()?;
    let anchor = above.self_signed(&key)?;
    let issuer = below.signed_by(&KeyPair::generate()?, &Issuer::new(above, key))?;
    Ok((
        anchor.der().to_vec(),
        Facts::from_der(anchor.der())?,
        Facts::from_der(issuer.der())?,
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut now = UnixTime(1_800_000_000);
    let (cluster, web) = (ClusterId::new("here")?, WorkloadId::new("web")?);
    let (old_der, old, old_issuer) = authority("old")?;
    let (new_der, new, new_issuer) = authority("new")?;
    let digest = bundle_digest([old_der.as_slice()]);
    let mesh = Mesh {
        anchor: old.anchor(),
        issuers: BTreeMap::from([(cluster.clone(), old_issuer.issuer_below(old.anchor_id()))]),
        generation: Generation(1),
        digest,
    };
    let mut record = Record::new(Rotation::new(Settings::default(), mesh, now)?);
    let proposal = Proposal {
        anchor: Some(new.clone()),
        issuers: BTreeMap::from([(cluster.clone(), new_issuer)]),
        canaries: BTreeSet::new(),
    };
    record.apply(
        Epoch(0),
        now,
        "operator",
        Event::Start(Box::new(proposal)),
        &Sha256,
    )?;
    for step in record.rotation().plan(now) {
        println!("{} at {} or later", step.phase, step.earliest);
    }
    let mut store = Memory(0, record);
    let mut here = Here {
        now,
        cluster,
        web,
        certificates: BTreeMap::from([(old.anchor_id(), old_der), (new.anchor_id(), new_der)]),
        loaded: Loaded {
            generation: Generation(1),
            digest,
        },
        leaf: None,
    };
    let driver = Driver::new(Epoch(1), "controller");
    while store.1.rotation().change().is_some() {
        driver.turn(now, &mut store, &mut here, &Sha256)?;
        now = UnixTime(now.0 + 600); // ten minutes pass between turns
        here.now = now;
        assert!(
            now < UnixTime(1_800_000_000 + 7 * 86_400),
            "{:?}",
            store.1.rotation().gate(now)
        );
    }
    let rotation = store.1.rotation();
    assert_eq!(rotation.last_outcome(), Some(Outcome::Completed));
    assert_eq!(rotation.active().anchor, new.anchor_id());
    store.1.audit().verify(&Sha256)?;
    println!(
        "{now}  done, {} entries in the audit chain",
        store.1.audit().length()
    );
    Ok(())
}
