//! The models. Each names its bounds; all are explored to the end.

use std::time::Instant;

use stateright::{Checker, Model};

use super::scenario::{Budget, Scenario, Spec};

/// Explores a model to the end, prints how much there was, and fails with the trace of what broke.
fn holds(scenario: Scenario) {
    let name = scenario.name;
    let began = Instant::now();
    let checker = scenario.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states, {} steps, depth {}, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    for (property, path) in checker.discoveries() {
        if property == "a run completes" {
            continue;
        }
        let last = path.last_state().clone();
        let steps: Vec<String> = path.into_actions().iter().map(|step| format!("{step:?}")).collect();
        panic!("{name}: {property} {:?}\n{}\n{:#?}", last.broken, steps.join("\n"), last);
    }
    checker.assert_any_discovery("a run completes");
    assert!(checker.unique_state_count() < 5_000_000, "{name} is too large");
}

/// Three workloads, one of them a canary with two workers, and a controller.
pub(super) fn normal_path() -> Scenario {
    let mut scenario = Scenario::new(
        "normal path",
        vec![
            Spec::new("canary").canary(),
            Spec::new("web"),
        ],
    );
    scenario.horizon = 5;
    scenario.budget = Budget::default();
    scenario
}

#[test]
fn normal_path_holds() {
    holds(normal_path());
}

#[test]
fn zz_debug() {
    use std::collections::HashMap;
    let scenario = normal_path();
    let mut state = super::world::World::new(&scenario);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let _ = &mut seen;
    let began = Instant::now();
    for round in 0..60 {
        let mut steps = Vec::new();
        scenario.actions(&state, &mut steps);
        let next: Vec<_> = steps.into_iter().filter_map(|s| scenario.next_state(&state, s.clone()).map(|n| (s, n))).collect();
        println!("{round} {:?} {:?} enabled {:?}", state.now, state.record.change().map(|c| c.phase), next.iter().map(|(s, _)| format!("{s:?}")).collect::<Vec<_>>());
        let pick = next.into_iter().find(|(s, _)| !matches!(s, super::steps::Step::Second)) ;
        let Some((s, n)) = pick else {
            if state.now < scenario.end() { state.now.0 += 1; continue; }
            break };
        println!("   -> {s:?} {:?}", n.record.gate(n.now).blockers().iter().map(ToString::to_string).collect::<Vec<_>>());
        state = n;
    }
    println!("{:?}", began.elapsed());
    let checker = normal_path().checker().threads(2).target_state_count(300_000).spawn_bfs().join();
    println!("{} {} {} {:?}", checker.unique_state_count(), checker.state_count(), checker.max_depth(), began.elapsed());
    for (p, path) in checker.discoveries() { println!("{p} {:?}", path.into_actions()); }
}
