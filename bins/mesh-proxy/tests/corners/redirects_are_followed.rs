//! Where a redirected connection was going is known, in IPv6 too, and on a listener that takes both families.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::controller::messages;
use crate::mesh::{Mesh, Net};
use crate::namespace::{alone, run};
use crate::policy;
use crate::wire::{Wire, ask, mirror};

/// What applications call, and what others call them by: the proxies' own connections come from elsewhere, and pass.
const RULES: &str = "
table inet corners {
  chain output {
    type nat hook output priority -100;
    ip daddr 10.99.0.1 tcp dport 80 redirect to :4140
    ip6 daddr fd99::1 tcp dport 80 redirect to :4140
    ip saddr 10.99.0.1 ip daddr 10.99.0.2 tcp dport 8080 redirect to :4143
    ip6 saddr fd99::1 ip6 daddr fd99::2 tcp dport 8080 redirect to :4143
  }
}";

#[test]
fn of_both_families() {
    alone("redirects_are_followed::of_both_families", within());
}

async fn within() {
    for address in ["10.99.0.1/32", "10.99.0.2/32", "fd99::1/128", "fd99::2/128"] {
        run("ip", &["addr", "add", address, "dev", "lo"]);
    }
    run("nft", &[RULES]);
    let mesh = Mesh::start_at(Net::take_ipv6());
    // What is asked for an address gets this.
    mesh.says
        .policy("", messages::balanced("web", "web.test:80"));
    let proxies = tokio::join!(
        mesh.client("outbound.listen = \"[::]:4140\""),
        mesh.server("inbound.listen = \"[::]:4143\"")
    );
    let _app = mirror(mesh.net.app()).await;
    for address in ["10.99.0.1:80", "[fd99::1]:80"] {
        let get = format!("GET /out HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let seen = ask(address.parse().unwrap(), &get).await;
        let text = seen.body_text();
        assert_eq!(seen.status(), 200, "{address}: {:?}", seen.headers);
        assert!(text.contains("l5d-client-id: client.test"), "{text}");
        assert!(text.contains(&format!("host: {address}")), "{text}");
    }
    mesh.says.server(8080, policy::open());
    for (from, to) in [
        ("10.99.0.1:0", "10.99.0.2:8080"),
        ("[fd99::1]:0", "[fd99::2]:8080"),
    ] {
        let _app = mirror(to.parse().unwrap()).await;
        let (from, address): (SocketAddr, SocketAddr) =
            (from.parse().unwrap(), to.parse().unwrap());
        let socket = match from {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.unwrap();
        socket.bind(from).unwrap();
        let mut wire = Wire::over(socket.connect(address).await.unwrap());
        // A name that the proxy removes shows that it was there.
        let get = format!("GET /in HTTP/1.1\r\nhost: {to}\r\nl5d-client-id: me\r\n\r\n");
        let seen = wire.ask(&get).await.body_text();
        assert_eq!(seen, format!("GET /in HTTP/1.1\nhost: {to}\n\n"));
    }
    drop(proxies);
}
