//! A mesh with several proxies, and everything at once that it carries.

use std::time::{Duration, Instant};

use e2e::{App, Carriage, Load, Mesh, Network, Process, Report, Workload};
use mesh_control_api::admin::{Trust, TrustBlocker, TrustChange, trust_phase::State};

/// How long anything may take: generous, because the machine is shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What `web` workloads serve: HTTP, and an echo.
const WEB: [(u16, &str); 2] = [(8080, "http"), (8081, "opaque")];
/// What `api` workloads serve.
const API: [(u16, &str); 2] = [(8080, "grpc"), (8081, "opaque")];

/// Proxies whose applications call each other.
pub(crate) struct Fleet<'n> {
    pub(crate) mesh: Mesh<'n>,
    /// Three of them only call.
    pub(crate) clients: Vec<Workload>,
    pub(crate) servers: Vec<Workload>,
    pub(crate) web: String,
    api: String,
    apps: Vec<App>,
}

impl<'n> Fleet<'n> {
    /// Three clients, and servers of two services in turn. `spec` is the `MeshConfig`'s.
    pub(crate) fn start(network: &'n Network, servers: usize, spec: &str) -> Self {
        Self::of(Mesh::start(network, spec), servers)
    }

    /// The same of a mesh that has been started.
    pub(crate) fn of(mesh: Mesh<'n>, servers: usize) -> Self {
        let mut clients: Vec<_> = (1..=3)
            .map(|number| mesh.joining(&format!("client-{number}"), "client", &[]))
            .collect();
        let mut servers: Vec<_> = (1..=servers)
            .map(|number| match number % 2 {
                1 => mesh.joining(&format!("web-{number}"), "web", &WEB),
                _ => mesh.joining(&format!("api-{number}"), "api", &API),
            })
            .collect();
        let apps = servers
            .iter()
            .map(|server| App::start(&server.host, server.host.role(), 8080))
            .collect();
        let (web, api) = (mesh.service("web", &WEB), mesh.service("api", &API));
        for workload in clients.iter_mut().chain(&mut servers) {
            workload.wait_ready();
            workload.publish();
        }
        Self {
            mesh,
            clients,
            servers,
            web: web.to_string(),
            api: api.to_string(),
            apps,
        }
    }

    /// Every proxy.
    pub(crate) fn proxies(&mut self) -> impl Iterator<Item = &mut Workload> {
        self.clients.iter_mut().chain(&mut self.servers)
    }

    /// How many proxies there are.
    pub(crate) fn size(&self) -> usize {
        self.clients.len() + self.servers.len()
    }

    /// Everything at once, `rate` requests a second of each kind, until it is stopped or `limit` is over.
    pub(crate) fn load(&self, rate: u32, limit: Duration) -> Traffic {
        let [first, second, third] = &self.clients[..] else {
            panic!("three clients");
        };
        let (web, api) = (&self.web, &self.api);
        let open = |client: &Workload, carriage, target: &str, lanes, rate| {
            let load = Load::open(&client.host, carriage, target, lanes, rate, limit);
            (carriage, load)
        };
        let url = format!("http://{web}:8080/echo");
        let call = format!("http://{api}:8080/e2e.Peer/Unary");
        let talk = format!("http://{api}:8080/e2e.Peer/BothStreams");
        let few = (rate / 4).max(5);
        let loads = vec![
            open(first, Carriage::Http1, &url, 1, rate),
            open(first, Carriage::TcpOnce, &format!("{web}:8081"), 1, few),
            open(second, Carriage::Http2, &url, 1, rate),
            open(second, Carriage::Grpc, &call, 1, rate),
            open(third, Carriage::GrpcStream, &talk, 4, few),
            open(third, Carriage::TcpStream, &format!("{api}:8081"), 4, few),
        ];
        let mut traffic = Traffic {
            loads,
            began: Instant::now(),
        };
        traffic.wait_ok(10);
        traffic
    }

    /// Conversations of that client, of either kind and little else.
    pub(crate) fn conversations(&self, client: usize, limit: Duration) -> Vec<Load> {
        let (host, api) = (&self.clients[client].host, &self.api);
        let talk = format!("http://{api}:8080/e2e.Peer/BothStreams");
        let streams = [
            (Carriage::GrpcStream, talk),
            (Carriage::TcpStream, format!("{api}:8081")),
        ];
        let open =
            |(carriage, target): (_, String)| Load::open(host, carriage, &target, 2, 10, limit);
        streams.into_iter().map(open).collect()
    }

    /// Waits until no change is underway. Conversations are ended once a second, as those of before are in the way.
    pub(crate) fn wait_ended(&self, traffic: &mut Traffic) -> Trust {
        let mut renewed = Instant::now();
        self.mesh
            .wait_trust("the change has ended", PATIENCE, |trust| {
                if renewed.elapsed() > Duration::from_secs(1) {
                    traffic.renew_conversations();
                    renewed = Instant::now();
                }
                trust.change.is_none() && trust.anchors.len() == 1
            })
    }

    /// The ids of all processes: none may be another one later.
    pub(crate) fn processes(&mut self) -> Vec<u32> {
        let running = |process: &mut Process| {
            let ended = process.ended();
            assert_eq!(ended, None, "a process ended");
            process.id()
        };
        let mut all: Vec<u32> = self
            .proxies()
            .map(|workload| running(&mut workload.proxy))
            .collect();
        all.push(running(self.mesh.controller()));
        all.extend(self.apps.iter_mut().map(|app| running(&mut app.process)));
        all
    }

    /// The sum over all proxies of what their metrics say under that name.
    pub(crate) fn counted(&mut self, name: &str) -> u64 {
        self.proxies().map(|proxy| counted(proxy, name)).sum()
    }
}

/// What a proxy's metrics say under that name, over all labels.
pub(crate) fn counted(proxy: &Workload, name: &str) -> u64 {
    let metrics = proxy.admin("/metrics");
    let found: Vec<u64> = metrics
        .lines()
        .filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    assert!(!found.is_empty(), "no {name} in\n{metrics}");
    found.iter().sum()
}

/// Load clients of every kind.
pub(crate) struct Traffic {
    loads: Vec<(Carriage, Load)>,
    began: Instant,
}

impl Traffic {
    /// Waits until everything has come back right `more` times further.
    pub(crate) fn wait_ok(&mut self, more: u64) {
        let wanted: Vec<u64> = self
            .loads
            .iter()
            .map(|(_, load)| load.so_far().ok + more)
            .collect();
        for ((_, load), wanted) in self.loads.iter_mut().zip(wanted) {
            load.wait_for(&format!("{wanted} attempts are right"), |report| {
                report.ok >= wanted
            });
        }
    }

    /// Attempts that came back right, and those that failed.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        let reports = self.loads.iter().map(|(_, load)| load.so_far());
        reports.fold((0, 0), |(ok, failed), report| {
            (ok + report.ok, failed + report.failed())
        })
    }

    /// Has conversations ended and others begun.
    pub(crate) fn renew_conversations(&mut self) {
        for (_, load) in &mut self.loads {
            load.renew();
        }
    }

    /// Goes on a little, ends it all and prints what became of it. Nothing of it failed, and there was enough; how many came back
    /// right.
    pub(crate) fn stop_without_failure(mut self) -> u64 {
        self.wait_ok(20);
        let (_, reports) = self.stop();
        for (carriage, report) in &reports {
            eprintln!("{}", carriage.name());
            report.assert_no_failure(50);
        }
        reports.iter().map(|(_, report)| report.ok).sum()
    }

    /// Ends it all.
    pub(crate) fn stop(self) -> (Duration, Vec<(Carriage, Report)>) {
        let lasted = self.began.elapsed();
        let loads = self.loads.into_iter();
        let reports = loads.map(|(carriage, load)| (carriage, load.stop()));
        (lasted, reports.collect())
    }
}

/// The phase that a change is in; empty if there is none.
pub(crate) fn phase(trust: &Trust) -> &str {
    let phase = trust.change.as_ref().and_then(phase_of);
    phase.unwrap_or_default()
}

fn phase_of(change: &TrustChange) -> Option<&str> {
    let mut phases = change.phases.iter();
    let now = phases.find(|phase| phase.state() == State::Now);
    now.map(|phase| phase.name.as_str())
}

/// Whether it waits for a connection of before to end.
pub(crate) fn is_of_old_connection(blocker: &TrustBlocker) -> bool {
    blocker.why.contains("has a connection verified under")
}

/// Whether it is of a proxy that conversations go through: that of their client, and those of the servers they are with.
pub(crate) fn has_conversations(blocker: &TrustBlocker) -> bool {
    blocker.who.contains("/client-3@") || blocker.who.contains("/api-")
}

/// The one anchor that is in use.
pub(crate) fn anchor_in_use(trust: &Trust) -> &str {
    let mut anchors = trust.anchors.iter();
    let found = anchors.find(|anchor| anchor.state == "in use");
    found.map(|anchor| anchor.id.as_str()).unwrap_or_default()
}
