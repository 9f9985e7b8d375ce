//! The two file formats of `torch.save` around pickle and storages.
//!
//! Zip (PyTorch 1.6 and later): an archive of one folder with `data.pkl`, the object's pickle, and
//! `data/<key>`, the bytes of each storage. Legacy: pickles of a magic number, the protocol, facts
//! about the machine, the object and the keys of its storages, followed by the storages, each as
//! its number of elements and their bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Cursor, Read};

use protoseg_models::weights::StateDict;
use zip::ZipArchive;
use zip::result::ZipError;

use super::TorchFileFault;
use super::pickle::{Pickle, PickleValue, load};
use super::weights::{self, Storage};

/// 0x1950a86a20f9469cfc6c, little-endian.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const LEGACY_PROTOCOL: i64 = 1001;

const BIG_ENDIAN: TorchFileFault = TorchFileFault::NotACheckpoint {
    what: "a checkpoint of a big-endian machine",
    advice: "load and save it on a little-endian one",
};

/// Upper bound of the elements of all weights together: several times the file's size, as tensors
/// may share a storage.
fn most_elements(bytes: &[u8]) -> usize {
    bytes.len().saturating_mul(4).saturating_add(1 << 20)
}

pub(super) fn read_zip(bytes: &[u8]) -> Result<StateDict, TorchFileFault> {
    // The central directory is at the end of the file.
    let archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| TorchFileFault::Truncated)?;
    let names: Vec<String> = archive.file_names().flatten().map(Cow::into_owned).collect();
    let Some(folder) = names.iter().find_map(|name| name.strip_suffix("/data.pkl")) else {
        return Err(TorchFileFault::NotACheckpoint {
            what: "a zip archive without a data.pkl",
            advice: "unpack it and name the .pth file inside",
        });
    };
    let has_entry = |path: &str| {
        let paths = names.iter().filter_map(|name| name.strip_prefix(folder));
        paths.into_iter().any(|rest| rest.starts_with(path))
    };
    if has_entry("/code/") || has_entry("/constants.pkl") {
        return Err(TorchFileFault::NotACheckpoint {
            what: "a TorchScript program",
            advice: "save its weights with torch.save(model.state_dict(), ...)",
        });
    }
    let mut archive = Archive {
        archive,
        folder,
        file_length: bytes.len(),
        // PyTorch stores without compression, and weights hardly compress.
        budget: bytes.len() as u64 * 8 + (1 << 20),
    };
    if has_entry("/byteorder") && archive.entry("byteorder")?.trim_ascii() != b"little" {
        return Err(BIG_ENDIAN);
    }
    let pickle_bytes = archive.entry("data.pkl")?;
    weights::read(&load(&pickle_bytes)?, most_elements(bytes), |key| {
        archive.entry(&format!("data/{key}")).map(Cow::Owned)
    })
}

struct Archive<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    folder: &'a str,
    file_length: usize,
    /// Bytes that may still be unpacked.
    budget: u64,
}

impl Archive<'_> {
    /// Unpacks an entry of the folder and verifies its checksum.
    fn entry(&mut self, name: &str) -> Result<Vec<u8>, TorchFileFault> {
        let name = format!("{}/{name}", self.folder);
        let fault = |source| TorchFileFault::Archive { entry: name.clone(), source };
        let entry = self.archive.by_name(&name).map_err(fault)?;
        // The declared size is trusted up to the size of the file.
        let declared = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(declared.min(self.file_length));
        entry
            .take(self.budget + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| fault(ZipError::Io(source)))?;
        self.budget =
            self.budget.checked_sub(bytes.len() as u64).ok_or(TorchFileFault::TooLarge)?;
        Ok(bytes)
    }
}

pub(super) fn read_legacy(bytes: &[u8]) -> Result<StateDict, TorchFileFault> {
    let mut rest = bytes;
    if next_pickle(&mut rest)?.object != PickleValue::Long(&LEGACY_MAGIC) {
        return Err(TorchFileFault::NotACheckpoint {
            what: "a pickle that torch.save did not write",
            advice: "read it in Python and save its weights with torch.save",
        });
    }
    if next_pickle(&mut rest)?.object != PickleValue::Int(LEGACY_PROTOCOL) {
        return Err(TorchFileFault::Inconsistent("its protocol is not 1001"));
    }
    let machine = next_pickle(&mut rest)?;
    let big_endian = (PickleValue::Text("little_endian"), PickleValue::Bool(false));
    if let PickleValue::Dict(facts) = machine.object
        && machine.heap.pairs(facts).contains(&big_endian)
    {
        return Err(BIG_ENDIAN);
    }
    let pickle = next_pickle(&mut rest)?;
    let keys = next_pickle(&mut rest)?;
    let storages = legacy_storages(&pickle, &keys, rest)?;
    weights::read(&pickle, most_elements(bytes), |key| {
        let bytes =
            storages.get(key).ok_or(TorchFileFault::Inconsistent("a storage is missing"))?;
        Ok(Cow::Borrowed(*bytes))
    })
}

/// Reads the next pickle and advances `rest` past it.
fn next_pickle<'a>(rest: &mut &'a [u8]) -> Result<Pickle<'a>, TorchFileFault> {
    let pickle = load(rest)?;
    *rest = rest.get(pickle.length..).unwrap_or_default();
    Ok(pickle)
}

/// Splits the bytes behind the pickles into storages by key.
fn legacy_storages<'a>(
    pickle: &Pickle<'a>,
    keys: &Pickle<'a>,
    mut rest: &'a [u8],
) -> Result<HashMap<&'a str, &'a [u8]>, TorchFileFault> {
    let mut sizes = HashMap::new();
    for id in &pickle.heap.storages {
        let storage = Storage::decode(&pickle.heap, *id)
            .map_err(|_| TorchFileFault::Inconsistent("a storage is of an unknown type"))?;
        sizes.entry(storage.key).or_insert(storage.size);
    }
    let not_a_list =
        TorchFileFault::Inconsistent("the keys of its storages are not a list of text");
    let PickleValue::List(keys_id) = keys.object else { return Err(not_a_list) };
    let mut storages = HashMap::new();
    for key in keys.heap.items(keys_id) {
        let PickleValue::Text(key) = key else { return Err(not_a_list) };
        let size = *sizes
            .get(key)
            .ok_or(TorchFileFault::Inconsistent("a storage belongs to no tensor"))?;
        let (count, after) = rest.split_first_chunk().ok_or(TorchFileFault::Truncated)?;
        let length = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size))
            .ok_or(TorchFileFault::Inconsistent("a storage has an impossible size"))?;
        let (bytes, after) = after.split_at_checked(length).ok_or(TorchFileFault::Truncated)?;
        storages.insert(*key, bytes);
        rest = after;
    }
    Ok(storages)
}
