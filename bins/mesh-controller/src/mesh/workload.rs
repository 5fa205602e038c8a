//! How a proxy says which workload it stands before.

use mesh_discovery::Name;
use serde::Deserialize;

/// The JSON that proxies are configured with, as Linkerd's injector writes it. Its other members are not used.
#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    ns: Option<String>,
    #[serde(default)]
    pod: Option<String>,
}

/// The workload that `{"ns":…,"pod":…}` names; older proxies write `<namespace>:<pod>`.
pub(crate) fn name(text: &str) -> Option<Name> {
    if let Some(Context {
        ns: Some(namespace),
        pod: Some(pod),
    }) = context(text)
    {
        return Some(Name::new(namespace, pod));
    }
    let (namespace, pod) = text.split_once(':')?;
    let plain = |part: &str| !part.is_empty() && !part.contains(['{', '"', '/', ' ']);
    (plain(namespace) && plain(pod)).then(|| Name::new(namespace, pod))
}

/// The namespace of a workload or of a `context_token`, if it has one; older proxies write the latter `ns:<namespace>`.
pub(crate) fn namespace(text: &str) -> Option<String> {
    match context(text) {
        Some(context) => context.ns,
        None => name(text).map(|name| match name.namespace.as_str() {
            "ns" => name.name,
            _ => name.namespace,
        }),
    }
}

fn context(text: &str) -> Option<Context> {
    if text.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Names have at most 253 bytes each; the rest is what Linkerd adds.
const MAX_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_a_workload() {
        let web = Some(Name::new("shop", "web-1"));
        assert_eq!(name(r#"{"ns":"shop","pod":"web-1"}"#), web);
        assert_eq!(name(r#"{"ns":"shop","nodeName":"n","pod":"web-1"}"#), web);
        assert_eq!(name("shop:web-1"), web);
        for text in ["", "web-1", "{}", r#"{"ns":"shop"}"#, ":", "{\"ns\":", "1"] {
            assert_eq!(name(text), None, "{text}");
        }
        assert_eq!(namespace(r#"{"ns":"shop"}"#).as_deref(), Some("shop"));
        assert_eq!(namespace("shop:web-1").as_deref(), Some("shop"));
        assert_eq!(namespace("ns:shop").as_deref(), Some("shop"));
        assert_eq!(namespace(""), None);
    }
}
