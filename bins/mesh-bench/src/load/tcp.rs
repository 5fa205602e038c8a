//! Bytes: in bulk, or one on a new connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Failure, Pace, Plan, Tally, connect};
use crate::backend::{CHUNK, Work};

/// A new connection on which a byte comes back.
pub(super) async fn once(plan: &Plan) -> Result<(), Failure> {
    let mut stream = connect(plan.target).await?;
    stream.write_all(&[Work::Echo.byte(), b'x']).await?;
    match stream.read_u8().await? {
        b'x' => Ok(()),
        other => Err(format!("byte {other} came back").into()),
    }
}

/// Sends until it is over, a chunk whenever the pace wants it; then all of it must have arrived.
pub(super) async fn up(plan: &Plan, tally: &Tally, pace: Option<&Pace>) -> Result<(), Failure> {
    let mut stream = connect(plan.target).await?;
    stream.write_all(&[Work::Sink.byte()]).await?;
    tally.is_warm();
    let chunk = vec![b'x'; CHUNK];
    let mut sent = 0;
    while !tally.is_over() {
        if let Some(pace) = pace {
            pace.next().await;
        }
        let written = stream.write(&chunk).await?;
        sent += written as u64;
        tally.moved(written);
    }
    stream.shutdown().await?;
    let arrived = stream.read_u64().await?;
    if arrived == sent {
        Ok(())
    } else {
        Err(format!("{arrived} of {sent} bytes arrived").into())
    }
}

/// Reads until it is over.
pub(super) async fn down(plan: &Plan, tally: &Tally) -> Result<(), Failure> {
    let mut stream = connect(plan.target).await?;
    stream.write_all(&[Work::Source.byte()]).await?;
    tally.is_warm();
    let mut buffer = vec![0; CHUNK];
    while !tally.is_over() {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err("closed in the middle".into());
        }
        tally.moved(read);
    }
    Ok(())
}
