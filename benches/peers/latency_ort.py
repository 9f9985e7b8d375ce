"""Interleaved comparison of `protoseg bench` with a loop around ONNX Runtime in Python.

`latency_ort.py PROTOSEG BUNDLE IMAGES [ROUNDS [QUERIES]]`, where IMAGES is a folder of PNG files that are run whole, so
that an image is one run. In each round both sides open a session of the same library with the same options, run the same
images in the same order, and discard their first runs. Compared are the time of the network (stages upload, compute and
download) and that of the whole query, of which upsampling is a hundredth. The first side changes with the round; the
figure of a round is its median, and the result is the median of the ratios of the rounds.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image

from interleaved import bench, compared, cores, judge, stage

TOLERANCE = 0.05
WARM_UP = 5
# Settings of the C library's allocator as in `infer/cli/src/allocator.rs`; by default it returns pages to the system after
# each run, which would be a difference between the sides.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


def open_session(path):
    """Opens a session with the options of `infer/src/session.rs`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def loop(path, images, queries):
    """Returns the milliseconds of each run after the warm-up."""
    session = open_session(path)
    taken = []
    for number in range(WARM_UP + queries):
        start = time.perf_counter()
        session.run(["logits"], {"image": images[number % len(images)]})
        taken.append(1e3 * (time.perf_counter() - start))
    return taken[WARM_UP:]


def main():
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    program, bundle, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    rounds, queries = ([int(word) for word in sys.argv[4:6]] + [20, 20][len(sys.argv[4:6]) :])
    manifest = json.loads((bundle / "manifest.json").read_text())
    file = next(file["file"] for file in manifest["files"] if file["form"]["kind"] == "logits")
    images = [numpy.asarray(Image.open(path).convert("RGB"))[None] for path in sorted(folder.glob("*.png"))]
    words = (bundle, "--scenario", "single-stream", "--images", folder, "--image-count", len(images))
    words += ("--window", "whole", "--warm-up", WARM_UP, "--queries", queries, "--no-accuracy")
    figures = {name: [] for name in ("network", "whole", "theirs")}
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            if side == 0:
                point = bench(program, *words)
                names = [stage["name"] for stage in point["samples"]["stages"]]
                parts = [stage(point, name) for name in ("upload", "compute", "download") if name in names]
                figures["network"].append(statistics.median(map(sum, zip(*parts))))
                figures["whole"].append(statistics.median(point["samples"]["latency_ms"]))
            else:
                figures["theirs"].append(statistics.median(loop(str(bundle / file), images, queries)))
    print(f"{rounds} rounds of {queries} images of {images[0].shape[1]}x{images[0].shape[2]}, onnxruntime {onnxruntime.__version__}")
    print(f"{'median ms':44} {'protoseg':>9} {'Python':>9}   ratio, median of rounds (range)")
    judge({name: compared(f"{name}, single-stream", figures[name], figures["theirs"]) for name in ("network", "whole")}, TOLERANCE)


if __name__ == "__main__":
    main()
