//! The floor: a bare pipeline of hyper without a mesh's features, called `c LISTEN PEER CERTIFICATES NAME` and
//! `s LISTEN APP CERTIFICATES`. It always speaks HTTP/1 to the application, and carries no gRPC and no bytes.

use std::path::Path;

use super::{Certificates, Kind, Links, Running};
use crate::error::Error;
use crate::load::Work;
use crate::stage::Ground;

pub(super) async fn start(
    ground: &Ground,
    program: &Path,
    certificates: &Certificates,
) -> Result<Running, Error> {
    let links = Links::of(Kind::Floor, ground);
    let log = ground.log("floor");
    let [listen, between, app] = [links.listen[0], links.between[0], links.apps[0]];
    let (near, far) = (listen.to_string(), between.to_string());
    let Ground { network, cores, .. } = ground;
    let server = network
        .server
        .spawn(program)
        .args(["s", &far, &app.to_string(), &certificates.path("server")])
        .cores(cores.server_proxy.as_ref())
        .start(&log)?;
    // It connects once, when it starts.
    ground.until_listening(between).await?;
    let client = network
        .client
        .spawn(program)
        .args(["c", &near, &far])
        .args([&certificates.path("client"), Certificates::SERVER_NAME])
        .cores(cores.client_proxy.as_ref())
        .start(&log)?;
    let running = Running {
        kind: Kind::Floor,
        http1: listen,
        http2: listen,
        grpc: None,
        tcp: None,
        client: Some(client),
        server: Some(server),
        others: Vec::new(),
    };
    for work in [Work::Http1, Work::Http2] {
        ground.until_answered(work, listen).await?;
    }
    Ok(running)
}
