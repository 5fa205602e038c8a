//! A certificate authority: anchor, issuer, leaf.
//!
//! The [`Anchor`] is what workloads trust; its key signs issuers only and may be kept offline. The
//! [`Issuer`] signs leaves. An [`Authority`] is an issuer with the anchor it leads to, proven to
//! work when it is made. All keys are ECDSA; what is made here is P-256.
//!
//! Nothing here keeps state or reads a clock: callers pass `now` and persist the PEM that the values
//! give out.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use mesh_tls::{Identity, LeafKey, ca::{Anchor, Authority}};
//!
//! let now = SystemTime::now();
//! let day = Duration::from_secs(24 * 3600);
//! let anchor = Anchor::generate("mesh.example", 3650 * day, now)?;
//! let issuer = anchor.issuer("mesh.example", 365 * day, now)?;
//! let authority = Authority::new(anchor.certificate().clone(), issuer)?;
//!
//! let web = Identity::parse("web.mesh.example")?;
//! let key = LeafKey::generate()?;
//! let leaf = authority.issue(&key.csr(&web)?, &web, day, now)?;
//! assert_eq!(key.credentials(leaf.into_chain())?.identity(), &web);
//! # Ok::<(), mesh_tls::Error>(())
//! ```

mod anchor;
mod authority;
mod cross;
mod csr;
mod issuer;
mod request;
mod secret;
mod signer;

pub use anchor::Anchor;
pub use authority::{Authority, IssuedLeaf};
pub use csr::MAX_CSR_BYTES;
pub use issuer::Issuer;
pub use request::IssuerRequest;
pub use secret::SecretPem;
pub use signer::{BACKDATE, MAX_LIFETIME};
