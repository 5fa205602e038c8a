//! Issuing leaves.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use crate::bundle::TrustBundle;
use crate::ca::csr::RequestedKey;
use crate::ca::issuer::Issuer;
use crate::ca::signer::{Validity, random_serial};
use crate::certificate::Usage;
use crate::error::{Error, unix_time};
use crate::identity::{Identity, TrustDomain};
use crate::leaf_key::{LeafKey, alternative_name};
use crate::pem;
use crate::verify;

/// An issuer with the anchor it leads to.
///
/// A value that exists works: when it is made, a throw-away leaf is signed and verified against the
/// anchor.
pub struct Authority {
    anchor: CertificateDer<'static>,
    issuer: Issuer,
    validity: Validity,
    trust_domain: Option<TrustDomain>,
}

impl Authority {
    /// Joins an issuer with its anchor, whose key is not needed.
    ///
    /// # Errors
    /// [`Error::AnchorNotAuthority`], [`Error::MalformedCertificate`], [`Error::UntrustedIssuer`]
    /// if the issuer does not lead to the anchor, [`Error::InvalidChain`] if it may not sign
    /// leaves, or [`Error::InvalidAuthority`] if the two are never valid together.
    pub fn new(anchor: CertificateDer<'static>, issuer: Issuer) -> Result<Self, Error> {
        let trust = TrustBundle::from_der(0, [anchor.clone()])?;
        let validity = issuer.validity().intersection(Validity::of(&anchor)?);
        if validity.not_before >= validity.not_after {
            return Err(Error::InvalidAuthority {
                reason: "issuer and anchor are never valid together",
            });
        }
        let authority = Self {
            anchor,
            issuer,
            validity,
            trust_domain: None,
        };
        authority.probe(&trust)?;
        Ok(authority)
    }

    /// Reads an anchor's certificate, and an issuer as [`Issuer::from_pem`] does.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`Issuer::from_pem`].
    pub fn from_pem(anchor: &[u8], issuer_chain: &[u8], issuer_key: &[u8]) -> Result<Self, Error> {
        let mut anchors = pem::certificates("anchor certificate", anchor)?.into_iter();
        let (Some(anchor), None) = (anchors.next(), anchors.next()) else {
            return Err(Error::InvalidAuthority {
                reason: "an anchor is one certificate",
            });
        };
        Self::new(anchor, Issuer::from_pem(issuer_chain, issuer_key)?)
    }

    /// Refuses to issue for identities outside `trust_domain`.
    #[must_use]
    pub fn with_trust_domain(mut self, trust_domain: TrustDomain) -> Self {
        self.trust_domain = Some(trust_domain);
        self
    }

    /// Issues a leaf for the key in `csr` (PKCS #10, DER).
    ///
    /// `identity` is what the caller has proven of the requester; of the request only the key is
    /// taken. The leaf is valid from [`BACKDATE`](crate::ca::BACKDATE) before `now`, for both sides
    /// of a connection, for `lifetime` or until its issuer or anchor ends.
    ///
    /// # Errors
    /// One of the `Csr` variants or [`Error::MalformedCsr`], [`Error::WrongTrustDomain`],
    /// [`Error::InvalidLifetime`], [`Error::Expired`] or [`Error::NotYetValid`] of the authority, or
    /// [`Error::Generate`].
    pub fn issue(
        &self,
        csr: &[u8],
        identity: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<IssuedLeaf, Error> {
        let key = RequestedKey::parse(csr, identity)?;
        if let Some(domain) = &self.trust_domain {
            identity.require_trust_domain(domain)?;
        }
        let validity = self.validity.inside(lifetime, now)?;
        self.sign(&key, vec![alternative_name(identity)?], validity)
    }

    /// The anchor that leaves lead to.
    #[must_use]
    pub fn anchor(&self) -> &CertificateDer<'static> {
        &self.anchor
    }

    /// The anchor as PEM text.
    #[must_use]
    pub fn anchor_pem(&self) -> String {
        pem::encode([self.anchor.as_ref()])
    }

    /// The issuer, whose chain and key are to be kept.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// When it ceases to issue: the first end among issuer and anchor.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    fn probe(&self, trust: &TrustBundle) -> Result<(), Error> {
        let leaf = self.sign(LeafKey::generate()?.key_pair(), Vec::new(), self.validity)?;
        let now = unix_time(self.validity.not_before);
        verify::chain(leaf.chain(), trust, Usage::Server, now)?;
        verify::chain(leaf.chain(), trust, Usage::Client, now).map(|_| ())
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        validity: Validity,
    ) -> Result<IssuedLeaf, Error> {
        let serial = random_serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        // Says CA:FALSE, and carries a subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        validity.apply(&mut params)?;
        let leaf = self.issuer.signer().sign(&params, key, "a leaf")?;
        Ok(IssuedLeaf {
            chain: std::iter::once(leaf)
                .chain(self.issuer.chain().cloned())
                .collect(),
            validity,
            serial,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("issuer", &self.issuer)
            .field("not_after", &self.not_after())
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// A leaf just issued, with the certificates that lead to the anchor.
#[derive(Clone, Debug)]
pub struct IssuedLeaf {
    chain: Vec<CertificateDer<'static>>,
    validity: Validity,
    serial: [u8; 16],
}

impl IssuedLeaf {
    /// The leaf, then what leads from it to the anchor, without the anchor.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf itself.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// What leads from the leaf to the anchor, without either.
    #[must_use]
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.chain[1..]
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn into_chain(self) -> Vec<CertificateDer<'static>> {
        self.chain
    }

    /// With a cross-certificate at the end of its chain, for those who do not trust the anchor itself.
    #[must_use]
    pub fn with_cross(mut self, certificate: CertificateDer<'static>) -> Self {
        self.chain.push(certificate);
        self
    }

    /// The beginning of its validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.validity.not_before
    }

    /// The end of its validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// Its serial number, most significant byte first.
    #[must_use]
    pub fn serial(&self) -> &[u8; 16] {
        &self.serial
    }
}
