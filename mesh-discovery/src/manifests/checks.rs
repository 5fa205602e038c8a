//! What names, numbers and durations must look like.

use std::{net::IpAddr, time::Duration};

use super::{document::Node, tree::Fault};
use crate::AnnotationError;

/// Endpoints of one resource at most.
const ENDPOINTS: usize = 10_000;

/// Collects what is wrong in one document.
pub(super) struct Checks<'a> {
    root: &'a Node,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(root: &'a Node, faults: Vec<Fault>) -> Self {
        Self { root, faults }
    }

    /// Notes a fault where the field stands, or the nearest one above it.
    pub(super) fn fault(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        let field = field.into();
        self.faults.push(Fault {
            place: Some(self.root.nearest(&field).place),
            field,
            reason: reason.into(),
        });
    }

    /// Notes what is wrong with an annotation where its value stands.
    pub(super) fn annotation(&mut self, error: &AnnotationError) {
        let annotations = self.root.nearest("metadata.annotations");
        let value = annotations.field(&error.annotation).unwrap_or(annotations);
        self.faults.push(Fault {
            place: Some(value.place),
            field: format!("metadata.annotations[{}]", error.annotation),
            reason: error.to_string(),
        });
    }

    /// A name as RFC 1123 has labels.
    pub(super) fn label(&mut self, field: &str, label: &str) {
        if !is_label(label) {
            self.fault(
                field,
                format!("{label:?} is no name: must be 1 to 63 lower-case letters, digits and dashes, and neither start nor end with a dash"),
            );
        }
    }

    /// The name given, else an empty one and a fault.
    pub(super) fn name(&mut self, name: Option<String>) -> String {
        match name {
            Some(name) => {
                self.label("metadata.name", &name);
                name
            }
            None => {
                self.fault("metadata.name", "missing: a resource needs a name");
                String::new()
            }
        }
    }

    /// The namespace given, else `default`.
    pub(super) fn namespace(&mut self, namespace: Option<String>) -> String {
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        self.label("metadata.namespace", &namespace);
        namespace
    }

    pub(super) fn port(&mut self, field: &str, port: i64) -> u16 {
        match u16::try_from(port) {
            Ok(port) if port > 0 => port,
            _ => {
                self.fault(field, format!("{port} is no port: must be 1 to 65535"));
                0
            }
        }
    }

    /// Every address serves every port, which is to stay within reason.
    pub(super) fn endpoints(&mut self, field: &str, addresses: usize, ports: usize) {
        let endpoints = addresses.saturating_mul(ports);
        if endpoints > ENDPOINTS {
            self.fault(
                field,
                format!("{addresses} addresses with {ports} ports make {endpoints} endpoints: must be at most {ENDPOINTS}"),
            );
        }
    }

    pub(super) fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if !address.is_unspecified() && !address.is_multicast() => Some(address),
            Ok(_) => {
                self.fault(field, format!("{text:?} is no address of one machine"));
                None
            }
            Err(_) => {
                self.fault(field, format!("{text:?} is no address: must be IPv4 or IPv6 as in 10.0.0.1 or fd00::1, without a port"));
                None
            }
        }
    }
}

pub(super) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A DNS name in lower case, without a final dot.
pub(super) fn is_dns_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A DNS name, or a SPIFFE ID: trust domain and a path (SPIFFE ID specification, sections 2.1 and 2.2).
pub(super) fn is_identity(identity: &str) -> bool {
    let Some(rest) = identity.strip_prefix("spiffe://") else {
        return is_dns_name(identity);
    };
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let Some((domain, path)) = rest.split_once('/') else {
        return false;
    };
    let domain_is_right = !domain.is_empty()
        && domain
            .bytes()
            .all(|byte| inner(byte) && !byte.is_ascii_uppercase());
    identity.len() <= 2048
        && domain_is_right
        && path
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(inner))
}

/// `10m`, `24h`, `1h30m`, `500ms`: hours, minutes, seconds and milliseconds, each at most once and in
/// this order, as Gateway API durations (GEP-2257).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let Some(after) = after.strip_prefix(unit) else {
            continue;
        };
        if unit == "m" && after.starts_with('s') {
            continue;
        }
        if number.is_empty() || number.len() > 5 {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        total += Duration::from_millis(number * length);
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("10m", 600.0),
            ("24h", 86_400.0),
            ("1h30m", 5400.0),
            ("1h2m3s4ms", 3723.004),
            ("500ms", 0.5),
            ("0s", 0.0),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "h",
            "10x",
            "30m1h",
            "1m1m",
            "-1s",
            "1.5h",
            "1h ",
            "100000h",
            "9999999999999999999999s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn identities() {
        for right in [
            "web.default.serviceaccount.identity.linkerd.cluster.local",
            "web",
            "spiffe://example.org/ns/shop/sa/web",
        ] {
            assert!(is_identity(right), "{right}");
        }
        for wrong in [
            "",
            "Web",
            "web.",
            "web/x",
            "spiffe://",
            "spiffe://x",
            "spiffe://x/",
            "spiffe://X/a",
            "spiffe://x/a//b",
            "spiffe://x/../b",
            "spiffe://x/a?b",
            "https://x/a",
        ] {
            assert!(!is_identity(wrong), "{wrong}");
        }
    }
}
