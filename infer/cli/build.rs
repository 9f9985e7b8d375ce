//! Makes a client of the service's .proto file, for tests.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    const PROTO: &str = "../serve/proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let client = PathBuf::from(std::env::var("OUT_DIR")?).join("client");
    std::fs::create_dir_all(&client)?;
    let description = protox::compile(["inference.proto"], [PROTO])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_server(false)
        .out_dir(client)
        .compile_fds(description)?;
    Ok(())
}
