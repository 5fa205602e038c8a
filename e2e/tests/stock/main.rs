//! A stock linkerd2-proxy and ours, side by side under one controller: each protocol, in both directions.
//!
//! Runs against the program that `LINKERD2_PROXY` names, which is not part of this project; `scripts/test-stock-proxy`
//! prints what came of it as a table. Every proxy but ours by its own settings is started with nothing but what
//! `mesh token --stock-proxy` wrote.

mod cells;
mod followed;
mod pair;
mod recording;
mod table;

use std::time::Duration;

use e2e::{MESH, Mesh, Network, Program, Requirement, linkerd2_proxy, require};

use crate::pair::Pair;
use crate::table::Table;

/// Between two attempts of a lane.
const PAUSE: Duration = Duration::from_millis(5);

/// Whose outbound half calls whose inbound half.
const PAIRS: [(Program, Program); 7] = [
    (Program::Ours, Program::Stock),
    (Program::Stock, Program::Ours),
    (Program::Stock, Program::Listeners),
    (Program::Stock, Program::Stock),
    (Program::StandIn, Program::Stock),
    (Program::Stock, Program::StandIn),
    (Program::StandIn, Program::StandIn),
];

#[test]
#[allow(
    clippy::print_stdout,
    reason = "the table is what scripts/test-stock-proxy is run for"
)]
fn either_half_can_be_swapped() {
    let more = [
        Requirement::Program("tcpdump"),
        Requirement::Python("grpc"),
        Requirement::Python("websockets"),
    ];
    if !is_possible(&more) {
        return;
    }
    let mut table = Table::default();
    for (outbound, inbound) in PAIRS {
        let column = format!("{} -> {}", name(outbound), name(inbound));
        let network = Network::new();
        let mesh = Mesh::start(&network, "");
        let pair = match table::outcome(|| Pair::start(&network, &mesh, outbound, inbound)) {
            Ok(pair) => pair,
            Err(reason) => {
                table.record(&column, "starts", Err(reason));
                continue;
            }
        };
        for (row, cell) in cells::ALL
            .into_iter()
            .filter(|(row, _)| applies(row, inbound))
        {
            table.record(&column, row, table::outcome(|| cell(&pair)));
        }
        table.record(
            &column,
            "nothing in the clear between them",
            table::outcome(|| pair.assert_nothing_in_the_clear()),
        );
        for (row, cell) in cells::LAST
            .into_iter()
            .filter(|(row, _)| applies(row, inbound))
        {
            table.record(&column, row, table::outcome(|| cell(&pair)));
        }
    }
    println!("{table}\n\n{LEGEND}");
    assert!(table.is_good(), "not every cell is ok");
}

/// Whether there is a stock proxy to test against, and everything in `needs`. A line says what is missing.
#[allow(
    clippy::print_stdout,
    reason = "the line is meant for the person who reads the test's output"
)]
fn is_possible(needs: &[Requirement]) -> bool {
    if linkerd2_proxy().is_none() {
        println!("SKIPPED: LINKERD2_PROXY names no stock linkerd2-proxy to test against");
        return false;
    }
    require(&[&MESH[..], &[Requirement::Built("mesh")], needs].concat())
}

/// Without redirect, the application's own address leads to it and not to its proxy.
fn applies(row: &str, inbound: Program) -> bool {
    inbound != Program::Listeners || !cells::BY_ADDRESS.contains(&row)
}

fn name(program: Program) -> &'static str {
    match program {
        Program::Ours => "ours",
        Program::Listeners => "our ports",
        Program::Stock => "theirs",
        Program::StandIn => "stand-in",
    }
}

const LEGEND: &str = "theirs: linkerd2-proxy, started with what `mesh token --stock-proxy` wrote\n\
    ours: mesh-proxy, started with settings of its own\n\
    our ports: the same with a mesh port for each port and no redirect, as `mesh up` runs it; the application's own address\n\
    leads past it\n\
    stand-in: mesh-proxy, started with what `mesh token --stock-proxy` wrote";
