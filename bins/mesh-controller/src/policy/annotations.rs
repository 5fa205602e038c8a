//! Settings that ride on a Service as annotations.

use mesh_discovery::{Name, Registry, Service, ServicePort};
use thiserror::Error;

pub(super) const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";
pub(super) const DEFAULT_INBOUND_POLICY: &str = "config.linkerd.io/default-inbound-policy";

/// An annotation whose value is not understood. The default stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "Service {service}: the annotation {annotation} is `{value}`: {reason}; its default is in force"
)]
pub(crate) struct AnnotationError {
    /// The service that carries it.
    pub service: Name,
    /// Its key.
    pub annotation: String,
    /// Its value.
    pub value: String,
    /// What would be right.
    pub reason: String,
}

/// A range of ports, or a port by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    Range(u16, u16),
    Name(String),
}

impl Ports {
    pub(super) fn contains(&self, port: &ServicePort) -> bool {
        match self {
            Self::Range(from, to) => (*from..=*to).contains(&port.port),
            Self::Name(name) => port.name.as_ref() == Some(name),
        }
    }
}

/// Everything that is wrong in the annotations of a registry's services.
pub(crate) fn annotation_errors(registry: &Registry) -> Vec<AnnotationError> {
    registry
        .services()
        .flat_map(|service| of_service(service.spec()))
        .collect()
}

fn of_service(service: &Service) -> Vec<AnnotationError> {
    let mut errors = Vec::new();
    let mut wrong = |annotation: &str, value: &str, reason: String| {
        errors.push(AnnotationError {
            service: service.id(),
            annotation: annotation.to_owned(),
            value: value.to_owned(),
            reason,
        });
    };
    if let Some(value) = service.annotations.get(OPAQUE_PORTS)
        && let Err(reason) = opaque_ports(value)
    {
        wrong(OPAQUE_PORTS, value, reason);
    }
    errors
}

/// Reads `25,3306-3310,redis`.
pub(super) fn opaque_ports(text: &str) -> Result<Vec<Ports>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let range = part.split_once('-').unwrap_or((part, part));
            if let (Ok(from), Ok(to)) = (range.0.parse::<u16>(), range.1.parse::<u16>()) {
                if from == 0 || from > to {
                    return Err(format!("`{part}` is no range of ports"));
                }
                return Ok(Ports::Range(from, to));
            }
            // RFC 6335 section 5.1: a port's name has at least one letter and at most 15 characters.
            let named = part.len() <= 15
                && part.bytes().any(|b| b.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if named {
                return Ok(Ports::Name(part.to_owned()));
            }
            Err(format!(
                "`{part}` is neither a port, a range such as 3306-3310, nor a port's name"
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_discovery::Change;

    #[test]
    fn ports_are_read_as_numbers_ranges_and_names() {
        assert_eq!(
            opaque_ports("25, 3306-3310,redis,").unwrap(),
            [
                Ports::Range(25, 25),
                Ports::Range(3306, 3310),
                Ports::Name("redis".into())
            ]
        );
        for text in ["0", "5-4", "70000", "a b", "-"] {
            assert!(opaque_ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_wrong_annotation_is_reported_with_its_value() {
        let mut service = Service::new("d", "s");
        for (key, value) in [(OPAQUE_PORTS, "x y"), ("other.example/thing", "x y")] {
            service.annotations.insert(key.into(), value.into());
        }
        let mut registry = Registry::new(());
        registry.apply([Change::SetService(service)]);
        let errors = annotation_errors(&registry);
        let values: Vec<_> = errors.iter().map(|error| error.value.as_str()).collect();
        assert_eq!(values, ["x y"]);
    }
}
