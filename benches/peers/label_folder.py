"""Labels a folder of images with ONNX Runtime, Pillow and NumPy on two threads.

`label_folder.py BUNDLE IMAGES OUT` runs the windows of the bundle, averages logits where windows overlap, upsamples them
row by row and column by column, and writes the best class of each pixel as PNG. `--sessions` runs the network alone on
prepared windows, in two concurrent sessions of one thread: the upper bound for two cores.

Prints the number of images and the seconds as JSON, without imports and opening of the model.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image


def open_session(bundle, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    manifest = json.loads((bundle / "manifest.json").read_text())
    file = next(file for file in manifest["files"] if file["form"]["kind"] == "logits")
    session = onnxruntime.InferenceSession(bundle / file["file"], options, providers=["CPUExecutionProvider"])
    return manifest["model"], session


def starts(length, window, stride, grid):
    beyond = -(-max(length - window, 0) // grid) * grid
    count = -(-beyond // stride) + 1
    return [min(index * stride, beyond) for index in range(count)], window + beyond


def windows(image, model):
    """Returns the tiles of an image, their origins (row, column), and the padded size."""
    size, stride = model["window"]["size"], model["window"]["stride"]
    rows, height = starts(image.shape[0], size, stride, model["grid"]["stride"])
    columns, width = starts(image.shape[1], size, stride, model["grid"]["stride"])
    margins = ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))
    padded = numpy.pad(image, margins, mode="edge") if any(after for _, after in margins) else image
    origins = [(row, column) for row in rows for column in columns]
    return [padded[row : row + size, column : column + size][None] for row, column in origins], origins, (height, width)


def neighbors(pixels, padded, logits, aligned):
    """Returns for each pixel the logits on both sides of it, and the weight of the second."""
    pixel = numpy.arange(pixels, dtype=numpy.float64)
    if aligned:
        position = pixel * (logits - 1) / max(padded - 1, 1)
    else:
        position = (pixel + 0.5) * logits / padded - 0.5
    position = numpy.clip(position, 0, logits - 1)
    before = position.astype(numpy.int64)
    return before, numpy.minimum(before + 1, logits - 1), (position - before).astype(numpy.float32)


def label(image, model, session):
    grid = model["grid"]
    tiles, origins, padded = windows(image, model)
    size = [(side - 1) // grid["stride"] + 1 if grid["align_corners"] else side // grid["stride"] for side in padded]
    total = numpy.zeros((len(model["classes"]), *size), numpy.float32)
    count = numpy.zeros(size, numpy.float32)
    for pixels, (row, column) in zip(tiles, origins):
        logits = session.run(["logits"], {"image": numpy.ascontiguousarray(pixels)})[0][0]
        row, column = row // grid["stride"], column // grid["stride"]
        here = numpy.s_[row : row + logits.shape[1], column : column + logits.shape[2]]
        total[(slice(None), *here)] += logits
        count[here] += 1
    total /= count
    top, bottom, down = neighbors(image.shape[0], padded[0], size[0], grid["align_corners"])
    left, right, across = neighbors(image.shape[1], padded[1], size[1], grid["align_corners"])
    labels = numpy.empty(image.shape[:2], numpy.uint8)
    # In bands: all logits at full size would be 160 MB for a street scene.
    for first in range(0, len(labels), 128):
        band = slice(first, first + 128)
        weight = down[band][None, :, None]
        rows = total[:, top[band]] * (1 - weight) + total[:, bottom[band]] * weight
        full = rows[:, :, left] * (1 - across) + rows[:, :, right] * across
        labels[band] = full.argmax(0)
    return labels


def label_all(arguments):
    model, session = open_session(arguments.bundle, 2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(arguments.images.rglob("*.png")) * arguments.repeat
    start = time.perf_counter()
    for path in paths:
        image = numpy.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(label(image, model, session)).save(arguments.out / f"{path.stem}.png", compress_level=1)
    return len(paths), time.perf_counter() - start


def run_sessions(arguments):
    opened = [open_session(arguments.bundle, 1) for _ in range(2)]
    paths = sorted(arguments.images.rglob("*.png"))
    ready = [windows(numpy.asarray(Image.open(path).convert("RGB")), opened[0][0])[0] for path in paths]
    ready = [[numpy.ascontiguousarray(pixels) for pixels in tiles] for tiles in ready] * arguments.repeat

    def work(session, part):
        for tiles in part:
            for pixels in tiles:
                session.run(["logits"], {"image": pixels})

    for _, session in opened:
        work(session, ready[:1])
    threads = [threading.Thread(target=work, args=(opened[n][1], ready[n::2])) for n in range(2)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(ready), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--sessions", action="store_true")
    arguments = parser.parse_args()
    images, seconds = (run_sessions if arguments.sessions else label_all)(arguments)
    json.dump({"images": images, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
