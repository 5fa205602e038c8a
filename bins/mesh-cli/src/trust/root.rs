//! The root's key: written out, removed, and what is made where it is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use mesh_control_api::admin::ImportTrustRequest;
use mesh_tls::ca::Anchor;
use mesh_trust_rotation::lint::Facts;

use super::{agreed, read};
use crate::admin::Admin;
use crate::output::Output;
use crate::token::remaining;
use crate::{Error, data, duration};

/// What was made elsewhere, in files.
pub(super) struct Brought {
    pub(super) anchor: Option<PathBuf>,
    pub(super) anchor_key: Option<PathBuf>,
    pub(super) issuer: Option<PathBuf>,
    pub(super) issuer_key: Option<PathBuf>,
}

pub(super) async fn export(admin: &Admin, folder: &Path) -> Result<(), Error> {
    let root = admin.export_root().await?;
    data::make_private(folder)?;
    data::write_private(&folder.join(CERTIFICATE), &root.certificate_pem)?;
    data::write_private(&folder.join(KEY), &root.key_pem)?;
    data::flush(folder, &[CERTIFICATE, KEY])?;
    eprintln!(
        "wrote {CERTIFICATE} and {KEY}, which is secret and not encrypted, to {}",
        folder.display()
    );
    Ok(())
}

/// Removes the key of the anchor in use, if it is in the folder.
pub(super) async fn remove(
    admin: &Admin,
    output: &mut Output,
    folder: &Path,
    yes: bool,
) -> Result<ExitCode, Error> {
    let anchor = exported(folder)?;
    let facts = Facts::from_der(anchor.certificate());
    let facts = facts.map_err(|error| Error::Refused(error.to_string()))?;
    let what = format!(
        "The controller forgets the key of anchor {}, which is in {}. From then on it makes no issuer below it: who has the key \
         signs one in time. Backups of the controller's data may have the key still.",
        facts.anchor_id(),
        folder.display()
    );
    if !agreed(&what, yes)? {
        return Ok(ExitCode::FAILURE);
    }
    // The controller's copy may be the last one that a crash of this machine would leave.
    data::flush(folder, &[CERTIFICATE, KEY])?;
    let needed = admin.remove_root(facts.anchor_id().to_string()).await?;
    let left = remaining(needed, SystemTime::now()).unwrap_or_default();
    output.line(&format!(
        "removed: another issuer is needed within {}",
        duration::show(left)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Signs the request of an issuer.
pub(super) fn sign_issuer(
    root: &Path,
    request: &Path,
    out: &Path,
    lifetime: Duration,
    now: SystemTime,
) -> Result<ExitCode, Error> {
    let certificate = exported(root)?
        .certify(read(request)?.as_bytes(), lifetime, now)
        .map_err(|error| Error::Refused(format!("{}: {error}", request.display())))?;
    data::write_private(out, &certificate)?;
    eprintln!(
        "wrote {}: `mesh trust import --issuer` takes it",
        out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// False if nobody wanted it.
pub(super) async fn import(admin: &Admin, brought: &Brought, yes: bool) -> Result<bool, Error> {
    let text = |path: &Option<PathBuf>| path.as_deref().map_or(Ok(String::new()), read);
    let request = ImportTrustRequest {
        anchor_pem: text(&brought.anchor)?,
        anchor_key_pem: text(&brought.anchor_key)?,
        issuer_pem: text(&brought.issuer)?,
        issuer_key_pem: text(&brought.issuer_key)?,
    };
    if brought.anchor.is_none() && brought.issuer.is_none() {
        return Err(Error::Refused(
            "nothing is given: name an anchor, an issuer or both".to_owned(),
        ));
    }
    let what = "What is in use is replaced by what was made elsewhere, by the same gates as any change; the key of the anchor in \
                use is only taken back.";
    if !agreed(what, yes)? {
        return Ok(false);
    }
    let begun = admin.import_trust(request).await?;
    if !begun {
        eprintln!("the controller has the key of its anchor again");
    }
    Ok(true)
}

/// An anchor that was exported, its key proven to be its own.
fn exported(folder: &Path) -> Result<Anchor, Error> {
    let (certificate, key) = (read(&folder.join(CERTIFICATE))?, read(&folder.join(KEY))?);
    Anchor::from_pem(certificate.as_bytes(), key.as_bytes())
        .map_err(|error| Error::Refused(format!("{}: {error}", folder.display())))
}

const CERTIFICATE: &str = "anchor.pem";
const KEY: &str = "anchor.key.pem";
