//! Where the record and the keys are kept and come from, and who may write what.

use std::sync::Arc;

use super::outside::Source;
use crate::store::{EtcdStore, StateStore};

/// A store, as one controller among several or as the only one.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// What anybody may write: leaves that were issued, what was heard.
    pub(super) shared: Arc<dyn StateStore>,
    /// What only the one who leads may write.
    pub(super) leading: Arc<dyn StateStore>,
    /// None where this controller is the only one.
    pub(super) election: Option<Election>,
    /// Who makes anchors and issuers, if it is not the controller.
    pub(super) outside: Option<Source>,
}

/// One controller among several.
#[derive(Debug, Clone)]
pub(crate) struct Election {
    pub(super) store: EtcdStore,
    /// Under which it stands for election.
    pub(super) name: String,
}

impl Place {
    /// A store with one owner.
    pub(crate) fn sole(store: Arc<dyn StateStore>) -> Self {
        Self {
            shared: store.clone(),
            leading: store,
            election: None,
            outside: None,
        }
    }

    /// The same where anchors and issuers are made by somebody else, if they are.
    pub(crate) fn with_outside(mut self, outside: Option<Source>) -> Self {
        self.outside = outside;
        self
    }

    /// A store of several.
    pub(crate) fn among_several(store: EtcdStore, name: String) -> Self {
        Self {
            shared: Arc::new(store.clone()),
            leading: Arc::new(store.fenced()),
            election: Some(Election { store, name }),
            outside: None,
        }
    }

    /// The term in which this controller leads; 0 where it is the only one.
    pub(super) fn term(&self) -> Option<i64> {
        match &self.election {
            None => Some(0),
            Some(election) => election.store.term().map(|term| term.created),
        }
    }
}
