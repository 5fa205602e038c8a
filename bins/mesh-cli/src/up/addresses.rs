//! Whether what is planned can listen where it is to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::plan::Unit;
use crate::Error;

/// Whether no two want the same address and port.
///
/// # Errors
/// The first that two want.
pub(crate) fn check_distinct(units: &[Unit]) -> Result<(), Error> {
    let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for (address, what) in units.iter().flat_map(|unit| &unit.listens) {
        if let Some(other) = taken.insert(*address, what) {
            return Err(Error::Plan {
                subject: address.to_string(),
                reason: format!(
                    "both {other} and {what} want it; give one of them another port or address"
                ),
            });
        }
    }
    Ok(())
}

/// Tries every address that is to be listened on.
///
/// # Errors
/// The first that is taken, with whose it was to be.
pub(crate) fn check_free<'a>(units: impl IntoIterator<Item = &'a Unit>) -> Result<(), Error> {
    for (address, what) in units.into_iter().flat_map(|unit| &unit.listens) {
        let tried = std::net::TcpListener::bind(address);
        tried.map_err(|source| Error::Address {
            address: *address,
            what: what.clone(),
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::mesh::Mesh;
    use super::super::plan::tests::{planned, runnable};
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_named_with_whose_it_was_to_be() {
        let taken = std::net::TcpListener::bind("127.77.3.9:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut one = runnable("web-1", [127, 77, 3, 9]);
        one.workload.ports[0].port = port;
        let plan = planned(&Mesh {
            trust_domain: "cluster.local".to_owned(),
            services: Vec::new(),
            workloads: vec![one],
        })
        .unwrap();
        let error = check_free(&plan.units).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "127.77.3.9:{port} (web-1's port http) cannot be listened on"
            )),
            "{error}"
        );
        assert!(error.contains("is another `mesh up` running?"), "{error}");
    }
}
