//! A codec that leaves the messages of a stream as they arrive.

use bytes::{Buf, Bytes};
use linkerd2_proxy_api::destination::GetDestination;
use prost::Message;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

/// `Destination.Get`, its updates as bytes.
pub async fn destination(channel: Channel, path: &str) -> Streaming<Bytes> {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let request = GetDestination {
        scheme: "k8s".into(),
        path: path.to_owned(),
        context_token: String::new(),
    };
    let call =
        http::uri::PathAndQuery::from_static("/io.linkerd.proxy.destination.Destination/Get");
    client
        .server_streaming(Request::new(request), call, Raw)
        .await
        .unwrap()
        .into_inner()
}

#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = GetDestination;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = GetDestination;
    type Error = Status;

    fn encode(&mut self, item: GetDestination, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
