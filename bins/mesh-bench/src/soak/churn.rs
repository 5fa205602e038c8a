//! The mesh that is soaked: one service, endpoints that come and go, leaves that live for seconds.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::error::Error;
use crate::peers::{Control, identity};
use crate::stage::Ground;

/// How many endpoints there are when all are there. The first always is.
pub(super) const ENDPOINTS: u16 = 4;
/// How long leaves live: short, so that they are renewed many times.
pub(super) const LEAF_LIFETIME_SECONDS: u64 = 20;
/// Where the client's proxy answers about itself.
pub(super) const CLIENT_ADMIN: u16 = 4191;

/// Which endpoints are there now.
#[derive(Debug)]
pub(super) struct Churn {
    watched: PathBuf,
    address: Ipv4Addr,
    endpoints: Endpoints,
    /// How often one came or went.
    pub(super) steps: u32,
}

impl Churn {
    pub(super) fn new(ground: &Ground, control: &Control) -> Result<Self, Error> {
        Ok(Self {
            watched: control.folder.join("manifests"),
            address: ground.network.server.address(),
            endpoints: Endpoints::default(),
            steps: 0,
        })
    }

    /// Declares an endpoint.
    ///
    /// # Errors
    /// If its manifest cannot be written.
    pub(super) fn publish(&self, number: u16) -> Result<(), Error> {
        let name = name(number);
        let [http, tcp] = mesh_ports(number);
        let manifest = format!(
            "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\n\
             metadata: {{name: {name}, namespace: default, labels: {{app: web}}}}\n\
             spec:\n  identity: {}\n  addresses: [{}]\n  ports:\n\
             \x20 - {{name: http, port: {}, meshPort: {http}, protocol: http}}\n\
             \x20 - {{name: tcp, port: {}, meshPort: {tcp}, protocol: opaque}}\n",
            identity(&name),
            self.address,
            Ground::local_http().port(),
            Ground::local_tcp().port(),
        );
        // Whoever watches the folder sees all of it or nothing.
        let scratch = self.watched.with_file_name("manifest.new");
        std::fs::write(&scratch, manifest).map_err(Error::file(&scratch))?;
        let file = self.file(number);
        std::fs::rename(&scratch, &file).map_err(Error::file(file))?;
        Ok(())
    }

    /// Takes one endpoint away, or brings one back.
    ///
    /// # Errors
    /// If a manifest cannot be written or removed.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        self.steps += 1;
        match self.endpoints.next() {
            Step::Publish(number) => self.publish(number),
            Step::Withdraw(number) => {
                let file = self.file(number);
                std::fs::remove_file(&file).map_err(Error::file(file))
            }
        }
    }

    /// What the proxy of an endpoint is told beside the usual.
    pub(super) fn inbound(&self, number: u16) -> String {
        let [http, tcp] = mesh_ports(number);
        format!(
            "[inbound]\nports = [\n  {{ listen = \"{address}:{http}\", app = \"{}\" }},\n\
             \x20 {{ listen = \"{address}:{tcp}\", app = \"{}\" }},\n]\n\n[admin]\nlisten = \"127.0.0.1:{}\"\n",
            Ground::local_http(),
            Ground::local_tcp(),
            admin(number),
            address = self.address,
        )
    }

    fn file(&self, number: u16) -> PathBuf {
        self.watched.join(format!("{}.yaml", name(number)))
    }
}

/// Who is there and who is away, but for the first; the longest so first.
#[derive(Debug)]
struct Endpoints {
    there: VecDeque<u16>,
    away: VecDeque<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Publish(u16),
    Withdraw(u16),
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            there: (2..=ENDPOINTS).collect(),
            away: VecDeque::new(),
        }
    }
}

impl Endpoints {
    /// Two go away; from then on, one comes back and another goes.
    fn next(&mut self) -> Step {
        if self.away.len() == 2
            && let Some(number) = self.away.pop_front()
        {
            self.there.push_back(number);
            return Step::Publish(number);
        }
        let number = self.there.pop_front().unwrap_or(ENDPOINTS);
        self.away.push_back(number);
        Step::Withdraw(number)
    }
}

/// The service and the mesh's settings.
pub(super) fn manifests() -> String {
    format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh}}\n\
         spec: {{trustDomain: cluster.local, leafLifetime: {LEAF_LIFETIME_SECONDS}s}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\n\
         spec:\n  selector: {{app: web}}\n  ports:\n\
         \x20 - {{name: http, port: 81, targetPort: {}}}\n\x20 - {{name: tcp, port: 82, targetPort: {}}}\n",
        Ground::local_http().port(),
        Ground::local_tcp().port(),
    )
}

/// What the client's proxy is told beside the usual.
pub(super) fn outbound() -> String {
    let service = "web.default.svc.cluster.local";
    format!(
        "[outbound]\nservices = [\n  {{ listen = \"{}\", authority = \"{service}:81\" }},\n\
         \x20 {{ listen = \"{}\", authority = \"{service}:82\" }},\n]\n\n[admin]\nlisten = \"127.0.0.1:{CLIENT_ADMIN}\"\n",
        http(),
        tcp()
    )
}

/// The workload behind an endpoint.
pub(super) fn name(number: u16) -> String {
    format!("web-{number}")
}

/// Where the client asks.
pub(super) fn http() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 3_001).into()
}

/// Where the client sends bytes.
pub(super) fn tcp() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 3_002).into()
}

/// Where the proxy of an endpoint answers about itself.
pub(super) fn admin(number: u16) -> u16 {
    4_191 + number
}

fn mesh_ports(number: u16) -> [u16; 2] {
    [3_100 + 10 * number, 3_101 + 10 * number]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_but_the_first_goes_and_comes_back() {
        let mut endpoints = Endpoints::default();
        let mut steps = Vec::new();
        for _ in 0..12 {
            steps.push(endpoints.next());
            let both = endpoints.there.len() + endpoints.away.len();
            assert_eq!(both, usize::from(ENDPOINTS) - 1, "{endpoints:?}");
            assert!(!endpoints.there.is_empty(), "{endpoints:?}");
        }
        for number in 2..=ENDPOINTS {
            let times = |step| steps.iter().filter(|one| **one == step).count();
            assert!(times(Step::Withdraw(number)) >= 2, "{steps:?}");
            assert!(times(Step::Publish(number)) >= 1, "{steps:?}");
        }
    }
}
