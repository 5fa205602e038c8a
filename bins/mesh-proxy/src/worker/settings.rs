//! What the configuration comes to for one worker: what clients may use, and how sockets are kept.

use std::time::Duration;

use mesh_http::ServerLimits;

use super::socket::Liveness;
use crate::config::{Config, Limits};

/// What a worker is made with.
#[derive(Debug)]
pub(super) struct Settings {
    /// What the workload's own application may use.
    pub(super) limits: ServerLimits,
    /// What clients with an identity may use.
    pub(super) limits_of_peers: ServerLimits,
    /// Those of clients without an identity.
    pub(super) limits_of_strangers: ServerLimits,
    /// From clients to the application.
    pub(super) inbound: Sockets,
    /// From the application to endpoints.
    pub(super) outbound: Sockets,
}

/// The sockets of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sockets {
    /// Connections that the kernel holds before they are accepted.
    pub(super) backlog: u16,
    pub(super) accepted: Liveness,
    pub(super) connected: Liveness,
    pub(super) connect_timeout: Duration,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Self {
        let Config {
            inbound,
            outbound,
            limits,
            ..
        } = config;
        let limits_of_peers = server(
            limits,
            inbound.http2_max_concurrent_streams,
            inbound.http2_max_pending_resets,
            (
                inbound.http2_keepalive_interval,
                inbound.http2_keepalive_timeout,
            ),
        );
        Self {
            limits: server(
                limits,
                outbound.http2_max_concurrent_streams,
                outbound.http2_max_pending_resets,
                (
                    outbound.http2_keepalive_interval,
                    outbound.http2_keepalive_timeout,
                ),
            ),
            limits_of_strangers: limits_of_peers.for_strangers(),
            limits_of_peers,
            inbound: Sockets {
                backlog: inbound.backlog,
                accepted: Liveness {
                    keepalive: inbound.keepalive,
                    user_timeout: inbound.user_timeout,
                },
                connected: Liveness {
                    keepalive: inbound.connect_keepalive,
                    user_timeout: inbound.connect_user_timeout,
                },
                connect_timeout: inbound.connect_timeout,
            },
            outbound: Sockets {
                backlog: outbound.backlog,
                accepted: Liveness {
                    keepalive: outbound.keepalive,
                    user_timeout: outbound.user_timeout,
                },
                connected: Liveness {
                    keepalive: outbound.connect_keepalive,
                    user_timeout: outbound.connect_user_timeout,
                },
                connect_timeout: outbound.connect_timeout,
            },
        }
    }
}

fn server(
    limits: &Limits,
    streams: Option<u32>,
    resets: Option<usize>,
    (interval, timeout): (Duration, Duration),
) -> ServerLimits {
    let mut server = ServerLimits::default();
    server.max_header_bytes = limits.max_header_bytes;
    server.max_concurrent_streams = streams.unwrap_or(limits.http2_max_concurrent_streams);
    server.max_pending_resets = resets.unwrap_or(limits.http2_max_pending_resets);
    server.keep_alive_interval = Some(interval);
    server.keep_alive_timeout = timeout;
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: &str = r#"
        identity.name = "web.example"
        identity.trust_anchors_file = "anchors.pem"
        identity.token_file = "token"
        control.address = "127.0.0.1:8086"
    "#;

    fn settings(text: &str) -> Settings {
        Settings::new(&Config::from_toml(&format!("{REQUIRED}{text}")).unwrap())
    }

    fn seconds(sockets: Sockets) -> [u64; 5] {
        let limit = |liveness: Liveness| liveness.user_timeout.map_or(0, |limit| limit.as_secs());
        [
            sockets.accepted.keepalive.as_secs(),
            limit(sockets.accepted),
            sockets.connected.keepalive.as_secs(),
            limit(sockets.connected),
            sockets.connect_timeout.as_secs(),
        ]
    }

    #[test]
    fn each_direction_has_its_own_sockets() {
        let settings = settings(
            r#"
            [inbound]
            keepalive = "11s"
            user_timeout = "12s"
            connect_keepalive = "13s"
            connect_user_timeout = "14s"
            connect_timeout = "15s"
            backlog = 16
            [outbound]
            keepalive = "21s"
            user_timeout = "22s"
            connect_keepalive = "23s"
            connect_user_timeout = "24s"
            connect_timeout = "25s"
            backlog = 26
            "#,
        );
        assert_eq!(seconds(settings.inbound), [11, 12, 13, 14, 15]);
        assert_eq!(seconds(settings.outbound), [21, 22, 23, 24, 25]);
        assert_eq!(settings.inbound.backlog, 16);
        assert_eq!(settings.outbound.backlog, 26);
    }

    /// Streams, resets, seconds between pings, seconds to their answers.
    fn http2(limits: &ServerLimits) -> (u32, usize, Option<u64>, u64) {
        (
            limits.max_concurrent_streams,
            limits.max_pending_resets,
            limits.keep_alive_interval.map(|every| every.as_secs()),
            limits.keep_alive_timeout.as_secs(),
        )
    }

    #[test]
    fn each_kind_of_client_has_its_own_limits() {
        let common = r#"
            [limits]
            max_header_bytes = 10000
            http2_max_concurrent_streams = 31
            http2_max_pending_resets = 32
            [inbound]
            http2_keepalive_interval = "33s"
            http2_keepalive_timeout = "34s"
            #inbound
            [outbound]
            http2_keepalive_interval = "43s"
            http2_keepalive_timeout = "44s"
            #outbound
        "#;
        let unsaid = settings(common);
        for limits in [&unsaid.limits_of_peers, &unsaid.limits_of_strangers] {
            assert_eq!(http2(limits), (31, 32, Some(33), 34));
            assert_eq!(limits.max_header_bytes, 10_000);
        }
        assert_eq!(http2(&unsaid.limits), (31, 32, Some(43), 44));
        assert_eq!(unsaid.limits.max_header_bytes, 10_000);

        let said = |streams, resets| {
            format!("http2_max_concurrent_streams = {streams}\nhttp2_max_pending_resets = {resets}")
        };
        let own = common
            .replace("#inbound", &said(35, 36))
            .replace("#outbound", &said(45, 46));
        let own = settings(&own);
        assert_eq!(http2(&own.limits_of_peers), (35, 36, Some(33), 34));
        assert_eq!(http2(&own.limits_of_strangers), (35, 36, Some(33), 34));
        assert_eq!(http2(&own.limits), (45, 46, Some(43), 44));
    }
}
