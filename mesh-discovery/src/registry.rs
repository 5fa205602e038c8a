//! The registry itself: one writer, and everything that can be asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    encode::Encode,
    endpoint::Endpoint,
    interner::{Symbol, u32_of},
    lookup::{ServiceRef, WorkloadRef},
    resource::{Change, Name, Service, ServicePort, Workload},
    table::{Set, Table},
    view::{History, Position, Present, Update, View, ViewId},
};

/// Services, workloads, and the endpoints they make. A value: no clock, no I/O, no locks.
///
/// Whoever owns it writes; the feature `tokio` shares it between one writer and many readers.
pub struct Registry {
    encode: Arc<dyn Encode>,
    table: Table,
    services: BTreeMap<Name, ServiceRow>,
    cluster_ips: BTreeSet<(IpAddr, Name)>,
    views: Vec<Option<History>>,
    free_views: Vec<u32>,
    /// Ordered, so that a service's views are neighbours and [`View::new`] of port 0 is their first.
    by_view: BTreeMap<View, u32>,
    generation: u32,
    version: u64,
}

/// A service with the ids of the workloads it selects.
#[derive(Debug)]
pub(crate) struct ServiceRow {
    pub(crate) service: Service,
    selector: Vec<(Symbol, Symbol)>,
    pub(crate) members: BTreeSet<u32>,
}

/// What a batch of changes came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Applied {
    /// True when anything is not as it was before.
    pub changed: bool,
    /// The open views whose subscribers have something to read, each once.
    pub views: Vec<ViewId>,
}

impl Registry {
    /// An empty registry whose updates are written by `encode`.
    pub fn new(encode: impl Encode) -> Self {
        Self {
            encode: Arc::new(encode),
            table: Table::new(),
            services: BTreeMap::new(),
            cluster_ips: BTreeSet::new(),
            views: Vec::new(),
            free_views: Vec::new(),
            by_view: BTreeMap::new(),
            generation: 0,
            version: 0,
        }
    }

    /// Applies changes as one step: views move on once, from the state before all of them to the
    /// state after.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Applied {
        let mut dirty = BTreeSet::new();
        let mut changed = false;
        for change in changes {
            changed |= match change {
                Change::SetWorkload(workload) => self.set_workload(&workload, &mut dirty),
                Change::RemoveWorkload(name) => self.remove_workload(&name, &mut dirty),
                Change::SetService(service) => self.set_service(service, &mut dirty),
                Change::RemoveService(name) => self.remove_service(&name, &mut dirty),
            };
        }
        if !changed {
            return Applied::default();
        }
        self.version += 1;
        let views = self.refresh(&dirty);
        Applied { changed, views }
    }

    /// Opens a view, computing it when nobody has it open yet.
    pub fn open(&mut self, view: View) -> ViewId {
        if let Some(&index) = self.by_view.get(&view)
            && let Some(Some(history)) = self.views.get_mut(index as usize)
        {
            history.subscribers += 1;
            let generation = history.generation;
            return ViewId { index, generation };
        }
        self.generation = self.generation.wrapping_add(1);
        let mut history = History::new(view.clone(), self.generation);
        let (exists, present) = self.look(&view);
        history.advance(exists, present);
        history.subscribers = 1;
        let index = match self.free_views.pop() {
            Some(index) => {
                self.views[index as usize] = Some(history);
                index
            }
            None => {
                self.views.push(Some(history));
                u32_of(self.views.len() - 1)
            }
        };
        self.by_view.insert(view, index);
        ViewId {
            index,
            generation: self.generation,
        }
    }

    /// Closes a view opened before. True when it was the last of its kind and the view is forgotten.
    pub fn close(&mut self, id: ViewId) -> bool {
        let Some(Some(history)) = self.views.get_mut(id.index as usize) else {
            return false;
        };
        if history.generation != id.generation {
            return false;
        }
        history.subscribers -= 1;
        if history.subscribers > 0 {
            return false;
        }
        self.by_view.remove(&history.view);
        self.views[id.index as usize] = None;
        self.free_views.push(id.index);
        true
    }

    /// What a subscriber at `position` of an open view has not read yet; `None` when there is nothing,
    /// or the view is closed.
    pub fn updates(&self, id: ViewId, position: Position) -> Option<Update> {
        self.history(id)?
            .since(position, &self.table, &*self.encode)
    }

    /// Moves with every batch that changed anything.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The endpoints of a view, by address.
    pub fn endpoints(&self, view: &View) -> Vec<Endpoint<'_>> {
        let (_, present) = self.look(view);
        present
            .iter()
            .filter_map(|present| present.resolve(&self.table))
            .collect()
    }

    /// The service of that name.
    pub fn service(&self, name: &Name) -> Option<ServiceRef<'_>> {
        self.services
            .get(name)
            .map(|row| ServiceRef::new(&self.table, row))
    }

    /// The services that a virtual address stands for, by namespace and name.
    pub fn services_at(&self, address: IpAddr) -> impl Iterator<Item = ServiceRef<'_>> {
        let address = address.to_canonical();
        let from = (address, Name::new("", ""));
        self.cluster_ips
            .range(from..)
            .take_while(move |(claimed, _)| *claimed == address)
            .filter_map(|(_, name)| self.service(name))
    }

    /// The service and port that a virtual address and port stand for. When several claim both, the
    /// first by name; a source of changes should not let it come to that, and `manifests` does not.
    pub fn service_port_at(&self, address: SocketAddr) -> Option<(ServiceRef<'_>, &ServicePort)> {
        self.services_at(address.ip())
            .find_map(|service| Some((service, service.port(address.port())?)))
    }

    /// Every service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = ServiceRef<'_>> {
        self.services
            .values()
            .map(|row| ServiceRef::new(&self.table, row))
    }

    /// The workload of that name.
    pub fn workload(&self, name: &Name) -> Option<WorkloadRef<'_>> {
        let id = self.table.find(&name.namespace, &name.name)?;
        WorkloadRef::new(&self.table, id)
    }

    /// The endpoint at an address: an application's own, or one that a proxy listens on for the mesh.
    /// When several workloads claim it, the first by name; a source of changes should not let it come
    /// to that, and `manifests` does not.
    pub fn endpoint_at(&self, address: SocketAddr) -> Option<Endpoint<'_>> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.table
            .at(address)
            .filter_map(|(workload, row)| {
                Some(Endpoint {
                    table: &self.table,
                    workload: self.table.workload(workload)?,
                    row,
                    app_protocol: None,
                })
            })
            .min_by_key(|endpoint| (endpoint.namespace(), endpoint.workload()))
    }

    /// The workload at an address, as [`Registry::endpoint_at`].
    pub fn workload_at(&self, address: SocketAddr) -> Option<WorkloadRef<'_>> {
        let endpoint = self.endpoint_at(address)?;
        self.workload(&Name::new(endpoint.namespace(), endpoint.workload()))
    }

    /// Every workload, by namespace and name.
    pub fn workloads(&self) -> Vec<WorkloadRef<'_>> {
        let mut workloads: Vec<_> = self
            .table
            .ids()
            .filter_map(|id| WorkloadRef::new(&self.table, id))
            .collect();
        workloads.sort_unstable_by_key(|workload| (workload.namespace(), workload.name()));
        workloads
    }

    /// How many workloads there are.
    pub fn workload_count(&self) -> usize {
        self.table.workload_count()
    }

    /// How many endpoints there are: addresses times ports, over all workloads.
    pub fn endpoint_count(&self) -> usize {
        self.table.endpoint_count()
    }

    /// How many different views are open.
    pub fn view_count(&self) -> usize {
        self.by_view.len()
    }

    fn history(&self, id: ViewId) -> Option<&History> {
        let history = self.views.get(id.index as usize)?.as_ref()?;
        (history.generation == id.generation).then_some(history)
    }

    fn set_workload(&mut self, workload: &Workload, dirty: &mut BTreeSet<Name>) -> bool {
        let Set {
            workload: id,
            changed,
        } = self.table.set(workload);
        if !changed {
            return false;
        }
        let Some(row) = self.table.workload(id) else {
            return false;
        };
        for (name, service) in in_namespace(&mut self.services, &workload.namespace) {
            let selected = self.table.selects(&service.selector, row);
            let was = if selected {
                !service.members.insert(id)
            } else {
                service.members.remove(&id)
            };
            if was || selected {
                dirty.insert(name.clone());
            }
        }
        true
    }

    fn remove_workload(&mut self, name: &Name, dirty: &mut BTreeSet<Name>) -> bool {
        let Some(id) = self.table.remove(name) else {
            return false;
        };
        for (name, service) in in_namespace(&mut self.services, &name.namespace) {
            if service.members.remove(&id) {
                dirty.insert(name.clone());
            }
        }
        true
    }

    fn set_service(&mut self, service: Service, dirty: &mut BTreeSet<Name>) -> bool {
        let name = service.id();
        if let Some(old) = self.services.get(&name)
            && old.service == service
        {
            return false;
        }
        if let Some(old) = self.services.remove(&name) {
            self.table.release_pairs(&old.selector);
            self.forget_cluster_ips(&old.service);
        }
        let selector: Vec<_> = service
            .selector
            .iter()
            .map(|(key, value)| {
                let strings = &mut self.table.strings;
                (strings.acquire(key).0, strings.acquire(value).0)
            })
            .collect();
        let members = self
            .table
            .ids_in(&name.namespace)
            .filter(|&id| {
                self.table
                    .workload(id)
                    .is_some_and(|row| self.table.selects(&selector, row))
            })
            .collect();
        for address in &service.cluster_ips {
            self.cluster_ips
                .insert((address.to_canonical(), name.clone()));
        }
        dirty.insert(name.clone());
        self.services.insert(
            name,
            ServiceRow {
                service,
                selector,
                members,
            },
        );
        true
    }

    fn remove_service(&mut self, name: &Name, dirty: &mut BTreeSet<Name>) -> bool {
        let Some(old) = self.services.remove(name) else {
            return false;
        };
        self.table.release_pairs(&old.selector);
        self.forget_cluster_ips(&old.service);
        dirty.insert(name.clone());
        true
    }

    fn forget_cluster_ips(&mut self, service: &Service) {
        for address in &service.cluster_ips {
            self.cluster_ips
                .remove(&(address.to_canonical(), service.id()));
        }
    }

    fn refresh(&mut self, dirty: &BTreeSet<Name>) -> Vec<ViewId> {
        let mut moved = Vec::new();
        for service in dirty {
            let first = View::new(service.clone(), 0);
            let open: Vec<u32> = self
                .by_view
                .range(first..)
                .take_while(|(view, _)| view.service == *service)
                .map(|(_, &index)| index)
                .collect();
            for index in open {
                let Some(history) = &self.views[index as usize] else {
                    continue;
                };
                let (exists, present) = self.look(&history.view);
                if let Some(history) = &mut self.views[index as usize]
                    && history.advance(exists, present)
                {
                    let generation = history.generation;
                    moved.push(ViewId { index, generation });
                }
            }
        }
        moved
    }

    /// Whether the view's service and port exist, and their endpoints by address. Of several at one
    /// address the first by workload name stands.
    fn look(&self, view: &View) -> (bool, Vec<Present>) {
        let found = self.services.get(&view.service).and_then(|row| {
            let mut ports = row.service.ports.iter();
            Some((row, ports.find(|port| port.port == view.port)?))
        });
        let Some((service, port)) = found else {
            return (false, Vec::new());
        };
        let members = service
            .members
            .iter()
            .filter_map(|&id| Some((id, self.table.workload(id)?)))
            .filter(|(_, workload)| workload.ready);
        let mut present = Vec::new();
        for (id, workload) in members {
            let rows = self.table.rows_of(id).filter(|(_, row)| {
                row.answers(&port.target_port, &self.table.strings)
                    && view
                        .filter
                        .family
                        .is_none_or(|family| family.has(row.address()))
            });
            present.extend(rows.map(|(endpoint, row)| {
                (
                    workload,
                    Present::new(row.address(), endpoint, workload.version, port.app_protocol),
                )
            }));
        }
        if let Some(zone) = &view.filter.zone {
            let zone = self.table.strings.find(zone);
            if zone.is_some() && present.iter().any(|(workload, _)| workload.zone == zone) {
                present.retain(|(workload, _)| workload.zone == zone);
            }
        }
        present.sort_by(|(a, left), (b, right)| {
            let name = |symbol| self.table.strings.text(symbol);
            (left.address.cmp(&right.address)).then_with(|| name(a.name).cmp(name(b.name)))
        });
        present.dedup_by_key(|(_, present)| present.address);
        (
            true,
            present.into_iter().map(|(_, present)| present).collect(),
        )
    }
}

fn in_namespace<'a>(
    services: &'a mut BTreeMap<Name, ServiceRow>,
    namespace: &str,
) -> impl Iterator<Item = (&'a Name, &'a mut ServiceRow)> {
    let from = Name::new(namespace, "");
    services
        .range_mut(from.clone()..)
        .take_while(move |(name, _)| name.namespace == from.namespace)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("version", &self.version)
            .field("services", &self.services.len())
            .field("workloads", &self.workload_count())
            .field("endpoints", &self.endpoint_count())
            .field("views", &self.view_count())
            .finish_non_exhaustive()
    }
}
