use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use crate::Error;

/// A regular expression that must match a whole value.
///
/// Both the pattern and what it compiles to are bounded, and matching is linear in the value (the `regex` crate has no
/// backtracking). Classes such as `\d` and `\w` are ASCII; Unicode classes are refused.
#[derive(Clone)]
pub struct Pattern {
    source: Box<str>,
    regex: Regex,
}

impl Pattern {
    /// The longest pattern, in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// The most memory, in bytes, that a compiled pattern may take, and again that its matching cache may take.
    pub const MAX_COMPILED_BYTES: usize = 256 * 1024;

    /// Compiles `source`.
    ///
    /// # Errors
    ///
    /// [`Error::Regex`] when it is malformed or exceeds a bound.
    pub fn new(source: &str) -> Result<Self, Error> {
        if source.len() > Self::MAX_BYTES {
            return Err(Error::regex(source, "longer than 4096 bytes"));
        }
        // Compiled alone first, so that a pattern such as `a)(b` cannot escape the group that anchors it.
        compile(source)?;
        let regex = compile(&format!("\\A(?:{source})\\z"))?;
        Ok(Self {
            source: source.into(),
            regex,
        })
    }

    /// True when all of `value` matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

impl Eq for Pattern {}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// How a header's or a query parameter's value is tested.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ValueMatch {
    /// The value is exactly these bytes.
    Exact(Box<[u8]>),
    /// The whole value matches.
    Regex(Pattern),
}

impl ValueMatch {
    /// The value is exactly `value`.
    pub fn exact(value: impl AsRef<[u8]>) -> Self {
        Self::Exact(value.as_ref().into())
    }

    /// True when `value` passes.
    pub fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => **expected == *value,
            Self::Regex(pattern) => pattern.is_match(value),
        }
    }
}

fn compile(source: &str) -> Result<Regex, Error> {
    RegexBuilder::new(source)
        .unicode(false)
        .size_limit(Pattern::MAX_COMPILED_BYTES)
        .dfa_size_limit(Pattern::MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| Error::regex(source, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(pattern).unwrap().is_match(value.as_bytes())
    }

    #[test]
    fn the_whole_value_must_match() {
        assert!(matches(r"/foo/\d+", "/foo/42"));
        assert!(!matches(r"/foo/\d+", "/foo/42/bar"));
        assert!(!matches(r"/foo/\d+", "/x/foo/42"));
        assert!(matches("a|ab", "ab"));
        assert!(!matches("a|b", "ac"));
        assert!(!matches("(?m)^a$", "a\nb"));
    }

    #[test]
    fn what_escapes_or_exceeds_is_refused() {
        for bad in [
            "a)(b",
            "(",
            r"\p{Greek}",
            "(?:(?:a{1000}){1000}){1000}",
            "(?x)a # )",
        ] {
            assert!(
                matches!(Pattern::new(bad), Err(Error::Regex { .. })),
                "{bad}"
            );
        }
        assert!(Pattern::new(&"a".repeat(Pattern::MAX_BYTES + 1)).is_err());
    }
}
