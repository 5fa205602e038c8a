//! The controller as one of those who have a leaf and trust: it is told of, and asked to renew, as anybody.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mesh_tls::{Credentials, pki_types::CertificateDer};
use serde::{Deserialize, Serialize};

use super::*;
use crate::store::Expected;

/// The controller as one of those who have a leaf and trust.
pub(in crate::trust) struct Own {
    /// As the machine knows it.
    pub(in crate::trust) id: WorkloadId,
    pub(super) key: LeafKey,
    pub(super) credentials: CredentialWriter,
    pub(super) bundle: TrustWriter,
    pub(super) leaf: Option<OwnLeaf>,
    pub(super) incarnation: Incarnation,
    pub(super) sequence: u64,
    /// What it said last: nothing is said twice in short order.
    pub(super) said: Option<(Loaded, Option<IssuerId>, Option<Phase>, UnixTime)>,
    /// The machine wants it to renew.
    pub(in crate::trust) wanted: bool,
}

pub(super) struct OwnLeaf {
    pub(super) identity: Identity,
    pub(super) issuer: IssuerId,
    pub(super) anchor: AnchorId,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Driver {
    /// What the machine is told of the controller itself: that is what it really uses.
    pub(super) fn own_report(&self, rotation: &Rotation, at: UnixTime) -> Option<Event> {
        let bundle = self.own.bundle.load();
        let loaded = Loaded {
            generation: Generation(bundle.generation()),
            digest: mesh_trust_rotation::Digest::new(*bundle.digest().as_bytes()),
        };
        let leaf = self.own.leaf.as_ref();
        let phase = rotation.change().map(|change| change.phase);
        let issuer = leaf.map(|leaf| leaf.issuer);
        // What was said before the last old leaf ended does not count, and nobody else asks for it again.
        let draining = rotation.change().is_some_and(Change::is_draining);
        let interval = if draining {
            OWN_REPORT_DRAINING
        } else {
            OWN_REPORT_INTERVAL.min(settings::report_every(&self.settings))
        };
        if let Some((said, of, then, when)) = self.own.said
            && (said, of, then) == (loaded, issuer, phase)
            && at < when.after(interval)
        {
            return None;
        }
        let report = Report {
            sequence: self.own.sequence + 1,
            at,
            loaded: Some(loaded),
            leaf: leaf.map(|leaf| (leaf.issuer, unix(leaf.not_after))),
            // What a client's certificate proves ends with that certificate, on open connections too.
            connections: Connections::None,
        };
        Some(Event::said(&self.own.id, self.own.incarnation, report))
    }

    /// What the controller said of itself is on record now.
    pub(super) fn note_own_report(&mut self, at: UnixTime) {
        let known = self.rotation().consumers().get(&self.own.id);
        let report = known.and_then(|known| known.report);
        let phase = self.rotation().change().map(|change| change.phase);
        if let Some(report) = report
            && report.sequence > self.own.sequence
            && let Some(loaded) = report.loaded
        {
            self.own.sequence = report.sequence;
            self.own.said = Some((loaded, report.leaf.map(|(issuer, _)| issuer), phase, at));
        }
    }

    /// A request for a leaf of the controller's own, if one is due.
    pub(super) fn own_request(&self, now: SystemTime) -> Option<LeafRequest> {
        let due = self.own.wanted
            || self.own.leaf.as_ref().is_none_or(|leaf| {
                let life = leaf.not_after.duration_since(leaf.not_before);
                let left = leaf.not_after.duration_since(now).unwrap_or_default();
                let life = life
                    .unwrap_or_default()
                    .saturating_sub(mesh_tls::ca::BACKDATE);
                left < life.mul_f32(0.3)
                    || own_identity(&self.settings.trust_domain)
                        .is_ok_and(|identity| identity != leaf.identity)
            });
        due.then(|| {
            let bundle = self.own.bundle.load();
            LeafRequest {
                workload: self.own.id.clone(),
                cluster: self.cluster.clone(),
                class: Class::ControlPlane,
                incarnation: self.own.incarnation,
                loaded: Some(Loaded {
                    generation: Generation(bundle.generation()),
                    digest: mesh_trust_rotation::Digest::new(*bundle.digest().as_bytes()),
                }),
                accepted: None,
            }
        })
    }

    pub(super) async fn certify_itself(
        &mut self,
        sign: &Action,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        let Action::Sign { issuer, .. } = sign else {
            return Ok(());
        };
        let identity = own_identity(&self.settings.trust_domain)?;
        let csr = self.own.key.csr(&identity)?;
        let leaf = self.sign(&csr, &identity, sign, now)?;
        let (not_before, not_after) = (leaf.not_before(), leaf.not_after());
        let credentials = self.own.key.credentials(leaf.into_chain())?;
        // Nobody could fetch the next bundle if this chain were one that today's bundle does not vouch for.
        credentials.verify(&self.own.bundle.load(), now)?;
        let chain = credentials.chain().to_vec();
        self.own.credentials.set(credentials);
        let anchor = self.rotation().issuers().get(issuer);
        self.own.leaf = Some(OwnLeaf {
            identity,
            issuer: *issuer,
            anchor: anchor.map_or(AnchorId::new([0; 32]), |issuer| issuer.anchor),
            not_before,
            not_after,
        });
        self.own.wanted = false;
        self.keep_own_leaf(&chain).await
    }

    /// Keeps the controller's own leaf for its next start: while an anchor is tainted nothing is signed, and whoever is to be led
    /// away from it has to find a controller that proves itself.
    async fn keep_own_leaf(&self, chain: &[CertificateDer<'static>]) -> Result<(), TrustError> {
        let Some(leaf) = &self.own.leaf else {
            return Ok(());
        };
        if self.place.election.is_some() {
            // Its name is that of this process: the next has another.
            return Ok(());
        }
        let stored = StoredLeaf {
            key: STANDARD.encode(self.own.key.to_pkcs8_der().secret_pkcs8_der()),
            chain: chain.iter().map(|it| STANDARD.encode(it)).collect(),
            issuer: leaf.issuer,
            anchor: leaf.anchor,
        };
        let store = &self.place.leading;
        let before = store.get(OWN).await?;
        let expected = before.map_or(Expected::Absent, |before| Expected::At(before.version));
        store
            .put(OWN, expected, serde_json::to_vec(&stored)?)
            .await?;
        Ok(())
    }

    /// Takes the leaf of before, if it is good still.
    ///
    /// # Errors
    /// [`TrustError::Store`].
    pub(super) async fn take_own_leaf(&mut self, now: SystemTime) -> Result<(), TrustError> {
        if self.place.election.is_some() {
            return Ok(());
        }
        let Some(stored) = self.place.leading.get(OWN).await? else {
            return Ok(());
        };
        let bundle = self.own.bundle.load();
        let Some((key, credentials, stored)) = StoredLeaf::read(&stored.value) else {
            return Ok(());
        };
        if credentials.verify(&bundle, now).is_ok() {
            self.own.leaf = Some(OwnLeaf {
                identity: credentials.identity().clone(),
                issuer: stored.issuer,
                anchor: stored.anchor,
                not_before: credentials.not_before(),
                not_after: credentials.not_after(),
            });
            self.own.key = key;
            self.own.credentials.set(credentials);
        }
        Ok(())
    }
}

/// The controller's own leaf, as it is kept. The key is secret.
#[derive(Serialize, Deserialize)]
struct StoredLeaf {
    key: String,
    chain: Vec<String>,
    issuer: IssuerId,
    anchor: AnchorId,
}

impl StoredLeaf {
    fn read(value: &[u8]) -> Option<(LeafKey, Credentials, Self)> {
        let stored: Self = serde_json::from_slice(value).ok()?;
        let key = LeafKey::from_pkcs8_der(&STANDARD.decode(&stored.key).ok()?).ok()?;
        let chain = stored.chain.iter().map(|it| STANDARD.decode(it).ok());
        let chain: Option<Vec<_>> = chain.map(|it| it.map(Into::into)).collect();
        let credentials = key.credentials(chain?).ok()?;
        Some((key, credentials, stored))
    }
}

pub(super) fn own_identity(trust_domain: &TrustDomain) -> Result<Identity, mesh_tls::Error> {
    Identity::linkerd("mesh-controller", "linkerd", "linkerd", trust_domain)
}

const OWN: &str = "trust/own";
const OWN_REPORT_INTERVAL: Duration = Duration::from_mins(1);
const OWN_REPORT_DRAINING: Duration = Duration::from_secs(2);
