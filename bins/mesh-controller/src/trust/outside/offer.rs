//! What an outside authority offers: anchors, and an issuer with its key that leads to one of them.

use std::path::{Path, PathBuf};

use mesh_tls::{
    Error, TrustBundle,
    ca::{Authority, Issuer},
    pki_types::CertificateDer,
};
use mesh_trust_rotation::{AnchorId, IssuerId, Proposal, lint::Facts};
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use super::{
    Fault, Source,
    files::{ANCHORS, Files, ISSUER, KEY},
};
use crate::trust::{TrustError, keys::Made, record::cluster};

/// What was written, if it is whole and consistent.
pub(in crate::trust) struct Offer {
    pub(super) anchors: Vec<Certificate>,
    /// The place of the anchor that the issuer leads to.
    pub(super) above: usize,
    pub(super) issuer: Certificate,
    pub(super) paths: Paths,
    issuer_pem: String,
    key_pem: Zeroizing<String>,
}

/// A certificate of an authority, and where it was found.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) line: usize,
    pub(super) der: CertificateDer<'static>,
    pub(super) facts: Facts,
    /// Its subject, for people.
    pub(super) name: String,
}

/// The names of the files.
#[derive(Clone)]
pub(super) struct Paths {
    pub(super) anchors: PathBuf,
    pub(super) issuer: PathBuf,
    key: PathBuf,
}

impl Offer {
    /// Reads what is there at this moment.
    ///
    /// # Errors
    /// The [`Fault`].
    pub(in crate::trust) fn now(source: &Source) -> Result<Self, Fault> {
        Self::read(source, &source.read()?)
    }

    /// Reads what was written.
    pub(super) fn read(source: &Source, files: &Files) -> Result<Self, Fault> {
        let paths = Paths::of(source);
        let anchors = certificates(&paths.anchors, &files.anchors)?;
        let mut chain = certificates(&paths.issuer, &files.issuer)?.into_iter();
        let fault = |file: &PathBuf, line, field, reason: String| Fault {
            file: file.clone(),
            line,
            field,
            reason,
        };
        let Some(issuer) = chain.next() else {
            let reason = "there is no certificate; expected that of the issuer".to_owned();
            return Err(fault(&paths.issuer, None, "certificate", reason));
        };
        // Some write the anchor after the issuer.
        let is_anchor = |one: &Certificate| anchors.iter().any(|anchor| anchor.der == one.der);
        if let Some(between) = chain.find(|one| !is_anchor(one)) {
            let reason = format!(
                "`{}` is between the issuer and an anchor; expected an issuer that an anchor signed itself",
                between.name
            );
            return Err(fault(&paths.issuer, Some(between.line), "chain", reason));
        }
        let issuer_pem = TrustBundle::from_der(0, [issuer.der.clone()])
            .map_err(|error| paths.issuer_fault(&issuer, &error))?
            .to_pem();
        let key_pem = String::from_utf8(files.key.to_vec()).map(Zeroizing::new);
        let key_pem = key_pem.map_err(|_| {
            let reason = "it is no text; expected PKCS #8 or SEC 1 as PEM".to_owned();
            fault(&paths.key, None, "private key", reason)
        })?;
        let mut offer = Self {
            above: 0,
            anchors,
            issuer,
            paths,
            issuer_pem,
            key_pem,
        };
        offer.above = offer.lead()?;
        Ok(offer)
    }

    /// The anchor that the issuer leads to, with a leaf that was signed and verified.
    fn lead(&self) -> Result<usize, Fault> {
        let signer = |anchor: &Certificate| anchor.facts.subject == self.issuer.facts.issuer;
        let by_name = self.anchors.iter().position(signer);
        let nobody = || {
            let anchors: Vec<&str> = self.anchors.iter().map(|one| &*one.name).collect();
            Fault {
                file: self.paths.issuer.clone(),
                line: Some(self.issuer.line),
                field: "issuer",
                reason: format!(
                    "no anchor in {} signed `{}`; expected one of: {}",
                    self.paths.anchors.display(),
                    self.issuer.name,
                    anchors.join(", ")
                ),
            }
        };
        let mut place = by_name.ok_or_else(nobody)?;
        loop {
            let anchor = self.anchors[place].der.clone();
            let joined = self
                .keyed()
                .and_then(|issuer| Authority::new(anchor, issuer));
            let Err(error) = joined else {
                return Ok(place);
            };
            // Another may have the same name.
            let rest = self.anchors.iter().skip(place + 1).position(signer);
            match (rest, error) {
                (Some(further), Error::UntrustedIssuer | Error::InvalidChain { .. }) => {
                    place += 1 + further;
                }
                (None, Error::UntrustedIssuer) => return Err(nobody()),
                (_, error) => return Err(self.paths.issuer_fault(&self.issuer, &error)),
            }
        }
    }

    fn keyed(&self) -> Result<Issuer, Error> {
        Issuer::from_pem(self.issuer_pem.as_bytes(), self.key_pem.as_bytes())
    }

    /// The name of the key of the anchor that the issuer leads to.
    pub(in crate::trust) fn anchor_id(&self) -> AnchorId {
        self.anchor().facts.anchor_id()
    }

    pub(in crate::trust) fn issuer_id(&self) -> IssuerId {
        self.issuer.facts.issuer_id()
    }

    pub(super) fn anchor(&self) -> &Certificate {
        &self.anchors[self.above]
    }

    /// What the machine is to judge, where this anchor is the one in use.
    pub(super) fn proposal(&self, active: AnchorId) -> Proposal {
        let anchor = &self.anchor().facts;
        Proposal {
            anchor: (anchor.anchor_id() != active).then(|| anchor.clone()),
            issuers: [(cluster(), self.issuer.facts.clone())].into(),
            canaries: std::collections::BTreeSet::new(),
        }
    }

    /// The same with its keys, where this anchor is the one in use.
    ///
    /// # Errors
    /// [`TrustError::Tls`].
    pub(in crate::trust) fn made(&self, active: Option<AnchorId>) -> Result<Made, TrustError> {
        let anchor = self.anchor();
        let is_new = active != Some(anchor.facts.anchor_id());
        Ok(Made::elsewhere(
            anchor.der.clone(),
            None,
            is_new,
            self.keyed()?,
        ))
    }
}

impl std::fmt::Debug for Offer {
    /// Without the private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("issuer", &self.issuer.name)
            .finish_non_exhaustive()
    }
}

impl Paths {
    fn of(source: &Source) -> Self {
        let named = |name: &str| source.folder.join(name);
        Self {
            anchors: source.anchors.clone().unwrap_or_else(|| named(ANCHORS)),
            issuer: named(ISSUER),
            key: named(KEY),
        }
    }

    fn issuer_fault(&self, issuer: &Certificate, error: &Error) -> Fault {
        let of_key = |reason: String| Fault {
            file: self.key.clone(),
            line: None,
            field: "private key",
            reason,
        };
        match error {
            Error::KeyMismatch => of_key(format!(
                "it is of another certificate; expected that of `{}` in {}",
                issuer.name,
                self.issuer.display()
            )),
            Error::Pem {
                what: "private key",
                ..
            }
            | Error::InvalidKey { .. } => of_key(format!(
                "{error}; expected ECDSA P-256 or P-384, in PKCS #8 or SEC 1 form, as PEM"
            )),
            error => Fault {
                file: self.issuer.clone(),
                line: Some(issuer.line),
                field: "certificate",
                reason: format!("`{}`: {error}", issuer.name),
            },
        }
    }
}

/// All certificates in a file, each of an authority.
fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<Certificate>, Fault> {
    let fault = |line, field, reason: String| Fault {
        file: file.to_owned(),
        line,
        field,
        reason,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| {
        fault(
            None,
            "PEM",
            "it is no text; expected certificates".to_owned(),
        )
    })?;
    let mut all: Vec<Certificate> = Vec::new();
    for (line, section) in sections(text) {
        let Some(section) = section else {
            let reason = "a section has no end; expected `-----END CERTIFICATE-----`".to_owned();
            return Err(fault(Some(line), "PEM", reason));
        };
        let one = TrustBundle::from_pem(0, section.as_bytes()).map_err(|error| match error {
            Error::AnchorNotAuthority { .. } => {
                let reason = "it is of no authority; expected CA:TRUE".to_owned();
                fault(Some(line), "basic constraints", reason)
            }
            error => fault(Some(line), "certificate", error.to_string()),
        })?;
        let Some(der) = one.anchors().first().cloned() else {
            continue;
        };
        let facts = Facts::from_der(&der)
            .map_err(|error| fault(Some(line), "certificate", error.to_string()))?;
        if !all.iter().any(|known| known.der == der) {
            let name = name(&der);
            all.push(Certificate {
                line,
                der,
                facts,
                name,
            });
        }
    }
    if all.is_empty() {
        let reason = "there is no certificate; expected at least one".to_owned();
        return Err(fault(None, "PEM", reason));
    }
    if all.len() > MAX_CERTIFICATES {
        let reason = format!(
            "there are {}; expected {MAX_CERTIFICATES} at most",
            all.len()
        );
        return Err(fault(None, "certificates", reason));
    }
    Ok(all)
}

/// Each section with the line that it begins in; none if it does not end.
fn sections(text: &str) -> impl Iterator<Item = (usize, Option<&str>)> {
    let mut begins = Vec::new();
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.starts_with("-----BEGIN ") {
            begins.push((number + 1, offset));
        }
        offset += line.len();
    }
    let ends: Vec<usize> = begins.iter().skip(1).map(|(_, at)| *at).collect();
    let ends = ends.into_iter().chain([text.len()]);
    begins.into_iter().zip(ends).map(|((line, begin), end)| {
        let section = &text[begin..end];
        (line, section.contains("-----END ").then_some(section))
    })
}

fn name(der: &CertificateDer<'_>) -> String {
    let parsed = x509_parser::parse_x509_certificate(der);
    let name = parsed.map(|(_, parsed)| parsed.subject().to_string());
    name.unwrap_or_default().chars().take(128).collect()
}

/// A time, for people.
pub(super) fn date(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = ASN1Time::from_timestamp(seconds);
    time.map_or_else(|_| "the end of time".to_owned(), |time| time.to_string())
}

/// More than any change has.
const MAX_CERTIFICATES: usize = 8;
