//! The format of PyTorch before 1.6: pickles of a magic number, the protocol, facts about the machine, the object and
//! the keys of its storages; then every storage, as the count of its elements and their bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use protoseg_models::weights::StateDict;

use super::error::TorchFileFault;
use super::pickle::{Pickle, load};
use super::tensor::{Storage, gather};
use super::value::PickleValue;
use super::{state_dict, zip_format};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// The weights of a legacy file.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict, TorchFileFault> {
    let mut rest = bytes;
    if next(&mut rest)?.object != PickleValue::Long(&MAGIC) {
        let advice = "read it in Python and save its weights with torch.save";
        return Err(TorchFileFault::NotACheckpoint {
            what: "a pickle that torch.save did not write",
            advice,
        });
    }
    if next(&mut rest)?.object != PickleValue::Int(PROTOCOL) {
        return Err(TorchFileFault::Inconsistent("its protocol is not 1001"));
    }
    let machine = next(&mut rest)?;
    if let PickleValue::Dict(facts) = machine.object
        && machine
            .heap
            .pairs(facts)
            .contains(&(PickleValue::Text("little_endian"), PickleValue::Bool(false)))
    {
        return Err(TorchFileFault::BigEndian);
    }
    let pickle = next(&mut rest)?;
    let keys = next(&mut rest)?;
    let storages = storages(&pickle, &keys, rest)?;
    let weights = state_dict::find(&pickle)?;
    gather(&pickle, weights, zip_format::most_elements(bytes), |key| {
        storages
            .get(key)
            .map(|bytes| Cow::Borrowed(*bytes))
            .ok_or(TorchFileFault::Inconsistent("a storage is missing"))
    })
}

/// The next pickle, which `rest` is moved past.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Pickle<'a>, TorchFileFault> {
    let pickle = load(rest)?;
    *rest = rest.get(pickle.length..).unwrap_or_default();
    Ok(pickle)
}

/// The storages that follow the pickles, by key.
fn storages<'a>(
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
    let PickleValue::List(keys_id) = keys.object else {
        return Err(TorchFileFault::Inconsistent("its list of storages is none"));
    };
    let mut storages = HashMap::new();
    for key in keys.heap.items(keys_id) {
        let PickleValue::Text(key) = key else {
            return Err(TorchFileFault::Inconsistent("its list of storages is none"));
        };
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
