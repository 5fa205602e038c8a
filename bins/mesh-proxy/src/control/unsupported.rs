//! The fields a controller sends and this proxy does not honour, for `/config`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_policy::proxy_api::Converted;

/// A bounded set of field paths. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Unsupported {
    fields: Arc<Mutex<BTreeSet<String>>>,
}

impl Unsupported {
    /// The most field paths kept; the proxy API has fewer fields than that.
    pub const MAX_FIELDS: usize = 256;

    pub(super) fn report(&self, field: &str) {
        let mut fields = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        if !fields.contains(field)
            && fields.len() < Self::MAX_FIELDS
            && fields.insert(field.to_owned())
        {
            tracing::debug!(
                field,
                "the controller sends a field that this proxy does not honour"
            );
        }
    }

    /// The value of a conversion; what the conversion left out is reported.
    pub(super) fn take<T>(&self, converted: Converted<T>) -> T {
        converted
            .unsupported
            .iter()
            .for_each(|field| self.report(field));
        converted.value
    }

    /// The fields seen so far, sorted.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        self.fields
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_bounded_and_sorted() {
        let unsupported = Unsupported::default();
        for n in 0..2 * Unsupported::MAX_FIELDS {
            unsupported.report(&format!("field.{n:04}"));
            unsupported.report("field.0000");
        }
        let fields = unsupported.fields();
        assert_eq!(fields.len(), Unsupported::MAX_FIELDS);
        assert!(fields.is_sorted());
    }
}
