//! Chains that were verified: whoever shows one again is not verified anew while all of it is valid.
//!
//! A chain's verdict depends on nothing but its bytes, the anchors, what it is used for, and the time. The first three do not change for
//! one entry, and an entry counts only while the time is one at which every certificate of the chain is valid. That the peer has the
//! leaf's key is proven in each handshake all the same.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::certificate::{Usage, parse};
use crate::verify::VerifiedPeer;

/// The most chains that are remembered; beyond, all are forgotten. A few hundred bytes each at most.
const CAPACITY: usize = 1024;

/// What was verified against one bundle, under one policy. Only what was found good gets in, so strangers fill nothing.
#[derive(Default)]
pub(crate) struct Proven(Mutex<HashMap<ChainDigest, Known>>);

struct Known {
    peer: VerifiedPeer,
    /// Seconds since 1970.
    valid: RangeInclusive<u64>,
}

/// A chain and what it was used for, by SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChainDigest([u8; 32]);

impl Proven {
    /// Whom the chain proves at `now`, if it is known to.
    pub(crate) fn peer(&self, chain: ChainDigest, now: UnixTime) -> Option<VerifiedPeer> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&chain)?;
        let valid = known.valid.contains(&now.as_secs());
        valid.then(|| known.peer.clone())
    }

    /// Remembers that the chain proves `peer` while `leaf` and `intermediates` are all valid.
    pub(crate) fn remember(
        &self,
        chain: ChainDigest,
        peer: &VerifiedPeer,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) {
        // An intermediate that nothing can be read from may be one that was not needed.
        let Some(valid) = validity(leaf, intermediates) else {
            return;
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            known.clear();
        }
        let peer = peer.clone();
        known.insert(chain, Known { peer, valid });
    }
}

/// When all of them are valid, in seconds since 1970.
fn validity(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<RangeInclusive<u64>> {
    let (mut from, mut to) = (0, u64::MAX);
    for certificate in std::iter::once(leaf).chain(intermediates) {
        let certificate = parse(certificate).ok()?;
        let validity = certificate.validity();
        from = from.max(u64::try_from(validity.not_before.timestamp()).unwrap_or(0));
        to = to.min(u64::try_from(validity.not_after.timestamp()).unwrap_or(0));
    }
    Some(from..=to)
}

impl ChainDigest {
    /// That of a chain that is shown for `usage`.
    pub(crate) fn of(
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(usage.as_str().as_bytes());
        for certificate in std::iter::once(leaf).chain(intermediates) {
            digest.update(&(certificate.len() as u64).to_be_bytes());
            digest.update(certificate);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Self(bytes)
    }
}
