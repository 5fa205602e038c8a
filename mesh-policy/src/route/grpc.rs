use super::http::all_headers;
use super::{HeaderMatch, Match, RequestView};

/// A test of a gRPC call; all that is set must hold. The default matches every call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GrpcMatch {
    /// The full name of the service, e.g. `grpc.health.v1.Health`; any when absent.
    pub service: Option<Box<str>>,
    /// The name of the method, e.g. `Check`; any when absent.
    pub method: Option<Box<str>>,
    /// Headers (metadata) that must be there.
    pub headers: Vec<HeaderMatch>,
}

/// How specific a gRPC match was: by the length of the service, then of the method, then the number of headers
/// (Gateway API, `GRPCRouteRule.matches`).
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct GrpcRank {
    service: usize,
    method: usize,
    headers: usize,
}

impl Match for GrpcMatch {
    type Rank = GrpcRank;

    fn rank(&self, request: &RequestView<'_>) -> Option<GrpcRank> {
        if self.service.is_some() || self.method.is_some() {
            let (service, method) = request.uri.path().strip_prefix('/')?.split_once('/')?;
            let is = |expected: &Option<Box<str>>, given: &str| {
                expected.as_ref().is_none_or(|name| **name == *given)
            };
            if !is(&self.service, service) || !is(&self.method, method) {
                return None;
            }
        }
        let length = |name: &Option<Box<str>>| name.as_ref().map_or(0, |name| name.len());
        all_headers(&self.headers, request.headers).then_some(GrpcRank {
            service: length(&self.service),
            method: length(&self.method),
            headers: self.headers.len(),
        })
    }
}
