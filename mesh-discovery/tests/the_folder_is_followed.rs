//! Every way in which files come, change and go is noticed.

#![cfg(feature = "manifests")]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use mesh_discovery::manifests::{Options, Watcher};
use tempfile::TempDir;

/// Far longer than anything takes: reached only when something is not noticed at all.
const DEADLINE: Duration = Duration::from_secs(20);

fn workload(name: &str) -> String {
    let address = name.as_bytes()[0];
    format!(
        "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  addresses: [10.0.0.{address}]\n  ports: [{{port: 80}}]\n"
    )
}

struct Following {
    _watcher: Watcher,
    states: Receiver<(Vec<String>, usize)>,
}

impl Following {
    /// Reads again only when it hears something, unless told otherwise.
    fn start(path: &Path, rescan: Duration) -> Self {
        let (sender, states) = channel();
        let mut options = Options::default();
        options.debounce = Duration::from_millis(5);
        options.retry = Duration::from_millis(5);
        options.rescan = rescan;
        let watcher = Watcher::start(path, options, move |folder, _| {
            let names = folder.workloads().map(|workload| workload.id().name);
            let _ = sender.send((names.collect(), folder.errors().len()));
        });
        Self {
            _watcher: watcher.unwrap(),
            states,
        }
    }

    /// Waits until these workloads and so many errors are there.
    #[track_caller]
    fn until(&self, workloads: &[&str], errors: usize) {
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.states.recv_timeout(left) {
                Ok((names, count)) if names == workloads && count == errors => return,
                Ok(state) => last = Some(state),
                Err(_) => panic!("never came to {workloads:?}, {errors}; last {last:?}"),
            }
        }
    }
}

const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn files_come_change_and_go() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.yaml"), workload("a")).unwrap();
    fs::write(at("ignored.txt"), "{").unwrap();
    fs::write(at(".hidden.yaml"), "{").unwrap();
    let following = Following::start(folder.path(), NEVER);
    following.until(&["a"], 0);

    fs::write(at("b.yml"), workload("b")).unwrap();
    following.until(&["a", "b"], 0);

    fs::write(at("b.yml"), workload("c")).unwrap();
    following.until(&["a", "c"], 0);

    fs::write(at("b.yml"), "oops: [").unwrap();
    following.until(&["a", "c"], 1);

    // A new file in the place of the old one, as editors save.
    fs::write(at("b.yml.tmp"), workload("d")).unwrap();
    fs::rename(at("b.yml.tmp"), at("b.yml")).unwrap();
    following.until(&["a", "d"], 0);

    fs::rename(at("b.yml"), at("e.yaml")).unwrap();
    fs::write(at("f.yaml"), workload("f")).unwrap();
    following.until(&["a", "d", "f"], 0);

    fs::rename(at("e.yaml"), at("e.yaml.off")).unwrap();
    following.until(&["a", "f"], 0);

    fs::remove_file(at("a.yaml")).unwrap();
    following.until(&["f"], 0);

    fs::write(at("f.yaml"), [0xff, 0xfe]).unwrap();
    following.until(&["f"], 1);
    fs::remove_file(at("f.yaml")).unwrap();
    following.until(&[], 0);
}

#[test]
fn a_folder_that_comes_later_goes_and_comes_back() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("mesh");
    let following = Following::start(&folder, NEVER);
    following.until(&[], 1);

    fs::create_dir(&folder).unwrap();
    following.until(&[], 0);
    fs::write(folder.join("a.yaml"), workload("a")).unwrap();
    following.until(&["a"], 0);

    fs::rename(&folder, parent.path().join("away")).unwrap();
    // What was known stays, with the folder as the one error.
    fs::remove_dir_all(parent.path().join("away")).unwrap();
    following.until(&["a"], 1);

    fs::create_dir(&folder).unwrap();
    following.until(&[], 0);
    fs::write(folder.join("b.yaml"), workload("b")).unwrap();
    following.until(&["b"], 0);
}

#[test]
fn a_folder_that_goes_and_comes_back_at_once_is_watched_again() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("mesh");
    fs::create_dir(&folder).unwrap();
    let following = Following::start(&folder, NEVER);
    following.until(&[], 0);
    for round in 0..20 {
        let name = format!("w-{round}");
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.yaml"), workload(&name)).unwrap();
        following.until(&[&name], 0);
    }
}

#[test]
#[cfg(unix)]
fn another_folder_in_its_place_and_links_are_noticed_by_the_rescan() {
    let parent = TempDir::new().unwrap();
    let of = |name: &str| parent.path().join(name);
    for (folder, workload_name) in [("one", "a"), ("two", "b")] {
        fs::create_dir(of(folder)).unwrap();
        fs::write(of(folder).join("x.yaml"), workload(workload_name)).unwrap();
    }
    std::os::unix::fs::symlink("one", of("current")).unwrap();
    let following = Following::start(&of("current"), Duration::from_millis(20));
    following.until(&["a"], 0);
    std::os::unix::fs::symlink("two", of("next")).unwrap();
    fs::rename(of("next"), of("current")).unwrap();
    following.until(&["b"], 0);
    fs::write(of("two").join("y.yaml"), workload("c")).unwrap();
    following.until(&["b", "c"], 0);
}

#[test]
fn after_the_watcher_is_dropped_nothing_is_reported() {
    let folder = TempDir::new().unwrap();
    let following = Following::start(folder.path(), Duration::from_millis(1));
    let Following { _watcher, states } = following;
    drop(_watcher);
    // The thread's end drops the sender.
    let deadline = Instant::now() + DEADLINE;
    while states
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .is_ok()
    {}
    assert!(Instant::now() < deadline, "the thread went on");
}
