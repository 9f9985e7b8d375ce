"""Labels a folder of pictures with ONNX Runtime, as a careful script would: Pillow, NumPy, two threads.

`label_folder.py BUNDLE PICTURES OUT`: windows as the bundle says, scores summed where they overlap, upsampled row by row
and column by column, the best class of each pixel as a PNG. `--sessions` runs nothing but the network, on windows that
were cut before: two sessions of one thread side by side, which is all that two cores can give.

Prints pictures and seconds as JSON; imports and opening the model do not count.
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


def windows(picture, model):
    """The windows of a picture as one array, their first rows and columns, and the padded size."""
    size, stride = model["window"]["size"], model["window"]["stride"]
    rows, height = starts(picture.shape[0], size, stride, model["grid"]["stride"])
    columns, width = starts(picture.shape[1], size, stride, model["grid"]["stride"])
    margins = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    padded = numpy.pad(picture, margins, mode="edge") if any(after for _, after in margins) else picture
    places = [(row, column) for row in rows for column in columns]
    return [padded[row : row + size, column : column + size][None] for row, column in places], places, (height, width)


def between(pixels, padded, scores, aligned):
    """For each pixel the scores before and behind it, and the share of the latter."""
    pixel = numpy.arange(pixels, dtype=numpy.float64)
    if aligned:
        place = pixel * (scores - 1) / max(padded - 1, 1)
    else:
        place = (pixel + 0.5) * scores / padded - 0.5
    place = numpy.clip(place, 0, scores - 1)
    before = place.astype(numpy.int64)
    return before, numpy.minimum(before + 1, scores - 1), (place - before).astype(numpy.float32)


def label(picture, model, session):
    grid = model["grid"]
    cut, places, padded = windows(picture, model)
    size = [(side - 1) // grid["stride"] + 1 if grid["align_corners"] else side // grid["stride"] for side in padded]
    total = numpy.zeros((len(model["classes"]), *size), numpy.float32)
    count = numpy.zeros(size, numpy.float32)
    for pixels, (row, column) in zip(cut, places):
        scores = session.run(["logits"], {"image": numpy.ascontiguousarray(pixels)})[0][0]
        row, column = row // grid["stride"], column // grid["stride"]
        here = numpy.s_[row : row + scores.shape[1], column : column + scores.shape[2]]
        total[(slice(None), *here)] += scores
        count[here] += 1
    total /= count
    top, bottom, down = between(picture.shape[0], padded[0], size[0], grid["align_corners"])
    left, right, across = between(picture.shape[1], padded[1], size[1], grid["align_corners"])
    labels = numpy.empty(picture.shape[:2], numpy.uint8)
    # Bands, as all scores at full size would be 160 MB for a street scene.
    for first in range(0, len(labels), 128):
        band = slice(first, first + 128)
        share = down[band][None, :, None]
        rows = total[:, top[band]] * (1 - share) + total[:, bottom[band]] * share
        full = rows[:, :, left] * (1 - across) + rows[:, :, right] * across
        labels[band] = full.argmax(0)
    return labels


def label_all(arguments):
    model, session = open_session(arguments.bundle, 2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(arguments.pictures.rglob("*.png")) * arguments.repeat
    start = time.perf_counter()
    for path in paths:
        picture = numpy.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(label(picture, model, session)).save(arguments.out / f"{path.stem}.png", compress_level=1)
    return len(paths), time.perf_counter() - start


def run_sessions(arguments):
    opened = [open_session(arguments.bundle, 1) for _ in range(2)]
    paths = sorted(arguments.pictures.rglob("*.png"))
    ready = [windows(numpy.asarray(Image.open(path).convert("RGB")), opened[0][0])[0] for path in paths]
    ready = [[numpy.ascontiguousarray(pixels) for pixels in cut] for cut in ready] * arguments.repeat

    def work(session, part):
        for cut in part:
            for pixels in cut:
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
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--sessions", action="store_true")
    arguments = parser.parse_args()
    pictures, seconds = (run_sessions if arguments.sessions else label_all)(arguments)
    json.dump({"pictures": pictures, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
