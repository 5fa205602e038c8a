//! What endpoints of one service have in common, kept once: whom to expect there, and most of their labels.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use mesh_tls::Identity;
use rustls::pki_types::ServerName;

use crate::model::Endpoint;

/// What the endpoints that were shared consist of. What none of them has any more is forgotten in time.
#[derive(Debug, Default)]
pub(super) struct Interned {
    strings: HashSet<Arc<str>>,
    expected: HashSet<Arc<(Identity, ServerName<'static>)>>,
    /// The size at which what nobody has any more is looked for again.
    sweep_at: usize,
}

impl Interned {
    /// `endpoint`, which has in common with others what is equal.
    pub(super) fn share(&mut self, mut endpoint: Endpoint) -> Arc<Endpoint> {
        for (name, value) in &mut endpoint.labels {
            one(&mut self.strings, name);
            one(&mut self.strings, value);
        }
        if let Some(zone) = &mut endpoint.zone {
            one(&mut self.strings, zone);
        }
        if let Some(expected) = &mut endpoint.identity {
            one(&mut self.expected, expected);
        }
        if self.len() > self.sweep_at {
            self.strings.retain(is_used);
            self.expected.retain(is_used);
            self.sweep_at = 2 * self.len() + 64;
        }
        Arc::new(endpoint)
    }

    fn len(&self) -> usize {
        self.strings.len() + self.expected.len()
    }
}

/// Makes `value` the one that is `known`, if an equal one is.
fn one<T: Eq + Hash + ?Sized>(known: &mut HashSet<Arc<T>>, value: &mut Arc<T>) {
    match known.get(value) {
        Some(known) => value.clone_from(known),
        None => {
            known.insert(value.clone());
        }
    }
}

/// Whether anybody else has it.
fn is_used<T: ?Sized>(value: &Arc<T>) -> bool {
    Arc::strong_count(value) > 1
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn endpoint(number: u16) -> Endpoint {
        let name = ServerName::try_from("web.test").unwrap();
        Endpoint {
            identity: Some(Arc::new((Identity::parse("web.test").unwrap(), name))),
            zone: Some("east".into()),
            labels: vec![
                ("namespace".into(), "default".into()),
                ("pod".into(), format!("web-{number}").into()),
            ],
            ..Endpoint::plain(SocketAddr::from(([10, 0, 0, 1], number)))
        }
    }

    #[test]
    fn what_is_equal_is_there_once() {
        let mut interned = Interned::default();
        let [a, b] = [1, 2].map(|number| interned.share(endpoint(number)));
        assert_eq!((&*a, &*b), (&endpoint(1), &endpoint(2)), "nothing changes");
        assert!(Arc::ptr_eq(
            a.identity.as_ref().unwrap(),
            b.identity.as_ref().unwrap()
        ));
        assert!(Arc::ptr_eq(
            a.zone.as_ref().unwrap(),
            b.zone.as_ref().unwrap()
        ));
        assert!(Arc::ptr_eq(&a.labels[0].1, &b.labels[0].1));
        assert_ne!(a.labels[1], b.labels[1]);
    }

    #[test]
    fn endpoints_that_come_and_go_leave_nothing() {
        let mut interned = Interned::default();
        let kept = interned.share(endpoint(0));
        for number in 1..2_000 {
            interned.share(endpoint(number));
            assert!(interned.len() < 200, "{}", interned.len());
        }
        let again = interned.share(endpoint(0));
        assert!(Arc::ptr_eq(&kept.labels[1].1, &again.labels[1].1));
    }
}
