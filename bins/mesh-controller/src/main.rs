//! The `mesh-controller` program.

use std::{io, process::ExitCode};

use mesh_controller::{ConfigError, Controller, Error, Invocation, check};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let invocation = match Invocation::read(std::env::args_os()) {
        Ok(invocation) => invocation,
        // Also --help and --version.
        Err(ConfigError::Flags(error)) => error.exit(),
        Err(error) => return fail(&error.into()),
    };
    match run(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(invocation: Invocation) -> Result<(), Error> {
    let config = invocation.config;
    if invocation.check {
        return check(&config.manifests, |line| eprintln!("{line}"));
    }
    tracing_subscriber::fmt()
        .with_env_filter(&config.log)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    runtime.block_on(async {
        // Before anything is announced: whoever reads controller.json may send a signal.
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Start)?;
        let controller = Controller::start(config).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        controller.stop().await;
        Ok(())
    })
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("mesh-controller: {error}");
    error.exit_code()
}
