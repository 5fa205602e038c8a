//! Where it all happens: two hosts on a network of their own, and the programs on them.

mod cores;
mod ground;
mod host;
mod machine;
mod process;

pub(crate) use cores::Cores;
pub(crate) use ground::{Ground, Load};
pub(crate) use host::{Host, Network};
pub(crate) use machine::Machine;
pub(crate) use process::{Child, Usage, output};
