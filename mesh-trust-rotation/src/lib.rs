//! Replacing a root of trust - of several clusters, pods and machines, some of them offline - without a window in which
//! anyone who was trusted is not.
//!
//! [`Rotation`] is a plain value: no clock, no I/O, no randomness. It is told what happened, says what to do, refuses to
//! advance while anything could break, and names what blocks.
//!
//! ```
//! use mesh_trust_rotation::{Anchor, AnchorId, ClusterId, Digest, Event, Gate, Generation, Issuer, IssuerId, Mesh};
//! use mesh_trust_rotation::{Rotation, Settings, UnixTime};
//!
//! let (now, never) = (UnixTime(1_800_000_000), UnixTime(4_000_000_000));
//! let id = AnchorId::new([1; 32]);
//! let anchor = Anchor { id, subject: Digest::new([1; 32]), not_before: now, not_after: never, tainted: None };
//! let issuer = Issuer { id: IssuerId::new([2; 32]), anchor: id, not_before: now, not_after: never, verified: true };
//! let issuers = [(ClusterId::new("east").unwrap(), issuer)].into();
//! let mesh = Mesh { anchor, issuers, generation: Generation(1), digest: Digest::new([3; 32]) };
//! let mut rotation = Rotation::new(Settings::default(), mesh, now).unwrap();
//!
//! assert_eq!(rotation.gate(now), Gate::Idle);
//! rotation.handle(now, Event::Taint(id)).unwrap(); // its key is in other hands: nothing is signed with it any more
//! for blocker in rotation.gate(now).blockers() {
//!     println!("{blocker}"); // anchor 01010101 is tainted and nothing replaces it [...]: start a change to a new anchor now
//! }
//! ```
//!
//! - [`Rotation`]: [`handle`](Rotation::handle), [`gate`](Rotation::gate), [`plan`](Rotation::plan),
//!   [`pending`](Rotation::pending), [`lint`](Rotation::lint).
//! - [`Event`] in, [`Action`] out; [`Refusal`] when an event is not taken, [`Blocker`] for what is in the way.
//! - [`Record`]: what is stored under one key, with its [`audit`] chain.
//! - [`document`]: bundles as they travel, signed by a key that is apart from every anchor.
//! - [`driver`]: the loop around the machine, over a trait for the store; [`Site`](driver::Site), a cluster in one process with
//!   its CA.
//! - [`lint`]: what can be wrong with a proposed certificate.
//! - `crypto` (feature `crypto`): SHA-256 and Ed25519. `x509` (feature `x509`): facts from certificates.
//!
//! `docs/operating.md` is for who operates it, `docs/why-it-is-safe.md` for who changes it: what each guard is for, and which
//! counterexample the model checker finds without it.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod action;
mod advance;
pub mod audit;
mod authority;
mod blocker;
mod bridge;
mod bundle;
mod change;
mod cluster;
mod configure;
mod consumer;
#[cfg(feature = "crypto")]
pub mod crypto;
pub mod document;
pub mod driver;
mod emergency;
mod error;
mod event;
mod evidence;
mod gate;
mod guard;
mod id;
mod inventory;
pub mod lint;
mod pending;
mod phase;
mod pieces;
mod plan;
#[cfg(test)]
mod proof;
mod record;
mod restore;
mod retirement;
mod rotation;
mod settings;
mod signing;
mod site;
mod time;
#[cfg(feature = "x509")]
pub mod x509;

pub use action::Action;
pub use authority::{Anchor, Bridge, Issuer};
pub use blocker::{Blocker, Gate, Reason, Subject};
pub use bundle::{Bundle, Bundles, Scope};
pub use change::{Change, Outcome, Side};
pub use cluster::{Cluster, Ledger};
pub use consumer::{Cause, Class, Consumer, Standing};
pub use error::{Error, Refusal};
pub use event::{Effect, Event, Proposal, Request};
pub use evidence::{Connections, Evidence, Loaded, Report, Source};
pub use id::{
    AnchorId, ClusterId, Digest, Epoch, Generation, Incarnation, InvalidId, IssuerId, WorkloadId,
};
pub use phase::{Kind, Mode, Phase};
pub use plan::Step;
pub use record::{NotRecorded, Record};
pub use rotation::{Mesh, Rotation};
pub use settings::{Drain, Settings};
pub use time::UnixTime;
