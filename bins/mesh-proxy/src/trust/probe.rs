//! Probes: whether a chain that nobody has shown yet would be accepted here.

use std::time::SystemTime;

use mesh_control_api::trust as api;
use mesh_tls::TrustBundle;
use mesh_tls::pki_types::CertificateDer;

use super::follow::key_id;
use super::report;

/// The most certificates, and bytes of all of them, that a chain to be probed may have.
const MAX_CHAIN: (usize, usize) = (10, 64 * 1024);

/// What a handshake with that chain would come to under `trust`.
pub(super) fn answer(probe: &api::Probe, trust: &TrustBundle, now: SystemTime) -> api::ProbeResult {
    let verdict = verify(probe, trust, now);
    api::ProbeResult {
        id: probe.id,
        accepted: verdict.is_ok(),
        reason: verdict
            .err()
            .as_deref()
            .map(report::cut)
            .unwrap_or_default()
            .to_owned(),
    }
}

fn verify(probe: &api::Probe, trust: &TrustBundle, now: SystemTime) -> Result<(), String> {
    let bytes: usize = probe.chain.iter().map(Vec::len).sum();
    if probe.chain.len() > MAX_CHAIN.0 || bytes > MAX_CHAIN.1 {
        return Err(format!(
            "a chain of {} certificates and {bytes} bytes is too long",
            probe.chain.len()
        ));
    }
    let chain: Vec<_> = probe
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let peer = trust
        .verify(&chain, now)
        .map_err(|error| error.to_string())?;
    match key_id(&probe.anchor) {
        Some(wanted) if wanted != peer.keys.anchor => {
            Err(format!("it leads to anchor {}", peer.keys.anchor))
        }
        _ => Ok(()),
    }
}
