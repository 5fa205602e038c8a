//! Workloads and their endpoints, in rows and columns of small integers.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
};

use hashbrown::HashTable;

use crate::{
    endpoint::Mesh,
    interner::{Interner, LabelSet, Symbol, u32_of},
    resource::{Name, Protocol, TargetPort, Workload},
};

/// Ends a workload's list of endpoints.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) strings: Interner<str>,
    pub(crate) labels: Interner<[(Symbol, Symbol)]>,
    workloads: Vec<Option<WorkloadRow>>,
    free_workloads: Vec<u32>,
    by_name: HashTable<u32>,
    by_namespace: BTreeSet<(Symbol, u32)>,
    endpoints: Columns,
    hasher: RandomState,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkloadRow {
    pub(crate) name: Symbol,
    pub(crate) namespace: Symbol,
    pub(crate) identity: Option<Symbol>,
    pub(crate) zone: Option<Symbol>,
    pub(crate) labels: LabelSet,
    pub(crate) weight: u32,
    pub(crate) meshed: bool,
    pub(crate) ready: bool,
    first: u32,
    /// Moves when anything that its endpoints carry does. Never used twice.
    pub(crate) version: u64,
}

/// One endpoint is one row across all of these: an address and a port of a workload.
#[derive(Debug, Default)]
struct Columns {
    address: Vec<IpAddr>,
    port: Vec<u16>,
    mesh_port: Vec<u16>,
    name: Vec<Option<Symbol>>,
    protocol: Vec<Protocol>,
    workload: Vec<u32>,
    next: Vec<u32>,
    free: Vec<u32>,
    /// Every endpoint under the address of its application and, where that differs, under the one
    /// its proxy is reached at.
    by_address: HashTable<Place>,
}

/// One of the two ports an endpoint answers on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Application(u32),
    Proxy(u32),
}

/// One row of [`Columns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointRow {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// 0 stands for none.
    pub(crate) mesh_port: u16,
    pub(crate) name: Option<Symbol>,
    pub(crate) protocol: Protocol,
}

/// What [`Table::set`] did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    pub(crate) workload: u32,
    pub(crate) changed: bool,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            strings: Interner::new(),
            labels: Interner::new(),
            workloads: Vec::new(),
            free_workloads: Vec::new(),
            by_name: HashTable::new(),
            by_namespace: BTreeSet::new(),
            endpoints: Columns::default(),
            hasher: RandomState::new(),
            clock: 0,
        }
    }

    /// Adds or replaces a workload; its id stays the same while it exists.
    pub(crate) fn set(&mut self, workload: &Workload) -> Set {
        let rows = self.acquire_rows(workload);
        let row = self.acquire_workload(workload);
        let Some(id) = self.find(&workload.namespace, &workload.name) else {
            let id = self.insert(row);
            self.attach(id, &rows);
            return Set {
                workload: id,
                changed: true,
            };
        };
        let Some(old) = self.workloads[id as usize] else {
            return Set {
                workload: id,
                changed: false,
            };
        };
        let same_rows = self
            .rows_of(id)
            .map(|(_, row)| row)
            .eq(rows.iter().copied());
        let same_metadata = same_rows
            && old.identity == row.identity
            && old.zone == row.zone
            && old.weight == row.weight
            && old.meshed == row.meshed;
        let same_place = old.ready == row.ready && old.labels == row.labels;

        if same_rows {
            self.release_rows(&rows);
        } else {
            self.detach(id);
            self.attach(id, &rows);
        }
        let first = self.workloads[id as usize].map_or(NONE, |row| row.first);
        let version = if same_metadata {
            old.version
        } else {
            self.tick()
        };
        self.workloads[id as usize] = Some(WorkloadRow {
            first,
            version,
            ..row
        });
        self.release_workload(&old);
        Set {
            workload: id,
            changed: !(same_metadata && same_place),
        }
    }

    /// The id it had.
    pub(crate) fn remove(&mut self, name: &Name) -> Option<u32> {
        let id = self.find(&name.namespace, &name.name)?;
        self.detach(id);
        let row = self.workloads[id as usize].take()?;
        let hash = self.hasher.hash_one((row.namespace, row.name));
        if let Ok(entry) = self.by_name.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self.by_namespace.remove(&(row.namespace, id));
        self.release_workload(&row);
        self.free_workloads.push(id);
        Some(id)
    }

    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<u32> {
        let key = (self.strings.find(namespace)?, self.strings.find(name)?);
        self.by_name
            .find(self.hasher.hash_one(key), |&id| {
                self.workload(id)
                    .is_some_and(|row| (row.namespace, row.name) == key)
            })
            .copied()
    }

    /// Every workload that serves `address`, as an application or through its proxy, with the endpoint.
    pub(crate) fn at(&self, address: SocketAddr) -> impl Iterator<Item = (u32, EndpointRow)> {
        let columns = &self.endpoints;
        columns
            .by_address
            .iter_hash(self.hasher.hash_one(address))
            .filter_map(move |&place| {
                let (Place::Application(id) | Place::Proxy(id)) = place;
                let row = columns.row(id);
                (row.at(place) == address).then(|| (columns.workload[id as usize], row))
            })
    }

    pub(crate) fn workload(&self, id: u32) -> Option<&WorkloadRow> {
        self.workloads.get(id as usize)?.as_ref()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.by_namespace.iter().map(|&(_, id)| id)
    }

    pub(crate) fn ids_in(&self, namespace: &str) -> impl Iterator<Item = u32> {
        let namespace = self.strings.find(namespace);
        namespace
            .into_iter()
            .flat_map(|namespace| self.by_namespace.range((namespace, 0)..=(namespace, NONE)))
            .map(|&(_, id)| id)
    }

    pub(crate) fn rows_of(&self, workload: u32) -> impl Iterator<Item = (u32, EndpointRow)> {
        let mut next = self.workload(workload).map_or(NONE, |row| row.first);
        std::iter::from_fn(move || {
            let id = next;
            next = *self.endpoints.next.get(id as usize)?;
            Some((id, self.endpoints.row(id)))
        })
    }

    pub(crate) fn row(&self, id: u32) -> EndpointRow {
        self.endpoints.row(id)
    }

    pub(crate) fn workload_of(&self, endpoint: u32) -> u32 {
        self.endpoints.workload[endpoint as usize]
    }

    pub(crate) fn workload_count(&self) -> usize {
        self.by_namespace.len()
    }

    pub(crate) fn endpoint_count(&self) -> usize {
        self.endpoints.next.len() - self.endpoints.free.len()
    }

    pub(crate) fn selects(&self, selector: &[(Symbol, Symbol)], workload: &WorkloadRow) -> bool {
        let labels = self.labels.resolve(workload.labels).unwrap_or_default();
        !selector.is_empty() && selector.iter().all(|pair| labels.contains(pair))
    }

    fn insert(&mut self, row: WorkloadRow) -> u32 {
        let row = WorkloadRow {
            version: self.tick(),
            ..row
        };
        let id = match self.free_workloads.pop() {
            Some(id) => {
                self.workloads[id as usize] = Some(row);
                id
            }
            None => {
                self.workloads.push(Some(row));
                u32_of(self.workloads.len() - 1)
            }
        };
        let Self {
            by_name,
            workloads,
            hasher,
            ..
        } = self;
        by_name.insert_unique(hasher.hash_one((row.namespace, row.name)), id, |&id| {
            let row = workloads[id as usize];
            row.map_or(0, |row| hasher.hash_one((row.namespace, row.name)))
        });
        self.by_namespace.insert((row.namespace, id));
        id
    }

    /// Links rows to a workload that has none, in their order.
    fn attach(&mut self, workload: u32, rows: &[EndpointRow]) {
        let mut next = NONE;
        for row in rows.iter().rev() {
            next = self.endpoints.insert(workload, *row, next);
        }
        if let Some(Some(row)) = self.workloads.get_mut(workload as usize) {
            row.first = next;
        }
        let ids: Vec<u32> = self.rows_of(workload).map(|(id, _)| id).collect();
        for id in ids {
            self.index(id);
        }
    }

    fn index(&mut self, id: u32) {
        let Columns {
            by_address,
            address,
            port,
            mesh_port,
            ..
        } = &mut self.endpoints;
        let hash = |&place: &Place| {
            let (id, port) = match place {
                Place::Application(id) => (id as usize, port[id as usize]),
                Place::Proxy(id) => (id as usize, mesh_port[id as usize]),
            };
            self.hasher.hash_one(SocketAddr::new(address[id], port))
        };
        for place in places(id, port[id as usize], mesh_port[id as usize]) {
            by_address.insert_unique(hash(&place), place, hash);
        }
    }

    fn detach(&mut self, workload: u32) {
        let rows: Vec<(u32, EndpointRow)> = self.rows_of(workload).collect();
        for (id, row) in rows {
            for place in places(id, row.port, row.mesh_port) {
                let hash = self.hasher.hash_one(row.at(place));
                let found = self
                    .endpoints
                    .by_address
                    .find_entry(hash, |&other| other == place);
                if let Ok(entry) = found {
                    entry.remove();
                }
            }
            self.endpoints.remove(id);
            self.release_rows(&[row]);
        }
        if let Some(Some(row)) = self.workloads.get_mut(workload as usize) {
            row.first = NONE;
        }
    }

    fn acquire_workload(&mut self, workload: &Workload) -> WorkloadRow {
        let strings = &mut self.strings;
        let mut symbol = |text: &str| strings.acquire(text).0;
        let name = symbol(&workload.name);
        let namespace = symbol(&workload.namespace);
        let identity = workload.identity.as_deref().map(&mut symbol);
        let zone = workload.zone.as_deref().map(&mut symbol);
        let labels: Vec<_> = workload
            .labels
            .iter()
            .map(|(key, value)| (symbol(key), symbol(value)))
            .collect();
        let (set, new) = self.labels.acquire(&labels[..]);
        if !new {
            self.release_pairs(&labels);
        }
        WorkloadRow {
            name,
            namespace,
            identity,
            zone,
            labels: set,
            weight: workload.weight,
            meshed: workload.meshed,
            ready: workload.ready,
            first: NONE,
            version: 0,
        }
    }

    fn release_workload(&mut self, row: &WorkloadRow) {
        let symbols = [Some(row.name), Some(row.namespace), row.identity, row.zone];
        for symbol in symbols.into_iter().flatten() {
            self.strings.release(symbol);
        }
        if let Some(pairs) = self.labels.release(row.labels) {
            self.release_pairs(&pairs);
        }
    }

    pub(crate) fn release_pairs(&mut self, pairs: &[(Symbol, Symbol)]) {
        for &(key, value) in pairs {
            self.strings.release(key);
            self.strings.release(value);
        }
    }

    fn acquire_rows(&mut self, workload: &Workload) -> Vec<EndpointRow> {
        let mut rows = Vec::with_capacity(workload.ports.len() * workload.addresses.len());
        for port in &workload.ports {
            for &address in &workload.addresses {
                rows.push(EndpointRow {
                    address: address.to_canonical(),
                    port: port.port,
                    mesh_port: port.mesh_port.unwrap_or(0),
                    name: port
                        .name
                        .as_deref()
                        .map(|name| self.strings.acquire(name).0),
                    protocol: port.protocol,
                });
            }
        }
        rows
    }

    fn release_rows(&mut self, rows: &[EndpointRow]) {
        for name in rows.iter().filter_map(|row| row.name) {
            self.strings.release(name);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl Columns {
    fn insert(&mut self, workload: u32, row: EndpointRow, next: u32) -> u32 {
        let EndpointRow {
            address,
            port,
            mesh_port,
            name,
            protocol,
        } = row;
        if let Some(id) = self.free.pop() {
            let at = id as usize;
            self.address[at] = address;
            self.port[at] = port;
            self.mesh_port[at] = mesh_port;
            self.name[at] = name;
            self.protocol[at] = protocol;
            self.workload[at] = workload;
            self.next[at] = next;
            return id;
        }
        self.address.push(address);
        self.port.push(port);
        self.mesh_port.push(mesh_port);
        self.name.push(name);
        self.protocol.push(protocol);
        self.workload.push(workload);
        self.next.push(next);
        u32_of(self.next.len() - 1)
    }

    fn remove(&mut self, id: u32) {
        self.free.push(id);
    }

    fn row(&self, id: u32) -> EndpointRow {
        let at = id as usize;
        EndpointRow {
            address: self.address[at],
            port: self.port[at],
            mesh_port: self.mesh_port[at],
            name: self.name[at],
            protocol: self.protocol[at],
        }
    }
}

impl EndpointRow {
    /// The port others connect to.
    pub(crate) fn published(&self) -> u16 {
        if self.mesh_port == 0 {
            self.port
        } else {
            self.mesh_port
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.published())
    }

    pub(crate) fn mesh(&self, workload_meshed: bool) -> Mesh {
        match (self.mesh_port, workload_meshed) {
            (0, false) => Mesh::Plain,
            (0, true) => Mesh::Inbound,
            _ => Mesh::Listener,
        }
    }

    pub(crate) fn answers(&self, target: &TargetPort, strings: &Interner<str>) -> bool {
        match target {
            TargetPort::Number(number) => self.port == *number,
            TargetPort::Name(name) => self.name.is_some_and(|symbol| strings.text(symbol) == name),
        }
    }

    fn at(&self, place: Place) -> SocketAddr {
        let port = match place {
            Place::Application(_) => self.port,
            Place::Proxy(_) => self.mesh_port,
        };
        SocketAddr::new(self.address, port)
    }
}

fn places(id: u32, port: u16, mesh_port: u16) -> impl Iterator<Item = Place> {
    let proxy = (mesh_port != 0 && mesh_port != port).then_some(Place::Proxy(id));
    std::iter::once(Place::Application(id)).chain(proxy)
}
