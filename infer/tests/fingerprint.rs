//! Fingerprints of models are part of journals on disk: `label --resume` refuses a run of another
//! fingerprint, so they must never change for the same files.

use std::path::Path;

use protoseg_infer::segmenter::fingerprint;
use protoseg_models::adapter::{Adapter, ChannelOrder, Layout, Normalization};
use protoseg_models::bundle::Manifest;
use protoseg_models::interface::Interface;

#[test]
fn fingerprints_of_released_bundles_stay() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/colors");
    let manifest = Manifest::read(&folder).unwrap().value;
    let mut file = manifest.files[0].clone();
    assert_eq!(
        fingerprint(&manifest, &file),
        "69030383e0b59911cb5200a5dfc19561fb395f6d06afcfaeb9eee074b258ea4d"
    );
    file.adapter = Some(Adapter {
        layout: Layout::Nchw,
        order: ChannelOrder::Bgr,
        normalization: Some(Normalization::IMAGENET),
        batch: Some(1),
        size: Some([48, 64]),
        output: "logits".to_owned(),
        interface: Interface::default(),
    });
    assert_eq!(
        fingerprint(&manifest, &file),
        "a88ed067266c5ec2932102e937557e747a3df9f77e10e26188dd477f6f8a094d"
    );
}
