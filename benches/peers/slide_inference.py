"""Sliding-window inference on a folder of images with PyTorch in eager mode, as in segmentation toolboxes.

`slide_inference.py BUNDLE CHECKPOINT IMAGES OUT` upsamples the logits of each window to its pixels, sums them over the
image, divides by the number of windows that cover each pixel, and takes the best class.

Prints the number of images and the seconds as JSON, without imports and opening of the model.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from label_folder import starts
from network import build


def label(pixels, network, model):
    height, width = pixels.shape[1:3]
    size, stride, grid = model["window"]["size"], model["window"]["stride"], model["grid"]
    rows, padded_height = starts(height, size, stride, grid["stride"])
    columns, padded_width = starts(width, size, stride, grid["stride"])
    # Padding repeats the last row and column.
    inside = [torch.arange(padded_height).clamp(max=height - 1), torch.arange(padded_width).clamp(max=width - 1)]
    pixels = pixels[:, inside[0]][:, :, inside[1]]
    total = torch.zeros((1, len(model["classes"]), padded_height, padded_width))
    count = torch.zeros((1, 1, padded_height, padded_width))
    for row in rows:
        for column in columns:
            logits = network(pixels[:, row : row + size, column : column + size])[0]
            full = functional.interpolate(
                logits, size=(size, size), mode="bilinear", align_corners=grid["align_corners"]
            )
            total += functional.pad(full, (column, padded_width - column - size, row, padded_height - row - size))
            count[:, :, row : row + size, column : column + size] += 1
    return (total / count).argmax(1)[0, :height, :width].to(torch.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model = json.loads((arguments.bundle / "manifest.json").read_text())["model"]
    network = build(model["arch"]["preset"], len(model["classes"])).eval()
    # Not strict: the checkpoint also holds `num_batches_tracked`, which this network lacks.
    missing = network.load_state_dict(load_file(arguments.checkpoint / "weights.safetensors"), strict=False).missing_keys
    if missing:
        raise SystemExit(f"the checkpoint lacks {', '.join(missing)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(arguments.images.rglob("*.png"))
    start = time.perf_counter()
    with torch.inference_mode():
        for path in paths:
            pixels = torch.from_numpy(numpy.array(Image.open(path).convert("RGB")))[None]
            Image.fromarray(label(pixels, network, model).numpy()).save(arguments.out / f"{path.stem}.png")
    json.dump({"images": len(paths), "seconds": time.perf_counter() - start}, sys.stdout)


if __name__ == "__main__":
    main()
