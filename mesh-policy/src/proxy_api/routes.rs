//! How routes match, the same in both directions.

use http::{HeaderName, Method};
use linkerd2_proxy_api::{grpc_route, http_route, http_types};

use super::field::required;
use crate::Error;
use crate::route::{
    GrpcMatch, HeaderMatch, HostMatch, HttpMatch, PathMatch, Pattern, QueryMatch, ValueMatch,
};

pub(super) fn hosts(hosts: &[http_route::HostMatch]) -> Result<Vec<HostMatch>, Error> {
    hosts
        .iter()
        .map(|host| {
            Ok(
                match required("http_route.HostMatch.match", &host.r#match)? {
                    http_route::host_match::Match::Exact(host) => HostMatch::exact(host),
                    http_route::host_match::Match::Suffix(suffix) => {
                        suffix_of(&suffix.reverse_labels)
                    }
                },
            )
        })
        .collect()
}

/// `[com, example]` is `*.example.com`.
pub(super) fn suffix_of(reverse_labels: &[String]) -> HostMatch {
    let labels: Vec<&str> = reverse_labels.iter().rev().map(String::as_str).collect();
    HostMatch::suffix(&labels.join("."))
}

pub(super) fn http_matches(
    matches: &[http_route::HttpRouteMatch],
) -> Result<Vec<HttpMatch>, Error> {
    matches.iter().map(http_match).collect()
}

pub(super) fn grpc_matches(
    matches: &[grpc_route::GrpcRouteMatch],
) -> Result<Vec<GrpcMatch>, Error> {
    matches.iter().map(grpc_match).collect()
}

/// The most regular expressions in the routes of one protocol or profile: with [`Pattern::MAX_COMPILED_BYTES`] it bounds the memory
/// that a policy can make a proxy take.
const MAX_PATTERNS: usize = 256;

/// Refuses what holds too many regular expressions, before any is compiled.
///
/// # Errors
///
/// [`Error::TooMany`].
pub(super) fn check_http_patterns<'p>(
    matches: impl Iterator<Item = &'p http_route::HttpRouteMatch>,
) -> Result<(), Error> {
    use http_route::{path_match, query_param_match};
    let counts = matches.map(|proto| {
        let path = proto.path.as_ref().and_then(|path| path.kind.as_ref());
        let path = matches!(path, Some(path_match::Kind::Regex(_)));
        let query = proto
            .query_params
            .iter()
            .filter(|query| matches!(query.value, Some(query_param_match::Value::Regex(_))));
        usize::from(path) + header_patterns(&proto.headers) + query.count()
    });
    check_patterns(counts.sum())
}

/// As [`check_http_patterns`].
///
/// # Errors
///
/// [`Error::TooMany`].
pub(super) fn check_grpc_patterns<'p>(
    matches: impl Iterator<Item = &'p grpc_route::GrpcRouteMatch>,
) -> Result<(), Error> {
    check_patterns(matches.map(|proto| header_patterns(&proto.headers)).sum())
}

fn header_patterns(headers: &[http_route::HeaderMatch]) -> usize {
    use http_route::header_match::Value;
    let patterns = headers
        .iter()
        .filter(|header| matches!(header.value, Some(Value::Regex(_))));
    patterns.count()
}

pub(super) fn check_patterns(given: usize) -> Result<(), Error> {
    if given <= MAX_PATTERNS {
        return Ok(());
    }
    Err(Error::TooMany {
        what: "regular expressions in routes",
        given,
        max: MAX_PATTERNS,
    })
}

fn http_match(proto: &http_route::HttpRouteMatch) -> Result<HttpMatch, Error> {
    Ok(HttpMatch {
        path: proto.path.as_ref().map(path).transpose()?,
        headers: headers(&proto.headers)?,
        query: proto
            .query_params
            .iter()
            .map(query_param)
            .collect::<Result<_, _>>()?,
        method: proto.method.as_ref().map(method).transpose()?,
        condition: None,
    })
}

fn grpc_match(proto: &grpc_route::GrpcRouteMatch) -> Result<GrpcMatch, Error> {
    let named = |name: &str| (!name.is_empty()).then(|| name.into());
    let rpc = proto.rpc.as_ref();
    Ok(GrpcMatch {
        service: rpc.and_then(|rpc| named(&rpc.service)),
        method: rpc.and_then(|rpc| named(&rpc.method)),
        headers: headers(&proto.headers)?,
    })
}

fn path(proto: &http_route::PathMatch) -> Result<PathMatch, Error> {
    use http_route::path_match::Kind;
    Ok(match required("http_route.PathMatch.kind", &proto.kind)? {
        Kind::Exact(path) => PathMatch::Exact(path.as_str().into()),
        Kind::Prefix(path) => PathMatch::Prefix(path.as_str().into()),
        Kind::Regex(pattern) => PathMatch::Regex(Pattern::new(pattern)?),
    })
}

fn headers(proto: &[http_route::HeaderMatch]) -> Result<Vec<HeaderMatch>, Error> {
    proto.iter().map(header).collect()
}

fn header(proto: &http_route::HeaderMatch) -> Result<HeaderMatch, Error> {
    use http_route::header_match::Value;
    let name = HeaderName::from_bytes(proto.name.as_bytes())
        .map_err(|_| Error::invalid("http_route.HeaderMatch.name", &proto.name, "a header name"))?;
    let value = match required("http_route.HeaderMatch.value", &proto.value)? {
        Value::Exact(value) => ValueMatch::exact(value),
        Value::Regex(pattern) => ValueMatch::Regex(Pattern::new(pattern)?),
    };
    Ok(HeaderMatch { name, value })
}

fn query_param(proto: &http_route::QueryParamMatch) -> Result<QueryMatch, Error> {
    use http_route::query_param_match::Value;
    let value = match required("http_route.QueryParamMatch.value", &proto.value)? {
        Value::Exact(value) => ValueMatch::exact(value),
        Value::Regex(pattern) => ValueMatch::Regex(Pattern::new(pattern)?),
    };
    Ok(QueryMatch {
        name: proto.name.as_str().into(),
        value,
    })
}

pub(super) fn method(proto: &http_types::HttpMethod) -> Result<Method, Error> {
    let field = "http_types.HttpMethod.type";
    let kind = required(field, &proto.r#type)?;
    Method::try_from(kind.clone())
        .map_err(|error| Error::invalid(field, &error.to_string(), "an HTTP method"))
}
