//! Rate limits, slow endpoints and clients that never retry: how much of what could be answered is answered 200.
//!
//! - `server`: endpoints with a limit or a latency of their own, in this process, on loopback addresses.
//! - `client`: open-loop clients; each sends through something that chooses an endpoint, and none retries.
//! - `through`: what chooses: this project's balancer or tower's in a hyper client, a mesh-proxy (`mesh`), or Envoy.
//! - `scenario`: what is asked of them, and what is made of the answers.

mod client;
mod mesh;
mod scenario;
mod server;
mod through;

use crate::args::Limits;
use crate::error::Error;

#[allow(clippy::print_stdout, reason = "this is what was asked for")]
/// Runs the scenarios that are asked for through each way that is asked for, and prints a table.
pub(crate) fn run(arguments: &Limits) -> Result<(), Error> {
    let scenarios = scenario::all(arguments);
    println!("{}", scenario::HEADER);
    for scenario in &scenarios {
        for through in &arguments.through {
            if let Some(row) = scenario::run(scenario, *through, arguments)? {
                println!("{row}");
            }
        }
    }
    Ok(())
}
