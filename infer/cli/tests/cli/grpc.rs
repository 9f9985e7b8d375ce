//! `protoseg serve` over gRPC, by a client of the same .proto file: [`calls`], [`refusals`], health
//! and reflection ([`state`]).

mod calls;
mod client;
mod refusals;
mod state;
