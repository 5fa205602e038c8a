//! Which requests an observer wants to see: the match of an `ObserveRequest`, as a value.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use http::Method;
use ipnet::IpNet;
use linkerd2_proxy_api::http_types::{self, scheme};
use linkerd2_proxy_api::tap::observe_request::{self, r#match as proto};

/// Label names and values.
pub(crate) type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// What is known of a request when it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) method: &'a Method,
    pub(crate) scheme: &'a str,
    pub(crate) authority: &'a str,
    /// Without the query.
    pub(crate) path: &'a str,
    pub(crate) destination_labels: &'a Labels<'a>,
    pub(crate) route_labels: &'a Labels<'a>,
}

/// Which requests are meant.
#[derive(Clone, Debug)]
pub(super) enum Match {
    /// Those that all of these mean: every one when empty.
    All(Box<[Self]>),
    /// Those that any of these means: none when empty.
    Any(Box<[Self]>),
    /// Those that this does not mean.
    Not(Box<Self>),
    /// Those from there.
    Source(Address),
    /// Those that go there.
    Destination(Address),
    /// Those whose destination has the label.
    DestinationLabel(Label),
    /// Those whose route has the label.
    RouteLabel(Label),
    /// Those of this scheme, in lower case.
    Scheme(Box<str>),
    /// Those of this method.
    Method(Method),
    /// Those to such an authority.
    Authority(Text),
    /// Those for such a path.
    Path(Text),
}

/// Some addresses.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Net(IpNet),
    Ports(RangeInclusive<u16>),
}

/// Some strings.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Exact(Box<str>),
    Prefix(Box<str>),
}

/// One label.
#[derive(Clone, Debug)]
pub(super) struct Label {
    key: Box<str>,
    value: Box<str>,
}

/// Which field of a request for observation means nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(super) struct Invalid {
    field: String,
    problem: String,
}

/// The most parts that a match may have: each may be asked of each request.
pub(super) const MAX_PARTS: usize = 256;

impl Match {
    /// Reads the field `match` of a request.
    pub(super) fn read(proto: Option<&observe_request::Match>) -> Result<Self, Invalid> {
        let mut room = MAX_PARTS;
        let proto = proto.ok_or_else(|| Invalid::unset("match"))?;
        Self::part(proto, &mut room).map_err(|invalid| invalid.within("match"))
    }

    /// Whether it means the request.
    pub(super) fn matches(&self, seen: &Seen<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(seen)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(seen)),
            Self::Not(part) => !part.matches(seen),
            Self::Source(address) => address.contains(seen.source),
            Self::Destination(address) => address.contains(seen.destination),
            Self::DestinationLabel(label) => label.is_among(seen.destination_labels),
            Self::RouteLabel(label) => label.is_among(seen.route_labels),
            Self::Scheme(scheme) => scheme.eq_ignore_ascii_case(seen.scheme),
            Self::Method(method) => method == seen.method,
            Self::Authority(text) => text.matches(seen.authority),
            Self::Path(text) => text.matches(seen.path),
        }
    }

    /// `room` is how many parts there may still be.
    fn part(proto: &observe_request::Match, room: &mut usize) -> Result<Self, Invalid> {
        *room = room.checked_sub(1).ok_or_else(|| {
            Invalid::new(
                "",
                format!("the match has too many parts, expected at most {MAX_PARTS}"),
            )
        })?;
        let Some(kind) = &proto.r#match else {
            return Err(Invalid::unset(""));
        };
        match kind {
            proto::Match::All(seq) => Self::parts(seq, room)
                .map(Self::All)
                .map_err(|invalid| invalid.within("all")),
            proto::Match::Any(seq) => Self::parts(seq, room)
                .map(Self::Any)
                .map_err(|invalid| invalid.within("any")),
            proto::Match::Not(part) => Self::part(part, room)
                .map(|part| Self::Not(Box::new(part)))
                .map_err(|invalid| invalid.within("not")),
            proto::Match::Source(tcp) => Address::read(tcp)
                .map(Self::Source)
                .map_err(|invalid| invalid.within("source")),
            proto::Match::Destination(tcp) => Address::read(tcp)
                .map(Self::Destination)
                .map_err(|invalid| invalid.within("destination")),
            proto::Match::DestinationLabel(label) => Label::read(label)
                .map(Self::DestinationLabel)
                .map_err(|invalid| invalid.within("destination_label")),
            proto::Match::RouteLabel(label) => Label::read(label)
                .map(Self::RouteLabel)
                .map_err(|invalid| invalid.within("route_label")),
            proto::Match::Http(http) => Self::http(http).map_err(|invalid| invalid.within("http")),
        }
    }

    fn parts(seq: &proto::Seq, room: &mut usize) -> Result<Box<[Self]>, Invalid> {
        let part = |(index, part)| {
            Self::part(part, room)
                .map_err(|invalid: Invalid| invalid.within(&format!("matches[{index}]")))
        };
        seq.matches.iter().enumerate().map(part).collect()
    }

    fn http(proto: &proto::Http) -> Result<Self, Invalid> {
        match &proto.r#match {
            None => Err(Invalid::unset("")),
            Some(proto::http::Match::Scheme(scheme)) => read_scheme(scheme).map(Self::Scheme),
            Some(proto::http::Match::Method(method)) => Method::try_from(method.clone())
                .map(Self::Method)
                .map_err(|error| Invalid::new("method", error.to_string())),
            Some(proto::http::Match::Authority(text)) => {
                Text::read("authority", text).map(Self::Authority)
            }
            Some(proto::http::Match::Path(text)) => Text::read("path", text).map(Self::Path),
        }
    }
}

impl Address {
    fn contains(&self, address: SocketAddr) -> bool {
        match self {
            // An IPv4 address in IPv6 form is taken as IPv4.
            Self::Net(net) => net.contains(&address.ip().to_canonical()),
            Self::Ports(ports) => ports.contains(&address.port()),
        }
    }

    fn read(proto: &proto::Tcp) -> Result<Self, Invalid> {
        match &proto.r#match {
            None => Err(Invalid::unset("")),
            Some(proto::tcp::Match::Netmask(netmask)) => read_net(netmask)
                .map(Self::Net)
                .map_err(|invalid| invalid.within("netmask")),
            Some(proto::tcp::Match::Ports(range)) => read_ports(*range)
                .map(Self::Ports)
                .map_err(|invalid| invalid.within("ports")),
        }
    }
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == &**exact,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
        }
    }

    fn read(field: &str, proto: &proto::http::StringMatch) -> Result<Self, Invalid> {
        use proto::http::string_match::Match;
        match &proto.r#match {
            None => Err(Invalid::unset(field)),
            Some(Match::Exact(exact)) => Ok(Self::Exact(exact.as_str().into())),
            Some(Match::Prefix(prefix)) => Ok(Self::Prefix(prefix.as_str().into())),
        }
    }
}

impl Label {
    fn is_among(&self, labels: &Labels<'_>) -> bool {
        labels
            .iter()
            .any(|(key, value)| *key == *self.key && *value == *self.value)
    }

    fn read(proto: &proto::Label) -> Result<Self, Invalid> {
        let set = |field, text: &str| match text {
            "" => Err(Invalid::unset(field)),
            text => Ok(text.into()),
        };
        Ok(Self {
            key: set("key", &proto.key)?,
            value: set("value", &proto.value)?,
        })
    }
}

impl Invalid {
    pub(super) fn new(field: &str, problem: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            problem: problem.into(),
        }
    }

    fn unset(field: &str) -> Self {
        Self::new(field, "not set, or of a kind that is not known")
    }

    fn within(mut self, outer: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => outer.to_owned(),
            inner => format!("{outer}.{inner}"),
        };
        self
    }
}

fn read_scheme(proto: &http_types::Scheme) -> Result<Box<str>, Invalid> {
    use scheme::{Registered, Type};
    let wrong = |value: String| Invalid::new("scheme", format!("{value} is no scheme"));
    match &proto.r#type {
        None => Err(Invalid::unset("scheme")),
        Some(Type::Registered(number)) => match Registered::try_from(*number) {
            Ok(Registered::Http) => Ok("http".into()),
            Ok(Registered::Https) => Ok("https".into()),
            Err(_) => Err(wrong(number.to_string())),
        },
        Some(Type::Unregistered(name)) => match name.parse::<http::uri::Scheme>() {
            Ok(scheme) => Ok(scheme.as_str().to_ascii_lowercase().into()),
            Err(_) => Err(wrong(format!("{name:?}"))),
        },
    }
}

fn read_net(proto: &proto::tcp::Netmask) -> Result<IpNet, Invalid> {
    let ip = proto.ip.ok_or_else(|| Invalid::unset("ip"))?;
    let ip = std::net::IpAddr::try_from(ip).map_err(|_| Invalid::unset("ip"))?;
    let net = u8::try_from(proto.mask)
        .ok()
        .filter(|mask| *mask > 0)
        .and_then(|mask| IpNet::new(ip, mask).ok());
    net.ok_or_else(|| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        Invalid::new("mask", format!("{}, expected 1 to {most}", proto.mask))
    })
}

/// Where one of both ends is not given, the other one is the only port.
fn read_ports(proto: proto::tcp::PortRange) -> Result<RangeInclusive<u16>, Invalid> {
    let (min, max) = match (proto.min, proto.max) {
        (0, 0) => return Err(Invalid::unset("min")),
        (min, 0) => (min, min),
        (0, max) => (max, max),
        both => both,
    };
    let port = |field, value: u32| {
        u16::try_from(value)
            .map_err(|_| Invalid::new(field, format!("{value}, expected a port, 1 to 65535")))
    };
    let ports = port("min", min)?..=port("max", max)?;
    if ports.is_empty() {
        let problem = format!("{max}, expected at least min, which is {min}");
        return Err(Invalid::new("max", problem));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests;
