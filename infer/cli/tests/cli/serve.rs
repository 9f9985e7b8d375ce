//! `protoseg serve` over HTTP: the [`oip`] protocol and the [`plain`] form, the [`limits`] that hold, what lies [`around`]
//! requests, the server's [`life`] from start to end, and what [`mutations`] of requests do to it.

mod around;
mod life;
mod limits;
mod mutations;
mod oip;
mod plain;
pub(crate) mod server;
