//! A stream on an open connection costs at most 6 KiB, a connection at most 48 KiB more.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Controller, raw, service, within, workload};

const CONNECTIONS: u64 = 20;
const STREAMS: u64 = 200;
const LIMIT: u64 = (CONNECTIONS * STREAMS * 6 + CONNECTIONS * 48) << 10;

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes << 10
}

#[tokio::test]
async fn thousands_of_streams_fit_in_their_budget() {
    let workloads: Vec<_> = (1..=100).map(|number| workload("web", number)).collect();
    let controller = Controller::start(
        &[
            ("web.yaml", &service("web", "")),
            ("all.yaml", &workloads.join("---\n")),
        ],
        &[],
    )
    .await;
    let pid = controller.announcement().pid;
    let before = resident(pid);
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = controller.proxy_api();
        for _ in 0..STREAMS {
            let mut stream = raw::destination(channel.clone(), "web.default:80").await;
            within(stream.message()).await.unwrap().unwrap();
            streams.push(stream);
        }
    }
    let after = resident(pid);
    let cost = after.saturating_sub(before);
    println!("{} streams: {} KiB", streams.len(), cost >> 10);
    assert!(cost < LIMIT, "{cost} bytes, of {LIMIT}");

    controller.write("new.yaml", &workload("web", 101));
    for stream in &mut streams {
        within(stream.message()).await.unwrap().unwrap();
    }
}
