//! No proxy at all: what the machine does by itself.

use super::{Kind, Running};
use crate::stage::Ground;

pub(super) fn start(ground: &Ground) -> Running {
    Running {
        kind: Kind::None,
        http1: ground.app_http(),
        http2: ground.app_http(),
        grpc: Some(ground.app_http()),
        tcp: Some(ground.app_tcp()),
        client: None,
        server: None,
        others: Vec::new(),
    }
}
