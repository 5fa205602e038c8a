//! What this controller really gives out, as far as it may be something else than the record says: a file that somebody edited,
//! or a record that is older than the mesh.

use super::*;

impl Driver {
    /// What the machine is to be told of what is given out here. Looks at the file once a second at most.
    pub(super) fn site(&mut self, at: UnixTime) -> Vec<Event> {
        let bundle = self.own.bundle.load();
        let given = Loaded {
            generation: Generation(bundle.generation()),
            digest: mesh_trust_rotation::Digest::new(*bundle.digest().as_bytes()),
        };
        let mut served = None;
        if let Some((data, _)) = &self.data
            && self.looked.is_none_or(|looked| looked < at)
        {
            self.looked = Some(at);
            let expected = bundle.to_pem();
            if data.read_anchors().is_ok_and(|found| found == expected) {
                // It is to hear that it is right again.
                served = self.edited.then_some(given);
                self.edited = false;
            } else {
                warn!(
                    "somebody edited anchors.pem in the data folder: it is written again, and the bundle given out anew"
                );
                let found = data.read_anchors().unwrap_or_default();
                let found = TrustBundle::from_pem(0, found.as_bytes()).ok();
                let digest = found.map_or([0; 32], |found| *found.digest().as_bytes());
                served = Some(Loaded {
                    digest: mesh_trust_rotation::Digest::new(digest),
                    ..given
                });
                self.edited = true;
                if let Err(error) = data.write_anchors(&expected) {
                    error!(%error, "anchors.pem cannot be written");
                }
            }
        }
        let rotation = self.rotation();
        let missed = |blocker: &Blocker| {
            blocker.why == Reason::NoInventory
                && matches!(&blocker.who, Subject::Cluster(id) if *id == self.cluster)
        };
        let mut events = Vec::new();
        if rotation.restoring_since().is_some() && rotation.gate(at).blockers().iter().any(missed) {
            events.push(Event::Inventory {
                cluster: self.cluster.clone(),
                consumers: [(self.own.id.clone(), Class::ControlPlane)].into(),
            });
            served = served.or(Some(given));
        }
        events.extend(served.map(|loaded| Event::Served {
            cluster: self.cluster.clone(),
            loaded,
            highest: given.generation,
        }));
        events
    }
}
