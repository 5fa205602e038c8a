//! An application, and when it has to be started anew.

use std::collections::BTreeMap;

use super::plan::Part;
use crate::process::Launch;

/// What a workload's manifest asks for, and the services that there are besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct App {
    /// The process, without `services` in its environment.
    pub(crate) part: Part,
    /// The variables that say where services are called. None of them is set by the manifest.
    pub(crate) services: BTreeMap<String, String>,
}

impl App {
    /// Whether one that was started as this can go on where `planned` is wanted.
    ///
    /// Services that came or went are no reason to end it: it is told of new ones at its next start, and one that is gone
    /// is gone for whoever calls it. But an address that was replaced by another it would call in vain for ever.
    pub(crate) fn serves_as(&self, planned: &Self) -> bool {
        let moved = |(name, address): (&String, &String)| {
            planned.services.get(name).is_some_and(|now| now != address)
        };
        self.part == planned.part && !self.services.iter().any(moved)
    }

    /// Its process with its whole environment.
    pub(crate) fn launch(&self) -> Launch {
        let mut launch = self.part.launch.clone();
        launch.env.extend(self.services.clone());
        launch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(colour: &str, services: &[(&str, &str)]) -> App {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let launch = Launch {
            name: "web-1".into(),
            command: vec!["./web".into()],
            env: [own(&("COLOUR", colour))].into(),
            isolated: false,
            folder: "/".into(),
        };
        App {
            part: Part {
                launch,
                ready: None,
            },
            services: services.iter().map(own).collect(),
        }
    }

    #[test]
    fn services_that_come_and_go_end_no_application() {
        let started = app("blue", &[("MESH_DB_ADDR", "127.77.0.2:15001")]);
        assert!(started.serves_as(&started));
        assert!(started.serves_as(&app("blue", &[])));
        let more = [
            ("MESH_DB_ADDR", "127.77.0.2:15001"),
            ("MESH_SHOP_ADDR", "127.77.0.2:15002"),
        ];
        assert!(started.serves_as(&app("blue", &more)));
    }

    #[test]
    fn its_own_manifest_and_an_address_that_moved_do() {
        let started = app("blue", &[("MESH_DB_ADDR", "127.77.0.2:15001")]);
        let [red, moved] = [
            app("red", &[("MESH_DB_ADDR", "127.77.0.2:15001")]),
            app("blue", &[("MESH_DB_ADDR", "127.77.0.2:15002")]),
        ];
        assert!(!started.serves_as(&red));
        assert!(!started.serves_as(&moved));
    }

    #[test]
    fn it_is_started_with_the_variables_of_both() {
        let launch = app("blue", &[("MESH_DB_ADDR", "127.77.0.2:15001")]).launch();
        let names: Vec<_> = launch.env.keys().map(String::as_str).collect();
        assert_eq!(names, ["COLOUR", "MESH_DB_ADDR"]);
    }
}
