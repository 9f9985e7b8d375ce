//! What tells one model from another.

use protoseg_models::bundle::{Manifest, Model, ModelFile};
use protoseg_models::digest;

/// A digest over all of a bundle that decides what one of its files makes of a picture.
pub(super) fn fingerprint(manifest: &Manifest, file: &ModelFile) -> String {
    let Model { classes, ignore, grid, .. } = &manifest.model;
    let data = file.data_sha256.as_deref().unwrap_or_default();
    let facts = format!("{}\n{data}\n{:?}\n{classes:?}\n{ignore}\n{grid:?}", file.sha256, file.adapter);
    digest::of_bytes(facts.as_bytes())
}

/// The first fact in which two descriptions of one model differ. Its name and its windows are a matter of taste.
pub(super) fn difference(manifest: &Model, own: &Model) -> Option<&'static str> {
    let facts = [
        ("version", manifest.version == own.version),
        ("classes", manifest.classes == own.classes),
        ("grid", manifest.grid == own.grid),
        ("arch", manifest.arch == own.arch),
        ("weights_sha256", manifest.weights_sha256 == own.weights_sha256),
    ];
    facts.into_iter().find(|(_, equal)| !equal).map(|(field, _)| field)
}
