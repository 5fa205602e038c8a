//! Following the mesh's trust bundles: taking those that the pinned key signed, using them without a restart, and saying so.
//!
//! - `kept`: the pinned key, and the last bundle. `adopt`: which documents are taken.
//! - `follow`: the stream (`mesh.trust.v1`). `report`: what is said on it, and with Certify.
//!
//! Without `identity.bundle_key_file` nothing of this runs, and nobody is asked for it. A controller that does not know the
//! stream is asked again rarely; meanwhile the anchors stay.

mod adopt;
mod follow;
mod kept;
mod report;

pub use follow::{Dial, Dialled, Follower};
pub use kept::{Error, Start};
pub use report::{Loaded, Process, Standing};
