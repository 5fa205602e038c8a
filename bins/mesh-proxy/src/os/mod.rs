//! What each operating system does its own way, under the same names: signals, local sockets, what a listener shares, and
//! where a redirected connection was meant to go. Nothing else in this crate asks what it runs on.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;
