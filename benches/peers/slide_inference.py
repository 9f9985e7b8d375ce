"""Labels a folder of pictures with PyTorch, eager, as segmentation toolboxes do it in their slide mode.

`slide_inference.py BUNDLE CHECKPOINT PICTURES OUT`: each window's scores are upsampled to its pixels, padded to the size of
the picture and summed, divided by how often each pixel was covered, and the best class is taken.

Prints pictures and seconds as JSON; imports and opening the model do not count.
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
    # What windows reach beyond the frame repeats its last row and column.
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
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model = json.loads((arguments.bundle / "manifest.json").read_text())["model"]
    network = build(model["arch"]["preset"], len(model["classes"])).eval()
    # Not strictly: counts of batches seen in training are more than this network knows.
    missing = network.load_state_dict(load_file(arguments.checkpoint / "weights.safetensors"), strict=False).missing_keys
    if missing:
        raise SystemExit(f"the checkpoint lacks {', '.join(missing)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = sorted(arguments.pictures.rglob("*.png"))
    start = time.perf_counter()
    with torch.inference_mode():
        for path in paths:
            pixels = torch.from_numpy(numpy.array(Image.open(path).convert("RGB")))[None]
            Image.fromarray(label(pixels, network, model).numpy()).save(arguments.out / f"{path.stem}.png")
    json.dump({"pictures": len(paths), "seconds": time.perf_counter() - start}, sys.stdout)


if __name__ == "__main__":
    main()
