//! Which resource holds which address and port. Nobody can put itself in another's place.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
};

use super::{
    document::{Node, Place},
    kinds::{Resource, WorkloadManifest},
    parse::Key,
};
use crate::resource::{Service, Workload};

/// An address as a manifest states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) address: IpAddr,
    pub(super) field: String,
    pub(super) place: Place,
}

/// What a resource does not get, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) at: SocketAddr,
    pub(super) holder: Key,
}

/// What of a sorted list concerns this address, first of its ports.
pub(super) fn refused_at(refused: &[Refused], address: IpAddr) -> Option<&Refused> {
    let from = refused.partition_point(|refused| refused.at.ip() < address);
    refused.get(from).filter(|first| first.at.ip() == address)
}

/// Who holds and who waits. Holders stay until they give up. Of an address, one holds every port that it wants or none.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Never empty, and no two exclude each other.
    held: HashMap<SocketAddr, Vec<Key>>,
    waiting: HashMap<SocketAddr, BTreeSet<Key>>,
}

impl Addresses {
    /// Gives up what `key` had or waited for and does not want any more. Adds to `again` those who waited for it.
    pub(super) fn release(
        &mut self,
        key: &Key,
        had: &BTreeSet<SocketAddr>,
        wants: &BTreeSet<SocketAddr>,
        again: &mut BTreeSet<Key>,
    ) {
        for &at in had.difference(wants) {
            self.stop_waiting(key, at);
            self.give_up(key, at, again);
        }
    }

    /// Takes for `key` the addresses of which nobody who excludes it holds a port that it wants, and says which ports of the
    /// others are held, sorted. Of those others it holds nothing, as it is reached at none of their ports: what it held is
    /// given up, and who waited for that is added to `again`.
    pub(super) fn take(
        &mut self,
        key: &Key,
        wants: &BTreeSet<SocketAddr>,
        again: &mut BTreeSet<Key>,
    ) -> Vec<Refused> {
        let refusal = |&at: &SocketAddr| {
            let held = self.held.get(&at).filter(|held| !held.contains(key))?;
            let holder = held.iter().find(|holder| excludes(holder, key))?.clone();
            Some(Refused { at, holder })
        };
        let refused: Vec<_> = wants.iter().filter_map(refusal).collect();
        for &at in wants {
            self.stop_waiting(key, at);
            if refused_at(&refused, at.ip()).is_some() {
                self.give_up(key, at, again);
                continue;
            }
            let held = self.held.entry(at).or_default();
            if !held.contains(key) {
                held.push(key.clone());
            }
        }
        for Refused { at, .. } in &refused {
            self.waiting.entry(*at).or_default().insert(key.clone());
        }
        refused
    }

    fn stop_waiting(&mut self, key: &Key, at: SocketAddr) {
        if let Entry::Occupied(mut waiting) = self.waiting.entry(at) {
            waiting.get_mut().remove(key);
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
    }

    fn give_up(&mut self, key: &Key, at: SocketAddr, again: &mut BTreeSet<Key>) {
        let Entry::Occupied(mut held) = self.held.entry(at) else {
            return;
        };
        let Some(index) = held.get().iter().position(|holder| holder == key) else {
            return;
        };
        held.get_mut().swap_remove(index);
        if held.get().is_empty() {
            held.remove();
        }
        again.extend(self.waiting.get(&at).into_iter().flatten().cloned());
    }
}

/// A service may stand at the address of a workload of its own namespace, which is another way to reach it.
fn excludes(holder: &Key, key: &Key) -> bool {
    match (holder, key) {
        (Key::Service(holder), Key::Workload(other))
        | (Key::Workload(holder), Key::Service(other)) => holder.namespace != other.namespace,
        _ => true,
    }
}

impl Resource {
    /// Where it is reached: a service at its virtual addresses, a workload as an application and through its proxy.
    pub(super) fn reached_at(&self) -> BTreeSet<SocketAddr> {
        let (addresses, ports): (_, Vec<u16>) = match self {
            Self::Service(service) => (
                &service.cluster_ips,
                service.ports.iter().map(|port| port.port).collect(),
            ),
            Self::Workload(workload) => (
                &workload.stated.addresses,
                (workload.stated.ports.iter())
                    .flat_map(|port| [Some(port.port), port.mesh_port])
                    .flatten()
                    .collect(),
            ),
            Self::MeshConfig(_) => return BTreeSet::new(),
        };
        let at = |&address: &IpAddr| {
            ports
                .iter()
                .map(move |&port| SocketAddr::new(address, port))
        };
        addresses.iter().flat_map(at).collect()
    }

    /// The resource without the addresses that were refused. Of a workload without any address, nothing is left.
    pub(super) fn without(&self, refused: &[Refused]) -> Option<Self> {
        let free = |addresses: &[IpAddr]| -> Vec<IpAddr> {
            let free = addresses.iter().copied();
            free.filter(|&address| refused_at(refused, address).is_none())
                .collect()
        };
        Some(match self {
            _ if refused.is_empty() => self.clone(),
            Self::Service(service) => Self::Service(Service {
                cluster_ips: free(&service.cluster_ips),
                ..service.clone()
            }),
            Self::Workload(workload) => {
                let addresses = free(&workload.stated.addresses);
                if addresses.is_empty() {
                    return None;
                }
                Self::Workload(WorkloadManifest {
                    stated: Workload {
                        addresses,
                        ..workload.stated.clone()
                    },
                    ..workload.clone()
                })
            }
            Self::MeshConfig(_) => self.clone(),
        })
    }

    /// Where in its document each of its addresses stands.
    pub(super) fn stated_addresses(&self, root: &Node) -> Vec<Stated> {
        let (single, list, addresses) = match self {
            Self::Service(service) => ("spec.clusterIP", "spec.clusterIPs", &service.cluster_ips),
            Self::Workload(workload) => ("", "spec.addresses", &workload.stated.addresses),
            Self::MeshConfig(_) => return Vec::new(),
        };
        let fields = (0..root.nearest(list).len()).map(|index| format!("{list}[{index}]"));
        let mut stated: HashMap<IpAddr, Stated> = HashMap::new();
        for field in std::iter::once(single.to_owned()).chain(fields) {
            let node = root.nearest(&field);
            let text = node.as_text().and_then(|text| text.parse::<IpAddr>().ok());
            if let Some(address) = text.map(|address| address.to_canonical()) {
                stated.entry(address).or_insert(Stated {
                    address,
                    field,
                    place: node.place,
                });
            }
        }
        let own = addresses.iter();
        own.filter_map(|address| stated.remove(address)).collect()
    }
}
