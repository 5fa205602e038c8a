//! Greets over HTTP, with what the greeter (gRPC) and the echo (TCP) say.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{Place, greeter, parsed, variable};
use crate::Error;

/// For both calls together.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Web {
    place: Place,
    greeter: Channel,
    echo: SocketAddr,
}

pub(super) async fn serve(listener: TcpListener, place: Place) -> Result<(), Error> {
    let greeter: Endpoint = parsed(
        &format!("http://{}", variable("MESH_GREETER_ADDR")?),
        "MESH_GREETER_ADDR",
    )?;
    let web = Arc::new(Web {
        place,
        // Connects when it is first called, so that services may start in any order.
        greeter: greeter.connect_lazy(),
        echo: parsed(&variable("MESH_ECHO_ADDR")?, "MESH_ECHO_ADDR")?,
    });
    loop {
        let (stream, _) = listener.accept().await.map_err(Error::Runtime)?;
        let _ = stream.set_nodelay(true);
        let web = web.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let web = web.clone();
                async move { Ok::<_, Infallible>(web.answer(&request).await) }
            });
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Web {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match request.uri().path() {
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/hello" => match tokio::time::timeout(PATIENCE, self.hello()).await {
                Ok(Ok(text)) => (StatusCode::OK, text),
                Ok(Err(reason)) => (StatusCode::BAD_GATEWAY, format!("{reason}\n")),
                Err(_) => (
                    StatusCode::GATEWAY_TIMEOUT,
                    "greeter or echo did not answer in time\n".to_owned(),
                ),
            },
            _ => (StatusCode::NOT_FOUND, "try /hello\n".to_owned()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    }

    async fn hello(&self) -> Result<String, String> {
        let Place { workload, zone } = &self.place;
        let (greeting, echo) = tokio::join!(self.greet(workload), self.echo(workload));
        let greeting = greeting
            .map_err(|status| format!("greeter: {:?}: {}", status.code(), status.message()))?;
        let echo = echo.map_err(|error| format!("echo: {error}"))?;
        Ok(format!(
            "web       {workload} in {zone}\ngreeter   {greeting}\necho      {echo}\n"
        ))
    }

    /// Asks the greeter; once more when the connection ended before anything was sent, as it does when its proxy is replaced.
    async fn greet(&self, name: &str) -> Result<String, Status> {
        match greeter::hello(self.greeter.clone(), name).await {
            Err(status) if is_unsent(&status) => greeter::hello(self.greeter.clone(), name).await,
            answer => answer,
        }
    }

    async fn echo(&self, text: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.echo).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut heard = String::new();
        stream.take(1024).read_to_string(&mut heard).await?;
        if heard == text {
            return Ok(heard);
        }
        Err(std::io::Error::other(format!(
            "said {heard:?} for {text:?}"
        )))
    }
}

/// Whether nobody can have seen the call.
fn is_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        source = error.source();
    }
    false
}
