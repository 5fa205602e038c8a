//! How the endpoints of services stand, as the proxies see them.

use std::net::SocketAddr;

use serde::Deserialize;

use super::findings::Finding;
use crate::error::count;
use crate::probe;

/// More of an answer than this is not read.
const BODY_BYTES: usize = 4 * 1024 * 1024;
/// Addresses named in one line.
const NAMED: usize = 3;

/// What a proxy tells of one backend, as far as it is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Balancer {
    pub(super) path: String,
    pub(super) ready: usize,
    pub(super) ejected: usize,
    pub(super) held: usize,
    pub(super) limited: usize,
    pub(super) zones: Option<Zones>,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Zones {
    pub(super) local: usize,
    pub(super) remote: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) ejected: bool,
}

#[derive(Debug, Deserialize)]
struct Told {
    balancers: Vec<Balancer>,
}

/// What the proxy whose admin server is at `address` tells; nothing if it does not answer, which is told elsewhere.
pub(super) async fn look(address: SocketAddr) -> Vec<Balancer> {
    let Ok((status, body)) = probe::get_at_most(address, "/balancers", BODY_BYTES).await else {
        return Vec::new();
    };
    let told = serde_json::from_str::<Told>(&body);
    told.ok()
        .filter(|_| status.is_success())
        .map_or_else(Vec::new, |told| told.balancers)
}

/// What is to be said about what `proxy` sees. Of the balancers of one service, as one for HTTP beside one for other
/// connections, the one that something is up with.
pub(super) fn findings(proxy: &str, balancers: &[Balancer], found: &mut Vec<Finding>) {
    let mut services: Vec<&Balancer> = Vec::new();
    for balancer in balancers {
        let unusual = |balancer: &Balancer| (balancer.ejected, balancer.held, balancer.limited);
        match services
            .iter_mut()
            .find(|known| known.path == balancer.path)
        {
            Some(known) if unusual(known) < unusual(balancer) => *known = balancer,
            Some(_) => {}
            None => services.push(balancer),
        }
    }
    for balancer in services {
        of_service(proxy, balancer, found);
    }
}

fn of_service(proxy: &str, balancer: &Balancer, found: &mut Vec<Finding>) {
    let Balancer {
        path,
        ready,
        ejected,
        held,
        limited,
        zones,
        endpoints,
    } = balancer;
    let all = count(ready + ejected + held, "endpoint");
    let proxy = format!("{proxy}'s proxy");
    if *ejected > 0 {
        let out = endpoints.iter().filter(|endpoint| endpoint.ejected);
        let out: Vec<_> = out.map(|endpoint| endpoint.address.as_str()).collect();
        let more = if out.len() > NAMED { ", ..." } else { "" };
        let out = out[..out.len().min(NAMED)].join(", ");
        found.push(Finding::bad(
            "balancer",
            format!("{proxy} has taken out {ejected} of {all} of {path}: {out}{more}"),
            "they failed too often: see what they log; they are tried again by themselves",
        ));
    }
    if *held > 0 {
        let text = format!("{proxy} leaves {held} of {all} of {path} alone, as they asked");
        found.push(Finding::good("balancer", text));
    }
    if *limited > 0 {
        let text = format!("{proxy} keeps {limited} of {all} of {path} at their rate limits");
        found.push(Finding::good("balancer", text));
    }
    if let Some(Zones { local, remote }) = zones
        && *remote > 0
    {
        let text = format!(
            "{proxy} uses {} of other zones for {path}, beside {local} of its own",
            count(*remote, "endpoint")
        );
        found.push(Finding::good("balancer", text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(path: &str) -> Balancer {
        Balancer {
            path: path.to_owned(),
            ready: 3,
            ..Balancer::default()
        }
    }

    fn told(balancers: &[Balancer]) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        findings("web-1", balancers, &mut found);
        let found = found.into_iter();
        found
            .map(|finding| (finding.text, finding.advice.is_some()))
            .collect()
    }

    #[test]
    fn nothing_is_said_of_endpoints_that_are_all_well() {
        let zones = Some(Zones {
            local: 3,
            remote: 0,
        });
        let well = Balancer {
            zones,
            ..balancer("db:80")
        };
        assert_eq!(told(&[well, balancer("web:80")]), []);
    }

    #[test]
    fn who_is_out_is_a_problem_and_who_is_full_is_not() {
        let out = |address: &str| Endpoint {
            address: address.to_owned(),
            ejected: true,
        };
        let db = Balancer {
            ready: 1,
            ejected: 4,
            held: 1,
            limited: 2,
            zones: Some(Zones {
                local: 1,
                remote: 1,
            }),
            endpoints: ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "1.1.1.4:1"]
                .map(out)
                .to_vec(),
            ..balancer("db:80")
        };
        let lines = told(&[balancer("db:80"), db, balancer("db:80")]);
        assert_eq!(
            lines,
            [
                (
                    "web-1's proxy has taken out 4 of 6 endpoints of db:80: 1.1.1.1:1, 1.1.1.2:1, 1.1.1.3:1, ..."
                        .to_owned(),
                    true
                ),
                (
                    "web-1's proxy leaves 1 of 6 endpoints of db:80 alone, as they asked".to_owned(),
                    false
                ),
                (
                    "web-1's proxy keeps 2 of 6 endpoints of db:80 at their rate limits".to_owned(),
                    false
                ),
                (
                    "web-1's proxy uses 1 endpoint of other zones for db:80, beside 1 of its own".to_owned(),
                    false
                ),
            ]
        );
    }
}
