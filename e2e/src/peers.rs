//! Servers that tests run on hosts: our own [`App`], and programs that are not ours.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::network::Host;
use crate::process::Process;
use crate::programs;
use crate::requirement::python;

/// Our own test server, `e2e-app`: HTTP, and TCP echoes on the two ports after it.
#[derive(Debug)]
pub struct App {
    /// The running program.
    pub process: Process,
}

impl App {
    /// HTTP/1 and HTTP/2 on `port`, a TCP echo on `port + 1`, one that speaks first on `port + 2`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(host: &Host, name: &str, port: u16) -> Self {
        Self::with(host, name, port, &[])
    }

    /// As [`App::start`], with more options of `e2e-app`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn with(host: &Host, name: &str, port: u16, options: &[&str]) -> Self {
        let mut process = host
            .spawn(programs::built("e2e-app"))
            .args([name, "--http", &port.to_string()])
            .args([
                "--echo",
                &(port + 1).to_string(),
                "--greet",
                &(port + 2).to_string(),
            ])
            .args(options)
            .start();
        process.wait_listening(port);
        process.wait_listening(port + 2);
        Self { process }
    }
}

/// A stock nginx that serves one page.
#[derive(Debug)]
pub struct Nginx {
    /// The running program.
    pub process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Serves `page` at `/` on `port`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(host: &Host, port: u16, page: &str) -> Self {
        let folder =
            tempfile::tempdir().unwrap_or_else(|error| panic!("no folder for nginx: {error}"));
        let path = folder.path().display();
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log stderr warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
               access_log off; default_type text/plain; keepalive_requests 1000000;\n\
               client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;\n\
               uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
               server {{ listen {port} reuseport; root {path}/pages; }}\n\
             }}\n"
        );
        write(&folder.path().join("nginx.conf"), &config);
        write(&folder.path().join("pages/index.html"), page);
        let mut process = host
            .spawn("nginx")
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .args(["-e", "stderr"])
            .start();
        process.wait_listening(port);
        Self {
            process,
            _folder: folder,
        }
    }
}

/// A stock Redis without persistence.
#[derive(Debug)]
pub struct Redis {
    /// The running program.
    pub process: Process,
}

impl Redis {
    /// Serves on `port`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(host: &Host, port: u16) -> Self {
        let port_text = port.to_string();
        let options = [
            "--port",
            &port_text,
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let mut process = host.start("redis-server", &options);
        process.wait_listening(port);
        Self { process }
    }
}

/// A script of `e2e/peers`, run by the Python that has the peers' modules: grpcio, websockets.
#[derive(Debug)]
pub struct PythonPeer {
    /// The running program.
    pub process: Process,
}

impl PythonPeer {
    /// Starts a script, such as `grpc_server.py`, and waits for `port` if it is a server's.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(host: &Host, script: &str, arguments: &[&str], port: Option<u16>) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(script);
        let spawn = host.spawn(python()).arg("-B").arg(path).args(arguments);
        let mut process = spawn.env("PYTHONUNBUFFERED", "1").start();
        if let Some(port) = port {
            process.wait_listening(port);
        }
        Self { process }
    }
}

fn write(path: &Path, text: &str) {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
