//! The program `protoseg` and the library behind it, end to end: [`commands`] that succeed, [`broken_inputs`] that must not.

#[cfg(test)]
mod broken_inputs;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod common;
