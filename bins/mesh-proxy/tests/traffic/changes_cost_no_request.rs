//! Endpoints come and go, policies change, proxies end in order: no request fails of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::controller::messages;
use crate::h2;
use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{Wire, mirror};

/// Clients that ask until they are told to stop; none of their requests may fail.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(mesh: &Mesh) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut clients = JoinSet::new();
        for client in 0..6 {
            let (stop, answered) = (stop.clone(), Arc::<AtomicUsize>::clone(&answered));
            let address = mesh.net.web();
            clients.spawn(async move {
                let mut wire = Wire::connect(address).await;
                let (mut sender, _connection) = h2::connect(address).await;
                while !stop.load(SeqCst) {
                    let status = match client % 3 {
                        0 => wire.ask("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await.status(),
                        1 => wire.ask("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 4\r\n\r\nbody").await.status(),
                        _ => {
                            let request = http::Request::post("http://web.test/").body(h2::full("body")).unwrap();
                            let answer = crate::controller::soon("an answer", sender.send_request(request)).await;
                            answer.unwrap().status().as_u16()
                        }
                    };
                    assert_eq!(status, 200, "client {client}, after {} answers", answered.load(SeqCst));
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// So many more answers.
    async fn goes_on(&mut self, answers: usize) {
        let until = self.answered.load(SeqCst) + answers;
        let going = async {
            while self.answered.load(SeqCst) < until {
                tokio::select! {
                    Some(ended) = self.clients.join_next() => ended.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
        };
        crate::controller::soon("answers", going).await;
    }

    async fn end(mut self) {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_and_policies_change_under_load() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    let plain = |n| policy::plain(mesh.net.plain(n));
    let mut both = Vec::new();
    for n in 0..3 {
        both.push(mirror(mesh.net.plain(n)).await);
    }
    mesh.says.endpoints("web.test:80", vec![plain(0)]);
    let requests = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
    let mut clients = JoinSet::new();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let (stop, answered, address) = (stop.clone(), answered.clone(), mesh.net.web());
        clients.spawn(async move {
            let mut wire = Wire::connect(address).await;
            while !stop.load(SeqCst) {
                assert_eq!(wire.ask(requests).await.status(), 200);
                answered.fetch_add(1, SeqCst);
            }
        });
    }
    let sets: [&[u16]; 5] = [&[0, 1], &[1], &[1, 2], &[0, 1, 2], &[2]];
    for round in 0..4 {
        for set in sets {
            mesh.says
                .endpoints("web.test:80", set.iter().map(|n| plain(*n)).collect());
            let until = answered.load(SeqCst) + 50;
            crate::controller::until("answers", || {
                answered.load(SeqCst) >= until || clients.is_empty()
            })
            .await;
        }
        let mut changed = messages::balanced("web", "web.test:80");
        policy::detect(&mut changed).timeout = policy::duration(Duration::from_secs(10 + round));
        mesh.says.policy("web.test:80", changed);
    }
    stop.store(true, SeqCst);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_ends_in_order_fails_no_request_of_its_peers() {
    let mesh = Mesh::start();
    let (_client, mut first) = mesh.both().await;
    let (_second, port) = mesh.another_server().await;
    mesh.says.endpoints(
        "web.test:80",
        vec![policy::meshed(mesh.net.mesh_port()), policy::meshed(port)],
    );
    let _app = h2::app(mesh.net.app(), |request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(h2::full(body))
    })
    .await;
    let mut load = Load::start(&mesh);
    load.goes_on(300).await;
    first.terminate();
    load.goes_on(300).await;
    assert_eq!(first.ended().await.code(), Some(0));
    load.goes_on(300).await;
    let _first = mesh.server("").await;
    load.goes_on(300).await;
    load.end().await;
}
