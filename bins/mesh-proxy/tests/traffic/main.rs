//! What the data path promises, shown by two proxy processes between clients and applications of the test.
//!
//! `mesh` runs the proxies and the controller they follow, `policy` is what it says, `wire` and `h2` the clients and applications,
//! `told` endpoints that answer as they are told to.
//! The other modules are named after what they show.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

#[path = "../controller/mod.rs"]
mod controller;
#[allow(dead_code, reason = "shared with the tests of corners")]
mod mesh;
#[allow(dead_code, reason = "shared with the tests of corners")]
mod policy;
mod wire;

mod anchors_are_replaced_under_load;
mod backends_are_waited_for;
mod bursts_take_what_comes_free;
mod changes_cost_no_request;
mod clients_may_ask_for_more;
mod connections_switch_protocols;
mod counted_once;
mod dead_connections_are_found_out;
mod drains_end;
mod endpoints_say_how_they_are_spoken_to;
mod failed_requests_are_sent_again;
mod failing_endpoints_are_taken_out;
mod failures_have_their_answers;
mod full_endpoints_are_spared;
mod h2;
mod http1_arrives_as_sent;
mod http2_and_grpc_are_streamed;
mod inbound_routes_have_filters;
mod limits_hold;
mod only_http_passes_where_requests_are_told_apart;
mod only_the_authorized_get_through;
mod opaque_bytes_are_carried;
mod profiles_count_where_no_policy_does;
mod rate_limits_are_kept;
mod requests_are_observed;
mod requests_stay_in_their_zone;
mod requests_turned_away_unread_are_sent_again;
mod routes_change_what_passes;
mod told;
mod transport_headers_lead_to_applications_only;
mod weights_are_shares;
