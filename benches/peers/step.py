"""One optimizer step of semi-supervised training in PyTorch, a reference for the results and the time of the Rust trainer.

`compare DIR` computes the step of a directory and compares it with the outputs there; `time DIR` runs a `step`, or a
`supervised` step, for each such line of standard input and prints its milliseconds; `make DIR` writes a small step with
the outputs of this file.

Compare with the threads and the memory layout of the other side: another order of summation differs by rounding, which a
random network in training mode amplifies until ReLUs flip and gradients differ by far more than the tolerance.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from method import Tensors, Trainer, below
from network import build

TOLERANCE = 1e-4
# A gradient below this share of the largest would be zero in exact arithmetic.
ROUNDING = 1e-7
LOSSES = ["linear labeled", "linear unlabeled", "prototype labeled", "prototype unlabeled"]


def read(directory: Path, channels_last: bool = False) -> Trainer:
    settings = json.loads((directory / "settings.json").read_text())
    return Trainer(settings, load_file(directory / "inputs.safetensors"), channels_last)


def outputs(trainer: Trainer) -> Tensors:
    """Runs the step and returns the tensors of `outputs.safetensors`."""
    found = {"losses": torch.stack([trainer.backward(micro) for micro in trainer.micro_batches])}
    parameters = dict(trainer.student.named_parameters())
    found |= {f"gradient.{name}": parameter.grad for name, parameter in parameters.items()}
    found["hits"] = trainer.prototypes.update().float()
    found["prototypes"] = trainer.prototypes.rows
    trainer.move()
    for prefix, network in [("student", trainer.student), ("teacher", trainer.teacher)]:
        found |= {f"{prefix}.{name}": tensor for name, tensor in network.state_dict().items()}
    state = trainer.optimizer.state
    return found | {f"velocity.{name}": state[p]["momentum_buffer"] for name, p in parameters.items()}


def difference(ours: Tensor, theirs: Tensor, scale: float) -> float:
    if ours.shape != theirs.shape:
        return math.inf
    largest = (ours - theirs).abs().max().item() / max(scale, torch.finfo(torch.float32).tiny)
    return math.inf if math.isnan(largest) else largest


def report(group: str, ours: Tensors, theirs: Tensors, rounding: set[str]) -> bool:
    """Prints the worst tensor of a group; returns true if all agree. Tensors in `rounding` are scaled by the whole group."""
    if ours.keys() != theirs.keys():
        print(f"{group}: the names differ: {sorted(ours.keys() ^ theirs.keys())[:5]}")
        return False
    sizes = {name: tensor.abs().max().item() for name, tensor in theirs.items()}
    overall = max(sizes.values())
    scales = {name: overall if name in rounding else size for name, size in sizes.items()}
    differences = {name: difference(ours[name], theirs[name], scale) for name, scale in scales.items()}
    worst = max(differences, key=differences.__getitem__)
    note = f"; {len(rounding)} of {len(sizes)} are rounding only, scaled by the group" if rounding else ""
    print(f"{group}: {differences[worst]:.2e} at {worst}{note}")
    return differences[worst] <= TOLERANCE


def compare(directory: Path, channels_last: bool) -> int:
    ours, theirs = outputs(read(directory, channels_last)), load_file(directory / "outputs.safetensors")
    sizes = {name: tensor.abs().max().item() for name, tensor in below(theirs, "gradient.").items()}
    rounding = {name for name, size in sizes.items() if size < ROUNDING * max(sizes.values())}

    losses = [dict(zip(LOSSES, tensors["losses"].T)) for tensors in (ours, theirs)]
    agree = [report("losses", *losses, set())]
    # A velocity is a sum of gradients: where they are rounding only, so is it.
    for group, exempt in [("gradient", rounding), ("student", set()), ("teacher", set()), ("velocity", rounding)]:
        agree.append(report(group, below(ours, f"{group}."), below(theirs, f"{group}."), exempt))
    for name in ["prototypes", "hits"]:
        agree.append(report(name, {name: ours[name]}, {name: theirs[name]}, set()))
    return 0 if all(agree) else 1


def serve(directory: Path, channels_last: bool) -> int:
    trainer = read(directory, channels_last)
    works = {"step": trainer.step, "supervised": trainer.supervised}
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        works[line.strip()]()
        print(f"{1000 * (time.perf_counter() - start):.3f}", flush=True)
    return 0


def smooth_maps(*shape: int) -> Tensor:
    """Returns random maps `[b, channels, S, S]` in [0, 1], bilinear between every eighth pixel."""
    coarse = torch.rand(*shape[:2], shape[2] // 8, shape[3] // 8)
    return torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bilinear")


def example(settings: dict) -> Tensors:
    """Returns random inputs that exercise every part of the step."""
    batch, size, classes = settings["batch"], settings["crop"], settings["classes"]
    inputs = {}
    for index in range(settings["accumulate"]):
        for half in ["labeled", "unlabeled"]:
            pixels = smooth_maps(batch, 3, size, size).mul(255).byte().permute(0, 2, 3, 1)
            inputs[f"{index}.{half}.pixels"] = pixels.contiguous()
            inputs[f"{index}.{half}.points"] = torch.randint(size, (batch, 50, 2))
        labels = smooth_maps(batch, classes, size, size).argmax(1).byte()
        labels[:, : size // 8] = 255
        valid = torch.ones(batch, size, size, dtype=torch.uint8)
        valid[0, -size // 6 :] = 0
        # The last micro-batch is not mixed.
        box = [size // 8, size // 5, size // 2, size // 3] if index + 1 < settings["accumulate"] else [0] * 4
        boxes = torch.tensor([box] * batch)
        inputs |= {f"{index}.labeled.labels": labels, f"{index}.unlabeled.valid": valid, f"{index}.boxes": boxes}

    student = build(settings["preset"], classes)
    for name, parameter in student.named_parameters():
        if parameter.dim() == 4:
            torch.nn.init.kaiming_uniform_(parameter, nonlinearity="relu")
        else:
            torch.nn.init.uniform_(parameter, *((0.5, 1.0) if name.endswith("weight") else (-0.1, 0.1)))
    # Makes the teacher confident at some pixels; a few passes bring its running statistics near those of the data.
    *_, classifier, _ = student.parameters()
    classifier.data.mul_(10)
    images = torch.cat([inputs[f"{index}.unlabeled.pixels"] for index in range(settings["accumulate"])])
    with torch.no_grad():
        for _ in range(20):
            _, features, _ = student(images)
    for name, tensor in student.state_dict().items():
        inputs[f"student.{name}"] = tensor
        inputs[f"teacher.{name}"] = tensor * (1 + 0.02 * torch.rand_like(tensor))
    for name, parameter in student.named_parameters():
        inputs[f"velocity.{name}"] = 0.01 * torch.randn_like(parameter)
    rows = torch.rand(classes * settings["prototypes"], features.shape[1])
    inputs["prototypes"] = torch.nn.functional.normalize(rows, dim=1)
    return inputs


def make(directory: Path) -> int:
    torch.manual_seed(1)
    settings = {
        "preset": "deeplabv3plus-efficientnet-lite0", "classes": 11, "crop": 64, "batch": 2, "accumulate": 2,
        "align_corners": False, "prototypes": 4, "temperature": 0.1, "prototype_momentum": 0.99, "gate": 0.8,
        "average": "normalized", "entropy_drop": 20.0, "progress": 0.25, "unlabeled_weight": 1.0,
        "prototype_weight": 1.0, "learning_rate": 0.02, "head_multiplier": 5.0, "momentum": 0.9, "weight_decay": 1e-4,
        "teacher_decay": 0.75, "dropout_seeds": [123, 456],
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "settings.json").write_text(json.dumps(settings, indent=2))
    save_file(example(settings), directory / "inputs.safetensors")
    save_file(outputs(read(directory)), directory / "outputs.safetensors")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["compare", "time", "make"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--channels-last", action="store_true", help="layout of weights and images")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.command == "make":
        return make(arguments.directory)
    return {"compare": compare, "time": serve}[arguments.command](arguments.directory, arguments.channels_last)


if __name__ == "__main__":
    sys.exit(main())
