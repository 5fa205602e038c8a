//! The quickstart's services. They know nothing of the mesh but the addresses in their environment.

mod echo;
mod greeter;
mod web;

use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::Error;
use crate::args::Demo;

/// Who a service is, from its environment.
#[derive(Debug, Clone)]
struct Place {
    workload: String,
    zone: String,
}

/// Serves until SIGTERM.
pub(crate) async fn run(service: &Demo) -> Result<ExitCode, Error> {
    let place = Place {
        workload: variable("MESH_WORKLOAD")?,
        zone: std::env::var("MESH_ZONE").unwrap_or_default(),
    };
    let address: SocketAddr = parsed(
        &format!("{}:{}", variable("HOST")?, variable("PORT")?),
        "HOST and PORT",
    )?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Address {
            address,
            what: place.workload.clone(),
            source,
        })?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let serving = async {
        match service {
            Demo::Web => web::serve(listener, place).await,
            Demo::Greeter => greeter::serve(listener, place).await,
            Demo::Echo => echo::serve(listener).await,
        }
    };
    tokio::select! {
        done = serving => done?,
        _ = terminate.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| Error::Plan {
        subject: name.to_owned(),
        reason: "is not in the environment; `mesh up` sets it".to_owned(),
    })
}

fn parsed<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Plan {
        subject: name.to_owned(),
        reason: format!("`{text}` is not an address"),
    })
}
