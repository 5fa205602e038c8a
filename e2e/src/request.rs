//! Single requests by curl: a client that is not ours and does not retry.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::network::Host;
use crate::process::{APP_USER, PATIENCE};

/// The longest a single request may take.
const LIMIT_SECONDS: &str = "10";

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code; 0 if there was no answer.
    pub status: u16,
    /// The header fields in order, names in lower case; trailers are not among them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// What curl said of a failure; empty if there was none.
    pub error: String,
}

impl Answer {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    fn parse(said: &[u8], error: String) -> Self {
        let said = String::from_utf8_lossy(said);
        let mut rest: &str = &said;
        let mut answer = Self {
            status: 0,
            headers: Vec::new(),
            body: String::new(),
            error,
        };
        // Informational responses come first, each with a head of its own.
        while let Some((head, body)) = rest
            .split_once("\r\n\r\n")
            .filter(|_| rest.starts_with("HTTP/"))
        {
            let mut lines = head.lines();
            let status = lines
                .next()
                .and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            answer.status = status.unwrap_or_default();
            answer.headers = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            rest = body;
            if answer.status >= 200 {
                break;
            }
        }
        rest.clone_into(&mut answer.body);
        answer
    }
}

impl Host {
    /// One request from this host as the application's user. `options` go to curl, such as `--http2-prior-knowledge`.
    ///
    /// # Panics
    /// If curl cannot be run at all; a refused or broken connection is an answer with status 0.
    #[must_use]
    pub fn curl(&self, url: &str, options: &[&str]) -> Answer {
        self.curl_as(APP_USER, url, options)
    }

    /// Requests `url` until the answer has this status, at most [`PATIENCE`]: a change of manifests takes a moment to arrive.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_status(&self, url: &str, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.curl(url, &[]);
            if answer.status == status {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{url} did not answer {status} in {PATIENCE:?}: {answer:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As [`Host::curl`], as another user: the proxy's user is not caught by a redirect.
    ///
    /// # Panics
    /// If curl cannot be run at all.
    #[must_use]
    pub fn curl_as(&self, user: u32, url: &str, options: &[&str]) -> Answer {
        let user = user.to_string();
        let mut command: Command = self.command("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
        command
            .args([
                "curl",
                "-q",
                "-sS",
                "-i",
                "--noproxy",
                "*",
                "-m",
                LIMIT_SECONDS,
            ])
            .args(options)
            .arg(url);
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let mut answer = Answer::parse(&output.stdout, error);
        if !output.status.success() && answer.error.is_empty() {
            answer.error = output.status.to_string();
        }
        answer
    }
}
