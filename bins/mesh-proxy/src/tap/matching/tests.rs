use super::*;
use linkerd2_proxy_api::http_types::{HttpMethod, Scheme, http_method};
use linkerd2_proxy_api::net::IpAddress;
use observe_request::Match as Part;
use proptest::prelude::*;
use proptest::string::string_regex;
use proto::Match as Kind;
use proto::http::{Match as HttpKind, StringMatch, string_match};
use proto::tcp::{Match as TcpKind, Netmask, PortRange};

fn part(kind: Kind) -> Part {
    Part {
        r#match: Some(kind),
    }
}

fn seq(matches: Vec<Part>) -> proto::Seq {
    proto::Seq { matches }
}

fn not(inner: Part) -> Part {
    part(Kind::Not(Box::new(inner)))
}

fn http(kind: HttpKind) -> Part {
    part(Kind::Http(proto::Http {
        r#match: Some(kind),
    }))
}

fn text(kind: string_match::Match) -> StringMatch {
    StringMatch {
        r#match: Some(kind),
    }
}

fn ports(min: u32, max: u32) -> proto::Tcp {
    let range = PortRange { min, max };
    proto::Tcp {
        r#match: Some(TcpKind::Ports(range)),
    }
}

fn net(ip: std::net::IpAddr, mask: u32) -> proto::Tcp {
    let ip: Option<IpAddress> = Some(ip.into());
    proto::Tcp {
        r#match: Some(TcpKind::Netmask(Netmask { ip, mask })),
    }
}

fn label(key: &str, value: &str) -> proto::Label {
    let (key, value) = (key.to_owned(), value.to_owned());
    proto::Label { key, value }
}

/// A request as a test makes it up.
#[derive(Clone, Debug)]
struct Made {
    source: SocketAddr,
    destination: SocketAddr,
    method: Method,
    scheme: String,
    authority: String,
    path: String,
    destination_labels: Labels<'static>,
    route_labels: Labels<'static>,
}

impl Made {
    fn seen(&self) -> Seen<'_> {
        Seen {
            source: self.source,
            destination: self.destination,
            method: &self.method,
            scheme: &self.scheme,
            authority: &self.authority,
            path: &self.path,
            destination_labels: &self.destination_labels,
            route_labels: &self.route_labels,
        }
    }

    fn is_meant_by(&self, proto: &Part) -> bool {
        Match::read(Some(proto)).unwrap().matches(&self.seen())
    }
}

// Few values of each kind, so that a match and a request often agree.
fn ip() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![
        Just("10.0.0.1".parse().unwrap()),
        Just("10.0.1.1".parse().unwrap()),
        Just("fd00::1".parse().unwrap()),
        Just("::ffff:10.0.0.1".parse().unwrap()),
    ]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (ip(), prop_oneof![Just(80u16), Just(443), Just(65_535)]).prop_map(SocketAddr::from)
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::GET),
        Just(Method::POST),
        Just(Method::from_bytes(b"PURGE").unwrap())
    ]
}

fn word() -> impl Strategy<Value = String> {
    string_regex("/?[ab]{0,2}").unwrap()
}

fn labels() -> impl Strategy<Value = Labels<'static>> {
    let pair = ("[ab]", "[ab]").prop_map(|(key, value)| (key.into(), value.into()));
    proptest::collection::vec(pair, 0..3)
}

prop_compose! {
    fn made()(
        source in address(),
        destination in address(),
        method in method(),
        scheme in prop_oneof![Just("http".to_owned()), Just("https".to_owned())],
        (authority, path) in (word(), word()),
        (destination_labels, route_labels) in (labels(), labels()),
    ) -> Made {
        Made { source, destination, method, scheme, authority, path, destination_labels, route_labels }
    }
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    (any::<bool>(), word()).prop_map(|(exact, word)| {
        text(if exact {
            string_match::Match::Exact(word)
        } else {
            string_match::Match::Prefix(word)
        })
    })
}

fn tcp() -> impl Strategy<Value = proto::Tcp> {
    prop_oneof![
        (ip(), 1..=32u32).prop_map(|(ip, mask)| net(ip, mask)),
        (1..=500u32, 500..=65_535u32).prop_map(|(min, max)| ports(min, max)),
    ]
}

fn leaf() -> impl Strategy<Value = Part> {
    let scheme = prop_oneof![Just("http"), Just("https")]
        .prop_map(|scheme| http(HttpKind::Scheme(Scheme::from(scheme))));
    prop_oneof![
        tcp().prop_map(|tcp| part(Kind::Source(tcp))),
        tcp().prop_map(|tcp| part(Kind::Destination(tcp))),
        ("[ab]", "[ab]").prop_map(|(key, value)| part(Kind::DestinationLabel(label(&key, &value)))),
        ("[ab]", "[ab]").prop_map(|(key, value)| part(Kind::RouteLabel(label(&key, &value)))),
        scheme,
        method().prop_map(|method| http(HttpKind::Method(method.into()))),
        string_match().prop_map(|text| http(HttpKind::Authority(text))),
        string_match().prop_map(|text| http(HttpKind::Path(text))),
    ]
}

fn tree() -> impl Strategy<Value = Part> {
    leaf().prop_recursive(4, 24, 4, |inner| {
        let many = proptest::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            many.clone().prop_map(|parts| part(Kind::All(seq(parts)))),
            many.prop_map(|parts| part(Kind::Any(seq(parts)))),
            inner.prop_map(not),
        ]
    })
}

/// Parts with holes in them, and with numbers that mean nothing.
fn broken() -> impl Strategy<Value = Part> {
    let numbers = || prop_oneof![Just(0u32), 1..200u32, 65_535..65_537u32, any::<u32>()];
    let tcp = prop_oneof![
        Just(proto::Tcp { r#match: None }),
        (numbers(), numbers()).prop_map(|(min, max)| ports(min, max)),
        (ip(), numbers()).prop_map(|(ip, mask)| net(ip, mask)),
        numbers().prop_map(|mask| proto::Tcp {
            r#match: Some(TcpKind::Netmask(Netmask { ip: None, mask }))
        }),
    ];
    let unregistered = |name| HttpMethod {
        r#type: Some(http_method::Type::Unregistered(name)),
    };
    let leaf = prop_oneof![
        leaf(),
        Just(Part { r#match: None }),
        Just(part(Kind::Http(proto::Http { r#match: None }))),
        Just(http(HttpKind::Method(HttpMethod { r#type: None }))),
        Just(http(HttpKind::Scheme(Scheme { r#type: None }))),
        Just(http(HttpKind::Path(StringMatch { r#match: None }))),
        any::<String>().prop_map(move |name| http(HttpKind::Method(unregistered(name)))),
        any::<String>().prop_map(|name| http(HttpKind::Scheme(Scheme {
            r#type: Some(scheme::Type::Unregistered(name))
        }))),
        any::<i32>().prop_map(|number| http(HttpKind::Scheme(Scheme {
            r#type: Some(scheme::Type::Registered(number))
        }))),
        tcp.prop_map(|tcp| part(Kind::Source(tcp))),
        ("[a]?", "[a]?").prop_map(|(key, value)| part(Kind::RouteLabel(label(&key, &value)))),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|parts| part(Kind::All(seq(parts)))),
            inner.prop_map(not),
        ]
    })
}

proptest! {
    #[test]
    fn all_any_and_not_agree_with_each_other(
        request in made(),
        parts in proptest::collection::vec(tree(), 0..4),
    ) {
        let each: Vec<bool> = parts.iter().map(|part| request.is_meant_by(part)).collect();
        let all = part(Kind::All(seq(parts.clone())));
        let any = part(Kind::Any(seq(parts.clone())));
        prop_assert_eq!(request.is_meant_by(&all), each.iter().all(|meant| *meant));
        prop_assert_eq!(request.is_meant_by(&any), each.iter().any(|meant| *meant));
        // What is not any of them is none of them.
        let none = part(Kind::All(seq(parts.into_iter().map(not).collect())));
        prop_assert_eq!(request.is_meant_by(&not(any)), request.is_meant_by(&none));
    }

    #[test]
    fn a_network_means_the_addresses_in_it(request in made(), ip in ip(), mask in 1..=128u32) {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        prop_assume!(mask <= most);
        let there = request.source.ip().to_canonical();
        let net = IpNet::new(ip, u8::try_from(mask).unwrap()).unwrap();
        let source = part(Kind::Source(self::net(ip, mask)));
        prop_assert_eq!(request.is_meant_by(&source), net.contains(&there));
    }

    #[test]
    fn ports_mean_those_between_both_ends(request in made(), min in 0..70_000u32, max in 0..70_000u32) {
        let (low, high) = match (min, max) {
            (min, 0) => (min, min),
            (0, max) => (max, max),
            both => both,
        };
        let sound = 0 < low && low <= high && high <= 65_535;
        let destination = part(Kind::Destination(ports(min, max)));
        let read = Match::read(Some(&destination));
        prop_assert_eq!(read.is_ok(), sound);
        if let Ok(read) = read {
            let port = u32::from(request.destination.port());
            prop_assert_eq!(read.matches(&request.seen()), low <= port && port <= high);
        }
    }

    #[test]
    fn strings_and_labels_mean_what_they_say(request in made(), word in word(), key in "[ab]", value in "[ab]") {
        let of = |kind: string_match::Match| request.is_meant_by(&http(HttpKind::Path(text(kind))));
        prop_assert_eq!(of(string_match::Match::Exact(word.clone())), request.path == word);
        prop_assert_eq!(of(string_match::Match::Prefix(word.clone())), request.path.starts_with(&word));
        let has = |labels: &Labels<'_>| labels.contains(&(key.as_str().into(), value.as_str().into()));
        let (destination, route) = (
            part(Kind::DestinationLabel(label(&key, &value))),
            part(Kind::RouteLabel(label(&key, &value))),
        );
        prop_assert_eq!(request.is_meant_by(&destination), has(&request.destination_labels));
        prop_assert_eq!(request.is_meant_by(&route), has(&request.route_labels));
    }

    #[test]
    fn what_means_nothing_is_refused_by_its_field(request in made(), proto in broken()) {
        match Match::read(Some(&proto)) {
            // It may mean anything, but it must mean something.
            Ok(read) => drop(read.matches(&request.seen())),
            Err(invalid) => prop_assert!(invalid.field.starts_with("match"), "{}", invalid),
        }
    }
}

#[test]
fn the_field_that_is_wrong_is_named() {
    let unset = "not set, or of a kind that is not known";
    let refused = |proto: Option<Part>| Match::read(proto.as_ref()).unwrap_err().to_string();
    let v4 = "10.0.0.1".parse().unwrap();
    let deep = |part| not(self::part(Kind::Any(seq(vec![leaf_part(), part]))));
    let cases = [
        (None, format!("match: {unset}")),
        (Some(Part { r#match: None }), format!("match: {unset}")),
        (
            Some(deep(part(Kind::Source(net(v4, 33))))),
            "match.not.any.matches[1].source.netmask.mask: 33, expected 1 to 32".to_owned(),
        ),
        (
            Some(deep(part(Kind::Destination(ports(2, 1))))),
            "match.not.any.matches[1].destination.ports.max: 1, expected at least min, which is 2"
                .to_owned(),
        ),
        (
            Some(part(Kind::DestinationLabel(label("a", "")))),
            format!("match.destination_label.value: {unset}"),
        ),
        (
            Some(http(HttpKind::Scheme(Scheme {
                r#type: Some(scheme::Type::Unregistered("a b".to_owned())),
            }))),
            "match.http.scheme: \"a b\" is no scheme".to_owned(),
        ),
        (
            Some(http(HttpKind::Authority(StringMatch { r#match: None }))),
            format!("match.http.authority: {unset}"),
        ),
    ];
    for (proto, expected) in cases {
        assert_eq!(refused(proto), expected);
    }
}

fn leaf_part() -> Part {
    part(Kind::RouteLabel(label("a", "b")))
}

#[test]
fn a_match_is_bounded() {
    let of = |parts| part(Kind::All(seq(vec![leaf_part(); parts])));
    assert!(Match::read(Some(&of(MAX_PARTS - 1))).is_ok());
    let refused = Match::read(Some(&of(MAX_PARTS))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "match.all.matches[255]: the match has too many parts, expected at most {MAX_PARTS}"
        )
    );
}
