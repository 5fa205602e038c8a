//! Reading a query string as a form (`application/x-www-form-urlencoded`, WHATWG URL section 5.1).

use std::borrow::Cow;

use super::ValueMatch;

/// True when some parameter of `query` is called `name` and its value passes `value`.
pub(super) fn has_parameter(query: &str, name: &str, value: &ValueMatch) -> bool {
    query.split('&').any(|pair| {
        let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
        // An empty pair, as in `a=1&&b=2`, is no parameter.
        !pair.is_empty()
            && decoded_bytes(key).eq(name.bytes())
            && match value {
                ValueMatch::Exact(expected) => decoded_bytes(raw).eq(expected.iter().copied()),
                ValueMatch::Regex(pattern) => pattern.is_match(&decoded(raw)),
            }
    })
}

fn decoded(raw: &str) -> Cow<'_, [u8]> {
    if raw.bytes().any(|byte| byte == b'%' || byte == b'+') {
        Cow::Owned(decoded_bytes(raw).collect())
    } else {
        Cow::Borrowed(raw.as_bytes())
    }
}

/// The bytes of `raw` with `+` as a space and `%xx` decoded; a `%` without two hex digits stands for itself.
fn decoded_bytes(raw: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = raw.as_bytes();
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        rest = tail;
        match first {
            b'+' => Some(b' '),
            b'%' => match tail {
                [high, low, after @ ..] => match (hex(*high), hex(*low)) {
                    (Some(high), Some(low)) => {
                        rest = after;
                        Some(high << 4 | low)
                    }
                    _ => Some(b'%'),
                },
                _ => Some(b'%'),
            },
            byte => Some(byte),
        }
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::*;

    #[test]
    fn parameters_are_decoded_before_they_are_compared() {
        let exact =
            |query, name, value: &str| has_parameter(query, name, &ValueMatch::exact(value));
        assert!(exact("a=1&b=2", "b", "2"));
        assert!(exact("a=1&a=2", "a", "2"));
        assert!(exact("n%61me=x+y%2Fz", "name", "x y/z"));
        assert!(exact("flag", "flag", ""));
        assert!(exact("a=%zz%4", "a", "%zz%4"));
        assert!(!exact("a=1&&b=2", "", ""));
        assert!(!exact("ab=1", "a", "1"));
        let digits = ValueMatch::Regex(Pattern::new(r"\d+").unwrap());
        assert!(has_parameter("a=%31%32", "a", &digits));
        assert!(!has_parameter("a=12x", "a", &digits));
    }
}
