/// Which hosts a route is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostMatch(Kind);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    /// Lower case, without a trailing dot.
    Exact(Box<str>),
    /// Lower case, with its leading dot: `.example.com`. Alone, a dot stands for every name.
    Suffix(Box<str>),
}

/// How specific a host match was: an exact name above any suffix, a longer suffix above a shorter one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HostRank {
    exact: bool,
    chars: usize,
}

impl HostMatch {
    /// Exactly `host`; case and a trailing dot do not matter.
    pub fn exact(host: &str) -> Self {
        Self(Kind::Exact(normalize(host)))
    }

    /// Any name below `domain`: `example.com` matches `a.example.com` and `b.a.example.com`, not `example.com`
    /// (Gateway API, `Hostname`). An empty domain matches every name.
    pub fn suffix(domain: &str) -> Self {
        let domain = normalize(domain);
        Self(Kind::Suffix(format!(".{domain}").into()))
    }

    /// As Kubernetes writes hosts: `*.example.com` is a suffix, all else exact.
    pub fn parse(host: &str) -> Self {
        match host.strip_prefix("*.") {
            Some(domain) => Self::suffix(domain),
            None => Self::exact(host),
        }
    }

    /// The rank of the match, or `None` when `host` (without port) does not match.
    pub fn rank(&self, host: &str) -> Option<HostRank> {
        let host = host.strip_suffix('.').unwrap_or(host);
        match &self.0 {
            Kind::Exact(name) => name.eq_ignore_ascii_case(host).then_some(HostRank {
                exact: true,
                chars: name.len(),
            }),
            Kind::Suffix(suffix) => {
                let rank = HostRank {
                    exact: false,
                    chars: suffix.len(),
                };
                if suffix.len() == 1 {
                    return Some(rank);
                }
                // Bytes, since the cut may fall within a character of an odd host.
                let tail = host.len().checked_sub(suffix.len())?;
                let below =
                    tail > 0 && host.as_bytes()[tail..].eq_ignore_ascii_case(suffix.as_bytes());
                below.then_some(rank)
            }
        }
    }
}

fn normalize(host: &str) -> Box<str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_needs_a_label_before_it() {
        let suffix = HostMatch::parse("*.Example.com");
        assert!(suffix.rank("a.example.com").is_some());
        assert!(suffix.rank("b.a.EXAMPLE.com.").is_some());
        assert!(suffix.rank("example.com").is_none());
        assert!(suffix.rank(".example.com").is_none());
        assert!(suffix.rank("badexample.com").is_none());
        assert!(HostMatch::suffix("").rank("anything").is_some());
    }

    #[test]
    fn exact_ranks_above_suffix_and_long_above_short() {
        let exact = HostMatch::exact("a.b.c").rank("A.b.C.");
        let long = HostMatch::suffix("b.c").rank("a.b.c");
        let short = HostMatch::suffix("c").rank("a.b.c");
        assert!(exact > long && long > short && short.is_some());
    }

    #[test]
    fn an_odd_host_is_no_panic() {
        assert!(HostMatch::suffix("com").rank("é.com").is_some());
        assert!(HostMatch::suffix("\u{a9}").rank("é").is_none());
    }
}
