//! A CA in one process goes from one anchor to another: `cargo run -p mesh-trust-rotation --example rotate_a_ca --all-features`.

#![allow(clippy::print_stdout)] // what it shows

use mesh_trust_rotation::driver::{Driver, Memory, World};
use mesh_trust_rotation::{crypto::Sha256, lint::Facts, x509::Anchors, *};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// One cluster with one workload, and the certificates of all anchors.
struct Here {
    now: UnixTime,
    cluster: ClusterId,
    web: WorkloadId,
    anchors: Anchors,
    loaded: Loaded,
    leaf: Option<(IssuerId, UnixTime)>,
}

impl World for Here {
    /// The cluster lists whom it has and renews its lease to sign; the workload says what it uses, and asks for a leaf.
    fn gather(&mut self, rotation: &Rotation) -> Vec<Event> {
        let (cluster, workload, class) = (&self.cluster, &self.web, Class::Reloading);
        let (at, loaded, incarnation) = (self.now, Some(self.loaded), Incarnation(1));
        let consumers = [(workload.clone(), class)].into();
        let mut events = vec![Event::Inventory {
            cluster: cluster.clone(),
            consumers,
        }];
        let issuers = rotation.authorised(cluster).into_iter();
        events.extend(issuers.map(|issuer| Event::SigningLease {
            cluster: cluster.clone(),
            issuer,
        }));
        let connections = Connections::None;
        let report = Report {
            sequence: at.0,
            at,
            loaded,
            leaf: self.leaf,
            connections,
        };
        events.push(Event::said(workload, incarnation, report));
        let (workload, cluster) = (workload.clone(), cluster.clone());
        let request = Request {
            workload,
            cluster,
            class,
            incarnation,
            loaded,
            accepted: None,
        };
        events.push(Event::Certify(request));
        events
    }

    /// A bundle is loaded as soon as it is given out, a leaf served as soon as it is signed.
    fn act(&mut self, action: &Action) -> Option<Event> {
        let digest = |set: &_| self.anchors.digest(set);
        match action {
            Action::Publish {
                generation,
                anchors,
                ..
            } => {
                self.loaded = Loaded {
                    generation: *generation,
                    digest: digest(anchors),
                };
            }
            Action::Sign {
                issuer, not_after, ..
            } => self.leaf = Some((*issuer, *not_after)),
            _ => println!("{}  {action:?}", self.now),
        }
        action.done(|set| self.anchors.digest(set))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut now, cluster) = (UnixTime(1_800_000_000), ClusterId::new("here")?);
    let mut anchors = Anchors::default();
    let (old, old_issuer) = authority("old", &mut anchors)?;
    let (new, new_issuer) = authority("new", &mut anchors)?;

    // The mesh as it is, and what it is to become.
    let (generation, digest) = (Generation(1), anchors.digest(&[old.anchor_id()].into()));
    let issuers = [(cluster.clone(), old_issuer.issuer_below(old.anchor_id()))].into();
    let mesh = Mesh {
        anchor: old.anchor(),
        issuers,
        generation,
        digest,
    };
    let mut record = Record::new(Rotation::new(Settings::default(), mesh, now)?);
    let issuers = [(cluster.clone(), new_issuer)].into();
    let change = Proposal {
        anchor: Some(new.clone()),
        issuers,
        canaries: [].into(),
    };
    record.apply(
        Epoch(0),
        now,
        "operator",
        Event::Start(Box::new(change)),
        &Sha256,
    )?;
    for step in record.rotation().plan(now) {
        println!("{} until {} at the earliest", step.phase, step.earliest);
    }

    // The loop: a turn every ten minutes, until nothing changes any more.
    let (web, loaded) = (WorkloadId::new("web")?, Loaded { generation, digest });
    let mut here = Here {
        now,
        cluster,
        web,
        anchors,
        loaded,
        leaf: None,
    };
    let (mut store, driver) = (Memory::new(record), Driver::new(Epoch(1), "controller"));
    while store.record().rotation().change().is_some() {
        driver.turn(now, &mut store, &mut here, &Sha256)?;
        now = UnixTime(now.0 + 600);
        here.now = now;
        assert!(
            now < UnixTime(1_800_600_000),
            "{:?}",
            store.record().rotation().gate(now)
        );
    }
    let rotation = store.record().rotation();
    assert_eq!(rotation.last_outcome(), Some(Outcome::Completed));
    assert_eq!(rotation.active().anchor, new.anchor_id());
    store.record().audit().verify(&Sha256)?;
    println!(
        "{now}  done, {} entries in the audit chain",
        store.record().audit().length()
    );
    Ok(())
}

/// An anchor and an issuer below it.
fn authority(
    name: &str,
    anchors: &mut Anchors,
) -> Result<(Facts, Facts), Box<dyn std::error::Error>> {
    let params = |role: &str| {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{name} {role}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.use_authority_key_identifier_extension = true;
        params
    };
    let (above, key) = (params("anchor"), KeyPair::generate()?);
    let anchor = anchors.insert(above.self_signed(&key)?.der())?;
    let below = params("issuer").signed_by(&KeyPair::generate()?, &Issuer::new(above, key))?;
    Ok((anchor, Facts::from_der(below.der())?))
}
