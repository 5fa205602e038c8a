//! What a workload's command finds in its environment. `mesh up --help` documents it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use mesh_discovery::{Service, Workload};

use super::ports::{HTTP_PROXY, Listeners};

/// The variables that `mesh up` sets whatever services there are.
pub(crate) fn own(workload: &Workload, address: IpAddr) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("HOST", address.to_string());
    if let Some(first) = workload.ports.first() {
        set("PORT", first.port.to_string());
    }
    for port in &workload.ports {
        if let Some(name) = &port.name {
            set(&format!("PORT_{}", word(name)), port.port.to_string());
        }
    }
    let http_proxy = format!("http://{}", SocketAddr::new(address, HTTP_PROXY));
    // Programs differ in which of the two they read.
    set("HTTP_PROXY", http_proxy.clone());
    set("http_proxy", http_proxy);
    // What the person at this machine keeps from their own proxy is not meant here.
    set("NO_PROXY", String::new());
    set("no_proxy", String::new());
    set("MESH_WORKLOAD", workload.name.clone());
    set("MESH_NAMESPACE", workload.namespace.clone());
    set("MESH_ZONE", workload.zone.clone().unwrap_or_default());
    set(
        "MESH_IDENTITY",
        workload.identity.clone().unwrap_or_default(),
    );
    env
}

/// The variables that say where services are called.
pub(crate) fn services(
    workload: &Workload,
    address: IpAddr,
    services: &[Service],
    listeners: &Listeners,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    for service in services {
        let name = if service.namespace == workload.namespace {
            word(&service.name)
        } else {
            format!("{}__{}", word(&service.name), word(&service.namespace))
        };
        for (number, port) in service.ports.iter().enumerate() {
            let Some(listener) = listeners.of(service, port.port) else {
                continue;
            };
            let listener = SocketAddr::new(address, listener).to_string();
            if let Some(port_name) = port.name.as_ref().filter(|_| service.ports.len() > 1) {
                set(
                    &format!("MESH_{name}_{}_ADDR", word(port_name)),
                    listener.clone(),
                );
            }
            if number == 0 {
                set(&format!("MESH_{name}_ADDR"), listener);
            }
        }
    }
    env
}

/// A name as part of a variable's name.
fn word(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mesh_discovery::{ServicePort, WorkloadPort};

    use super::*;

    #[test]
    fn a_service_with_several_ports_has_each_by_name_and_the_first_by_itself() {
        let mut service = Service::new("default", "user-db");
        let named = |name: &str, port| ServicePort {
            name: Some(name.to_owned()),
            ..ServicePort::new(port)
        };
        service.ports = vec![named("sql", 5432), named("admin-ui", 80)];
        let mut elsewhere = Service::new("billing", "api");
        elsewhere.ports = vec![ServicePort::new(80)];
        let all = [elsewhere, service];
        let mut listeners = Listeners::default();
        listeners.assign(&all).unwrap();
        let mut workload = Workload::new("default", "web-1");
        workload.ports = vec![WorkloadPort {
            name: Some("http-alt".to_owned()),
            ..WorkloadPort::new(8080)
        }];

        let address = [127, 77, 0, 2].into();
        let mut env = services(&workload, address, &all, &listeners);
        env.extend(own(&workload, address));

        assert_eq!(env["MESH_API__BILLING_ADDR"], "127.77.0.2:15001");
        assert_eq!(env["MESH_USER_DB_ADDR"], "127.77.0.2:15003");
        assert_eq!(env["MESH_USER_DB_SQL_ADDR"], "127.77.0.2:15003");
        assert_eq!(env["MESH_USER_DB_ADMIN_UI_ADDR"], "127.77.0.2:15002");
        assert_eq!(
            (&*env["HOST"], &*env["PORT"], &*env["PORT_HTTP_ALT"]),
            ("127.77.0.2", "8080", "8080")
        );
        assert_eq!(
            (&*env["HTTP_PROXY"], &*env["NO_PROXY"]),
            ("http://127.77.0.2:15000", "")
        );
    }
}
