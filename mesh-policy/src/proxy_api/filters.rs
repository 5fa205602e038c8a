//! Filters of rules and backends.

use http::uri::Scheme;
use http::{HeaderName, HeaderValue};
use linkerd2_proxy_api::{grpc_route, http_route, http_types, inbound, outbound};

use super::field::optional_port;
use super::unsupported::Unsupported;
use crate::Error;
use crate::filter::{
    Failure, FailureInjector, Filter, Filters, HeaderModifier, PathModifier, Ratio, Redirect,
};

/// Filters of any kind of route, which differ in the types they are made of.
pub(super) trait FilterProto {
    /// What is noted when a filter's kind is not known.
    const KIND: &'static str;

    /// The filter; [`Filter::Unknown`] when its kind is not known.
    fn filter(&self, unsupported: &mut Unsupported) -> Result<Filter, Error>;
}

pub(super) fn filters<F: FilterProto>(
    unsupported: &mut Unsupported,
    proto: &[F],
) -> Result<Filters, Error> {
    if proto.len() > Filters::MAX {
        return Err(Error::TooMany {
            what: "filters of a rule or backend",
            given: proto.len(),
            max: Filters::MAX,
        });
    }
    let filters = proto.iter().map(|filter| {
        let filter = filter.filter(unsupported)?;
        unsupported.note(filter == Filter::Unknown, F::KIND);
        Ok(filter)
    });
    Filters::new(filters.collect::<Result<_, Error>>()?)
}

impl FilterProto for outbound::http_route::Filter {
    const KIND: &'static str = "outbound.HttpRoute.Filter.kind";

    fn filter(&self, unsupported: &mut Unsupported) -> Result<Filter, Error> {
        use outbound::http_route::filter::Kind;
        match &self.kind {
            Some(Kind::FailureInjector(proto)) => http_failure(proto),
            Some(Kind::RequestHeaderModifier(proto)) => request_headers(unsupported, proto),
            Some(Kind::Redirect(proto)) => redirect(proto),
            Some(Kind::ResponseHeaderModifier(proto)) => response_headers(unsupported, proto),
            None => Ok(Filter::Unknown),
        }
    }
}

impl FilterProto for outbound::grpc_route::Filter {
    const KIND: &'static str = "outbound.GrpcRoute.Filter.kind";

    fn filter(&self, unsupported: &mut Unsupported) -> Result<Filter, Error> {
        use outbound::grpc_route::filter::Kind;
        match &self.kind {
            Some(Kind::FailureInjector(proto)) => grpc_failure(proto),
            Some(Kind::RequestHeaderModifier(proto)) => request_headers(unsupported, proto),
            None => Ok(Filter::Unknown),
        }
    }
}

impl FilterProto for inbound::http_route::Filter {
    const KIND: &'static str = "inbound.HttpRoute.Filter.kind";

    fn filter(&self, unsupported: &mut Unsupported) -> Result<Filter, Error> {
        use inbound::http_route::filter::Kind;
        match &self.kind {
            Some(Kind::FailureInjector(proto)) => http_failure(proto),
            Some(Kind::RequestHeaderModifier(proto)) => request_headers(unsupported, proto),
            Some(Kind::Redirect(proto)) => redirect(proto),
            None => Ok(Filter::Unknown),
        }
    }
}

impl FilterProto for inbound::grpc_route::Filter {
    const KIND: &'static str = "inbound.GrpcRoute.Filter.kind";

    fn filter(&self, unsupported: &mut Unsupported) -> Result<Filter, Error> {
        use inbound::grpc_route::filter::Kind;
        match &self.kind {
            Some(Kind::FailureInjector(proto)) => grpc_failure(proto),
            Some(Kind::RequestHeaderModifier(proto)) => request_headers(unsupported, proto),
            None => Ok(Filter::Unknown),
        }
    }
}

fn http_failure(proto: &http_route::HttpFailureInjector) -> Result<Filter, Error> {
    Ok(Filter::Failure(FailureInjector {
        ratio: ratio(&proto.ratio)?,
        failure: Failure::http(proto.status, &proto.message)?,
    }))
}

fn grpc_failure(proto: &grpc_route::GrpcFailureInjector) -> Result<Filter, Error> {
    Ok(Filter::Failure(FailureInjector {
        ratio: ratio(&proto.ratio)?,
        failure: Failure::grpc(proto.code, &proto.message)?,
    }))
}

/// Every request when absent.
fn ratio(proto: &Option<http_route::Ratio>) -> Result<Ratio, Error> {
    match proto {
        Some(proto) => Ratio::new(proto.numerator, proto.denominator),
        None => Ok(Ratio::ALL),
    }
}

fn request_headers(
    unsupported: &mut Unsupported,
    proto: &http_route::RequestHeaderModifier,
) -> Result<Filter, Error> {
    let fields = Fields {
        framing: "http_route.RequestHeaderModifier (of the connection's own headers)",
        add: "http_route.RequestHeaderModifier.add",
        set: "http_route.RequestHeaderModifier.set",
        remove: "http_route.RequestHeaderModifier.remove",
    };
    let modifier = modifier(unsupported, &fields, &proto.add, &proto.set, &proto.remove)?;
    Ok(Filter::RequestHeaders(modifier))
}

fn response_headers(
    unsupported: &mut Unsupported,
    proto: &http_route::ResponseHeaderModifier,
) -> Result<Filter, Error> {
    let fields = Fields {
        framing: "http_route.ResponseHeaderModifier (of the connection's own headers)",
        add: "http_route.ResponseHeaderModifier.add",
        set: "http_route.ResponseHeaderModifier.set",
        remove: "http_route.ResponseHeaderModifier.remove",
    };
    let modifier = modifier(unsupported, &fields, &proto.add, &proto.set, &proto.remove)?;
    Ok(Filter::ResponseHeaders(modifier))
}

/// What the fields of a modifier are called.
struct Fields {
    framing: &'static str,
    add: &'static str,
    set: &'static str,
    remove: &'static str,
}

fn modifier(
    unsupported: &mut Unsupported,
    fields: &Fields,
    add: &Option<http_types::Headers>,
    set: &Option<http_types::Headers>,
    remove: &[String],
) -> Result<HeaderModifier, Error> {
    let add = pairs(fields.add, add)?;
    let set = pairs(fields.set, set)?;
    let remove = remove
        .iter()
        .map(|removed| name(fields.remove, removed))
        .collect::<Result<Vec<_>, _>>()?;
    let mut names = add.iter().chain(&set).map(|(name, _)| name).chain(&remove);
    unsupported.note(names.any(HeaderModifier::frames), fields.framing);
    HeaderModifier::new(add, set, remove)
}

fn pairs(
    field: &'static str,
    proto: &Option<http_types::Headers>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let headers = proto.as_ref().map_or(&[][..], |proto| &proto.headers);
    let pair = |header: &http_types::headers::Header| {
        let value = HeaderValue::from_bytes(&header.value).map_err(|_| {
            let given = String::from_utf8_lossy(&header.value);
            Error::invalid(field, &given, "header values")
        })?;
        Ok((name(field, &header.name)?, value))
    };
    headers.iter().map(pair).collect()
}

fn name(field: &'static str, name: &str) -> Result<HeaderName, Error> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Error::invalid(field, name, "names of headers"))
}

fn redirect(proto: &http_route::RequestRedirect) -> Result<Filter, Error> {
    let mut redirect = Redirect::new();
    if let Some(scheme) = &proto.scheme {
        let field = "http_route.RequestRedirect.scheme";
        let scheme = Scheme::try_from(scheme.clone())
            .map_err(|error| Error::invalid(field, &error.to_string(), "a URI scheme"))?;
        redirect = redirect.scheme(scheme);
    }
    if !proto.host.is_empty() {
        redirect = redirect.host(&proto.host)?;
    }
    if let Some(port) = optional_port("http_route.RequestRedirect.port", proto.port)? {
        redirect = redirect.port(port);
    }
    if let Some(path) = &proto.path {
        use http_route::path_modifier::Replace;
        redirect = redirect.path(match &path.replace {
            Some(Replace::Full(path)) => PathModifier::full(path)?,
            Some(Replace::Prefix(prefix)) => PathModifier::prefix(prefix)?,
            // A way to change the path that is not known here: sent elsewhere than meant would be worse.
            None => return Ok(Filter::Unknown),
        });
    }
    if proto.status != 0 {
        redirect = redirect.status(proto.status)?;
    }
    Ok(Filter::Redirect(redirect))
}
