"""What the peers of `protoseg bench` share: the program called and its report read, and ratios of figures taken in turns."""

import json
import os
import statistics
import subprocess
from pathlib import Path

import onnxruntime


def library():
    """ONNX Runtime's library of the Python package, so that both sides run the same version."""
    return str(next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")))


def cores():
    return len(os.sched_getaffinity(0))


def bench(program, *words):
    """The only point of a call of `protoseg bench`."""
    command = [str(word) for word in (program, "bench", *words, "--json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "ORT_DYLIB_PATH": library()})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()}")
    return json.loads(done.stdout)["runs"][0]["points"][0]


def stage(point, name):
    return next(stage["ms"] for stage in point["samples"]["stages"] if stage["name"] == name)


def compared(what, ours, theirs):
    """Prints two figures by round and how they compare; returns the median of the rounds' ratios."""
    ratios = [one / other for one, other in zip(ours, theirs)]
    middle = statistics.median(ratios)
    print(
        f"{what:44} {statistics.median(ours):9.3f} {statistics.median(theirs):9.3f}   "
        f"{middle:.4f} ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )
    return middle


def judge(ratios, tolerance):
    """Ends the program where a ratio lies further from 1 than the tolerance."""
    wrong = [f"{what} {ratio:.3f}" for what, ratio in ratios.items() if abs(ratio - 1) > tolerance]
    if wrong:
        raise SystemExit(f"more than {100 * tolerance:.0f} % apart: {', '.join(wrong)}")
