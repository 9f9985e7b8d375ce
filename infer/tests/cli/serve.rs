//! `protoseg serve` over HTTP: the [`oip`] protocol and the [`plain`] form, the [`limits`] that hold, the server's [`life`] from
//! start to end, and what [`mutations`] of requests do to it.

mod life;
mod limits;
mod mutations;
mod oip;
mod plain;
mod server;
