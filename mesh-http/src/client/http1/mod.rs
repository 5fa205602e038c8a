//! HTTP/1 connections: a pool of idle ones, and one that may be switched to another protocol.

mod connection;
mod pool;
mod received;
mod sender;

pub use pool::{Available, Http1Pool};
pub use received::Answering;
pub use sender::{NoAnswer, Reached, Sender};
