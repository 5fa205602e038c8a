//! Sits between two proxies, with the certificates of both, and writes down what each says inside TLS.
//!
//! Each connection becomes `PORT-NUMBER.c2s` and `PORT-NUMBER.s2c` in the folder, as the bytes came, and a line on
//! standard output: the port, the number on that port, the server name and the protocol that the client asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::identity::CertifyRequest;
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use mesh_tls::pki_types::CertificateDer;
use mesh_tls::{
    ClientAuth, Identity, LeafKey, Tls, TlsClient, TlsServer, TrustBundle, credential_store,
    trust_store,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Endpoint;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TRANSPORT: &[u8] = b"transport.l5d.io/v1";

#[derive(Debug, Parser)]
#[command(about = "Writes down what two proxies say to each other inside TLS")]
struct Arguments {
    /// The folder that `mesh token --stock-proxy` wrote for the client.
    #[arg(long)]
    client: PathBuf,
    /// The same for the server.
    #[arg(long)]
    server: PathBuf,
    /// Where the server is; the same ports are listened on here.
    #[arg(long)]
    upstream: IpAddr,
    #[arg(long, value_delimiter = ',')]
    ports: Vec<u16>,
    /// The folder to write into.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone)]
struct Recorder {
    accepting: TlsServer,
    /// By whether the transport header's protocol is asked for.
    connecting: [TlsClient; 2],
    server: Identity,
    upstream: IpAddr,
    out: Arc<Path>,
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "a test waits for these lines")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let (_, server, accepting) = member(&arguments.server).await?;
    let (_, _, connecting) = member(&arguments.client).await?;
    let recorder = Recorder {
        accepting: accepting.server(&[TRANSPORT], ClientAuth::Required),
        connecting: [connecting.client(&[]), connecting.client(&[TRANSPORT])],
        server,
        upstream: arguments.upstream,
        out: arguments.out.into(),
    };
    let mut listeners = Vec::new();
    for port in arguments.ports {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        listeners.push((port, TcpListener::bind(address).await?));
    }
    println!("ready");
    let mut tasks = tokio::task::JoinSet::new();
    for (port, listener) in listeners {
        let recorder = recorder.clone();
        tasks.spawn(async move {
            let mut number = 0_u32;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                let recorder = recorder.clone();
                tokio::spawn(async move {
                    if let Err(error) = recorder.record(stream, port, number).await {
                        println!("{port}-{number}: {error}");
                    }
                });
            }
        });
    }
    tasks.join_all().await;
    Ok(())
}

impl Recorder {
    #[allow(clippy::print_stdout, reason = "a test waits for these lines")]
    async fn record(&self, stream: TcpStream, port: u16, number: u32) -> Result<(), Failure> {
        stream.set_nodelay(true)?;
        let (client, who) = self.accepting.accept(stream).await?;
        let (_, session) = client.get_ref();
        let transport = session.alpn_protocol() == Some(TRANSPORT);
        println!(
            "{port}-{number} sni={} alpn={} client={}",
            session.server_name().unwrap_or("none"),
            session
                .alpn_protocol()
                .map_or("none".into(), String::from_utf8_lossy),
            who.map_or_else(|| "nobody".to_owned(), |who| who.to_string()),
        );
        let upstream = TcpStream::connect((self.upstream, port)).await?;
        upstream.set_nodelay(true)?;
        let connect = &self.connecting[usize::from(transport)];
        let server = connect.connect(upstream, &self.server, None).await?;
        let file =
            |direction: &str| File::create(self.out.join(format!("{port}-{number}.{direction}")));
        let (c2s, s2c) = (file("c2s")?, file("s2c")?);
        let (client_read, client_write) = tokio::io::split(client);
        let (server_read, server_write) = tokio::io::split(server);
        tokio::try_join!(
            copy(client_read, server_write, c2s),
            copy(server_read, client_write, s2c)
        )?;
        Ok(())
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut file: File,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        file.write_all(&buffer[..read])?;
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}

/// Has the identity of a folder certified.
async fn member(folder: &Path) -> Result<(LeafKey, Identity, Tls), Failure> {
    let text = std::fs::read_to_string(folder.join("proxy.env"))?;
    let variables: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("LINKERD2_PROXY_")?.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('\'')))
        .collect();
    let variable = |name: &str| {
        let value = variables.get(name).copied();
        value.ok_or_else(|| format!("no {name} in {}", folder.display()))
    };
    let identity: Identity = variable("IDENTITY_LOCAL_NAME")?.parse()?;
    let controller: Identity = variable("IDENTITY_SVC_NAME")?.parse()?;
    let address: SocketAddr = variable("IDENTITY_SVC_ADDR")?.parse()?;
    let anchors = std::fs::read(folder.join("trust-anchors.pem"))?;
    let (trust, anchors) = trust_store(TrustBundle::from_pem(1, &anchors)?);
    let (credentials, own) = credential_store();
    let tls = Tls::new(anchors, own);
    let anonymous = tls.anonymous_client(&[b"h2"]);
    let connector = tower::service_fn(move |_| {
        let (tls, controller) = (anonymous.clone(), controller.clone());
        async move {
            let stream = tls
                .connect(TcpStream::connect(address).await?, &controller, None)
                .await;
            stream.map(TokioIo::new).map_err(io::Error::other)
        }
    });
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect_with_connector(connector)
        .await?;
    let key = LeafKey::from_pkcs8_der(&std::fs::read(folder.join("key.p8"))?)?;
    let request = CertifyRequest {
        identity: identity.to_string(),
        token: std::fs::read(folder.join("token"))?,
        certificate_signing_request: std::fs::read(folder.join("csr.der"))?,
    };
    let response = IdentityClient::new(channel)
        .certify(request)
        .await?
        .into_inner();
    let chain = std::iter::once(response.leaf_certificate)
        .chain(response.intermediate_certificates)
        .map(CertificateDer::from)
        .collect();
    credentials.set(key.credentials(chain)?);
    // The stores are closed with their writers; this program lives no longer than the certificates.
    std::mem::forget((trust, credentials));
    Ok((key, identity, tls))
}
