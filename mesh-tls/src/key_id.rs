//! Authorities by their keys.

use std::fmt;

use aws_lc_rs::digest;

/// An anchor or an issuer, by SHA-256 over its subject public key info (DER, RFC 5280 section 4.1): another certificate
/// of the same key has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 32]);

impl KeyId {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn of(subject_public_key_info: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, subject_public_key_info).as_ref());
        Self(bytes)
    }
}

impl From<[u8; 32]> for KeyId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for KeyId {
    /// As lower-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The keys by which a chain was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChainKeys {
    /// Of whoever signed the leaf.
    pub issuer: KeyId,
    /// Of the anchor that the chain leads to.
    pub anchor: KeyId,
}
