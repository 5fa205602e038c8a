//! Says what it hears, over opaque TCP.

use tokio::net::TcpListener;

use crate::Error;

pub(super) async fn serve(listener: TcpListener) -> Result<(), Error> {
    loop {
        let (mut stream, _) = listener.accept().await.map_err(Error::Runtime)?;
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            // A caller that breaks off is its own affair.
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}
