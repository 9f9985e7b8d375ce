//! Makes Rust of `proto/inference.proto`: messages and the server's side; and keeps its description for
//! those who ask the server for it.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let description = protox::compile(["inference.proto"], ["proto"])?;
    std::fs::write(out.join("inference.binpb"), description.encode_to_vec())?;
    let codec = "crate::grpc::codec::BoundedCodec";
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(false)
        .codec_path(codec)
        .compile_fds(description)?;
    Ok(())
}
