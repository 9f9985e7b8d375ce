//! The format of PyTorch before 1.6: pickles of a magic number, the protocol, facts about the machine, the object and
//! the keys of its storages; then every storage, as the count of its elements and their bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use protoseg_models::weights::StateDict;

use super::error::Fault;
use super::pickle::{Pickle, load};
use super::tensor::{Storage, gather};
use super::value::Value;
use super::{state_dict, zip_format};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// The weights of a legacy file.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict, Fault> {
    let mut rest = bytes;
    if next(&mut rest)?.object != Value::Long(&MAGIC) {
        let advice = "read it in Python and save its weights with torch.save";
        return Err(Fault::Foreign { what: "a pickle that torch.save did not write", advice });
    }
    if next(&mut rest)?.object != Value::Int(PROTOCOL) {
        return Err(Fault::Inconsistent("its protocol is not 1001"));
    }
    let machine = next(&mut rest)?;
    if let Value::Dict(facts) = machine.object
        && machine.heap.pairs(facts).contains(&(Value::Text("little_endian"), Value::Bool(false)))
    {
        return Err(Fault::BigEndian);
    }
    let pickle = next(&mut rest)?;
    let keys = next(&mut rest)?;
    let storages = storages(&pickle, &keys, rest)?;
    let weights = state_dict::find(&pickle)?;
    gather(&pickle, weights, zip_format::most_elements(bytes), |key| {
        storages.get(key).map(|bytes| Cow::Borrowed(*bytes)).ok_or(Fault::Inconsistent("a storage is missing"))
    })
}

/// The next pickle, which `rest` is moved past.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Pickle<'a>, Fault> {
    let pickle = load(rest)?;
    *rest = rest.get(pickle.length..).unwrap_or_default();
    Ok(pickle)
}

/// The storages that follow the pickles, by key.
fn storages<'a>(
    pickle: &Pickle<'a>,
    keys: &Pickle<'a>,
    mut rest: &'a [u8],
) -> Result<HashMap<&'a str, &'a [u8]>, Fault> {
    let mut sizes = HashMap::new();
    for id in &pickle.heap.storages {
        let storage =
            Storage::decode(&pickle.heap, *id).map_err(|_| Fault::Inconsistent("a storage is of an unknown type"))?;
        sizes.entry(storage.key).or_insert(storage.size);
    }
    let Value::List(keys_id) = keys.object else { return Err(Fault::Inconsistent("its list of storages is none")) };
    let mut storages = HashMap::new();
    for key in keys.heap.items(keys_id) {
        let Value::Text(key) = key else { return Err(Fault::Inconsistent("its list of storages is none")) };
        let size = *sizes.get(key).ok_or(Fault::Inconsistent("a storage belongs to no tensor"))?;
        let (count, after) = rest.split_first_chunk().ok_or(Fault::CutShort)?;
        let length = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size))
            .ok_or(Fault::Inconsistent("a storage has an impossible size"))?;
        let (bytes, after) = after.split_at_checked(length).ok_or(Fault::CutShort)?;
        storages.insert(*key, bytes);
        rest = after;
    }
    Ok(storages)
}
