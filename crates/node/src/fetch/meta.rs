//! What the block store keeps beside a held root: its manifest.

use pinfold_node_api::ManifestSummary;

/// The bytes given to the store. JSON, whose `version` is the manifest's.
pub(crate) fn encode(manifest: ManifestSummary) -> Vec<u8> {
    serde_json::to_vec(&manifest).expect("numbers and hexadecimal always serialise")
}

/// Reads them back; none where they are not ours, and the root is to be walked
/// again.
pub(crate) fn decode(meta: &[u8]) -> Option<ManifestSummary> {
    serde_json::from_slice(meta).ok()
}
