//! From one plan to the next.

use mesh_discovery::Name;

use super::plan::{Plan, Unit};

/// What must be done so that `to` runs where `from` does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// No longer wanted, or started anew.
    pub(crate) stop: Vec<Name>,
    /// New, or started anew because anything it was started with has changed.
    pub(crate) start: Vec<Unit>,
}

/// What runs is what is planned: a unit of which anything has changed is started anew.
pub(crate) fn difference(from: &Plan, to: &Plan) -> Difference {
    let stop = from
        .units
        .iter()
        .filter(|unit| !to.units.contains(unit))
        .map(|unit| unit.name.clone())
        .collect();
    let start = to
        .units
        .iter()
        .filter(|unit| !from.units.contains(unit))
        .cloned()
        .collect();
    Difference { stop, start }
}

#[cfg(test)]
mod tests {
    use super::super::mesh::Mesh;
    use super::super::plan::plan;
    use super::super::plan::tests::{around, runnable, service};
    use super::super::ports::Listeners;
    use super::*;

    #[test]
    fn only_what_has_changed_is_started_anew() {
        let mut listeners = Listeners::default();
        let mut mesh = Mesh {
            trust_domain: "cluster.local".to_owned(),
            services: vec![service("web")],
            workloads: vec![
                runnable("web-1", [127, 77, 0, 2]),
                runnable("web-2", [127, 77, 0, 3]),
            ],
        };
        let mut plan_now = |mesh: &Mesh| plan(mesh, &mut listeners, &around()).unwrap();
        let names = |units: &[Unit]| {
            units
                .iter()
                .map(|unit| unit.name.name.clone())
                .collect::<Vec<_>>()
        };
        let first = plan_now(&mesh);
        assert_eq!(
            difference(&first, &first),
            Difference {
                stop: Vec::new(),
                start: Vec::new()
            }
        );

        mesh.workloads[1]
            .run
            .as_mut()
            .unwrap()
            .env
            .insert("COLOUR".into(), "red".into());
        mesh.workloads.push(runnable("web-3", [127, 77, 0, 4]));
        let second = plan_now(&mesh);
        let change = difference(&first, &second);
        assert_eq!(change.stop, [Name::new("default", "web-2")]);
        assert_eq!(names(&change.start), ["web-2", "web-3"]);

        mesh.workloads.remove(0);
        let change = difference(&second, &plan_now(&mesh));
        assert_eq!(
            (change.stop, change.start),
            (vec![Name::new("default", "web-1")], Vec::new())
        );
    }
}
