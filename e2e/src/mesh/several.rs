//! Several controllers of one mesh, which share an etcd of three members.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use mesh_control_api::admin::Trust;
use mesh_control_api::admin::change_trust_request::Word;

use super::{CONTROLLER_PORT, Mesh, folder_with, start_controller_on};
use crate::admin::Admin;
use crate::network::{Host, Network};
use crate::process::{PATIENCE, Process};

/// What a test with several controllers needs beside [`MESH`](super::MESH).
pub const ETCD: crate::requirement::Requirement = crate::requirement::Requirement::Program("etcd");

/// Those beside the first, and the members of etcd. All are on the host of the first: a private key crosses no network in the
/// clear.
#[derive(Debug)]
pub(super) struct Several {
    /// None once killed. The first is [`Mesh::controller`].
    others: Vec<(Process, Admin)>,
    etcd: Vec<Process>,
    killed: Vec<usize>,
}

impl<'n> Mesh<'n> {
    /// Starts three controllers that share an etcd of three members. The one that leads is followed by another within a lease
    /// of three seconds.
    ///
    /// # Panics
    /// If one of them does not become ready.
    #[must_use]
    pub fn start_several(network: &'n Network, spec: &str) -> Self {
        let folder = folder_with(spec);
        let host = network.host("controller");
        let etcd = start_etcd(&host, folder.path());
        let members: Vec<String> = (0..MEMBERS).map(client).collect();
        let start = |number: u16| {
            let more = [
                "--etcd",
                &members.join(","),
                "--lead-lease",
                "3",
                "--admin",
                "127.0.0.1:0",
            ];
            let more = more.map(ToOwned::to_owned);
            let data = data(number);
            let port = CONTROLLER_PORT + number;
            let made = std::fs::create_dir_all(folder.path().join(&data));
            made.unwrap_or_else(|error| panic!("{data}: {error}"));
            let process = start_controller_on(&host, folder.path(), &data, port, &more, None);
            (process, Admin::new(&folder.path().join(&data)))
        };
        let (controller, admin) = start(0);
        let others = (1..CONTROLLERS).map(start).collect();
        Self {
            network,
            folder,
            host,
            admin,
            controller,
            several: Some(Several {
                others,
                etcd,
                killed: Vec::new(),
            }),
            services: std::cell::Cell::new(0),
            tokens: std::cell::RefCell::default(),
        }
    }

    /// Says an operator's word to the controller that leads; which one that is.
    ///
    /// # Panics
    /// If none of them takes it.
    pub fn tell_leader(&self, word: &Word) -> usize {
        let mut refused = Vec::new();
        for (number, admin) in self.admins() {
            match admin.change_trust(word.clone()) {
                Ok(()) => return number,
                Err(error) => refused.push(error),
            }
        }
        panic!("none leads: {refused:?}");
    }

    /// Kills a controller, so that it gives nothing back.
    ///
    /// # Panics
    /// If there is no such controller.
    pub fn kill_controller(&mut self, number: usize) {
        match number {
            0 => self.controller.kill(),
            more => self.several_mut().others[more - 1].0.kill(),
        }
        self.several_mut().killed.push(number);
        let left = self.admins().next();
        if let Some((_, admin)) = left {
            self.admin = admin;
        }
    }

    /// Kills the member of etcd that leads the others; which one that is.
    ///
    /// # Panics
    /// If none says that it leads.
    pub fn kill_leader_of_etcd(&mut self) -> u16 {
        let began = Instant::now();
        let leads = |number: &u16| {
            let metrics = self.host.curl(&format!("{}/metrics", client(*number)), &[]);
            metrics.body.contains("\netcd_server_is_leader 1")
        };
        let leader = loop {
            if let Some(leader) = (0..MEMBERS).find(leads) {
                break leader;
            }
            assert!(began.elapsed() < PATIENCE, "no member of etcd leads");
        };
        self.several_mut().etcd[usize::from(leader)].kill();
        leader
    }

    /// Waits until a controller that is left says that trust stands so that `done` is content.
    ///
    /// # Panics
    /// If it does not within `patience`.
    pub fn wait_trust_of_any(
        &self,
        what: &str,
        patience: Duration,
        done: impl FnMut(&Trust) -> bool,
    ) -> Trust {
        let (_, admin) = self
            .admins()
            .next()
            .unwrap_or_else(|| panic!("all are killed"));
        admin.wait_trust(what, patience, done)
    }

    /// Where proxies are told that controllers are, in TOML.
    pub(super) fn control_addresses(&self) -> String {
        let address = self.host.address();
        let controllers = if self.several.is_some() {
            CONTROLLERS
        } else {
            1
        };
        let mut all = String::new();
        for number in 0..controllers {
            let comma = if number > 0 { ", " } else { "" };
            let _ = write!(all, "{comma}\"{address}:{}\"", CONTROLLER_PORT + number);
        }
        if controllers > 1 {
            format!("[{all}]")
        } else {
            all
        }
    }

    /// Those that are not killed.
    fn admins(&self) -> impl Iterator<Item = (usize, Admin)> {
        let several = self.several.as_ref();
        let killed = several.map_or(&[][..], |several| &several.killed);
        let first = self.folder.path().join(data(0));
        let others = several.into_iter().flat_map(|several| &several.others);
        let all = std::iter::once(Admin::new(&first)).chain(others.map(|(_, admin)| admin.clone()));
        let left = all
            .enumerate()
            .filter(|(number, _)| !killed.contains(number));
        left.collect::<Vec<_>>().into_iter()
    }

    fn several_mut(&mut self) -> &mut Several {
        let several = self.several.as_mut();
        several.unwrap_or_else(|| panic!("there is one controller only"))
    }
}

fn start_etcd(host: &Host, folder: &std::path::Path) -> Vec<Process> {
    let cluster: Vec<String> = (0..MEMBERS)
        .map(|number| format!("m{number}={}", peer(number)))
        .collect();
    let members = (0..MEMBERS).map(|number| {
        let (client, peer) = (client(number), peer(number));
        host.spawn("etcd")
            .args(["--name", &format!("m{number}"), "--data-dir"])
            .arg(folder.join(format!("etcd-{number}")))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &cluster.join(","), "--unsafe-no-fsync"])
            .user(0)
            .start()
    });
    let mut members: Vec<Process> = members.collect();
    for (number, member) in (0..MEMBERS).zip(&mut members) {
        let health = format!("{}/health", client(number));
        member.wait_until("it is healthy", |_| {
            host.curl(&health, &[]).body.contains("\"true\"")
        });
    }
    members
}

fn data(number: u16) -> String {
    match number {
        0 => "data".to_owned(),
        more => format!("data-{more}"),
    }
}

fn client(number: u16) -> String {
    format!("http://127.0.0.1:{}", 2379 + 10 * number)
}

fn peer(number: u16) -> String {
    format!("http://127.0.0.1:{}", 2380 + 10 * number)
}

const MEMBERS: u16 = 3;
const CONTROLLERS: u16 = 3;
