//! The record in the store: read, and written if nobody else has written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use mesh_trust_rotation::{
    ClusterId, Generation, Mesh, Record, Rotation, UnixTime, x509::bundle_digest,
};
use serde::{Deserialize, Serialize};
use tracing::info;

pub(super) use super::pieces::KEY;
use super::{
    Place, TrustError,
    keys::{Keys, Made},
    outside::{Offer, Source},
    pieces::{self, Found, Layout},
    settings, unix,
};
use crate::{
    mesh::Settings,
    store::{Expected, StateStore, StoreError, Versioned},
};

/// The record as it was read or written last.
#[derive(Debug)]
pub(super) struct Stored {
    place: Place,
    layout: Layout,
    /// What was told when it was read last: nothing older is news.
    up_to: u64,
    news: Arc<News>,
    pub(super) record: Arc<Record>,
    /// From when on everybody who has a leaf is in the record: leaves that were issued before there was one have ended then.
    pub(super) complete_from: UnixTime,
}

/// What a watch has told of writes by others.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The latest revision it told; 0 while nothing is told.
    latest: AtomicU64,
}

/// The authority as it was kept before there was a record. All of it is secret.
#[derive(Serialize, Deserialize)]
pub(super) struct Authority {
    pub(super) anchor: String,
    pub(super) anchor_key: String,
    pub(super) issuer: String,
    pub(super) issuer_key: String,
}

#[derive(Serialize, Deserialize)]
struct Since {
    complete_from: UnixTime,
}

impl Stored {
    /// Reads the record. Where there is none, the authority that is there is taken over, or one is made.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn open(
        place: Place,
        keys: &mut Keys,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let store = place.shared.clone();
        let legacy = store.get(LEGACY).await?;
        let (layout, record) = loop {
            if let Found::Record(layout, record) = pieces::read(&*store, None).await? {
                break (layout, record);
            }
            // Of several, the one who leads makes it.
            if place.term().is_some() {
                create(&place, keys, settings, legacy.as_ref(), now).await?;
            } else {
                tokio::time::sleep(UNTIL_THERE).await;
            }
        };
        // Its keys are where the record looks for them. A copy would outlive them.
        if let Some(legacy) = legacy {
            place.leading.delete(LEGACY, legacy.version).await?;
        }
        let since = store.get(SINCE).await?;
        let since: Option<Since> = since
            .map(|since| serde_json::from_slice(&since.value))
            .transpose()?;
        Ok(Self {
            layout,
            record,
            complete_from: since.map_or(UnixTime(0), |since| since.complete_from),
            up_to: 0,
            news: Arc::default(),
            place,
        })
    }

    /// Writes the record if nobody else has. False if somebody has: what is there was read then, and is to be begun from.
    ///
    /// # Errors
    /// [`TrustError::Store`], [`TrustError::Rotation`].
    pub(super) async fn write(&mut self, record: Record, leads: bool) -> Result<bool, TrustError> {
        let store = match leads {
            true => &self.place.leading,
            false => &self.place.shared,
        };
        let written = pieces::write(&**store, &self.layout, &self.record, &record).await;
        match written {
            Ok(layout) => {
                self.layout = layout;
                self.record = Arc::new(record);
                Ok(true)
            }
            Err(TrustError::Store(StoreError::Conflict { key, .. })) => {
                pieces::make_way(&key).await;
                self.read().await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    #[cfg(test)]
    pub(super) fn use_place(&mut self, place: Place) {
        self.place = place;
    }

    /// What is to tell of writes by others.
    pub(super) fn news(&self) -> Arc<News> {
        self.news.clone()
    }

    /// Reads what others have written, unless it is known that there is nothing.
    ///
    /// # Errors
    /// As [`Stored::read`].
    pub(super) async fn follow(&mut self) -> Result<(), TrustError> {
        let latest = self.news.latest.load(Ordering::Acquire);
        if latest > 0 && latest <= self.up_to.max(self.layout.version.number()) {
            return Ok(());
        }
        self.read().await?;
        self.up_to = latest;
        Ok(())
    }

    /// Reads what others have written.
    ///
    /// # Errors
    /// [`TrustError::Store`], [`TrustError::Rotation`].
    pub(super) async fn read(&mut self) -> Result<(), TrustError> {
        let before = (&self.layout, &*self.record);
        match pieces::read(&*self.place.shared, Some(before)).await? {
            Found::Unchanged => {}
            Found::Record(layout, record) => {
                self.layout = layout;
                self.record = record;
            }
            Found::None => {
                let gone = "the record of trust has gone from the store";
                return Err(StoreError::Io(gone.into()).into());
            }
        }
        Ok(())
    }
}

impl News {
    /// Something was written by this revision, or before it.
    pub(super) fn written(&self, revision: u64) {
        self.latest.fetch_max(revision.max(1), Ordering::AcqRel);
    }

    #[cfg(test)]
    pub(super) fn is_told(&self) -> bool {
        self.latest.load(Ordering::Acquire) > 0
    }

    /// What is written is not told from now on.
    pub(super) fn nothing(&self) {
        self.latest.store(0, Ordering::Release);
    }
}

/// The name of the one cluster that a controller with a store of its own is in charge of.
pub(super) fn cluster() -> ClusterId {
    #[allow(clippy::expect_used)]
    ClusterId::new("local").expect("invariant: a short name")
}

async fn create(
    place: &Place,
    keys: &mut Keys,
    settings: &Settings,
    legacy: Option<&Versioned>,
    now: SystemTime,
) -> Result<(), TrustError> {
    let store = &*place.leading;
    let (pace, trust_domain) = (settings::pace(settings), &settings.trust_domain);
    let made = match legacy {
        Some(legacy) => {
            let old: Authority = serde_json::from_slice(&legacy.value)?;
            let taken =
                Made::taken_over(&old.anchor, &old.anchor_key, &old.issuer, &old.issuer_key);
            taken?
        }
        None => match &place.outside {
            Some(source) => brought(source, settings, now)?,
            None => Keys::make(trust_domain, settings::lifetimes(settings), now)?,
        },
    };
    keys.keep(&made).await?;
    let proposal = made.proposal(&cluster())?;
    let Some(anchor) = proposal.anchor else {
        return Ok(());
    };
    let id = anchor.anchor_id();
    let issuers = proposal.issuers.into_iter();
    let mesh = Mesh {
        anchor: anchor.anchor(),
        issuers: issuers
            .map(|(cluster, issuer)| (cluster, issuer.issuer_below(id)))
            .collect(),
        generation: FIRST_GENERATION,
        digest: bundle_digest(keys.certificate(id).map(AsRef::as_ref)),
    };
    let complete_from = unix(now).after(pace.leaf_life).after(pace.skew);
    let rotation = Rotation::new(pace, mesh, unix(now))?;
    // Who got a leaf before is not known: it has to come again, or its leaf has to end.
    let complete_from = match legacy {
        Some(_) => complete_from,
        None => UnixTime(0),
    };
    let since = serde_json::to_vec(&Since { complete_from })?;
    put_new(store, SINCE, since).await?;
    put_new(store, KEY, Record::new(rotation).to_bytes()?).await?;
    match legacy {
        Some(_) => info!(anchor = ?id, "took the trust anchor that was there into the record"),
        None => info!(%trust_domain, anchor = ?id, "made a trust anchor and an issuer"),
    }
    Ok(())
}

/// What an outside authority has written, to begin with.
fn brought(source: &Source, settings: &Settings, now: SystemTime) -> Result<Made, TrustError> {
    let offer = Offer::now(source)?;
    let needed = settings.rotation.needed(settings.leaf_lifetime);
    offer.begins(unix(now), unix(now).after(needed))?;
    offer.made(None)
}

/// Writes a value unless there is one: another start may have been faster, or have got as far before it was killed.
async fn put_new(store: &dyn StateStore, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
    match store.put(key, Expected::Absent, value).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

const SINCE: &str = "trust/since";
/// Where the authority was before there was a record.
pub(super) const LEGACY: &str = "trust/authority";
const FIRST_GENERATION: Generation = Generation(1);
const UNTIL_THERE: Duration = Duration::from_millis(200);
