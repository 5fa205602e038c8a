//! Following the mesh's trust bundles: taking those that the pinned key signed, using them without a restart, and saying so.
//!
//! - `kept`: the pinned key, and the last bundle. `adopt`: which documents are taken.
//! - `connections`: those that live, by the anchor that verified them. `recorded`: one of them.
//! - `follow`: the stream (`mesh.trust.v1`). `report`: what is said on it, and with Certify. `probe`: what is answered to probes.
//! - `catch_up`: the bundle of the day, for who verifies no controller any more. `clock`: whether the host's clock was set.
//!
//! Without `identity.bundle_key_file` nothing of this runs, and nobody is asked for it. A controller that does not know the
//! stream is asked again rarely; meanwhile the anchors stay.

mod adopt;
mod catch_up;
mod clock;
mod connections;
mod follow;
mod kept;
mod probe;
mod recorded;
mod report;

pub use catch_up::CatchUp;
pub(crate) use connections::Order;
pub use connections::{Connections, Cut, Record, Summary};
pub use follow::{Dial, Dialled, Follower};
pub use kept::{Error, Start};
pub(crate) use recorded::{Recorded, was_cut};
pub use report::{Loaded, Process, Standing};
