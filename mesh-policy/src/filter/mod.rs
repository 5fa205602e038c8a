//! What a route does to requests and responses on their way: change headers, redirect, fail.
//!
//! [`Filters`] are applied in order; the first that answers the request itself, ends it. A filter of a kind that is not known
//! here fails every request, as what it would have done may be what keeps the backend safe.

mod failure;
mod headers;
mod redirect;

pub use self::failure::{Failure, FailureInjector, Ratio};
pub use self::headers::HeaderModifier;
pub use self::redirect::{PathModifier, Redirect};

use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::Error;

/// What is done to requests and responses, in order. Cheap to clone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filters(Option<Arc<[Filter]>>);

/// One thing that is done to requests or responses.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// Changes the headers of requests.
    RequestHeaders(HeaderModifier),
    /// Changes the headers of responses.
    ResponseHeaders(HeaderModifier),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Fails some of the requests.
    Failure(FailureInjector),
    /// Something that is not known here: every request fails.
    Unknown,
}

/// The head of a request that filters are applied to.
#[derive(Debug)]
pub struct FilterHead<'a> {
    /// The target as it came.
    pub uri: &'a Uri,
    /// Whom the request is for: of the target if it has one, else of `Host`. Redirects cannot do without.
    pub authority: Option<&'a Authority>,
    /// The headers, which modifiers change.
    pub headers: &'a mut HeaderMap,
}

/// Why a request is not to be passed on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Intercept {
    /// The client is to go elsewhere.
    Redirect {
        /// The response's status, a redirection.
        status: StatusCode,
        /// The value of its `Location`: an absolute URI.
        location: HeaderValue,
    },
    /// The request is to fail.
    Failure(Failure),
    /// A filter cannot be applied to this request, or is not known: answer 500, or gRPC 13 (internal).
    Invalid,
}

impl Filters {
    /// The most filters of one rule or backend.
    pub const MAX: usize = 64;

    /// These filters, in order.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] above [`MAX`](Self::MAX).
    pub fn new(filters: Vec<Filter>) -> Result<Self, Error> {
        if filters.len() > Self::MAX {
            return Err(Error::TooMany {
                what: "filters of a rule or backend",
                given: filters.len(),
                max: Self::MAX,
            });
        }
        Ok(Self((!filters.is_empty()).then(|| filters.into())))
    }

    /// True when nothing is done to requests or responses.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The filters, in order.
    pub fn as_slice(&self) -> &[Filter] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Applies them to a request.
    ///
    /// `matched_prefix` is the path prefix that the route's match has, for redirects that replace it
    /// ([`Found::matched_prefix`](crate::route::Found::matched_prefix)). `random` is a uniformly random word; it may be one
    /// that was used for something else.
    ///
    /// # Errors
    ///
    /// What is to be answered in place of passing the request on. Headers may have been changed before.
    pub fn on_request(
        &self,
        head: &mut FilterHead<'_>,
        matched_prefix: Option<&str>,
        random: u64,
    ) -> Result<(), Intercept> {
        let mut words = Words(random);
        for filter in self.as_slice() {
            match filter {
                Filter::RequestHeaders(modifier) => modifier.apply(head.headers),
                Filter::ResponseHeaders(_) => {}
                Filter::Redirect(redirect) => {
                    if let Some(intercept) = redirect.of(head, matched_prefix) {
                        return Err(intercept);
                    }
                }
                Filter::Failure(injector) => {
                    if let Some(failure) = injector.of(words.next()) {
                        return Err(Intercept::Failure(failure.clone()));
                    }
                }
                Filter::Unknown => return Err(Intercept::Invalid),
            }
        }
        Ok(())
    }

    /// Applies them to a response.
    pub fn on_response(&self, headers: &mut HeaderMap) {
        for filter in self.as_slice() {
            if let Filter::ResponseHeaders(modifier) = filter {
                modifier.apply(headers);
            }
        }
    }
}

/// Independent words made of one, for each injector its own (SplitMix64: Steele, Lea, Flood 2014).
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}
