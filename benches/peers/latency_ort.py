"""Times one network by a loop around ONNX Runtime in Python and by `protoseg bench`, in turns, and holds them against each other.

`latency_ort.py PROTOSEG BUNDLE PICTURES [ROUNDS [QUERIES]]`: pictures are PNG files that are run whole, so that a picture
is one run. Each side opens a session of the same library with the same options in every round, runs the same pictures in the same
order, and throws its first runs away. What is compared is the time of the network (the stages upload, compute and download)
and of the whole query, whose upsampling is a hundredth. Other load on the machine meets both: who begins changes
with the round, a round's figure is its median, and what counts is the median of the rounds' ratios.
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

from turns import bench, compared, cores, judge, stage

TOLERANCE = 0.05
WARM_UP = 5
# The C library's allocator as `infer/cli/src/allocator.rs` sets it: pages that are returned and cleared again for every run
# would be a difference of their own.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


def open_session(path):
    """As `infer/src/session.rs` does it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def loop(path, pictures, queries):
    """Milliseconds of each run."""
    session = open_session(path)
    taken = []
    for number in range(WARM_UP + queries):
        start = time.perf_counter()
        session.run(["logits"], {"image": pictures[number % len(pictures)]})
        taken.append(1e3 * (time.perf_counter() - start))
    return taken[WARM_UP:]


def main():
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    program, bundle, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    rounds, queries = ([int(word) for word in sys.argv[4:6]] + [20, 20][len(sys.argv[4:6]) :])
    manifest = json.loads((bundle / "manifest.json").read_text())
    file = next(file["file"] for file in manifest["files"] if file["form"]["kind"] == "logits")
    pictures = [numpy.asarray(Image.open(path).convert("RGB"))[None] for path in sorted(folder.glob("*.png"))]
    words = (bundle, "--scenario", "single-stream", "--pictures", folder, "--picture-count", len(pictures))
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
                figures["theirs"].append(statistics.median(loop(str(bundle / file), pictures, queries)))
    print(f"{rounds} rounds of {queries} pictures of {pictures[0].shape[1]}x{pictures[0].shape[2]}, onnxruntime {onnxruntime.__version__}")
    print(f"{'median ms':44} {'protoseg':>9} {'Python':>9}   ratio, median of rounds (range)")
    judge({name: compared(f"{name}, single-stream", figures[name], figures["theirs"]) for name in ("network", "whole")}, TOLERANCE)


if __name__ == "__main__":
    main()
