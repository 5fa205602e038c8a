//! The last lines that a process printed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};

/// Lines kept.
const LINES: usize = 20;
/// Longer lines are cut.
const LINE_BYTES: usize = 1024;

/// Where lines go as they are printed: the name of the process and the line. A full channel loses lines rather than
/// hold up the process.
pub(crate) type Lines = mpsc::Sender<(String, String)>;

/// Shared by the readers of a process's output and whoever asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    kept: Arc<Mutex<VecDeque<String>>>,
    /// How many readers have not seen the end.
    open: Arc<watch::Sender<usize>>,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            open: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Tail {
    /// Reads `output` to its end.
    pub(crate) fn follow(
        &self,
        output: impl AsyncRead + Unpin + Send + 'static,
        name: &str,
        lines: Option<Lines>,
    ) {
        let (tail, name) = (self.clone(), name.to_owned());
        tail.open.send_modify(|open| *open += 1);
        tokio::spawn(async move {
            tail.read(output, &name, lines.as_ref()).await;
            tail.open.send_modify(|open| *open -= 1);
        });
    }

    /// Waits until all output was read, but not for one who inherited it and lives on.
    pub(crate) async fn settle(&self) {
        let mut open = self.open.subscribe();
        let _ = tokio::time::timeout(Duration::from_millis(200), open.wait_for(|open| *open == 0))
            .await;
    }

    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.kept().iter().cloned().collect()
    }

    async fn read(&self, mut output: impl AsyncRead + Unpin, name: &str, lines: Option<&Lines>) {
        let mut chunk = [0; 4096];
        let mut line = Vec::new();
        while let Ok(read @ 1..) = output.read(&mut chunk).await {
            for byte in &chunk[..read] {
                match byte {
                    b'\n' => self.push(&mut line, name, lines),
                    b'\r' => {}
                    byte if line.len() < LINE_BYTES => line.push(*byte),
                    _ => {}
                }
            }
        }
        if !line.is_empty() {
            self.push(&mut line, name, lines);
        }
    }

    fn push(&self, line: &mut Vec<u8>, name: &str, lines: Option<&Lines>) {
        let text = String::from_utf8_lossy(line).into_owned();
        line.clear();
        if let Some(lines) = lines {
            let _ = lines.try_send((name.to_owned(), text.clone()));
        }
        let mut kept = self.kept();
        if kept.len() == LINES {
            kept.pop_front();
        }
        kept.push_back(text);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_last_lines_and_cuts_long_ones() {
        let tail = Tail::default();
        let mut text = (0..LINES + 5)
            .map(|n| format!("line {n}\r\n"))
            .collect::<String>();
        text.push_str(&"x".repeat(LINE_BYTES * 2));
        let (sender, mut receiver) = mpsc::channel(1);
        tail.follow(
            std::io::Cursor::new(text.into_bytes()),
            "web-1",
            Some(sender),
        );
        tail.settle().await;

        let lines = tail.lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0], "line 6");
        assert_eq!(lines[LINES - 1].len(), LINE_BYTES);
        assert_eq!(
            receiver.recv().await,
            Some(("web-1".to_owned(), "line 0".to_owned()))
        );
    }
}
