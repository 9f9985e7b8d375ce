//! Load, interleaving and statistics on simulated targets, whose results are exact.

// Rust would lint what only tests call as dead in a target that is no test.
#[cfg(test)]
mod ab;
#[cfg(test)]
mod load;
#[cfg(test)]
mod simulated;
