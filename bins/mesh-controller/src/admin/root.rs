//! The root's key, and what is made elsewhere.

use mesh_control_api::admin as api;
use mesh_trust_rotation::{AnchorId, Digest};
use tonic::Status;
use zeroize::Zeroizing;

use super::trust::refused;
use crate::trust::{Import, Root, Trust, system};

/// Where anchors and issuers come from.
pub(super) fn describe(trust: &Trust) -> api::TrustRoot {
    let (root, offered) = trust.root();
    let standing = offered
        .as_ref()
        .and_then(|offered| offered.standing.clone());
    let folder = offered.map(|offered| offered.folder.display().to_string());
    api::TrustRoot {
        kind: match root {
            Some(Root::Here) => "here",
            Some(Root::PutAway) => "put away",
            Some(Root::Outside) => "outside",
            // Only who leads knows.
            None => "",
        }
        .to_owned(),
        folder: folder.unwrap_or_default(),
        since: standing.as_ref().map(|standing| standing.since.into()),
        offer: standing
            .as_ref()
            .map_or_else(String::new, |standing| standing.word.to_owned()),
        detail: standing.map_or_else(String::new, |standing| standing.detail),
        bridges_impossible: trust.asks_for_impossible_bridges(),
        needed_by: trust.root_needed_by().map(|at| system(at).into()),
    }
}

pub(super) async fn export(trust: &Trust) -> Result<api::ExportRootResponse, Status> {
    let (certificate_pem, key) = trust.export_root().await.map_err(|error| refused(&error))?;
    Ok(api::ExportRootResponse {
        certificate_pem,
        key_pem: key.expose().to_owned(),
    })
}

pub(super) async fn remove(
    trust: &Trust,
    request: api::RemoveRootRequest,
) -> Result<api::RemoveRootResponse, Status> {
    let anchor = Digest::try_from(request.anchor.clone()).map_err(|_| {
        Status::invalid_argument(format!("`{}` is no anchor's full name", request.anchor))
    })?;
    let anchor = AnchorId::new(*anchor.as_bytes());
    let needed_by = trust.remove_root(anchor).await;
    Ok(api::RemoveRootResponse {
        needed_by: Some(needed_by.map_err(|error| refused(&error))?.into()),
    })
}

pub(super) async fn request_issuer(
    trust: &Trust,
    anew: bool,
) -> Result<api::RequestIssuerResponse, Status> {
    let csr_pem = trust.issuer_request(anew).await;
    Ok(api::RequestIssuerResponse {
        csr_pem: csr_pem.map_err(|error| refused(&error))?,
    })
}

pub(super) async fn import(
    trust: &Trust,
    request: api::ImportTrustRequest,
) -> Result<api::ImportTrustResponse, Status> {
    let import = Import {
        anchor: request.anchor_pem,
        anchor_key: Zeroizing::new(request.anchor_key_pem),
        issuer: request.issuer_pem,
        issuer_key: Zeroizing::new(request.issuer_key_pem),
    };
    let begun = trust
        .import(import)
        .await
        .map_err(|error| refused(&error))?;
    Ok(api::ImportTrustResponse { begun })
}
