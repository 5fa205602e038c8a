//! Which port of its own address a proxy takes calls to a service on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_discovery::{Name, Service};

/// Where a proxy takes plain HTTP proxy requests.
pub(crate) const HTTP_PROXY: u16 = 15_000;
/// Where a proxy answers about itself: on one of the two, so that the next can run beside it before it ends.
pub(crate) const ADMIN: [u16; 2] = [4_191, 4_192];
const FIRST: u16 = 15_001;
const LAST: u16 = 15_999;

/// A port of a service: the service and the number that callers use.
pub(crate) type ServicePortKey = (Name, u16);

/// The same for every proxy. Services in order of name get ports in order; a port once given stays for as long as this
/// value lives, so that adding a service moves no other, and one that comes back is where it was. What still calls a service
/// that is gone must not reach another: its port is given away only when there is no other, that of the longest gone first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listeners {
    ports: BTreeMap<ServicePortKey, u16>,
    /// Of services that are gone, the longest gone first.
    left: VecDeque<(ServicePortKey, u16)>,
}

impl Listeners {
    /// Gives each port of `services` a listener, and those of no others.
    ///
    /// # Errors
    /// How many are wanted, when there are not as many.
    pub(crate) fn assign(&mut self, services: &[Service]) -> Result<(), usize> {
        let wanted: BTreeSet<ServicePortKey> = services
            .iter()
            .flat_map(|service| service.ports.iter().map(|port| (service.id(), port.port)))
            .collect();
        if wanted.len() > usize::from(LAST - FIRST) + 1 {
            return Err(wanted.len());
        }
        let gone: Vec<_> = self
            .ports
            .extract_if(.., |key, _| !wanted.contains(key))
            .collect();
        self.left.extend(gone);
        for key in &wanted {
            if let Some(place) = self.left.iter().position(|(left, _)| left == key)
                && let Some((key, port)) = self.left.remove(place)
            {
                self.ports.insert(key, port);
            }
        }
        let left = self.left.iter().map(|(_, port)| *port);
        let known: BTreeSet<u16> = self.ports.values().copied().chain(left).collect();
        let mut fresh = (FIRST..=LAST).filter(|port| !known.contains(port));
        for key in wanted {
            if self.ports.contains_key(&key) {
                continue;
            }
            let port = fresh
                .next()
                .or_else(|| self.left.pop_front().map(|(_, port)| port))
                .ok_or(self.ports.len() + 1)?;
            self.ports.insert(key, port);
        }
        Ok(())
    }

    /// The listener for a service's port.
    pub(crate) fn of(&self, service: &Service, port: u16) -> Option<u16> {
        self.ports.get(&(service.id(), port)).copied()
    }
}

#[cfg(test)]
mod tests {
    use mesh_discovery::ServicePort;

    use super::*;

    fn service(name: &str, ports: &[u16]) -> Service {
        let mut service = Service::new("default", name);
        service.ports = ports.iter().map(|port| ServicePort::new(*port)).collect();
        service
    }

    #[test]
    fn the_same_services_get_the_same_ports_in_any_order() {
        let (web, echo) = (service("web", &[80, 443]), service("echo", &[7]));
        let (mut one, mut other) = (Listeners::default(), Listeners::default());
        one.assign(&[web.clone(), echo.clone()]).unwrap();
        other.assign(&[echo.clone(), web.clone()]).unwrap();
        assert_eq!(one, other);
        assert_eq!(
            (one.of(&echo, 7), one.of(&web, 80), one.of(&web, 443)),
            (Some(15_001), Some(15_002), Some(15_003))
        );
    }

    #[test]
    fn a_new_service_moves_no_other_and_one_that_comes_back_is_where_it_was() {
        let (web, echo, api) = (
            service("web", &[80]),
            service("echo", &[7]),
            service("api", &[80]),
        );
        let mut listeners = Listeners::default();
        listeners.assign(&[web.clone(), echo.clone()]).unwrap();
        listeners.assign(&[web.clone(), api.clone()]).unwrap();
        assert_eq!(
            (listeners.of(&web, 80), listeners.of(&api, 80)),
            (Some(15_002), Some(15_003))
        );
        assert_eq!(listeners.of(&echo, 7), None);
        listeners.assign(&[web.clone(), echo.clone()]).unwrap();
        assert_eq!(
            (listeners.of(&web, 80), listeners.of(&echo, 7)),
            (Some(15_002), Some(15_001))
        );
    }

    #[test]
    fn when_there_are_no_other_ports_those_of_the_longest_gone_are_given_away() {
        let of = |name: &str, ports: std::ops::RangeInclusive<u16>| {
            service(name, &ports.collect::<Vec<_>>())
        };
        let mut listeners = Listeners::default();
        listeners.assign(&[of("a", 1..=500)]).unwrap();
        listeners.assign(&[of("b", 1..=499)]).unwrap();
        let new = of("c", 1..=2);
        listeners.assign(std::slice::from_ref(&new)).unwrap();
        assert_eq!(
            (listeners.of(&new, 1), listeners.of(&new, 2)),
            (Some(15_001), Some(15_002))
        );
        let all = of("d", 1..=999);
        listeners.assign(std::slice::from_ref(&all)).unwrap();
        let given: BTreeSet<_> = (1..=999).map(|port| listeners.of(&all, port)).collect();
        assert_eq!(given.len(), 999);
    }

    #[test]
    fn too_many_are_refused() {
        let many = service("many", &(1..=1_000).collect::<Vec<_>>());
        assert_eq!(Listeners::default().assign(&[many]), Err(1_000));
    }
}
