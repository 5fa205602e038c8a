//! The root's key, for operators: exported, removed, brought back, and what was made where it is.

use mesh_tls::{
    TrustBundle,
    ca::{Anchor, SecretPem},
    pki_types::CertificateDer,
};
use mesh_trust_rotation::{AnchorId, UnixTime, lint::Facts};
use std::{fmt, time::SystemTime};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{Command, CommandError, Offered, Request, Root, Trust, TrustError, record, schedule};

/// An anchor or an issuer that was made elsewhere, as PEM; what is not given is empty.
#[derive(Clone)]
pub(crate) struct Import {
    /// The anchor; that in use if it is not given.
    pub(crate) anchor: String,
    /// Its key, if it is to be here.
    pub(crate) anchor_key: Zeroizing<String>,
    /// The issuer; one is made with the anchor's key if it is not given.
    pub(crate) issuer: String,
    /// Its key; that of the request which is out if it is not given.
    pub(crate) issuer_key: Zeroizing<String>,
}

impl Import {
    /// The anchor that is given, and its name.
    ///
    /// # Errors
    /// [`TrustError::Tls`], [`TrustError::Rotation`].
    pub(super) fn anchor(&self) -> Result<Option<(AnchorId, CertificateDer<'static>)>, TrustError> {
        if self.anchor.is_empty() {
            return Ok(None);
        }
        let bundle = TrustBundle::from_pem(0, self.anchor.as_bytes())?;
        let [certificate] = bundle.anchors() else {
            return Err(TrustError::Tls(mesh_tls::Error::InvalidAuthority {
                reason: "an anchor is one certificate",
            }));
        };
        let id = Facts::from_der(certificate)?.anchor_id();
        Ok(Some((id, certificate.clone())))
    }

    /// Whether it is the answer to the request that is out.
    pub(super) fn is_requested(&self) -> bool {
        !self.issuer.is_empty() && self.issuer_key.is_empty()
    }
}

impl fmt::Debug for Import {
    /// Without private keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").finish_non_exhaustive()
    }
}

impl Trust {
    /// The anchor in use and its private key.
    ///
    /// # Errors
    /// [`CommandError`], if the key is not here.
    pub(crate) async fn export_root(&self) -> Result<(String, SecretPem), CommandError> {
        self.ask(Request::ExportRoot).await
    }

    /// Removes the private key of the anchor in use. Until when another issuer has to be there.
    ///
    /// # Errors
    /// [`CommandError`], if it has to stay.
    pub(crate) async fn remove_root(&self, anchor: AnchorId) -> Result<SystemTime, CommandError> {
        self.ask(|answer| Request::RemoveRoot(anchor, answer)).await
    }

    /// A request for an issuer's certificate, PEM; the one that is out, unless it is to be another.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(crate) async fn issuer_request(&self, anew: bool) -> Result<String, CommandError> {
        self.ask(|answer| Request::Issuer(anew, answer)).await
    }

    /// Takes what was made elsewhere. True if a change to it has begun; false if it was the key of the anchor in use.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(crate) async fn import(&self, import: Import) -> Result<bool, CommandError> {
        let active = self.record().rotation().active().anchor;
        let given = import.anchor()?.is_some_and(|(id, _)| id == active);
        if given && import.issuer.is_empty() && !import.anchor_key.is_empty() {
            let key = Anchor::from_pem(import.anchor.as_bytes(), import.anchor_key.as_bytes());
            let key = key.map_err(TrustError::from)?;
            self.ask(|answer| Request::BringBack(key, answer)).await?;
            return Ok(false);
        }
        self.command(Command::Import(Box::new(import))).await?;
        Ok(true)
    }

    /// Where the key of the anchor in use is, if that is known here, and what an outside authority has written.
    pub(crate) fn root(&self) -> (Option<Root>, Option<Offered>) {
        let live = self.shared.live.load();
        (live.root, live.offered.clone())
    }

    /// When another issuer has to be there at the latest, if it is not for the controller to make one.
    pub(crate) fn root_needed_by(&self) -> Option<UnixTime> {
        let live = self.shared.live.load();
        let elsewhere = live.root.is_some_and(|root| root != Root::Here);
        let needed = || schedule::needed_by(live.rotation(), &record::cluster(), &live.settings);
        elsewhere.then(needed).flatten()
    }

    /// Whether cross-certificates are asked for that cannot be made, as the key of the anchor in use is elsewhere.
    pub(crate) fn asks_for_impossible_bridges(&self) -> bool {
        let live = self.shared.live.load();
        let elsewhere = live.root.is_some_and(|root| root != Root::Here);
        elsewhere && live.settings.rotation.bridges
    }

    /// Has the driver answer in its next turn.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Request,
    ) -> Result<T, CommandError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(request(answer)).await;
        sent.map_err(|_| CommandError::Stopping)?;
        answered.await.unwrap_or(Err(CommandError::Stopping))
    }
}
