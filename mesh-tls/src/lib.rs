//! Workload identities, trust bundles and rustls configurations that reload while connections live.
//!
//! A workload proves an [`Identity`] with [`Credentials`] and trusts a [`TrustBundle`]. Both sit in
//! stores that their owner may change at any time; [`Tls`] follows them. Every handshake uses what is
//! in the stores at that moment, live connections go on, and nothing restarts.
//!
//! ```
//! # #[cfg(feature = "ca")] {
//! use std::time::{Duration, SystemTime};
//! use mesh_tls::{ClientAuth, Identity, LeafKey, Tls, TrustBundle, ca, credential_store, trust_store};
//!
//! let now = SystemTime::now();
//! let day = Duration::from_secs(24 * 3600);
//! let anchor = ca::Anchor::generate("mesh.example", 365 * day, now)?;
//! let issuer = anchor.issuer("mesh.example", 30 * day, now)?;
//! let authority = ca::Authority::new(anchor.certificate().clone(), issuer)?;
//!
//! let web = Identity::parse("spiffe://mesh.example/web")?;
//! let key = LeafKey::generate()?;
//! let leaf = authority.issue(&key.csr(&web)?, &web, day, now)?;
//!
//! let (_trust_writer, trust) = trust_store(TrustBundle::from_der(1, [authority.anchor().clone()])?);
//! let (credential_writer, credentials) = credential_store();
//! credential_writer.set(key.credentials(leaf.chain().to_vec())?);
//!
//! let tls = Tls::new(trust, credentials);
//! let server = tls.server(&[b"h2"], ClientAuth::Required);
//! assert_eq!(server.config()?.alpn_protocols, [b"h2"]);
//! # }
//! # Ok::<(), mesh_tls::Error>(())
//! ```
//!
//! # Map
//! - [`Identity`], [`TrustDomain`]: who a workload is; [`peer_identity`] reads it from a certificate.
//! - [`TrustBundle`], [`Credentials`], [`LeafKey`]: the material, checked when it is made.
//! - [`KeyId`], [`ChainKeys`], [`VerifiedPeer`]: by which anchor and issuer a chain was verified.
//! - [`trust_store`], [`credential_store`]: reader and writer halves.
//! - [`Tls`], [`TlsServer`], [`TlsClient`]: configurations; with feature `tokio`, `accept` and `connect`, over
//!   [`ReadAhead`] streams.
//! - [`renewal`]: when to renew a leaf.
//! - `ca` (feature `ca`): anchors, issuers and leaves.
//!
//! # Features
//! None is on by default. `tokio`: handshakes over tokio streams, and waiting for a store to change.
//! `ca`: the certificate authority. `fips`: aws-lc's FIPS module and only what it approves.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod bundle;
#[cfg(feature = "ca")]
pub mod ca;
mod certificate;
mod credentials;
mod crypto;
mod error;
mod identity;
mod key_id;
mod leaf_key;
mod pem;
mod proven;
#[cfg(feature = "tokio")]
mod read_ahead;
pub mod renewal;
mod store;
#[cfg(feature = "tokio")]
mod stream;
mod tls;
mod verify;

pub use bundle::{BundleDigest, TrustBundle};
pub use certificate::peer_identity;
pub use credentials::Credentials;
pub use crypto::{crypto_provider, restricted_crypto_provider};
pub use error::Error;
pub use identity::{Identity, TrustDomain};
pub use key_id::{ChainKeys, KeyId};
pub use leaf_key::LeafKey;
#[cfg(feature = "tokio")]
pub use read_ahead::ReadAhead;
pub use store::{
    CredentialReader, CredentialWriter, TrustReader, TrustWriter, credential_store, trust_store,
};
#[cfg(feature = "tokio")]
pub use tls::UnverifiedClient;
pub use tls::{ClientAuth, Tls, TlsClient, TlsServer};
pub use verify::VerifiedPeer;

/// The certificate and key types of every signature here.
pub use rustls::pki_types;
