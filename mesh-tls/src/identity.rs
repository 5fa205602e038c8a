//! Who a workload is: a SPIFFE ID or a DNS name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::error::{Error, excerpt};

/// The identity of a workload, as its certificate proves it.
///
/// Either a SPIFFE ID with a path (`spiffe://mesh.example/ns/shop/sa/web`, SPIFFE-ID specification
/// section 2) or a DNS name in lower case (`web.shop.serviceaccount.identity.linkerd.cluster.local`).
/// Cloning copies a pointer. Two identities are equal when they name the same workload: DNS names
/// are lowered when parsed, SPIFFE IDs have only one spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Arc<str>);

impl Identity {
    /// Reads a SPIFFE ID or a DNS name.
    ///
    /// # Errors
    /// [`Error::InvalidIdentity`] naming the rule that is broken.
    pub fn parse(value: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidIdentity {
            value: excerpt(value),
            reason,
        };
        if value.contains("://") {
            check_spiffe(value).map_err(invalid)?;
            Ok(Self(value.into()))
        } else {
            check_dns(value).map_err(invalid)?;
            Ok(Self(value.to_ascii_lowercase().into()))
        }
    }

    /// The DNS form that Linkerd gives a service account:
    /// `<service account>.<namespace>.serviceaccount.identity.<control namespace>.<trust domain>`.
    ///
    /// # Errors
    /// [`Error::InvalidIdentity`] if the parts do not make a DNS name.
    pub fn linkerd(
        service_account: &str,
        namespace: &str,
        control_namespace: &str,
        trust_domain: &TrustDomain,
    ) -> Result<Self, Error> {
        Self::parse(&format!(
            "{service_account}.{namespace}{LINKERD_INFIX}{control_namespace}.{trust_domain}"
        ))
    }

    /// The identity as it stands in the certificate.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a SPIFFE ID rather than a DNS name.
    #[must_use]
    pub fn is_spiffe(&self) -> bool {
        self.0.starts_with(SPIFFE_SCHEME)
    }

    /// The name to send in the TLS handshake (SNI), if the identity is a DNS name.
    #[must_use]
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        if self.is_spiffe() {
            return None;
        }
        ServerName::try_from(self.0.to_string()).ok()
    }

    /// The trust domain that the identity names, if its form has one: the authority of a SPIFFE
    /// ID, or what follows the control namespace in Linkerd's form.
    #[must_use]
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        let domain = match self.0.strip_prefix(SPIFFE_SCHEME) {
            Some(rest) => rest.split('/').next(),
            None => self
                .0
                .split_once(LINKERD_INFIX)
                .and_then(|(_, rest)| rest.split_once('.'))
                .map(|(_, domain)| domain),
        };
        domain.and_then(|domain| TrustDomain::parse(domain).ok())
    }

    /// Checks that the identity belongs to `expected`. A DNS name that is not in Linkerd's form
    /// belongs to a trust domain when it ends with it, label by label.
    ///
    /// # Errors
    /// [`Error::WrongTrustDomain`] if it does not.
    pub fn require_trust_domain(&self, expected: &TrustDomain) -> Result<(), Error> {
        let inside = match self.trust_domain() {
            Some(own) => own == *expected,
            None => self
                .0
                .strip_suffix(expected.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        };
        if inside {
            return Ok(());
        }
        Err(Error::WrongTrustDomain {
            expected: expected.to_string(),
            identity: self.to_string(),
        })
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self, Error> {
        Self::parse(value)
    }
}

impl AsRef<str> for Identity {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0)
    }
}

/// The name of a root of trust, such as `cluster.local`.
///
/// Lower-case letters, digits, `.`, `-` and `_`, at most 255 bytes (SPIFFE-ID section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a trust domain's name.
    ///
    /// # Errors
    /// [`Error::InvalidTrustDomain`] naming the rule that is broken.
    pub fn parse(value: &str) -> Result<Self, Error> {
        check_trust_domain(value).map_err(|reason| Error::InvalidTrustDomain {
            value: excerpt(value),
            reason,
        })?;
        Ok(Self(value.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self, Error> {
        Self::parse(value)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_spiffe(value: &str) -> Result<(), &'static str> {
    if value.len() > MAX_SPIFFE_BYTES {
        return Err("a SPIFFE ID has at most 2048 bytes");
    }
    let rest = value
        .strip_prefix(SPIFFE_SCHEME)
        .ok_or("the scheme of a URI identity is spiffe")?;
    let (domain, path) = rest
        .split_once('/')
        .ok_or("a workload's SPIFFE ID has a path")?;
    check_trust_domain(domain)?;
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err("a SPIFFE path has no empty segments and no trailing slash");
        }
        if segment == "." || segment == ".." {
            return Err("a SPIFFE path has no relative segments");
        }
        if !segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        {
            return Err("a SPIFFE path has letters, digits, '.', '-' and '_' only");
        }
    }
    Ok(())
}

fn check_trust_domain(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err("a trust domain has 1 to 255 bytes");
    }
    if !value
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
    {
        return Err("a trust domain has lower-case letters, digits, '.', '-' and '_' only");
    }
    Ok(())
}

fn check_dns(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > MAX_DNS_BYTES {
        return Err("a DNS name has 1 to 253 bytes");
    }
    let mut last = "";
    for label in value.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return Err("a DNS label has 1 to 63 bytes");
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            return Err("a DNS label has letters, digits, '-' and '_' only");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a DNS label neither begins nor ends with '-'");
        }
        last = label;
    }
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err("an IP address is not an identity");
    }
    Ok(())
}

const SPIFFE_SCHEME: &str = "spiffe://";
const LINKERD_INFIX: &str = ".serviceaccount.identity.";
const MAX_SPIFFE_BYTES: usize = 2048;
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const MAX_DNS_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(value: &str) -> Identity {
        Identity::parse(value).unwrap()
    }

    fn domain(value: &str) -> TrustDomain {
        TrustDomain::parse(value).unwrap()
    }

    #[test]
    fn linkerd_form_carries_its_trust_domain() {
        let web = Identity::linkerd("web", "shop", "linkerd", &domain("cluster.local")).unwrap();
        assert_eq!(
            web.as_str(),
            "web.shop.serviceaccount.identity.linkerd.cluster.local"
        );
        assert_eq!(web.trust_domain(), Some(domain("cluster.local")));
        web.require_trust_domain(&domain("cluster.local")).unwrap();
        // A parent of the trust domain is another trust domain.
        web.require_trust_domain(&domain("local")).unwrap_err();
    }

    #[test]
    fn spiffe_form_carries_its_trust_domain() {
        let web = identity("spiffe://mesh.example/ns/shop/sa/web");
        assert!(web.is_spiffe());
        assert_eq!(web.server_name(), None);
        assert_eq!(web.trust_domain(), Some(domain("mesh.example")));
        assert!(matches!(
            web.require_trust_domain(&domain("other.example")),
            Err(Error::WrongTrustDomain { .. })
        ));
    }

    #[test]
    fn plain_dns_names_belong_to_a_domain_by_whole_labels() {
        let web = identity("web.example.com");
        assert_eq!(web.trust_domain(), None);
        web.require_trust_domain(&domain("example.com")).unwrap();
        web.require_trust_domain(&domain("ample.com")).unwrap_err();
    }

    #[test]
    fn dns_names_are_lowered() {
        assert_eq!(identity("Web.Example"), identity("web.example"));
        assert!(identity("web.example").server_name().is_some());
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "web.",
            "-web",
            "web-",
            "*.example",
            "we b",
            "10.0.0.1",
            "::1",
            "a\0b",
            "https://mesh.example/web",
            "SPIFFE://mesh.example/web",
            "spiffe://mesh.example",
            "spiffe://mesh.example/",
            "spiffe:///web",
            "spiffe://Mesh.example/web",
            "spiffe://mesh.example:1/web",
            "spiffe://u@mesh.example/web",
            "spiffe://mesh.example/a//b",
            "spiffe://mesh.example/a/../b",
            "spiffe://mesh.example/a/",
            "spiffe://mesh.example/a?b",
            "spiffe://mesh.example/a%2fb",
        ] {
            assert!(
                matches!(Identity::parse(bad), Err(Error::InvalidIdentity { .. })),
                "{bad:?}"
            );
        }
        Identity::parse(&format!("spiffe://d/{}", "a".repeat(2048))).unwrap_err();
        Identity::parse(&"a.".repeat(200)).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_parsing_is_stable(value in ".{0,300}") {
            if let Ok(identity) = Identity::parse(&value) {
                prop_assert_eq!(Identity::parse(identity.as_str()).unwrap(), identity);
            }
        }

        #[test]
        fn a_dns_identity_can_be_sent_as_a_server_name(value in "[a-z0-9_]{1,8}(\\.[a-z0-9_-]{1,8}){0,4}") {
            if let Ok(identity) = Identity::parse(&value) {
                prop_assert!(identity.server_name().is_some());
            }
        }
    }
}
