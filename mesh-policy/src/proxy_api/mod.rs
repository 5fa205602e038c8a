//! From messages of the Linkerd proxy API (`linkerd2-proxy-api`) to the values of this crate.
//!
//! A message that means nothing is an [`Error`](crate::Error) that names the field. What a message asks for and this
//! crate has no value for is listed in [`Converted::unsupported`], so that nothing is ignored silently.

mod unsupported;

pub use self::unsupported::Converted;
