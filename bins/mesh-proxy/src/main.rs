//! The `mesh-proxy` program.

use std::process::ExitCode;

use mesh_proxy::config::{self, Action};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A wrong command line or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match config::from_command_line(std::env::args_os()) {
        Ok(Action::Run(config)) => mesh_proxy::run(*config).unwrap_or_else(|error| {
            eprintln!("mesh-proxy: {error}");
            ExitCode::FAILURE
        }),
        Ok(Action::Checked) => {
            eprintln!("mesh-proxy: the configuration is fine");
            ExitCode::SUCCESS
        }
        Ok(Action::Usage(usage)) => {
            // Nothing is left to tell it to when the terminal is gone.
            let _ = usage.print();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(USAGE))
        }
        Err(error) => {
            eprintln!("mesh-proxy: {error}");
            ExitCode::from(USAGE)
        }
    }
}
