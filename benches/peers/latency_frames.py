"""Interleaved latency of frames with `protoseg bench`, ONNX Runtime and OpenVINO in Python, and PyTorch, as a table.

`latency_frames.py PROTOSEG BUNDLE CHECKPOINT FRAMES COUNT [BLOCK]` labels COUNT frames on each side in blocks of BLOCK
(5), from pixels to labels in memory. All sides use every core and the same windows, one at a time. ONNX Runtime and
OpenVINO run the file of the bundle, and NumPy merges windows as `label_folder.py` does; PyTorch runs eagerly as
`slide_inference.py` does. A ratio is that of medians within a block, so that other load affects all sides.
"""

import json
import platform
import statistics
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy
import onnxruntime
import openvino
import torch
from PIL import Image
from safetensors.torch import load_file

import label_folder
import slide_inference
from network import build
from interleaved import bench, cores, library

# Another order of summation decides ties differently.
LEAST_AGREEMENT = 0.999


class OpenVino:
    """A compiled model with the interface of a session of ONNX Runtime."""

    def __init__(self, path, window):
        model = openvino.Core().read_model(path)
        model.reshape([1, window, window, 3])
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": cores(), "INFERENCE_PRECISION_HINT": "f32"}
        self.request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(self, names, feeds):
        found = self.request.infer(feeds)
        return [found[name] for name in names]


def peers(bundle, checkpoint):
    """Returns the functions that label an image, by name."""
    session_model, session = label_folder.open_session(bundle, cores())
    file = next(file["file"] for file in json.loads((bundle / "manifest.json").read_text())["files"])
    compiled = OpenVino(bundle / file, session_model["window"]["size"])
    torch.set_num_threads(cores())
    network = build(session_model["arch"]["preset"], len(session_model["classes"])).eval()
    # Not strict: the checkpoint also holds `num_batches_tracked`, which this network lacks.
    missing = network.load_state_dict(load_file(checkpoint / "weights.safetensors"), strict=False).missing_keys
    if missing:
        raise SystemExit(f"the checkpoint lacks {', '.join(missing)}")

    def eager(image):
        with torch.inference_mode():
            return slide_inference.label(torch.from_numpy(image)[None], network, session_model).numpy()

    return {
        "ONNX Runtime, Python": lambda image: label_folder.label(image, session_model, session),
        "OpenVINO, Python": lambda image: label_folder.label(image, session_model, compiled),
        "PyTorch, eager": eager,
    }


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def main():
    program, bundle, checkpoint, folder = sys.argv[1], *map(Path, sys.argv[2:5])
    count, block = ([int(word) for word in sys.argv[5:7]] + [30, 5][len(sys.argv[5:7]) :])
    frames = [numpy.array(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    others = peers(bundle, checkpoint)
    predictions = {name: label(frames[0]) for name, label in others.items()}
    reference = predictions["ONNX Runtime, Python"]
    for name, labels in predictions.items():
        same = float((labels == reference).mean())
        print(f"{name}: labels equal to those of ONNX Runtime in {100 * same:.4f} % of pixels", file=sys.stderr, flush=True)
        # PyTorch upsamples windows before averaging them, which moves class boundaries.
        if same < LEAST_AGREEMENT and name != "PyTorch, eager":
            raise SystemExit(f"the labels of {name} differ from those of ONNX Runtime")
    # Opening a model runs the first frame, which is the warm-up.
    words = (bundle, "--scenario", "single-stream", "--images", folder, "--image-count", len(frames))
    words += ("--warm-up", 1 if block > 1 else 0, "--queries", block, "--no-accuracy")
    taken = {name: [] for name in ("protoseg", *others)}
    for number in range(count // block):
        # The first side changes with the round.
        order = list(taken)[number % len(taken) :] + list(taken)[: number % len(taken)]
        for name in order:
            if name == "protoseg":
                taken[name].append(bench(program, *words)["samples"]["latency_ms"])
                continue
            seconds = []
            for index in range(block):
                start = time.perf_counter()
                others[name](frames[index % len(frames)])
                seconds.append(1e3 * (time.perf_counter() - start))
            taken[name].append(seconds)
        print(number, {name: round(statistics.median(ms[-1])) for name, ms in taken.items()}, file=sys.stderr, flush=True)
    height, width = frames[0].shape[:2]
    manifest = json.loads((bundle / "manifest.json").read_text())["model"]
    window = manifest["window"]
    print(f"### {manifest['arch']['preset']}, {height}x{width}, windows of {window['size']} every {window['stride']}\n")
    print(f"{count} frames each in interleaved blocks of {block}; {datetime.now(timezone.utc):%Y-%m-%d}; {processor()}, {cores()} cores;")
    print(f"ONNX Runtime {onnxruntime.__version__} on both sides, OpenVINO {openvino.__version__.split('-')[0]}, PyTorch {torch.__version__}.\n")
    print("| | median ms | images/s | MP/s | time relative to protoseg (range over blocks) |\n|---|---|---|---|---|")
    for name, blocks in taken.items():
        middle = statistics.median(ms for block in blocks for ms in block)
        ratios = [statistics.median(theirs) / statistics.median(ours) for ours, theirs in zip(taken["protoseg"], blocks)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if name != "protoseg" else ""
        print(f"| {name} | {middle:.0f} | {1e3 / middle:#.3g} | {height * width / middle / 1e3:#.3g} | {spread} |")


if __name__ == "__main__":
    main()
