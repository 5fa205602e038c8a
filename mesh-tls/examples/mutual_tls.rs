//! Two workloads, one authority: mutual TLS over loopback, and a leaf renewed between two calls.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, SystemTime};

use mesh_tls::ca::{Anchor, Authority};
use mesh_tls::{
    ClientAuth, CredentialWriter, Identity, LeafKey, Tls, TrustBundle, TrustWriter,
    credential_store, trust_store,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let now = SystemTime::now();
    let anchor = Anchor::generate("mesh.example", 365 * DAY, now)?;
    let issuer = anchor.issuer("mesh.example", 30 * DAY, now)?;
    let authority = Authority::new(anchor.certificate().clone(), issuer)?;

    let web = Workload::join(&authority, "spiffe://mesh.example/web")?;
    let shop = Workload::join(&authority, "spiffe://mesh.example/shop")?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = web.tls.server(&[], ClientAuth::Required);
    let serving = tokio::spawn(async move {
        for _ in 0..2 {
            let (tcp, _) = listener.accept().await?;
            let (mut stream, caller) = server.accept(tcp).await?;
            let caller = caller.map_or("nobody".into(), |caller| caller.to_string());
            stream
                .write_all(format!("hello {caller}").as_bytes())
                .await?;
            stream.shutdown().await?;
        }
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    });

    let client = shop.tls.client(&[]);
    for _ in 0..2 {
        let tcp = TcpStream::connect(address).await?;
        let name = "web.mesh.example".try_into()?;
        let mut stream = client.connect(tcp, &web.identity, Some(name)).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        println!("{answer}");

        // The next handshakes use a new key and a new leaf; nothing is restarted.
        web.certify(&authority)?;
        shop.certify(&authority)?;
    }
    serving.await?.map_err(|error| error.to_string())?;
    Ok(())
}

struct Workload {
    identity: Identity,
    tls: Tls,
    credentials: CredentialWriter,
    _trust: TrustWriter,
}

impl Workload {
    fn join(authority: &Authority, identity: &str) -> Result<Self, mesh_tls::Error> {
        let bundle = TrustBundle::from_der(1, [authority.anchor().clone()])?;
        let (trust_writer, trust) = trust_store(bundle);
        let (credential_writer, credentials) = credential_store();
        let workload = Self {
            identity: Identity::parse(identity)?,
            tls: Tls::new(trust, credentials),
            credentials: credential_writer,
            _trust: trust_writer,
        };
        workload.certify(authority)?;
        Ok(workload)
    }

    fn certify(&self, authority: &Authority) -> Result<(), mesh_tls::Error> {
        let key = LeafKey::generate()?;
        let csr = key.csr(&self.identity)?;
        let leaf = authority.issue(&csr, &self.identity, DAY, SystemTime::now())?;
        self.credentials.set(key.credentials(leaf.into_chain())?);
        Ok(())
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
