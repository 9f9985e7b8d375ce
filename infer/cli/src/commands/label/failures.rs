//! Inputs of a run that failed.

use std::collections::BTreeMap;
use std::path::Path;

use protoseg_images::scan::UnreadableFolder;
use serde::Serialize;

use super::super::inputs::InputImage;
use super::super::{print_stderr, progress};
use super::record::{ResultRecorder, path_text};

/// Image or folder that could not be labeled.
#[derive(Debug, Serialize)]
pub(super) struct FailedInput {
    path: String,
    error: String,
}

/// Failed inputs of a run.
#[derive(Debug, Default)]
pub(super) struct Failures {
    folders: Vec<FailedInput>,
    /// By index of the input.
    images: BTreeMap<usize, FailedInput>,
    refused: usize,
}

impl Failures {
    /// Prints and records the images that cannot have results and the folders that cannot be read.
    pub(super) fn begin(
        refused: Vec<usize>,
        inputs: &[InputImage],
        unreadable: &[UnreadableFolder],
        record: &ResultRecorder<'_>,
    ) -> Self {
        let mut failures = Self::default();
        for index in refused {
            failures.add_refused(index, &inputs[index], record);
        }
        for folder in unreadable {
            failures.add_folder(folder, record);
        }
        failures
    }

    /// Adds an image that was read or run.
    pub(super) fn add(&mut self, index: usize, path: &Path, error: &anyhow::Error) {
        let error = progress::named_error(path, error);
        self.images.insert(index, FailedInput { path: path_text(path), error });
    }

    /// Prints, records and adds an image that cannot have results.
    fn add_refused(&mut self, index: usize, input: &InputImage, record: &ResultRecorder<'_>) {
        let Some(error) = input.refusal_error() else { return };
        print_stderr(format_args!("error: {}", progress::named_error(&input.path, &error)));
        record.record_refusal(input, &error);
        self.add(index, &input.path, &error);
        self.refused += 1;
    }

    /// Prints, records and adds a folder that cannot be read.
    fn add_folder(&mut self, folder: &UnreadableFolder, record: &ResultRecorder<'_>) {
        let UnreadableFolder { path, error } = folder;
        let error = progress::named_error(path, &anyhow::anyhow!("{error}"));
        print_stderr(format_args!("error: {error}"));
        record.record_folder(path, &error);
        self.folders.push(FailedInput { path: path_text(path), error });
    }

    /// Number of images that cannot have results.
    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    /// The inputs that have not failed.
    pub(super) fn without<'a>(&self, inputs: &'a [InputImage]) -> Vec<&'a InputImage> {
        let done = inputs.iter().enumerate().filter(|(index, _)| !self.images.contains_key(index));
        done.map(|(_, input)| input).collect()
    }

    /// Folders, then images in the order of the inputs.
    pub(super) fn into_list(self) -> Vec<FailedInput> {
        self.folders.into_iter().chain(self.images.into_values()).collect()
    }
}
