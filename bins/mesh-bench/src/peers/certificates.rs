//! Certificates for the peers that take theirs from files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::error::Error;

/// A folder with `ca.pem`, and `cert.pem`, `key.pem` and `both.pem` in `client` and `server`. Keys are on P-256, as the mesh's.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// The name in the server's certificate.
    pub(crate) const SERVER_NAME: &str = "server.test";

    /// Makes them.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn make(folder: &Path) -> Result<Self, Error> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(Error::file(path))
        };
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "mesh-bench");
        let key = KeyPair::generate()?;
        write("ca.pem", &ca.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(ca, key);
        for role in ["client", "server"] {
            let part = folder.join(role);
            std::fs::create_dir_all(&part).map_err(Error::file(part))?;
            let mut leaf = CertificateParams::new(vec![format!("{role}.test")])?;
            leaf.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate()?;
            let certificate = leaf.signed_by(&key, &issuer)?.pem();
            let key = key.serialize_pem();
            write(&format!("{role}/cert.pem"), &certificate)?;
            write(&format!("{role}/key.pem"), &key)?;
            write(&format!("{role}/both.pem"), &format!("{certificate}{key}"))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The path of a file of these.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
}
