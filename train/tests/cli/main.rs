//! The program `protoseg-train`, end to end: whole [`runs`], runs that stop early ([`stops`]) and
//! states that cannot be resumed ([`resumes`]), everything after the last step
//! ([`after_the_steps`]), errors in a step ([`failures`]) and in the inputs ([`broken_inputs`], all
//! of which are named at once: [`census`]), masks that mean something else than they seem to
//! ([`masks`]), lists as people have them ([`lists`]), grids ([`ablation`]), mirrored classes ([`augmentation`]), finished teachers ([`distillation`]), memory ([`flat_memory`]),
//! random checkpoints ([`init`]), the page of configuration keys ([`config_reference`]) and training
//! on a device ([`acceptance`]).

#[cfg(test)]
mod ablation;
#[cfg(test)]
mod acceptance;
#[cfg(test)]
mod after_the_steps;
#[cfg(test)]
mod augmentation;
#[cfg(test)]
mod broken_inputs;
#[cfg(test)]
mod census;
#[cfg(test)]
mod config_reference;
#[cfg(test)]
mod distillation;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod flat_memory;
#[cfg(test)]
mod init;
#[cfg(test)]
mod lists;
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
