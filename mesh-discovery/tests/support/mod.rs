//! Resources in few words, an encoding in lines of text, and a subscriber that replays it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;
use mesh_discovery::{
    Encode, Endpoint, Name, Registry, Service, ServicePort, TargetPort, View, Workload,
    WorkloadPort,
};

/// One line for each endpoint: `+ address metadata`, `- address`, `0 exists`.
#[derive(Debug)]
pub struct Lines;

impl Encode for Lines {
    fn add(&self, _: &View, endpoints: &[Endpoint<'_>]) -> Bytes {
        assert!(!endpoints.is_empty());
        let lines = endpoints
            .iter()
            .map(|endpoint| format!("+ {} {}\n", endpoint.address(), metadata(endpoint)));
        lines.collect::<String>().into()
    }

    fn remove(&self, _: &View, addresses: &[SocketAddr]) -> Bytes {
        assert!(!addresses.is_empty());
        let lines = addresses.iter().map(|address| format!("- {address}\n"));
        lines.collect::<String>().into()
    }

    fn no_endpoints(&self, _: &View, exists: bool) -> Bytes {
        format!("0 {exists}\n").into()
    }
}

/// Everything an endpoint carries, as one word.
pub fn metadata(endpoint: &Endpoint<'_>) -> String {
    format!("{endpoint:?}").replace(' ', "")
}

/// What a subscriber knows after the messages it got.
#[derive(Debug, Default, PartialEq)]
pub struct Replica {
    pub endpoints: BTreeMap<SocketAddr, String>,
    /// The last `no_endpoints`, unless endpoints came after it.
    pub empty: Option<bool>,
}

impl Replica {
    pub fn replay(&mut self, messages: &[Bytes]) {
        for message in messages {
            for line in std::str::from_utf8(message).unwrap().lines() {
                match line.split(' ').collect::<Vec<_>>()[..] {
                    ["+", address, metadata] => {
                        self.endpoints
                            .insert(address.parse().unwrap(), metadata.to_owned());
                        self.empty = None;
                    }
                    ["-", address] => {
                        self.endpoints.remove(&address.parse().unwrap());
                    }
                    ["0", exists] => {
                        self.endpoints.clear();
                        self.empty = Some(exists == "true");
                    }
                    _ => panic!("{line:?}"),
                }
            }
        }
    }
}

/// What a subscriber of the view must know.
pub fn expected(registry: &Registry, view: &View) -> Replica {
    let endpoints: BTreeMap<_, _> = registry
        .endpoints(view)
        .iter()
        .map(|endpoint| (endpoint.address(), metadata(endpoint)))
        .collect();
    let exists = registry
        .service(&view.service)
        .is_some_and(|service| service.port(view.port).is_some());
    Replica {
        empty: endpoints.is_empty().then_some(exists),
        endpoints,
    }
}

pub fn workload(name: &str, address: &str, port: u16) -> Workload {
    let mut workload = Workload::new("shop", name);
    workload.labels = [("app".to_owned(), "web".to_owned())].into();
    workload.addresses = vec![address.parse().unwrap()];
    workload.ports = vec![WorkloadPort {
        name: Some("http".to_owned()),
        ..WorkloadPort::new(port)
    }];
    workload
}

pub fn service() -> Service {
    let mut service = Service::new("shop", "web");
    service.selector = [("app".to_owned(), "web".to_owned())].into();
    service.ports = vec![ServicePort {
        target_port: TargetPort::Name("http".to_owned()),
        ..ServicePort::new(80)
    }];
    service
}

pub fn view() -> View {
    View::new(Name::new("shop", "web"), 80)
}
