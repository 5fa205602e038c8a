//! What a subscriber looks at, and how it is told what changed.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    encode::{Encode, MESSAGE_ENDPOINTS},
    endpoint::Endpoint,
    resource::{Name, Protocol},
    table::Table,
};

/// A port of a service through a filter. Subscribers with equal views share everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// The service, which need not exist.
    pub service: Name,
    /// The service's port, which need not exist either.
    pub port: u16,
    /// Which of the endpoints are wanted.
    pub filter: Filter,
}

impl View {
    /// Every endpoint of a service's port.
    pub fn new(service: Name, port: u16) -> Self {
        Self {
            service,
            port,
            filter: Filter::all(),
        }
    }

    /// The same port through a filter.
    #[must_use]
    pub fn filtered(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }
}

/// What changes the answer, not who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Only endpoints of this zone, unless there is none: then all.
    pub zone: Option<String>,
    /// Only addresses of this family.
    pub family: Option<Family>,
}

impl Filter {
    /// Filters nothing out.
    pub fn all() -> Self {
        Self::default()
    }

    /// Endpoints of this zone, or all when it has none.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self {
            zone: Some(zone.into()),
            ..self
        }
    }

    /// Addresses of this family.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        Self {
            family: Some(family),
            ..self
        }
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(crate) fn has(self, address: SocketAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// An open view. Valid until it is closed as often as it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ViewId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// How far into a view's history a subscriber has read. Starts at nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position(pub(crate) Option<u64>);

/// What brings a subscriber from its position to the present.
#[derive(Debug, Clone)]
pub struct Update {
    /// To be sent in this order, without a pause between them.
    pub messages: Messages,
    /// Where the subscriber is once it has sent them.
    pub position: Position,
}

/// Encoded messages, shared by all subscribers they are for.
pub type Messages = Arc<[Bytes]>;

/// Removals remembered for subscribers that are behind: this many or twice the endpoints there are,
/// whichever is more. Who is farther behind starts over.
const REMOVALS: usize = 256;

/// Encoded updates kept for one version of a view. Further ones are encoded for each subscriber.
const KEPT: usize = 64;

/// The history of one view: the present, when each endpoint last changed, and what left lately.
pub(crate) struct History {
    pub(crate) view: View,
    pub(crate) generation: u32,
    pub(crate) subscribers: u32,
    version: u64,
    exists: bool,
    /// By address.
    present: Vec<Present>,
    /// By address, none of them present.
    removed: Vec<(SocketAddr, u64)>,
    /// Removals up to this version may be forgotten.
    horizon: u64,
    encoded: Mutex<HashMap<Span, Messages>>,
}

/// An endpoint of the view. The first three fields tell whether it is the same as before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present {
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: u32,
    pub(crate) workload_version: u64,
    pub(crate) app_protocol: Option<Protocol>,
    changed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Span {
    Start,
    Since(u64),
    Over,
}

impl Present {
    pub(crate) fn new(
        address: SocketAddr,
        endpoint: u32,
        workload_version: u64,
        app_protocol: Option<Protocol>,
    ) -> Self {
        Self {
            address,
            endpoint,
            workload_version,
            app_protocol,
            changed: 0,
        }
    }

    fn is_as(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
            && self.workload_version == other.workload_version
            && self.app_protocol == other.app_protocol
    }
}

impl History {
    pub(crate) fn new(view: View, generation: u32) -> Self {
        Self {
            view,
            generation,
            subscribers: 0,
            version: 0,
            exists: false,
            present: Vec::new(),
            removed: Vec::new(),
            horizon: 0,
            encoded: Mutex::default(),
        }
    }

    /// Takes the present, ordered by address and without duplicates. True when it is news.
    pub(crate) fn advance(&mut self, exists: bool, mut present: Vec<Present>) -> bool {
        let version = self.version + 1;
        let mut news = exists != self.exists;
        let mut removed = Vec::new();
        let mut old = self.present.iter().peekable();
        for new in &mut present {
            while let Some(gone) = old.next_if(|old| old.address < new.address) {
                removed.push((gone.address, version));
            }
            let before = old.next_if(|old| old.address == new.address);
            new.changed = match before {
                Some(before) if before.is_as(new) => before.changed,
                _ => version,
            };
            news |= new.changed == version;
        }
        removed.extend(old.map(|gone| (gone.address, version)));
        news |= !removed.is_empty();
        if !news {
            return false;
        }

        self.exists = exists;
        self.version = version;
        self.present = present;
        removed.append(&mut self.removed);
        removed.retain(|(address, _)| self.find(*address).is_none());
        self.removed = removed;
        self.forget();
        self.encoded
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        true
    }

    /// `None` when the position is the present.
    pub(crate) fn since(
        &self,
        position: Position,
        table: &Table,
        encode: &dyn Encode,
    ) -> Option<Update> {
        let span = match position.0 {
            None => Span::Start,
            Some(version) if version >= self.version => return None,
            Some(version) if version < self.horizon => Span::Over,
            Some(version) => Span::Since(version),
        };
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = match encoded.get(&span) {
            Some(messages) => messages.clone(),
            None => {
                let messages: Messages = self.encode(span, table, encode).into();
                if encoded.len() < KEPT {
                    encoded.insert(span, messages.clone());
                }
                messages
            }
        };
        Some(Update {
            messages,
            position: Position(Some(self.version)),
        })
    }

    /// Additions come first, so that replacing all endpoints leaves none without any in between.
    fn encode(&self, span: Span, table: &Table, encode: &dyn Encode) -> Vec<Bytes> {
        let view = &self.view;
        if self.present.is_empty() {
            return vec![encode.no_endpoints(view, self.exists)];
        }
        let mut messages = Vec::new();
        if span == Span::Over {
            messages.push(encode.no_endpoints(view, true));
        }
        let since = match span {
            Span::Since(version) => version,
            Span::Start | Span::Over => 0,
        };
        let added: Vec<Endpoint<'_>> = self
            .present
            .iter()
            .filter(|present| present.changed > since)
            .filter_map(|present| present.resolve(table))
            .collect();
        messages.extend(
            added
                .chunks(MESSAGE_ENDPOINTS)
                .map(|endpoints| encode.add(view, endpoints)),
        );
        if let Span::Since(version) = span {
            let removed: Vec<SocketAddr> = self
                .removed
                .iter()
                .filter(|(_, at)| *at > version)
                .map(|(address, _)| *address)
                .collect();
            messages.extend(
                removed
                    .chunks(MESSAGE_ENDPOINTS)
                    .map(|addresses| encode.remove(view, addresses)),
            );
        }
        messages
    }

    /// Drops the oldest removals when there are too many, down to half of what is admitted.
    fn forget(&mut self) {
        let most = REMOVALS.max(self.present.len() * 2);
        if self.removed.len() <= most {
            return;
        }
        self.removed
            .sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        self.horizon = self.removed[most / 2].1;
        let horizon = self.horizon;
        self.removed.retain(|(_, at)| *at > horizon);
    }

    fn find(&self, address: SocketAddr) -> Option<&Present> {
        self.present
            .binary_search_by_key(&address, |present| present.address)
            .ok()
            .map(|at| &self.present[at])
    }
}

impl Present {
    pub(crate) fn resolve<'a>(&self, table: &'a Table) -> Option<Endpoint<'a>> {
        Some(Endpoint {
            table,
            workload: table.workload(table.workload_of(self.endpoint))?,
            row: table.row(self.endpoint),
            app_protocol: self.app_protocol,
        })
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("view", &self.view)
            .field("version", &self.version)
            .field("endpoints", &self.present.len())
            .field("removals", &self.removed.len())
            .finish_non_exhaustive()
    }
}
