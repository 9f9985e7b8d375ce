"""Interleaved comparison of `protoseg label` with scripts in Python on the same images.

`label_pairs.py ROUNDS PROTOSEG BUNDLE IMAGES [CHECKPOINT]` includes PyTorch if a checkpoint is given. Ratios are taken
within a round, so that other load on the machine affects all sides. Labels of the script and the program must agree.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from PIL import Image

# Another order of summation decides ties differently.
LEAST_AGREEMENT = 0.9999
PEERS = Path(__file__).parent


def run(command):
    """Runs a command; returns the seconds per image that it reports, and its peak memory in MB."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed with status {process.returncode}")
    report = json.loads(text)
    images = report["images"] if "images" in report else report["labelled"]  # old name
    return report["seconds"] / images, usage.ru_maxrss / 1024


def agreement(ours, theirs):
    found = {path.stem: path for path in ours.rglob("*.png")}
    equal = count = 0
    for path in theirs.rglob("*.png"):
        pair = [numpy.asarray(Image.open(each)) for each in (found[path.stem], path)]
        equal += int((pair[0] == pair[1]).sum())
        count += pair[0].size
    return equal / count


def main():
    rounds, program, bundle, images = int(sys.argv[1]), *map(Path, sys.argv[2:5])
    checkpoint = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)

        def label(mode):
            return [program, "label", bundle, images, "--json", "--mode", mode, "--out", out / mode]

        script = [sys.executable, PEERS / "label_folder.py", bundle, images, out / "script"]
        commands = {
            "throughput": label("throughput"),
            "latency": label("latency"),
            "script": script,
            "sessions alone": [*script, "--sessions"],
        }
        if checkpoint:
            commands["PyTorch"] = [sys.executable, PEERS / "slide_inference.py", bundle, checkpoint, images, out / "torch"]
        seconds = {name: [] for name in commands}
        memory = {name: 0.0 for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                # A run into a folder with results would resume them.
                shutil.rmtree(out / name, ignore_errors=True)
                taken, peak = run(command)
                seconds[name].append(taken)
                memory[name] = max(memory[name], peak)
        print(f"{'':16} images/s   peak MB   images/s of throughput mode relative to it, median (range)")
        for name, taken in seconds.items():
            ratios = [theirs / ours for ours, theirs in zip(seconds["throughput"], taken)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{name:16} {1 / statistics.median(taken):8.3f} {memory[name]:9.0f}   {spread}")
        same = agreement(out / "throughput" / "ids", out / "script")
        print(f"labels equal to those of the script: {100 * same:.4f} %")
        if same < LEAST_AGREEMENT:
            raise SystemExit("the labels differ from those of the script")


if __name__ == "__main__":
    main()
