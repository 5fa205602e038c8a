//! How a driver begins: what is in the store is read, or made where there is nothing, and a first turn is taken.

use super::*;

impl Driver {
    pub(in crate::trust) async fn open(
        place: Place,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<(Trust, Self), TrustError> {
        let mut keys = Keys::open(place.clone()).await?;
        let domain = &settings.trust_domain;
        let mut stored = Stored::open(place.clone(), &mut keys, settings, now).await?;
        // Where the store has one owner, this has just become it: whoever led before does not any more.
        let term = place.term();
        let epoch = if term.is_some() {
            let epoch = lead(&mut stored, unix(now)).await?;
            keys.read().await?;
            keys.sweep(stored.record.rotation()).await?;
            epoch
        } else {
            keys.follow(stored.record.rotation(), false).await?;
            stored.record.rotation().epoch()
        };

        let rotation = stored.record.rotation();
        let generation = served(rotation);
        let published = published(&keys, rotation, generation, domain)?;
        let bundle = bundle(&published.all)?;
        let (bundle_writer, trust) = trust_store(bundle.clone());
        let (credentials, credential_reader) = credential_store();
        let identity = own_identity(domain)?;
        let settings = Arc::new(settings.clone());
        let live = Live {
            leads: term.is_some(),
            settings: settings.clone(),
            trust_domain: domain.clone(),
            identity,
            bundle,
            record: stored.record.clone(),
            anchor_not_after: now,
            issuer_not_after: now,
            own_anchor: None,
            root: None,
            offered: None,
            disbelieved: BTreeMap::new(),
        };
        let issued = Issued::open(place.shared.clone(), now).await?;
        let shared = Arc::new(Shared {
            issued,
            live: ArcSwap::from_pointee(live),
            published: channel::channel(Arc::new(published)).0,
            signer: keys.bundle_signer().clone(),
            sessions: Sessions::default(),
            clocks: Clocks::default(),
            reports: Mutex::default(),
            probed: Probed::default(),
            wake: Notify::new(),
            turns: channel::channel(0).0,
            failure: ArcSwapOption::empty(),
        });
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros();
        let name = place.election.as_ref().map(|election| &*election.name);
        let own = Own {
            id: consumers::controller(name),
            key: LeafKey::generate()?,
            credentials,
            bundle: bundle_writer,
            leaf: None,
            incarnation: Incarnation(u64::try_from(micros).unwrap_or(u64::MAX)),
            sequence: 0,
            said: None,
            wanted: false,
        };
        let mut driver = Self {
            stored,
            keys,
            shared: shared.clone(),
            epoch,
            cluster: cluster(),
            own,
            asked: BTreeMap::new(),
            #[cfg(test)]
            watched: None,
            term,
            leads: term.is_some(),
            members: None,
            followed: None,
            outside: place.outside.clone().map(Outside::new),
            place,
            settings,
            held_since: None,
            waiting: Vec::new(),
            probed_before: Vec::new(),
            looked: None,
            edited: false,
            requests,
            data: None,
            renewed: BTreeMap::new(),
            began: unix(now),
            listed: BTreeSet::new(),
            removed: BTreeSet::new(),
            targets: Targets::new(),
            sample: Sample::default(),
            unconvinced: BTreeSet::new(),
        };
        driver.take_own_leaf(now).await?;
        if driver.rotation().last_outcome() == Some(Outcome::SafelyAborted) {
            driver.hold(unix(now));
        }
        driver.turn(now, Vec::new()).await?;
        let trust = Trust {
            shared,
            requests: sender,
            tls: Tls::new(trust, credential_reader),
        };
        Ok((trust, driver))
    }

    /// Writes what others read into the data folder, now and with every change.
    ///
    /// # Errors
    /// [`TrustError::Data`].
    pub(crate) fn write_to(&mut self, data: DataFolder) -> Result<(), TrustError> {
        let live = self.shared.live.load();
        data.write_anchors(&live.bundle.to_pem())?;
        data.write_bundle_key(self.shared.signer.public_key())?;
        let mut archive = Archive::open(&data.audit())?;
        archive.append(self.stored.record.audit())?;
        self.data = Some((data, archive));
        Ok(())
    }
}
