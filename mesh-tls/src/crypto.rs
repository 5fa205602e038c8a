//! The cryptography in use: TLS 1.3 only, aws-lc.

use std::sync::{Arc, LazyLock};

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs as aws;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};

/// The provider behind every configuration of this crate.
///
/// Key exchange in order of preference: X25519MLKEM768, X25519, P-256, P-384. Cipher suites:
/// AES-256-GCM, AES-128-GCM, ChaCha20-Poly1305. With feature `fips`, those of them that the module
/// approves.
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(build()));
    PROVIDER.clone()
}

/// As [`crypto_provider`], but with no other than these cipher suites and key exchanges, most preferred first. Of what is
/// empty, all are left.
#[must_use]
pub fn restricted_crypto_provider(
    cipher_suites: &[SupportedCipherSuite],
    key_exchanges: &[&'static dyn SupportedKxGroup],
) -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&crypto_provider());
    if !cipher_suites.is_empty() {
        provider.cipher_suites = cipher_suites.to_vec();
    }
    if !key_exchanges.is_empty() {
        provider.kx_groups = key_exchanges.to_vec();
    }
    Arc::new(provider)
}

fn build() -> CryptoProvider {
    let mut provider = aws::default_provider();
    provider.kx_groups = vec![
        aws::kx_group::X25519MLKEM768,
        aws::kx_group::X25519,
        aws::kx_group::SECP256R1,
        aws::kx_group::SECP384R1,
    ];
    provider.cipher_suites = vec![
        aws::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws::cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    #[cfg(not(feature = "fips"))]
    provider
        .cipher_suites
        .push(aws::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256);
    #[cfg(feature = "fips")]
    provider.kx_groups.retain(|group| group.fips());
    provider
}

#[cfg(test)]
mod tests {
    use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite};

    use super::*;

    #[test]
    #[cfg(not(feature = "fips"))]
    fn hybrid_key_exchange_and_aes_256_come_first() {
        let provider = crypto_provider();
        let groups: Vec<_> = provider.kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(
            groups,
            [
                NamedGroup::X25519MLKEM768,
                NamedGroup::X25519,
                NamedGroup::secp256r1,
                NamedGroup::secp384r1
            ]
        );
        let suites: Vec<_> = provider
            .cipher_suites
            .iter()
            .map(SupportedCipherSuite::suite)
            .collect();
        assert_eq!(
            suites,
            [
                CipherSuite::TLS13_AES_256_GCM_SHA384,
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            ]
        );
    }

    #[test]
    fn a_restriction_leaves_what_it_does_not_speak_of() {
        let all = crypto_provider();
        let last = all.cipher_suites[1];
        let provider = restricted_crypto_provider(&[last], &[]);
        assert_eq!(provider.cipher_suites, [last]);
        assert_eq!(provider.kx_groups.len(), all.kx_groups.len());
        let provider = restricted_crypto_provider(&[], &[all.kx_groups[1]]);
        assert_eq!(provider.cipher_suites, all.cipher_suites);
        assert_eq!(provider.kx_groups.len(), 1);
        assert_eq!(provider.kx_groups[0].name(), all.kx_groups[1].name());
    }

    #[test]
    #[cfg(feature = "fips")]
    fn only_what_is_approved_is_offered() {
        let provider = crypto_provider();
        assert!(provider.fips());
        let suites: Vec<_> = provider
            .cipher_suites
            .iter()
            .map(SupportedCipherSuite::suite)
            .collect();
        assert_eq!(
            suites,
            [
                CipherSuite::TLS13_AES_256_GCM_SHA384,
                CipherSuite::TLS13_AES_128_GCM_SHA256
            ]
        );
        assert!(
            provider
                .kx_groups
                .iter()
                .any(|g| g.name() == NamedGroup::secp256r1)
        );
    }
}
