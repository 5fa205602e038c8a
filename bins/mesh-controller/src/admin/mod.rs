//! How operators look into a controller: plain HTTP for probes and scrapers, and the admin API over a Unix socket.

mod http;
mod root;
mod service;
mod socket;
mod trust;

pub(crate) use self::{http::HttpAdmin, service::AdminService, socket::serve as serve_socket};
