//! Identifiers. They are opaque here: callers give them meaning, and must give equal things equal ones.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes as they are.
            #[must_use]
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                hex(&text).map(Self).ok_or(InvalidId { text, expected: "64 lower-case hex digits" })
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most bytes one may have.
            pub const MAX_BYTES: usize = 512;

            /// Takes a name.
            ///
            /// # Errors
            /// [`InvalidId`] if it is empty or longer than [`MAX_BYTES`](Self::MAX_BYTES).
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                if text.is_empty() || text.len() > Self::MAX_BYTES {
                    let text = text.chars().take(64).collect();
                    return Err(InvalidId { text, expected: "1 to 512 bytes" });
                }
                Ok(Self(text.into()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(&text)
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after; the highest has none after it and stays.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bytes_id! {
    /// A trust anchor, by its key: a digest of its public key, so that a re-signed certificate of the
    /// same key is the same anchor.
    AnchorId
}
bytes_id! {
    /// An issuer (intermediate), by its key.
    IssuerId
}
bytes_id! {
    /// A digest: of a bundle's set of anchors, of a subject name, of an audit entry.
    Digest
}
text_id! {
    /// A consumer of trust: a workload, a gateway, a controller, a federated peer.
    WorkloadId
}
text_id! {
    /// A cluster: a place with a controller of its own.
    ClusterId
}
number_id! {
    /// The number a bundle is published under; higher is newer, and it never goes down.
    Generation
}
number_id! {
    /// The number of a leadership: whoever leads later has a higher one.
    Epoch
}
number_id! {
    /// The number of a process of a workload: higher after each start.
    Incarnation
}

/// Text that is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an identifier: expected {expected}")]
pub struct InvalidId {
    /// The text, cut short.
    pub text: String,
    /// What would be right.
    pub expected: &'static str,
}

fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64
        || !text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_back_and_nothing_else_is_read() {
        let digest = Digest::new([0xab; 32]);
        assert_eq!(Digest::try_from(digest.to_string()), Ok(digest));
        for wrong in [
            "",
            "ab",
            &"AB".repeat(32),
            &"+a".repeat(32),
            &"é".repeat(32),
        ] {
            assert!(Digest::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_bounded() {
        assert!(WorkloadId::new("").is_err());
        assert!(WorkloadId::new(&"x".repeat(513)).is_err());
        assert_eq!(WorkloadId::new("web").unwrap().as_str(), "web");
    }
}
