//! The program `protoseg-train`, end to end: whole [`runs`], runs that stop early ([`stops`]) and
//! states that cannot be resumed ([`resumes`]), errors in a step ([`failures`]) and in the inputs
//! ([`broken_inputs`]), grids ([`ablation`]), memory ([`flat_memory`]), random checkpoints
//! ([`init`]), masks that mean something else than they seem to ([`masks`]), the page of
//! configuration keys ([`config_reference`]) and training on a device ([`acceptance`]).

#[cfg(test)]
mod ablation;
#[cfg(test)]
mod acceptance;
#[cfg(test)]
mod broken_inputs;
#[cfg(test)]
mod config_reference;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod flat_memory;
#[cfg(test)]
mod init;
#[cfg(test)]
mod masks;
#[cfg(test)]
mod resumes;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod stops;
#[cfg(test)]
mod support;
