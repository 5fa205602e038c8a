//! What the mesh promises, with real processes: hosts are network namespaces, applications know nothing of the mesh, and
//! nftables redirects their traffic to the proxies. Each module is named after its promise.

mod carries_grpc;
mod carries_http;
mod carries_opaque_tcp;
mod carries_websocket;
mod controller_dies_without_an_error;
mod endpoints_come_and_go_without_an_error;
mod killed_proxy_loses_only_what_was_in_flight;
mod leaves_are_renewed_without_an_error;
mod nothing_crosses_in_the_clear;
mod sigterm_drains_without_an_error;
mod starts_from_the_variables_of_a_stock_proxy;
mod wrong_identity_is_refused;

use std::time::Duration;

/// Between two attempts of a lane: enough load to hit every gap, little enough for a machine that others use too.
const PAUSE: Duration = Duration::from_millis(5);
