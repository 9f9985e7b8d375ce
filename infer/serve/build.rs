//! Generates the messages and the server of `proto/inference.proto`, and its descriptor set for
//! gRPC reflection.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(["inference.proto"], ["proto"])?;
    std::fs::write(out.join("inference.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(false)
        .codec_path("crate::grpc::codec::BoundedCodec")
        // The same messages are the JSON of HTTP.
        .message_attribute("ServerMetadataResponse", "#[derive(serde::Serialize)]")
        .message_attribute("ModelMetadataResponse", "#[derive(serde::Serialize)]")
        .message_attribute("ModelMetadataResponse.TensorMetadata", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
