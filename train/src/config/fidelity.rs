//! `fidelity = "pcr"`: the habits of the paper's line of code that a careful implementation drops, each an option of its
//! own.

use anyhow::{Result, bail};
use toml::{Table, Value};

/// The options that fidelity sets, and to what.
pub const PCR: [(&str, &str); 8] = [
    ("pad_label", "zero"),
    ("teacher_statistics", "batch"),
    ("copy_teacher_each_step", "true"),
    ("points", "shared"),
    ("average", "raw"),
    ("reseed_after", "0"),
    ("unlabeled_scale", "all"),
    ("photometric", "false"),
];

/// Fills in what fidelity says; a key that says otherwise is refused.
pub fn apply(table: &mut Table) -> Result<()> {
    if table.get("fidelity").and_then(Value::as_str) != Some("pcr") {
        return Ok(());
    }
    for (key, value) in PCR {
        let wanted = value.parse::<Value>().unwrap_or_else(|_| Value::String(value.to_owned()));
        match table.get(key) {
            Some(given) if *given != wanted => {
                bail!("`fidelity = \"pcr\"` means `{key} = {wanted}`, but `{key}` is {given}; leave one of the two out")
            }
            _ => table.insert(key.to_owned(), wanted),
        };
    }
    Ok(())
}
