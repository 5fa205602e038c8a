//! The folder of manifests, read and followed.

use std::path::Path;

use mesh_discovery::manifests::{Folder, Options, Watcher};
use tokio::sync::watch;

use super::mesh::{Mesh, Runnable};
use crate::Error;

/// What a folder says, now and from now on.
#[derive(Debug)]
pub(crate) struct Source {
    state: watch::Receiver<State>,
    /// Follows the folder until it is dropped.
    _watcher: Watcher,
}

/// What a folder says at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// What is in force.
    pub(crate) mesh: Mesh,
    /// What is wrong, a line each, with file and line.
    pub(crate) wrong: Vec<String>,
}

impl Source {
    /// Reads `folder` and follows it.
    ///
    /// # Errors
    /// When it cannot be followed.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let (sender, state) = watch::channel(State::default());
        let on_change = move |folder: &Folder, _: &_| {
            sender.send_replace(State::of(folder));
        };
        let watcher = Watcher::start(folder, Options::default(), on_change).map_err(|error| {
            Error::Folder {
                path: folder.to_path_buf(),
                reason: error.to_string(),
            }
        })?;
        Ok(Self {
            state,
            _watcher: watcher,
        })
    }

    /// What it says now.
    pub(crate) fn now(&mut self) -> State {
        self.state.borrow_and_update().clone()
    }

    /// Waits until it says something else.
    pub(crate) async fn changed(&mut self) -> State {
        if self.state.changed().await.is_err() {
            // The watcher is gone, so nothing will change.
            std::future::pending::<()>().await;
        }
        self.now()
    }
}

impl State {
    fn of(folder: &Folder) -> Self {
        let trust_domain = folder.mesh_config().trust_domain.clone();
        let runnable = |manifest: &mesh_discovery::manifests::WorkloadManifest| Runnable {
            workload: manifest.workload(&trust_domain),
            run: manifest.run.clone(),
        };
        let mesh = Mesh {
            services: folder.services().cloned().collect(),
            workloads: folder.workloads().map(runnable).collect(),
            trust_domain: trust_domain.clone(),
        };
        Self {
            mesh,
            wrong: folder.errors().iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::Listeners;
    use super::super::quickstart;
    use super::*;
    use crate::traffic::{Call, targets};

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::write(folder.join(name), text).unwrap();
    }

    const WORKLOAD: &str = "apiVersion: mesh-rs.io/v1alpha1\nkind: Workload\nmetadata: {name: web-1}\nspec:\n  \
                            addresses: [127.77.0.2]\n  ports: [{port: 8080, meshPort: 14143}]\n  run: {command: [./web]}\n";

    #[test]
    fn the_quickstart_is_sound_and_says_how_each_service_is_called() {
        let data = tempfile::tempdir().unwrap();
        let folder = quickstart::write(data.path()).unwrap();
        let state = Source::open(&folder).unwrap().now();
        assert_eq!(state.wrong, Vec::<String>::new());
        assert_eq!(state.mesh.workloads.len(), 4);

        let mut listeners = Listeners::default();
        listeners.assign(&state.mesh.services).unwrap();
        let calls: Vec<_> = targets(&state.mesh, &listeners, [127, 77, 255, 254].into())
            .unwrap()
            .into_iter()
            .map(|target| (target.service, target.call))
            .collect();
        assert_eq!(
            calls,
            [
                ("echo".to_owned(), Call::Echo),
                (
                    "greeter".to_owned(),
                    Call::Grpc {
                        method: "/quickstart.v1.Greeter/Hello".into()
                    }
                ),
                (
                    "web".to_owned(),
                    Call::Http {
                        path: "/hello".into()
                    }
                ),
            ]
        );
    }

    #[tokio::test]
    async fn changes_are_followed_and_what_is_wrong_is_said_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "web.yaml", WORKLOAD);
        let mut source = Source::open(folder.path()).unwrap();
        let workloads = |state: &State| state.mesh.workloads.len();
        let first = source.now();
        assert_eq!((workloads(&first), first.wrong.len()), (1, 0));

        let other = WORKLOAD
            .replace("web-1", "web-2")
            .replace("127.77.0.2", "127.77.0.3");
        write(folder.path(), "more.yaml", &other.replace("8080", "eighty"));
        let mut state = source.changed().await;
        while state.wrong.is_empty() {
            state = source.changed().await;
        }
        assert_eq!(workloads(&state), 1);
        assert!(
            state.wrong[0].starts_with("more.yaml:6"),
            "{}",
            state.wrong[0]
        );

        write(folder.path(), "more.yaml", &other);
        while workloads(&state) < 2 {
            state = source.changed().await;
        }
        assert_eq!(state.wrong, Vec::<String>::new());
    }
}
