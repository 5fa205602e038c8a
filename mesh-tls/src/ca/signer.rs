//! An authority's certificate with its key: what anchors and issuers have in common.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::ca::secret::SecretPem;
use crate::certificate;
use crate::error::{Error, unix_time};
use crate::leaf_key::generate;
use crate::pem;

/// How far the start of a certificate's validity lies before its issuance, for clocks that lag.
pub const BACKDATE: Duration = Duration::from_secs(600);

/// The longest life of any certificate made here.
pub const MAX_LIFETIME: Duration = Duration::from_secs(50 * 365 * 24 * 3600);

pub(super) struct Signer {
    certificate: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, KeyPair>,
    validity: Validity,
}

/// A span of time, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// Of a certificate issued at `now`: backdated, but no earlier than its issuer's validity and no
    /// later than it.
    pub(super) fn inside(self, lifetime: Duration, now: SystemTime) -> Result<Self, Error> {
        if now < self.not_before {
            return Err(Error::NotYetValid {
                not_before: self.not_before,
                now,
            });
        }
        if now >= self.not_after {
            return Err(Error::Expired {
                not_after: self.not_after,
                now,
            });
        }
        let wanted = Self::starting(lifetime, now)?;
        Ok(wanted.intersection(self))
    }

    pub(super) fn starting(lifetime: Duration, now: SystemTime) -> Result<Self, Error> {
        if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
            return Err(Error::InvalidLifetime {
                seconds: lifetime.as_secs(),
                max_seconds: MAX_LIFETIME.as_secs(),
            });
        }
        let whole = Duration::from_secs(unix_time(now).as_secs());
        let now = SystemTime::UNIX_EPOCH + whole;
        Ok(Self {
            not_before: SystemTime::UNIX_EPOCH + whole.saturating_sub(BACKDATE),
            not_after: now
                .checked_add(Duration::from_secs(lifetime.as_secs()))
                .unwrap_or(now),
        })
    }

    pub(super) fn intersection(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = certificate::parse(certificate)?;
        Ok(Self {
            not_before: certificate::time(parsed.validity().not_before.timestamp()),
            not_after: certificate::time(parsed.validity().not_after.timestamp()),
        })
    }

    pub(super) fn apply(self, params: &mut CertificateParams) -> Result<(), Error> {
        params.not_before = offset(self.not_before)?;
        params.not_after = offset(self.not_after)?;
        Ok(())
    }
}

impl Signer {
    /// A new key, certified by itself.
    pub(super) fn self_signed(
        name: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let key = new_key()?;
        let params = authority_params(
            name,
            BasicConstraints::Unconstrained,
            &key,
            Validity::starting(lifetime, now)?,
        )?;
        let certificate = params
            .self_signed(&key)
            .map_err(|error| generate("an anchor", &error))?;
        Self::new(certificate.der().clone(), key)
    }

    /// A new key, certified by this one to sign leaves.
    pub(super) fn subordinate(
        &self,
        name: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let key = new_key()?;
        let params = authority_params(
            name,
            BasicConstraints::Constrained(0),
            &key,
            self.validity.inside(lifetime, now)?,
        )?;
        let certificate = self.sign(&params, &key, "an issuer")?;
        Self::new(certificate, key)
    }

    /// The first certificate is this authority's own; the others are returned.
    pub(super) fn from_pem(
        certificates: &[u8],
        key: &[u8],
    ) -> Result<(Self, Vec<CertificateDer<'static>>), Error> {
        let mut chain = pem::certificates("authority certificate", certificates)?;
        if chain.is_empty() {
            return Err(Error::EmptyChain);
        }
        let own = chain.remove(0);
        let key = KeyPair::try_from(&pem::private_key(key)?).map_err(|_| Error::InvalidKey {
            reason: "not an ECDSA key in PKCS #8 or SEC 1 form".into(),
        })?;
        Ok((Self::new(own, key)?, chain))
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, Error> {
        if ![
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        ]
        .contains(&key.algorithm())
        {
            return Err(Error::InvalidKey {
                reason: "an authority's key is ECDSA P-256 or P-384".into(),
            });
        }
        let invalid = |reason| Error::InvalidAuthority { reason };
        let parsed = certificate::parse(&certificate)?;
        if !certificate::is_authority(&parsed)? {
            return Err(invalid("its certificate is not CA:TRUE"));
        }
        let usage = parsed.key_usage().map_err(certificate::malformed)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(invalid("its key usage lacks keyCertSign"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::KeyMismatch);
        }
        if parsed.subject().iter().any(|part| part.iter().count() != 1) {
            return Err(invalid("its subject has parts of other than one attribute"));
        }
        let validity = Validity::of(&certificate)?;
        let issuer =
            rcgen::Issuer::from_ca_cert_der(&certificate, key).map_err(certificate::malformed)?;
        Ok(Self {
            certificate,
            issuer,
            validity,
        })
    }

    /// Certifies a key that is elsewhere as an authority below this one.
    pub(super) fn authority_for(
        &self,
        key: &impl PublicKeyData,
        name: DistinguishedName,
        constraints: BasicConstraints,
        (lifetime, now): (Duration, SystemTime),
        what: &'static str,
    ) -> Result<CertificateDer<'static>, Error> {
        let validity = self.validity.inside(lifetime, now)?;
        let mut params = unnamed_params(constraints, validity)?;
        params.distinguished_name = name;
        self.sign(&params, key, what)
    }

    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
        what: &'static str,
    ) -> Result<CertificateDer<'static>, Error> {
        params
            .signed_by(key, &self.issuer)
            .map(|certificate| certificate.der().clone())
            .map_err(|error| generate(what, &error))
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn validity(&self) -> Validity {
        self.validity
    }

    pub(super) fn key_pem(&self) -> SecretPem {
        SecretPem::new(self.issuer.key().serialize_pem())
    }
}

/// 126 random bits under a fixed top (RFC 5280 section 4.1.2.2 asks for at most 20 octets, positive).
pub(super) fn random_serial() -> Result<[u8; 16], Error> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| Error::Generate {
        what: "a serial number",
        reason: "no randomness".into(),
    })?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

fn authority_params(
    name: &str,
    constraints: BasicConstraints,
    key: &KeyPair,
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let mut params = unnamed_params(constraints, validity)?;
    params.distinguished_name = authority_name(name, &params, key);
    Ok(params)
}

fn unnamed_params(
    constraints: BasicConstraints,
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    validity.apply(&mut params)?;
    Ok(params)
}

/// A new key gets a new name: validators that look issuers up by name never try a wrong key.
pub(super) fn authority_name(
    name: &str,
    params: &CertificateParams,
    key: &KeyPair,
) -> DistinguishedName {
    let key_id = params.key_identifier(key);
    let tag: String = key_id[..4].iter().map(|b| format!("{b:02x}")).collect();
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, format!("{name} {tag}"));
    distinguished
}

pub(super) fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| generate("a key", &error))
}

fn offset(time: SystemTime) -> Result<OffsetDateTime, Error> {
    i64::try_from(unix_time(time).as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(Error::Generate {
            what: "a certificate",
            reason: "its validity lies beyond the year 9999".into(),
        })
}

/// A common name has at most 64 characters (RFC 5280 appendix A.1), nine of them the tag.
const MAX_NAME_CHARS: usize = 55;
