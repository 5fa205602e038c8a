//! The proof: the machine in a modelled world, checked exhaustively within stated bounds.
//!
//! - `scenario`: what a model is given: who there is, how long, which faults.
//! - `world`: processes, clusters and the network as they really are, beside what the machine believes of them; `process` and
//!   `site` are what processes and clusters' controllers do.
//! - `steps`: everything that can happen next. `taken`: what each does to the world.
//! - `invariants`: S1-S16 as statements about the world, and how runs must end.
//! - `configured`: what may be configured when. `plain`: guards that no model needs, shown by themselves.
//! - `models`: the models, each naming its bounds. `explored`: they hold. `mutants`: they fall with one guard taken away.

#![allow(clippy::unwrap_used)] // tests

mod configured;
mod explored;
mod invariants;
mod models;
mod mutants;
mod plain;
mod process;
mod scenario;
mod site;
mod steps;
mod table;
mod taken;
mod world;
