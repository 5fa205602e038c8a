//! Requests in HTTP proxy form: each names its own target, by an absolute URI or with CONNECT.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_http::Incoming;
use mesh_http::body::Short;
use mesh_http::connections::{Activity, Connection};
use mesh_http::{headers, server};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http::{Answer, Http};
use super::serve_target;
use crate::control::Watched;
use crate::model::{Outbound, Target};
use crate::worker::Worker;
use crate::worker::answer::{Form, Refusal, answer_version};
use crate::worker::body::ResponseBody;

/// How long looking up the address of a host that is no service may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection of a client that takes this for an HTTP proxy.
struct Proxy {
    worker: Rc<Worker>,
    activity: Activity,
    client: SocketAddr,
    /// The last target: clients mostly keep a connection for one.
    last: RefCell<Option<(Box<str>, Rc<Http>)>>,
    tunnel: RefCell<Option<(OnUpgrade, Target)>>,
}

/// Serves a connection of a client that is configured to use an HTTP proxy.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: &Connection,
    stream: TcpStream,
    client: SocketAddr,
) {
    let proxy = Rc::new(Proxy {
        worker: worker.clone(),
        activity: connection.activity(),
        client,
        last: RefCell::default(),
        tunnel: RefCell::default(),
    });
    let service = service_fn(|request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    if let Err(error) = server::http1(stream, &worker.limits, connection, service).await {
        tracing::debug!(%error, "a connection in HTTP proxy form failed");
        return;
    }
    if let Some((upgraded, target)) = proxy.tunnel.take() {
        if let Ok(upgraded) = upgraded.await {
            // Boxed, as this is the same future again inside of itself.
            Box::pin(serve_target(
                &worker,
                connection,
                TokioIo::new(upgraded),
                client,
                target,
            ))
            .await;
        }
        return;
    }
    let switch = proxy
        .last
        .borrow()
        .as_ref()
        .and_then(|(_, http)| http.take_switch());
    if let Some(switch) = switch
        && let Err(error) = switch.carry(connection).await
    {
        tracing::debug!(%error, "a connection that switched protocols failed");
    }
}

impl Proxy {
    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        let (version, form) = (request.version(), Form::of(&request));
        let refuse = |refusal: Refusal| {
            let mut answer = refusal.answer(form);
            *answer.version_mut() = answer_version(version);
            answer
        };
        let named = headers::names_its_host(version, request.uri(), request.headers());
        let Some(authority) = request.uri().authority().cloned().filter(|_| named) else {
            return refuse(Refusal::BadAuthority);
        };
        if request.method() == Method::CONNECT {
            return match self.open_tunnel(&mut request, &authority).await {
                Ok(answer) => answer,
                Err(refusal) => refuse(refusal),
            };
        }
        let http = match self.http(&authority).await {
            Ok(http) => http,
            Err(refusal) => return refuse(refusal),
        };
        // The absolute form was meant for this proxy; the service gets the origin form (RFC 9112, section 3.2.2).
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        headers::to_origin(request.uri_mut());
        http.answer(request).await
    }

    async fn open_tunnel(
        &self,
        request: &mut Request<Incoming>,
        authority: &Authority,
    ) -> Result<Answer, Refusal> {
        let _in_flight = self.activity.request();
        let (target, _) = resolve(&self.worker, authority).await?;
        *self.tunnel.borrow_mut() = Some((hyper::upgrade::on(request), target));
        Ok(Response::new(ResponseBody::Own(Short::default())))
    }

    async fn http(&self, authority: &Authority) -> Result<Rc<Http>, Refusal> {
        if let Some((last, http)) = &*self.last.borrow()
            && **last == *authority.as_str()
        {
            return Ok(http.clone());
        }
        let _in_flight = self.activity.request();
        let (target, watched) = resolve(&self.worker, authority).await?;
        let (worker, activity) = (self.worker.clone(), self.activity.clone());
        let http = Http::new(worker, watched, activity, self.client, &target);
        *self.last.borrow_mut() = Some((authority.as_str().into(), http.clone()));
        Ok(http)
    }
}

/// The target that `authority` names: a service that the controller knows, else the address that its name has.
async fn resolve(
    worker: &Worker,
    authority: &Authority,
) -> Result<(Target, Arc<Watched<Outbound>>), Refusal> {
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host();
    let literal = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
        .map(|ip| SocketAddr::new(ip, port));
    if literal.is_none() {
        let target = Target::Authority(format!("{}:{port}", host.to_ascii_lowercase()).into());
        if let Ok(watched) = worker.shared.control.outbound(target.clone()).await {
            return Ok((target, watched));
        }
    }
    let address = match literal {
        Some(address) => address,
        None => lookup(host, port).await.ok_or(Refusal::UnknownTarget)?,
    };
    if worker.is_own(address) {
        return Err(Refusal::Unsupported);
    }
    let target = Target::Addr(address);
    let watched = worker
        .shared
        .control
        .outbound(target.clone())
        .await
        .map_err(|_| Refusal::UnknownTarget)?;
    Ok((target, watched))
}

async fn lookup(host: &str, port: u16) -> Option<SocketAddr> {
    timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port)))
        .await
        .ok()?
        .ok()?
        .next()
}
