//! What mesh TLS speaks, by the names of the TLS registries.

use mesh_tls::crypto_provider;
use rustls::SupportedCipherSuite;
use rustls::crypto::SupportedKxGroup;
use serde_json::Value as Json;

use super::value::Value;

/// A cipher suite of TLS 1.3, such as `TLS_AES_128_GCM_SHA256`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CipherSuite(pub SupportedCipherSuite);

impl Eq for CipherSuite {}

/// A key exchange, such as `X25519`.
#[derive(Clone, Copy, Debug)]
pub struct KeyExchange(pub &'static dyn SupportedKxGroup);

impl PartialEq for KeyExchange {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for KeyExchange {}

impl Value for CipherSuite {
    fn parse(text: &str) -> Result<Self, String> {
        let all: Vec<Self> = crypto_provider()
            .cipher_suites
            .iter()
            .copied()
            .map(Self)
            .collect();
        one_of(&all, text, Self::name)
    }

    fn to_json(&self) -> Json {
        self.name().into()
    }
}

impl CipherSuite {
    fn name(&self) -> String {
        // rustls tells those of TLS 1.3 by a prefix of its own.
        format!("{:?}", self.0.suite()).replacen("TLS13_", "TLS_", 1)
    }
}

impl Value for KeyExchange {
    fn parse(text: &str) -> Result<Self, String> {
        let all: Vec<Self> = crypto_provider()
            .kx_groups
            .iter()
            .copied()
            .map(Self)
            .collect();
        one_of(&all, text, Self::name)
    }

    fn to_json(&self) -> Json {
        self.name().into()
    }
}

impl KeyExchange {
    fn name(&self) -> String {
        format!("{:?}", self.0.name())
    }
}

fn one_of<T: Copy>(all: &[T], text: &str, name: impl Fn(&T) -> String) -> Result<T, String> {
    let found = all.iter().find(|one| name(one).eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| {
        let names: Vec<String> = all.iter().map(name).collect();
        format!("expected one of {}, found {text:?}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_and_key_exchanges_have_their_registered_names() {
        let suite = CipherSuite::parse("TLS_AES_128_GCM_SHA256").unwrap();
        assert_eq!(suite.to_json(), "TLS_AES_128_GCM_SHA256");
        let group = KeyExchange::parse("secp256r1").unwrap();
        assert_eq!(group.to_json(), "secp256r1");
    }

    #[test]
    fn what_is_not_spoken_is_refused_with_what_is() {
        let error = CipherSuite::parse("TLS_RSA_WITH_NULL_MD5").unwrap_err();
        assert!(error.contains("TLS_AES_256_GCM_SHA384"), "{error}");
        let error = KeyExchange::parse("ffdhe2048").unwrap_err();
        assert!(error.contains("secp384r1"), "{error}");
    }
}
