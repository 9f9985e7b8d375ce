//! Outputs of a frozen encoder on disk, so that it runs once for each different image.
//!
//! Entries are found by the pixels of the image and the weights of the encoder. Values are rounded
//! to 16-bit floats whether they come from a file or not, and images are run one by one, so that
//! neither a hit nor the rest of a batch changes a bit of what is learned.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use half::slice::HalfFloatSliceExt;
use protoseg_models::atomic;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::net::from_torch;

/// A folder of outputs, up to a size.
#[derive(Debug, Clone)]
pub struct FeatureCache {
    folder: PathBuf,
    /// Digest of the encoder.
    encoder: [u8; 32],
    limit: u64,
    used: Arc<AtomicU64>,
    /// Set once it has been said that the folder is full.
    is_full: Arc<AtomicBool>,
}

impl FeatureCache {
    /// Opens or makes a folder for an encoder, known by a digest of its weights and arithmetic.
    /// Entries that lie there count towards `limit` bytes.
    pub fn open(folder: &Path, encoder: [u8; 32], limit: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut used = 0;
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            used += entry?.metadata()?.len();
        }
        let used = Arc::new(AtomicU64::new(used));
        let is_full = Arc::default();
        Ok(Self { folder: folder.to_owned(), encoder, limit, used, is_full })
    }

    /// Returns the outputs of an image u8 `[1, H, W, 3]`, of the given shapes, from the folder or
    /// from `compute`.
    pub(super) fn outputs(
        &self,
        image: &Tensor,
        shapes: &[Vec<i64>],
        device: Device,
        compute: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let path = self.path(image)?;
        if let Some(values) = self.read(&path, shapes)? {
            return split(&values, shapes, device);
        }
        let mut values = Vec::new();
        for (tensor, shape) in compute()?.iter().zip(shapes) {
            ensure!(tensor.size() == *shape, "an encoder's output is {:?}", tensor.size());
            let floats = from_torch(tensor)?.data;
            let start = values.len();
            values.resize(start + floats.len(), f16::ZERO);
            values[start..].convert_from_f32_slice(&floats);
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            bail!(
                "the frozen encoder gives {value}, which 16-bit floats of the feature cache cannot hold; set `feature_cache_gb = 0`"
            );
        }
        self.write(&path, &values)?;
        split(&values, shapes, device)
    }

    fn path(&self, image: &Tensor) -> Result<PathBuf> {
        let dense = image.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut bytes = vec![0_u8; dense.numel()];
        let count = bytes.len();
        dense.f_copy_data_u8(&mut bytes, count)?;
        let mut digest = Sha256::new_with_prefix(self.encoder);
        for length in image.size() {
            digest.update(length.to_le_bytes());
        }
        digest.update(&bytes);
        let name: String =
            digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(self.folder.join(name))
    }

    /// Reads an entry; one of another length is as good as none.
    fn read(&self, path: &Path, shapes: &[Vec<i64>]) -> Result<Option<Vec<f16>>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        let count: i64 = shapes.iter().map(|shape| shape.iter().product::<i64>()).sum();
        let (pairs, rest) = bytes.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() as i64 != count {
            return Ok(None);
        }
        Ok(Some(pairs.iter().map(|pair| f16::from_le_bytes(*pair)).collect()))
    }

    /// Writes an entry, if there is room.
    fn write(&self, path: &Path, values: &[f16]) -> Result<()> {
        let size = 2 * values.len() as u64;
        if self.used.fetch_add(size, Ordering::Relaxed) + size > self.limit {
            self.used.fetch_sub(size, Ordering::Relaxed);
            if !self.is_full.swap(true, Ordering::Relaxed) {
                eprintln!(
                    "note: {} has reached `feature_cache_gb`, {} GB: other images run through the frozen encoder each time",
                    self.folder.display(),
                    self.limit as f64 / 1e9
                );
            }
            return Ok(());
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(atomic::write(path, &bytes)?)
    }
}

fn split(values: &[f16], shapes: &[Vec<i64>], device: Device) -> Result<Vec<Tensor>> {
    let mut rest = values;
    let mut outputs = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let (own, others) = rest.split_at(shape.iter().product::<i64>() as usize);
        let tensor = Tensor::f_from_slice(own)?.f_reshape(shape)?;
        outputs.push(tensor.f_to_device(device)?.f_to_kind(Kind::Float)?);
        rest = others;
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use protoseg_models::formula;
    use protoseg_models::graph::{Conv, Graph, Op, Tag};

    use super::*;
    use crate::net::{ForwardMode, Net, images_to_tensor};

    /// An encoder of a convolution and a batch normalization, and a head that reads the image too.
    fn net(seed: u64) -> Net {
        let mut graph = Graph::new();
        let normalize = Op::Normalize { mean: [100.0; 3], std: [50.0; 3] };
        let pixels = graph.push("normalize", normalize, &[graph.input()]);
        let conv = graph.push("encoder.conv", Op::Conv(Conv::new(4, 3).stride(2)), &[pixels]);
        let norm = Op::BatchNorm { eps: 1e-5, momentum: 0.1 };
        let norm = graph.push("encoder.norm", norm, &[conv]);
        let shallow = graph.push("stem", Op::Conv(Conv::new(2, 3).stride(2)), &[pixels]);
        let joined = graph.push("concat", Op::Concat, &[norm, shallow]);
        let logits = graph.push("head", Op::Conv(Conv::new(3, 1)), &[joined]);
        graph.tag(Tag::Logits, logits);
        let weights = formula::weights(&graph, Some(seed));
        Net::new(graph, &weights, Device::Cpu).unwrap().freeze("encoder.").unwrap()
    }

    fn images(seeds: &[u8]) -> Tensor {
        let pixel = |&seed: &u8| (0..16 * 12 * 3).map(move |index| (index * 7 % 251) as u8 ^ seed);
        let bytes: Vec<u8> = seeds.iter().flat_map(pixel).collect();
        images_to_tensor(&bytes, [16, 12], Device::Cpu).unwrap()
    }

    fn logits(net: &Net, seeds: &[u8]) -> Vec<f32> {
        let logits = net.forward_tagged(&images(seeds), ForwardMode::Train, Tag::Logits).unwrap();
        from_torch(&logits).unwrap().data
    }

    fn entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn neither_hits_nor_the_rest_of_a_batch_change_a_bit() {
        let folder = tempfile::tempdir().unwrap();
        let cached = |seed| net(seed).with_feature_cache(folder.path(), 1_000_000).unwrap();
        let net_a = cached(1);
        let first = logits(&net_a, &[3, 5]);
        assert_eq!(entries(folder.path()), 2);
        assert_eq!(logits(&net_a, &[3, 5]), first);
        assert_eq!(
            logits(&net_a, &[5, 3, 7])[first.len() / 2..][..first.len() / 2],
            first[..first.len() / 2]
        );
        assert_eq!(entries(folder.path()), 3);
        // Rounded to 16 bits, and otherwise as without a folder.
        let plain = logits(&net(1), &[3, 5]);
        let largest = plain.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        assert!(plain.iter().zip(&first).all(|(a, b)| (a - b).abs() < 2e-3 * largest));
        // Another encoder has entries of its own.
        assert_ne!(logits(&cached(2), &[3, 5]), first);
        assert_eq!(entries(folder.path()), 5);
        // A damaged entry is made again.
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            std::fs::write(entry.unwrap().path(), b"odd").unwrap();
        }
        assert_eq!(logits(&net_a, &[3, 5]), first);
    }

    #[test]
    fn nothing_is_kept_of_images_that_never_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let net = net(1).with_feature_cache(folder.path(), 1_000_000).unwrap();
        let [new, kept] =
            [net.new_frozen_outputs(&images(&[3])), net.frozen_outputs(&images(&[3]))];
        let (new, kept) = (new.unwrap(), kept.unwrap());
        assert_eq!(entries(folder.path()), 1);
        assert!(new.keys().eq(kept.keys()));
        for (new, kept) in new.values().zip(kept.values()) {
            assert!((new - kept).abs().max().double_value(&[]) < 1e-2);
        }
        net.new_frozen_outputs(&images(&[5])).unwrap();
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_full_folder_takes_nothing_more_and_values_stay_the_same() {
        let [roomy, full] = [1_000_000, 500].map(|limit| {
            let folder = tempfile::tempdir().unwrap();
            let net = net(1).with_feature_cache(folder.path(), limit).unwrap();
            (logits(&net, &[3, 5, 7]), entries(folder.path()))
        });
        assert_eq!(roomy.0, full.0);
        assert_eq!((roomy.1, full.1), (3, 1));
    }

    #[test]
    fn frozen_nodes_record_no_gradient_and_keep_their_statistics() {
        let net = net(1);
        let before = net.state_dict().unwrap();
        let loss = net.forward_tagged(&images(&[3, 5]), ForwardMode::Train, Tag::Logits).unwrap();
        loss.f_sum(Kind::Float).unwrap().f_backward().unwrap();
        assert_eq!(net.state_dict().unwrap(), before);
        let trainable: Vec<&str> = net.trainable().map(|(name, _)| name).collect();
        assert_eq!(trainable, ["head.weight", "stem.weight"]);
        assert!(net.trainable().all(|(_, tensor)| tensor.f_grad().unwrap().defined()));
    }
}
