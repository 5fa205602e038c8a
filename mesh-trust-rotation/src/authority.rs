//! Anchors, issuers and the cross-certificates between anchors.

use serde::{Deserialize, Serialize};

use crate::id::{AnchorId, Digest, IssuerId};
use crate::time::UnixTime;

/// A root of trust.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// Its key.
    pub id: AnchorId,
    /// A digest of its subject name: no two anchors share a name.
    pub subject: Digest,
    /// The start of its validity.
    pub not_before: UnixTime,
    /// The end of its validity.
    pub not_after: UnixTime,
    /// Since when its key is believed to be in other hands.
    #[serde(default)]
    pub tainted: Option<UnixTime>,
}

/// An intermediate that signs leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Issuer {
    /// Its key.
    pub id: IssuerId,
    /// The anchor it chains to.
    pub anchor: AnchorId,
    /// The start of its validity.
    pub not_before: UnixTime,
    /// The end of its validity.
    pub not_after: UnixTime,
    /// Whether a leaf it signed was seen to verify under its anchor.
    #[serde(default)]
    pub verified: bool,
}

/// A cross-certificate: the key of one anchor, certified by another (RFC 4210 section 4.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bridge {
    /// The anchor whose key it certifies.
    pub subject: AnchorId,
    /// The anchor that signed it: who trusts this one accepts chains of `subject`.
    pub signer: AnchorId,
    /// The end of its validity.
    pub not_after: UnixTime,
}
