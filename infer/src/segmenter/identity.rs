//! What tells one model from another.

use std::io;
use std::path::Path;

use protoseg_models::adapter::Adapter;
use protoseg_models::bundle::{Manifest, Model, ModelFile, external_data};
use protoseg_models::digest;

/// A digest over all of a bundle that decides what one of its files makes of a picture.
pub fn fingerprint(manifest: &Manifest, file: &ModelFile) -> String {
    digest_of(&manifest.model, &file.sha256, file.data_sha256.as_deref(), file.adapter.as_ref())
}

/// The same of a file by itself: that of the bundle that it lies in, if it does.
pub(super) fn fingerprint_of_file(model: &Model, path: &Path) -> io::Result<String> {
    let data =
        path.with_file_name(external_data(&path.file_name().unwrap_or_default().to_string_lossy()));
    let data = if data.is_file() { Some(digest::sha256_file(&data)?) } else { None };
    Ok(digest_of(model, &digest::sha256_file(path)?, data.as_deref(), None))
}

fn digest_of(model: &Model, file: &str, data: Option<&str>, adapter: Option<&Adapter>) -> String {
    let Model { classes, ignore, grid, .. } = model;
    let data = data.unwrap_or_default();
    digest::sha256_bytes(
        format!("{file}\n{data}\n{adapter:?}\n{classes:?}\n{ignore}\n{grid:?}").as_bytes(),
    )
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
