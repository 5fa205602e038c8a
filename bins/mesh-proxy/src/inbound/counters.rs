//! The counters of requests by route, so that none is looked up by its labels for each request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use mesh_metrics::HttpHandle;
use mesh_policy::Meta;
use mesh_policy::inbound::ServerPolicy;

/// One worker's counters, by port: those of the policy that was in force when the port was last asked about.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    ports: RefCell<HashMap<u16, OfPolicy>>,
}

/// What a policy's routes are counted by. As the policy is kept, a route's address is nobody else's.
#[derive(Debug)]
struct OfPolicy {
    policy: Arc<ServerPolicy>,
    routes: Vec<(*const Meta, HttpHandle)>,
}

impl Counters {
    /// The counter of `route` of `policy`, which is in force at `port`; the first time it is what `resolve` gives.
    pub(super) fn of(
        &self,
        port: u16,
        policy: &Arc<ServerPolicy>,
        route: Option<&Arc<Meta>>,
        resolve: impl FnOnce() -> HttpHandle,
    ) -> HttpHandle {
        let mut ports = self.ports.borrow_mut();
        if ports.len() >= PORTS && !ports.contains_key(&port) {
            ports.clear();
        }
        let fresh = || OfPolicy {
            policy: Arc::clone(policy),
            routes: Vec::new(),
        };
        let known = ports.entry(port).or_insert_with(fresh);
        if !Arc::ptr_eq(&known.policy, policy) {
            *known = fresh();
        }
        let key = route.map_or(ptr::null(), Arc::as_ptr);
        if let Some((_, counter)) = known.routes.iter().find(|(route, _)| *route == key) {
            return counter.clone();
        }
        let counter = resolve();
        // No more than the policy has routes, and one for requests that none takes.
        known.routes.push((key, counter.clone()));
        counter
    }
}

/// Ports at most. Beyond, all are resolved anew.
const PORTS: usize = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_metrics::{Metrics, RouteLabels};
    use mesh_policy::inbound::DefaultPolicy;

    use super::*;

    fn policy() -> Arc<ServerPolicy> {
        let timeout = Duration::from_secs(1);
        Arc::new(ServerPolicy::from_default(
            DefaultPolicy::Deny,
            &[],
            timeout,
        ))
    }

    #[test]
    fn a_counter_is_resolved_once_for_each_route_of_a_policy() {
        let metrics = Metrics::proxy("test");
        let (counters, resolved) = (Counters::default(), RefCell::new(Vec::new()));
        let ask = |name: &'static str, policy: &Arc<ServerPolicy>, route: Option<&Arc<Meta>>| {
            counters.of(80, policy, route, || {
                resolved.borrow_mut().push(name);
                metrics.families.inbound_http.route(&RouteLabels::default())
            })
        };
        let (first, second) = (policy(), policy());
        let (a, b) = (
            Arc::new(Meta::default_named("a")),
            Arc::new(Meta::default_named("b")),
        );
        for _ in 0..2 {
            ask("a", &first, Some(&a));
            ask("b", &first, Some(&b));
            ask("none", &first, None);
        }
        assert_eq!(resolved.take(), ["a", "b", "none"]);
        // A route of the next policy may lie where one of the last did.
        ask("a again", &second, Some(&a));
        ask("a again", &second, Some(&a));
        assert_eq!(resolved.take(), ["a again"]);
    }

    #[test]
    fn as_many_ports_as_there_are_take_no_more_room() {
        let metrics = Metrics::proxy("test");
        let counters = Counters::default();
        let policy = policy();
        for port in 0..=u16::MAX {
            let resolve = || metrics.families.inbound_http.route(&RouteLabels::default());
            counters.of(port, &policy, None, resolve);
            assert!(counters.ports.borrow().len() <= PORTS);
        }
    }
}
