"""Calls of `protoseg bench` and ratios of interleaved measurements."""

import json
import os
import statistics
import subprocess
from pathlib import Path

import onnxruntime


def library():
    """Returns the ONNX Runtime library of the Python package, so that both sides run the same version."""
    return str(next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")))


def cores():
    return len(os.sched_getaffinity(0))


def bench(program, *words):
    """Runs `protoseg bench` with one point of load and returns that point."""
    command = [str(word) for word in (program, "bench", *words, "--json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "ORT_DYLIB_PATH": library()})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {done.returncode}: {done.stderr.decode()}")
    return json.loads(done.stdout)["runs"][0]["points"][0]


def stage(point, name):
    return next(stage["ms"] for stage in point["samples"]["stages"] if stage["name"] == name)


def compared(name, ours, theirs):
    """Prints the medians and ratios of two series of rounds; returns the median ratio."""
    ratios = [one / other for one, other in zip(ours, theirs)]
    middle = statistics.median(ratios)
    print(
        f"{name:44} {statistics.median(ours):9.3f} {statistics.median(theirs):9.3f}   "
        f"{middle:.4f} ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )
    return middle


def judge(ratios, tolerance):
    """Exits with an error if a ratio differs from 1 by more than the tolerance."""
    wrong = [f"{name} {ratio:.3f}" for name, ratio in ratios.items() if abs(ratio - 1) > tolerance]
    if wrong:
        raise SystemExit(f"ratios more than {100 * tolerance:.0f} % from 1: {', '.join(wrong)}")
