//! Fingerprints of models, by which journals know them.

use std::io;
use std::path::Path;

use protoseg_models::adapter::Adapter;
use protoseg_models::bundle::{Manifest, Model, ModelFile, external_data};
use protoseg_models::digest;

/// Digest over everything in a bundle that decides the labels of one of its files.
pub fn fingerprint(manifest: &Manifest, file: &ModelFile) -> String {
    let weights: String = file.weights.values().map(String::as_str).collect();
    let data = file.data_sha256.as_deref().or((!weights.is_empty()).then_some(&*weights));
    digest_of(&manifest.model, &file.sha256, data, file.adapter.as_ref())
}

/// The same for a single file: the fingerprint of the bundle that it is part of, if it is.
pub(super) fn fingerprint_of_file(model: &Model, path: &Path) -> io::Result<String> {
    let data =
        path.with_file_name(external_data(&path.file_name().unwrap_or_default().to_string_lossy()));
    let data = if data.is_file() { Some(digest::sha256_file(&data)?) } else { None };
    Ok(digest_of(model, &digest::sha256_file(path)?, data.as_deref(), None))
}

fn digest_of(model: &Model, file: &str, data: Option<&str>, adapter: Option<&Adapter>) -> String {
    let Model { classes, ignore, grid, blend, .. } = model;
    let data = data.unwrap_or_default();
    let mut facts = format!("{file}\n{data}\n{adapter:?}\n{classes:?}\n{ignore}\n{grid:?}");
    if !blend.is_mean() {
        facts.push_str(&format!("\n{blend:?}"));
    }
    digest::sha256_bytes(facts.as_bytes())
}

/// Adds how image files are read where that is chosen.
pub(super) fn fingerprint_as_read(fingerprint: String, model: &Model) -> String {
    match model.reading {
        reading if reading.is_default() => fingerprint,
        reading => digest::sha256_bytes(format!("{fingerprint}\n{reading}").as_bytes()),
    }
}

/// Names the first field in which two descriptions of one model differ; name and windows may.
pub(super) fn first_difference(manifest: &Model, own: &Model) -> Option<&'static str> {
    let facts = [
        ("version", manifest.version == own.version),
        ("classes", manifest.classes == own.classes),
        ("grid", manifest.grid == own.grid),
        ("blend", manifest.blend == own.blend),
        ("arch", manifest.arch == own.arch),
        ("weights_sha256", manifest.weights_sha256 == own.weights_sha256),
    ];
    facts.into_iter().find(|(_, equal)| !equal).map(|(field, _)| field)
}
