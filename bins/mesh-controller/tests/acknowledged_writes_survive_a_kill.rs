//! What the store has acknowledged is there after SIGKILL.

// Functions beside the tests may panic as the tests do.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use mesh_controller::store::{EmbeddedStore, Expected, StateStore};

const FOLDER: &str = "MESH_TEST_STORE";

/// Not a test of its own: what the other runs as a process, which writes until it is killed.
#[tokio::test]
async fn write_until_killed() {
    let Some(path) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = EmbeddedStore::open(Path::new(&path)).unwrap();
    let mut expected = match store.get("counter").await.unwrap() {
        Some(found) => Expected::At(found.version),
        None => Expected::Absent,
    };
    for counter in 0_u64.. {
        let value = counter.to_be_bytes().to_vec();
        let version = store.put("counter", expected, value).await.unwrap();
        expected = Expected::At(version);
        eprintln!("acknowledged {counter}");
    }
}

#[tokio::test]
async fn the_last_acknowledged_write_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    for writes in [1, 5, 25] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["write_until_killed", "--exact", "--nocapture"])
            .env(FOLDER, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut acknowledged = None;
        let mut read = 0;
        while read < writes {
            let line = lines.next().expect("the child writes").unwrap();
            if let Some((_, counter)) = line.split_once("acknowledged ") {
                acknowledged = Some(counter.parse::<u64>().unwrap());
                read += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the last line read and its death counts too.
        for line in lines.map_while(Result::ok) {
            if let Some((_, counter)) = line.split_once("acknowledged ") {
                acknowledged = counter.parse().ok().or(acknowledged);
            }
        }
        let store = EmbeddedStore::open(&path).unwrap();
        let found = store.get("counter").await.unwrap().unwrap();
        let counter = u64::from_be_bytes(found.value.try_into().unwrap());
        let acknowledged = acknowledged.unwrap();
        // One more may have been written and not yet acknowledged.
        assert!(counter == acknowledged || counter == acknowledged + 1);
    }
}
