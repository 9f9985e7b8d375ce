//! `protoseg serve` over HTTP: the [`oip`] protocol, the [`plain`] form, [`limits`], TLS and traces
//! ([`around`]), the server's [`life`] from start to end, and [`mutations`] of requests.

mod around;
mod life;
mod limits;
mod mutations;
mod oip;
mod plain;
pub(crate) mod server;
