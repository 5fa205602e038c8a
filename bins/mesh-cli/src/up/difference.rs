//! From one plan to the next.

use std::collections::BTreeSet;

use mesh_discovery::Name;

use super::plan::{Plan, Unit};

/// What must be done so that `to` runs where `from` does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// No longer wanted.
    pub(crate) stop: Vec<Name>,
    /// New.
    pub(crate) start: Vec<Unit>,
    /// The variables of services that applications which go on would have, were they started now.
    pub(crate) new_variables: BTreeSet<String>,
    /// The variables that lead nowhere any more.
    pub(crate) old_variables: BTreeSet<String>,
}

/// A unit that is in both is not here: whatever keeps it knows what of it has to be started anew.
pub(crate) fn difference(from: &Plan, to: &Plan) -> Difference {
    let find =
        |plan: &Plan, name: &Name| plan.units.iter().find(|unit| unit.name == *name).cloned();
    let stop = from
        .units
        .iter()
        .filter(|unit| find(to, &unit.name).is_none())
        .map(|unit| unit.name.clone())
        .collect();
    let mut difference = Difference {
        stop,
        start: Vec::new(),
        new_variables: BTreeSet::new(),
        old_variables: BTreeSet::new(),
    };
    for unit in &to.units {
        let Some(before) = find(from, &unit.name) else {
            difference.start.push(unit.clone());
            continue;
        };
        let (Some(before), Some(now)) = (&before.app, &unit.app) else {
            continue;
        };
        if !before.serves_as(now) {
            continue;
        }
        let (before, now): (BTreeSet<_>, BTreeSet<_>) = (
            before.services.keys().cloned().collect(),
            now.services.keys().cloned().collect(),
        );
        difference.new_variables.extend(&now - &before);
        difference.old_variables.extend(&before - &now);
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::super::mesh::Mesh;
    use super::super::plan::plan;
    use super::super::plan::tests::{around, runnable, service};
    use super::super::ports::Listeners;
    use super::*;

    #[test]
    fn what_comes_and_goes_is_named_with_the_variables_that_do() {
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
        let variables = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let nothing = Difference {
            stop: Vec::new(),
            start: Vec::new(),
            new_variables: BTreeSet::new(),
            old_variables: BTreeSet::new(),
        };
        let first = plan_now(&mesh);
        assert_eq!(difference(&first, &first), nothing);

        mesh.workloads.remove(0);
        mesh.workloads.push(runnable("web-3", [127, 77, 0, 4]));
        let second = plan_now(&mesh);
        let change = difference(&first, &second);
        assert_eq!(change.stop, [Name::new("default", "web-1")]);
        assert_eq!(names(&change.start), ["web-3"]);

        mesh.services = vec![service("shop")];
        let third = plan_now(&mesh);
        let change = difference(&second, &third);
        let expected = Difference {
            new_variables: variables(&["MESH_SHOP_ADDR"]),
            old_variables: variables(&["MESH_WEB_ADDR"]),
            ..nothing
        };
        assert_eq!(change, expected);
    }

    #[test]
    fn what_is_started_anew_has_its_variables() {
        let mut listeners = Listeners::default();
        let mut mesh = Mesh {
            trust_domain: "cluster.local".to_owned(),
            services: Vec::new(),
            workloads: vec![runnable("web-1", [127, 77, 0, 2])],
        };
        let mut plan_now = |mesh: &Mesh| plan(mesh, &mut listeners, &around()).unwrap();
        let before = plan_now(&mesh);
        mesh.services = vec![service("shop")];
        let run = mesh.workloads[0].run.as_mut().unwrap();
        run.env.insert("COLOUR".into(), "red".into());
        let change = difference(&before, &plan_now(&mesh));
        assert_eq!(change.new_variables, BTreeSet::new());
    }
}
