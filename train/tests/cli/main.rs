//! The program `protoseg-train`, end to end: [`runs`] and what they leave, [`stops`] that lose nothing, what is refused to go on from ([`resumes`]), [`failures`] inside
//! a step, [`broken_inputs`] before it, grids of runs ([`ablation`]), memory ([`flat_memory`]), random checkpoints ([`init`])
//! and whether training works on a device ([`acceptance`]).

#[cfg(test)]
mod ablation;
#[cfg(test)]
mod acceptance;
#[cfg(test)]
mod broken_inputs;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod flat_memory;
#[cfg(test)]
mod init;
#[cfg(test)]
mod resumes;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod stops;
#[cfg(test)]
mod support;
