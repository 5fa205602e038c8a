use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::Error;

/// Changes headers: first additions, then replacements, then removals.
///
/// Headers that say how the message itself is carried (`Connection`, `Content-Length`, `Transfer-Encoding` and their kin) are
/// never changed: it would no longer be the same message (RFC 9112, section 11.2). A header that is added or replaced is the
/// message's, not the connection's: a sender who names it in `Connection` does not have it taken away on the way.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeaderModifier {
    add: Box<[(HeaderName, HeaderValue)]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    remove: Box<[HeaderName]>,
}

impl HeaderModifier {
    /// The most headers that one modifier adds, replaces or removes, each.
    pub const MAX_HEADERS: usize = 64;

    /// The headers that no modifier changes.
    pub const FRAMING: [HeaderName; 9] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("http2-settings"),
    ];

    /// Appends `add` to what is there, replaces what is there by `set`, and takes `remove` away, in this order.
    ///
    /// Those of [`FRAMING`](Self::FRAMING) are left out.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] when one of them is longer than [`MAX_HEADERS`](Self::MAX_HEADERS).
    pub fn new(
        add: Vec<(HeaderName, HeaderValue)>,
        set: Vec<(HeaderName, HeaderValue)>,
        remove: Vec<HeaderName>,
    ) -> Result<Self, Error> {
        let given = add.len().max(set.len()).max(remove.len());
        if given > Self::MAX_HEADERS {
            return Err(Error::TooMany {
                what: "headers of a modifier",
                given,
                max: Self::MAX_HEADERS,
            });
        }
        let pairs = |pairs: Vec<(HeaderName, HeaderValue)>| {
            let kept = pairs.into_iter().filter(|(name, _)| !Self::frames(name));
            kept.collect()
        };
        Ok(Self {
            add: pairs(add),
            set: pairs(set),
            remove: remove
                .into_iter()
                .filter(|name| !Self::frames(name))
                .collect(),
        })
    }

    /// True when `name` is one that no modifier changes.
    pub fn frames(name: &HeaderName) -> bool {
        Self::FRAMING.contains(name)
    }

    /// Changes `headers`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        // A map that is full (32,768 entries) takes no more; that is far above what a request may have.
        for (name, value) in &self.add {
            let _ = headers.try_append(name, value.clone());
        }
        for (name, value) in &self.set {
            let _ = headers.try_insert(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
        self.claim(headers);
    }

    /// Takes what was added or replaced out of `Connection`, whose headers are removed before a message is passed on (RFC 9110,
    /// section 7.6.1).
    fn claim(&self, headers: &mut HeaderMap) {
        let ours = |option: &[u8]| {
            let mut names = self.add.iter().chain(&self.set).map(|(name, _)| name);
            names.any(|name| name.as_str().as_bytes().eq_ignore_ascii_case(option))
        };
        let options = headers.get_all(header::CONNECTION).iter();
        let options = options.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let (claimed, others): (Vec<&[u8]>, Vec<&[u8]>) = options
            .map(<[u8]>::trim_ascii)
            .partition(|option| ours(option));
        if claimed.is_empty() {
            return;
        }
        match HeaderValue::from_bytes(&others.join(&b", "[..])) {
            Ok(others) if !others.is_empty() => {
                headers.insert(header::CONNECTION, others);
            }
            _ => {
                headers.remove(header::CONNECTION);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    }

    #[test]
    fn additions_then_replacements_then_removals() {
        let modifier = HeaderModifier::new(
            vec![pair("a", "2"), pair("b", "2"), pair("c", "2")],
            vec![pair("b", "3"), pair("c", "3")],
            vec![HeaderName::from_static("c")],
        )
        .unwrap();
        let mut headers: HeaderMap = [pair("a", "1"), pair("b", "1")].into_iter().collect();
        modifier.apply(&mut headers);
        let values: Vec<_> = headers.get_all("a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        let values: Vec<_> = headers.get_all("b").iter().collect();
        assert_eq!(values, ["3"]);
        assert!(!headers.contains_key("c"));
    }

    #[test]
    fn a_sender_cannot_have_removed_what_is_set() {
        let modifier =
            HeaderModifier::new(vec![pair("tier", "free")], vec![pair("x", "1")], vec![]);
        let modifier = modifier.unwrap();
        let after = |connection: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in connection {
                headers.append(header::CONNECTION, HeaderValue::from_static(value));
            }
            modifier.apply(&mut headers);
            let values = headers.get_all(header::CONNECTION).iter();
            values.cloned().collect::<Vec<_>>()
        };
        assert_eq!(after(&["close, Tier", "X ,upgrade"]), ["close, upgrade"]);
        assert!(after(&["tier,x"]).is_empty() && after(&[]).is_empty());
        // What is another's stays as it was.
        assert_eq!(after(&["close", "tiers"]), ["close", "tiers"]);
    }

    #[test]
    fn the_framing_of_a_message_is_not_changed() {
        let given = || vec![pair("content-length", "5"), pair("transfer-encoding", "x")];
        let remove = HeaderModifier::FRAMING.to_vec();
        let modifier = HeaderModifier::new(given(), given(), remove).unwrap();
        assert_eq!(modifier, HeaderModifier::default());
    }
}
