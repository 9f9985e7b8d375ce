//! `protoseg serve` over gRPC: what it answers ([`calls`]), what it refuses ([`refusals`]), and what it says of itself
//! ([`state`]), by a client made of the same .proto file.

mod calls;
mod client;
mod refusals;
mod state;
