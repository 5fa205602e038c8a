//! The text form of a join token.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What a new machine or process is given so that it and the controller can trust each other from the first byte.
///
/// Its text is `mesh1.` and the base64url of a JSON object. The holder proves itself with the secret; it recognises the
/// controller by the digest of the trust bundle and the controller's TLS name. `Debug` shows everything but the secret;
/// only [`JoinToken::to_text`] gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `host:port` of the controller's proxy API.
    pub controller_address: String,
    /// The identity that the controller's certificate must carry, and the server name to ask for.
    pub controller_name: String,
    /// Digest of the trust bundle the controller is verified against, `sha256:<hex>`.
    pub bundle_digest: String,
    /// The one identity that the token proves.
    pub identity: String,
    /// Names the token in the controller's store. Not a secret.
    pub id: String,
    /// What proves the holder.
    pub secret: TokenSecret,
}

/// 256 random bits. Never shown by `Debug`; compared through their hash only.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; TokenSecret::LEN]);

impl JoinToken {
    /// The longest text that is read, in bytes.
    pub const MAX_TEXT_BYTES: usize = 4096;

    /// Reads a token's text; white space around it is ignored.
    ///
    /// # Errors
    /// [`Error::TokenTooLong`], [`Error::TokenPrefix`] or [`Error::TokenMalformed`]. None of them repeats the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > Self::MAX_TEXT_BYTES {
            return Err(Error::TokenTooLong { bytes: text.len() });
        }
        let body = text.strip_prefix(PREFIX).ok_or(Error::TokenPrefix)?;
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| Error::TokenMalformed { what: "base64url" })?;
        let wire: Wire =
            serde_json::from_slice(&json).map_err(|_| Error::TokenMalformed { what: "JSON" })?;
        let secret = URL_SAFE_NO_PAD
            .decode(wire.secret)
            .ok()
            .and_then(|bytes| <[u8; TokenSecret::LEN]>::try_from(bytes).ok())
            .ok_or(Error::TokenMalformed { what: "secret" })?;
        Ok(Self {
            controller_address: wire.addr,
            controller_name: wire.name,
            bundle_digest: wire.bundle,
            identity: wire.identity,
            id: wire.id,
            secret: TokenSecret(secret),
        })
    }

    /// The text to hand over, secret included.
    #[must_use]
    pub fn to_text(&self) -> String {
        let wire = Wire {
            addr: self.controller_address.clone(),
            name: self.controller_name.clone(),
            bundle: self.bundle_digest.clone(),
            identity: self.identity.clone(),
            id: self.id.clone(),
            secret: URL_SAFE_NO_PAD.encode(self.secret.0),
        };
        // A struct of strings always has a JSON form; were it not so, the empty object is a token that no one accepts.
        let json = serde_json::to_vec(&wire).unwrap_or_else(|_| b"{}".to_vec());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("controller_address", &self.controller_address)
            .field("controller_name", &self.controller_name)
            .field("bundle_digest", &self.bundle_digest)
            .field("identity", &self.identity)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl TokenSecret {
    /// How many bytes a secret has.
    pub const LEN: usize = 32;

    /// Takes bytes from a cryptographic source.
    #[must_use]
    pub fn from_random(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be hashed.
    #[must_use]
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    addr: String,
    name: String,
    bundle: String,
    identity: String,
    id: String,
    secret: String,
}

const PREFIX: &str = "mesh1.";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(secret: [u8; 32]) -> JoinToken {
        JoinToken {
            controller_address: "192.0.2.1:8443".into(),
            controller_name: "mesh-controller.example".into(),
            bundle_digest: "sha256:00".into(),
            identity: "web.default.example".into(),
            id: "t1".into(),
            secret: TokenSecret::from_random(secret),
        }
    }

    #[test]
    fn text_survives_white_space_around_it() {
        let token = token([7; 32]);
        let text = format!("\n {}\n", token.to_text());
        assert_eq!(JoinToken::parse(&text).unwrap(), token);
    }

    #[test]
    fn debug_has_no_secret() {
        let token = token([0xab; 32]);
        let shown = format!("{token:?} {:?}", token.secret);
        assert!(!shown.contains("171") && !shown.contains(&URL_SAFE_NO_PAD.encode([0xab; 32])));
        assert!(shown.contains("t1"));
    }

    #[test]
    fn each_defect_has_its_error() {
        assert!(matches!(
            JoinToken::parse("mesh2.e30"),
            Err(Error::TokenPrefix)
        ));
        for (text, part) in [
            ("mesh1.!", "base64url"),
            ("mesh1.e30", "JSON"),
            (
                &format!(
                    "mesh1.{}",
                    URL_SAFE_NO_PAD.encode(
                        r#"{"addr":"a","name":"n","bundle":"b","identity":"i","id":"d","secret":"AA"}"#
                    )
                ),
                "secret",
            ),
        ] {
            let error = JoinToken::parse(text).unwrap_err();
            assert!(
                matches!(error, Error::TokenMalformed { what } if what == part),
                "{text}: {error}"
            );
        }
        let long = format!("mesh1.{}", "A".repeat(JoinToken::MAX_TEXT_BYTES));
        assert!(matches!(
            JoinToken::parse(&long),
            Err(Error::TokenTooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(secret: [u8; 32], address in ".{0,40}", identity in ".{0,80}") {
            let token = JoinToken { controller_address: address, identity, ..token(secret) };
            prop_assert_eq!(JoinToken::parse(&token.to_text()).unwrap(), token);
        }

        #[test]
        fn no_text_panics(text in "(mesh1\\.)?[A-Za-z0-9_-]{0,200}|.{0,200}") {
            let _ = JoinToken::parse(&text);
        }
    }
}
