use std::collections::BTreeSet;

/// A value with the list of what it leaves out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Converted<T> {
    /// The value.
    pub value: T,
    /// The fields that were set and are not honoured, e.g. `outbound.HttpRoute.Rule.filters`; each once, in order.
    pub unsupported: Vec<&'static str>,
}

/// Fields found on the way that are not honoured.
#[derive(Debug, Default)]
pub(super) struct Unsupported(BTreeSet<&'static str>);

impl Unsupported {
    /// Notes `field` when it is `set`.
    pub(super) fn note(&mut self, set: bool, field: &'static str) {
        if set {
            self.0.insert(field);
        }
    }

    pub(super) fn with<T>(self, value: T) -> Converted<T> {
        Converted {
            value,
            unsupported: self.0.into_iter().collect(),
        }
    }
}
