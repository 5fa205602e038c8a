//! Private keys on their way to where they are kept.

use std::fmt;

use zeroize::Zeroizing;

/// A private key as PKCS #8 PEM text.
///
/// It is wiped when dropped and never shows in `Debug`. Keep it where only the authority's owner can
/// read it.
pub struct SecretPem(Zeroizing<String>);

impl SecretPem {
    pub(super) fn new(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPem(..)")
    }
}
