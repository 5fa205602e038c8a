//! Which processor cores are whose, so that the load takes nothing from the proxies.

/// Lists of cores, as `taskset --cpu-list` reads them; `None`: wherever the system puts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Of the proxy beside the client.
    pub(crate) client_proxy: Option<String>,
    /// Of the proxy beside the server.
    pub(crate) server_proxy: Option<String>,
    /// Of the client.
    pub(crate) load: Option<String>,
    /// Of the application.
    pub(crate) backend: Option<String>,
}

impl Cores {
    /// For a machine with so many cores: one for each proxy if there are enough; else both proxies share the first, and the
    /// client and the application the second.
    pub(crate) fn of(count: usize) -> Self {
        let given = match count {
            0 | 1 => [None; 4],
            2 => [Some(0), Some(0), Some(1), Some(1)],
            3 => [Some(0), Some(0), Some(1), Some(2)],
            _ => [Some(0), Some(1), Some(2), Some(3)],
        };
        let [client_proxy, server_proxy, load, backend] =
            given.map(|core: Option<u8>| core.map(|core| core.to_string()));
        Self {
            client_proxy,
            server_proxy,
            load,
            backend,
        }
    }

    /// As the report says it.
    pub(crate) fn describe(&self) -> String {
        let name = |core: &Option<String>| core.clone().unwrap_or_else(|| "any".into());
        format!(
            "client's proxy on core {}, server's proxy on core {}, load on core {}, application on core {}",
            name(&self.client_proxy),
            name(&self.server_proxy),
            name(&self.load),
            name(&self.backend)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_never_shares_a_core_with_a_proxy_if_there_are_two() {
        for count in 2..9 {
            let cores = Cores::of(count);
            for proxy in [&cores.client_proxy, &cores.server_proxy] {
                assert!(proxy.is_some() && *proxy != cores.load && *proxy != cores.backend);
            }
        }
        assert_eq!(Cores::of(1).load, None);
    }
}
