//! The format of PyTorch 1.6 and later: a zip archive of one folder with `data.pkl`, the object's pickle, and
//! `data/<key>`, the bytes of each storage.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use protoseg_models::weights::StateDict;
use zip::ZipArchive;
use zip::result::ZipError;

use super::error::TorchFileFault;
use super::pickle::load;
use super::state_dict;
use super::tensor::gather;

/// The weights of a zip file.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict, TorchFileFault> {
    // The table of contents is at the end of the file.
    let archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| TorchFileFault::Truncated)?;
    let names: Vec<String> = archive.file_names().flatten().map(Cow::into_owned).collect();
    let Some(folder) = names.iter().find_map(|name| name.strip_suffix("/data.pkl")) else {
        let advice = "unpack it and name the .pth file inside";
        return Err(TorchFileFault::NotACheckpoint {
            what: "a zip archive without a data.pkl",
            advice,
        });
    };
    let inside = |name: &String, path: &str| {
        name.strip_prefix(folder).is_some_and(|rest| rest.starts_with(path))
    };
    if names.iter().any(|name| inside(name, "/code/") || inside(name, "/constants.pkl")) {
        return Err(TorchFileFault::TorchScript);
    }
    // PyTorch stores without compression; what others pack again shrinks by little.
    let left = bytes.len() as u64 * 8 + (1 << 20);
    let mut contents = Contents { archive, folder, length: bytes.len(), left };
    if names.iter().any(|name| inside(name, "/byteorder"))
        && contents.entry("byteorder")?.trim_ascii() != b"little"
    {
        return Err(TorchFileFault::BigEndian);
    }
    let pickle_bytes = contents.entry("data.pkl")?;
    let pickle = load(&pickle_bytes)?;
    let weights = state_dict::find(&pickle)?;
    gather(&pickle, weights, most_elements(bytes), |key| {
        contents.entry(&format!("data/{key}")).map(Cow::Owned)
    })
}

/// The most elements that the weights of a file may have together: several times what fits in it, for tensors that
/// share a storage.
pub(super) fn most_elements(bytes: &[u8]) -> usize {
    bytes.len().saturating_mul(4).saturating_add(1 << 20)
}

struct Contents<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    folder: &'a str,
    /// Bytes of the archive.
    length: usize,
    /// Bytes that may still be unpacked.
    left: u64,
}

impl Contents<'_> {
    /// Unpacks an entry of the folder, and checks its checksum.
    fn entry(&mut self, name: &str) -> Result<Vec<u8>, TorchFileFault> {
        let name = format!("{}/{name}", self.folder);
        let fault = |source| TorchFileFault::Archive { entry: name.clone(), source };
        let entry = self.archive.by_name(&name).map_err(fault)?;
        // What the entry says of its size is believed as far as the archive is that long.
        let expected = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(expected.min(self.length));
        entry
            .take(self.left + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| fault(ZipError::Io(source)))?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(TorchFileFault::TooLarge)?;
        Ok(bytes)
    }
}
