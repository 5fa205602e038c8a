//! Extended CONNECT (RFC 8441): a stream of an HTTP/2 connection that carries another protocol, such as WebSocket.
//!
//! It is carried over HTTP/2 all the way, to servers that permit it. It is not made an upgrade of HTTP/1 for one that does
//! not: who asks for it is answered 501.

use futures_util::future::OptionFuture;
use http::{Method, Request, Version};
use mesh_http::server::offers_stream;
use mesh_http::{Error, Offer, Tunnel, tcp};

use super::answer::Refusal;
use super::upstream::Lease;

/// Whether `request` asks for a stream to carry something else. An ordinary CONNECT in HTTP/2 is not carried.
pub(crate) fn is_asked_for<B>(request: &Request<B>) -> Result<bool, Refusal> {
    if request.method() != Method::CONNECT || request.version() != Version::HTTP_2 {
        return Ok(false);
    }
    if offers_stream(request) {
        Ok(true)
    } else {
        Err(Refusal::Unsupported)
    }
}

/// Refuses an extended CONNECT that the server at the end of `lease` does not permit.
pub(crate) async fn permitted<B>(request: &Request<B>, lease: &Lease) -> Result<(), Refusal> {
    match lease {
        Lease::Http2 { stream, .. } if request.method() == Method::CONNECT => {
            if stream.permits_extended_connect().await {
                Ok(())
            } else {
                Err(Refusal::Unsupported)
            }
        }
        _ => Ok(()),
    }
}

/// Carries the bytes of both streams until they have ended.
pub(crate) async fn carry(client: Option<Offer>, mut upstream: Tunnel) -> Result<(), Error> {
    let client = OptionFuture::from(client).await.flatten();
    let ended = || Error::Connect("the client left before its stream was opened".to_owned());
    let mut client = client.ok_or_else(ended)?;
    tcp::carry(&mut client, &mut upstream, &()).await?;
    Ok(())
}
