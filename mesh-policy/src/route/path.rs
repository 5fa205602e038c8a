use super::Pattern;

/// Which paths a match is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathMatch {
    /// The path is exactly this.
    Exact(Box<str>),
    /// The path is this or lies below it, by whole segments: `/foo` matches `/foo`, `/foo/` and `/foo/bar`, not
    /// `/foobar`. A trailing slash of the prefix does not count.
    Prefix(Box<str>),
    /// The whole path matches.
    Regex(Pattern),
}

/// How specific a path match was: an exact path above all else, then by the number of bytes matched.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PathRank {
    exact: bool,
    bytes: usize,
}

impl PathMatch {
    /// Every path: the prefix `/`.
    pub fn any() -> Self {
        Self::Prefix("/".into())
    }

    /// The rank of the match, or `None` when `path` does not match.
    pub fn rank(&self, path: &str) -> Option<PathRank> {
        match self {
            Self::Exact(expected) => (**expected == *path).then_some(PathRank {
                exact: true,
                bytes: path.len(),
            }),
            Self::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                if prefix.is_empty() {
                    return Some(PathRank::default());
                }
                let rest = path.strip_prefix(prefix)?;
                (rest.is_empty() || rest.starts_with('/')).then_some(PathRank {
                    exact: false,
                    bytes: prefix.len(),
                })
            }
            Self::Regex(pattern) => pattern.is_match(path.as_bytes()).then_some(PathRank {
                exact: false,
                bytes: path.len(),
            }),
        }
    }
}

/// The rank of the prefix `/`, which is also that of a match without a path.
impl Default for PathRank {
    fn default() -> Self {
        Self {
            exact: false,
            bytes: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_segments() {
        for prefix in ["/foo", "/foo/"] {
            let prefix = PathMatch::Prefix(prefix.into());
            for path in ["/foo", "/foo/", "/foo/bar"] {
                assert!(prefix.rank(path).is_some(), "{path}");
            }
            for path in ["/foobar", "/", "/bar/foo"] {
                assert!(prefix.rank(path).is_none(), "{path}");
            }
        }
        assert!(PathMatch::any().rank("*").is_some());
    }

    #[test]
    fn exact_ranks_above_a_prefix_as_long() {
        let exact = PathMatch::Exact("/foo".into()).rank("/foo");
        let prefix = PathMatch::Prefix("/foo".into()).rank("/foo");
        assert!(exact > prefix);
        assert!(prefix > PathMatch::any().rank("/foo"));
    }
}
