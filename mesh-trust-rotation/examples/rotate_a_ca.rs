//! A CA made with rcgen goes from one anchor to another, in one process with all that it serves:
//! `cargo run -p mesh-trust-rotation --example rotate_a_ca --all-features`.

#![allow(clippy::print_stdout)] // what it shows

use std::{error::Error, time::Duration};

use mesh_trust_rotation::driver::{Driver, Memory, Site, World};
use mesh_trust_rotation::{crypto::Sha256, lint::Facts, x509::Anchors, *};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

struct Here {
    now: UnixTime,
    anchors: Anchors,
    site: Site,
}

impl World for Here {
    fn gather(&mut self, rotation: &Rotation) -> Vec<Event> {
        self.site.says(self.now, rotation)
    }

    fn act(&mut self, action: &Action) -> Option<Event> {
        println!("{}  {action:?}", self.now);
        self.site.takes(action, |set| self.anchors.digest(set));
        action.done(|set| self.anchors.digest(set))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (now, cluster, mut anchors) = (
        UnixTime(1_800_000_000),
        ClusterId::new("here")?,
        Anchors::default(),
    );
    let (old, old_issuer) = authority("old", &mut anchors)?;
    let (new, new_issuer) = authority("new", &mut anchors)?;

    // The mesh as it is, and what it is to become.
    let mesh = anchors.mesh(&old, [(cluster.clone(), old_issuer)]);
    let site = Site::new(cluster.clone(), &mesh).with([WorkloadId::new("web")?]);
    let mut record = Record::new(Rotation::new(Settings::default(), mesh, now)?);
    let start = Event::Start(Box::new(Proposal::to(new.clone(), [(cluster, new_issuer)])));
    record.apply(Epoch(0), now, "operator", start, &Sha256)?;
    for step in record.rotation().plan(now) {
        println!("{} until {} at the earliest", step.phase, step.earliest);
    }

    // A turn every ten minutes, until nothing changes any more.
    let (mut store, driver) = (Memory::new(record), Driver::new(Epoch(1), "controller"));
    let mut here = Here { now, anchors, site };
    while store.record().rotation().change().is_some()
        && here.now < now.after(Duration::from_hours(48))
    {
        driver.turn(here.now, &mut store, &mut here, &Sha256)?;
        here.now = here.now.after(Duration::from_mins(10));
    }
    let rotation = store.record().rotation();
    assert_eq!(
        rotation.last_outcome(),
        Some(Outcome::Completed),
        "{:?}",
        rotation.gate(here.now)
    );
    assert_eq!(rotation.active().anchor, new.anchor_id());
    store.record().audit().verify(&Sha256)?;
    Ok(())
}

/// An anchor and an issuer below it.
fn authority(name: &str, anchors: &mut Anchors) -> Result<(Facts, Facts), Box<dyn Error>> {
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
