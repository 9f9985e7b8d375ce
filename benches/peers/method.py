"""The semi-supervised training step: pseudo-labels, CutMix, entropy drop, losses and prototypes."""

from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from network import build

IGNORED = 255

Tensors = dict[str, Tensor]


@dataclass
class PseudoLabels:
    """Teacher predictions for unlabeled images, maps `[b, S, S]`; `valid` is false on padding."""

    label: Tensor
    confidence: Tensor
    entropy: Tensor
    valid: Tensor


def upsample(logits: Tensor, size: int, align_corners: bool) -> Tensor:
    return functional.interpolate(logits, size=(size, size), mode="bilinear", align_corners=align_corners)


def pseudo_labels(logits: Tensor, valid: Tensor) -> PseudoLabels:
    """Computes pseudo-labels from the upsampled logits of the teacher, `[b, C, S, S]`."""
    logarithms = functional.log_softmax(logits, dim=1)
    probabilities = logarithms.exp()
    confidence, label = probabilities.max(dim=1)
    # In place: the logarithms are not needed again.
    entropy = logarithms.mul_(probabilities).sum(dim=1).neg_()
    return PseudoLabels(label, confidence, entropy, valid)


def cut_mix(images: Tensor, boxes: list[list[int]]) -> Tensor:
    """Replaces the box of each image or map by that of the next, cyclically; boxes are (top, left, height, width)."""
    mixed = images.clone()
    for index, (top, left, height, width) in enumerate(boxes):
        inside = (slice(top, top + height), slice(left, left + width))
        mixed[index][inside] = images[(index + 1) % len(boxes)][inside]
    return mixed


def mix_labels(labels: PseudoLabels, boxes: list[list[int]]) -> PseudoLabels:
    return PseudoLabels(*(cut_mix(part, boxes) for part in vars(labels).values()))


def drop_uncertain(labels: PseudoLabels, percentile: float) -> tuple[PseudoLabels, float]:
    """Ignores padding and pixels whose entropy is not below the percentile; also returns valid / kept, the loss scale."""
    entropies = labels.entropy[labels.valid]
    if entropies.numel() == 0:
        return replace(labels, label=torch.full_like(labels.label, IGNORED)), 0.0
    threshold = float(numpy.percentile(entropies.numpy(), percentile))
    kept = labels.valid & (labels.entropy < threshold)
    # Divides Python numbers: for tensors, PyTorch multiplies by the reciprocal, which rounds twice.
    scale = entropies.numel() / max(int(kept.sum()), 1)
    return replace(labels, label=labels.label.masked_fill(~kept, IGNORED)), scale


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean over labels that are not ignored, or zero if there are none."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Returns the values `[b * K]` of maps `[b, S, S]` at rows and columns `[b, K, 2]`."""
    images = torch.arange(len(maps)).unsqueeze(1)
    return maps[images, points[..., 0], points[..., 1]].flatten()


def features_at_points(features: Tensor, points: Tensor, size: int, align_corners: bool) -> Tensor:
    """Interpolates the feature map `[b, D, h, w]` at pixels of the image; returns rows `[b * K, D]`."""
    pixels = points.flip(2).to(torch.float32)
    grid = pixels / (size - 1) * 2 - 1 if align_corners else (pixels + 0.5) / size * 2 - 1
    sampled = functional.grid_sample(
        features, grid.unsqueeze(2), mode="bilinear", padding_mode="border", align_corners=align_corners
    )
    return sampled.squeeze(3).transpose(1, 2).flatten(0, 1)


class Prototypes:
    """Prototypes of each class, and the sums and counts of the points assigned to them in a step."""

    def __init__(self, rows: Tensor, per_class: int, temperature: float, momentum: float, normalized: bool) -> None:
        self.rows = rows
        self.per_class = per_class
        self.temperature = temperature
        self.momentum = momentum
        self.normalized = normalized
        self.clear()

    def clear(self) -> None:
        self.directions = functional.normalize(self.rows, dim=1)
        self.sums = torch.zeros_like(self.rows)
        self.hits = torch.zeros(len(self.rows), dtype=torch.int64)

    def score(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits `[N, C]` (largest cosine over the temperature) and the nearest prototype of each class."""
        cosines = (units @ self.directions.T).unflatten(1, (-1, self.per_class))
        best, nearest = cosines.max(dim=2)
        return best / self.temperature, nearest

    def collect(self, features: Tensor, units: Tensor, nearest: Tensor, labels: Tensor, trusted: Tensor) -> None:
        """Assigns trusted points with a label to the nearest prototype of that class."""
        chosen = (trusted & (labels != IGNORED)).nonzero().squeeze(1)
        labels = labels[chosen]
        rows = labels * self.per_class + nearest[chosen, labels]
        added = (units if self.normalized else features).detach()
        self.sums.index_add_(0, rows, added[chosen])
        self.hits += torch.bincount(rows, minlength=len(self.hits))

    def update(self) -> Tensor:
        """Moves the prototypes with assigned points, clears the sums, and returns the assignment counts."""
        hits = self.hits
        means = self.sums / hits.clamp(min=1).unsqueeze(1)
        moved = torch.lerp(means, self.rows, self.momentum)
        if self.normalized:
            moved = functional.normalize(moved, dim=1)
        self.rows = torch.where((hits > 0).unsqueeze(1), moved, self.rows)
        self.clear()
        return hits


@dataclass
class MicroBatch:
    labeled: Tensor
    labels: Tensor
    unlabeled: Tensor
    valid: Tensor
    boxes: list[list[int]]
    points: Tensor
    seed: int


def below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def micro_batch(tensors: Tensors, seed: int) -> MicroBatch:
    return MicroBatch(
        labeled=tensors["labeled.pixels"],
        labels=tensors["labeled.labels"].long(),
        unlabeled=tensors["unlabeled.pixels"],
        valid=tensors["unlabeled.valid"].bool(),
        boxes=tensors["boxes"].tolist(),
        points=torch.cat([tensors["labeled.points"], tensors["unlabeled.points"]]),
        seed=seed,
    )


def load_weights(network: nn.Module, weights: Tensors) -> None:
    state = network.state_dict()
    wrong = {(name, tensor.shape) for name, tensor in state.items()} ^ {(n, t.shape) for n, t in weights.items()}
    if wrong:
        raise ValueError(f"the weights do not fit the network: {sorted(name for name, _ in wrong)[:5]}")
    for name, tensor in state.items():
        tensor.copy_(weights[name])


class Trainer:
    """The training state and the data of one step, which can be repeated."""

    def __init__(self, settings: dict, inputs: Tensors, channels_last: bool = False) -> None:
        self.settings = settings
        self.student = build(settings["preset"], settings["classes"])
        self.teacher = build(settings["preset"], settings["classes"]).eval().requires_grad_(False)
        for network, prefix in [(self.student, "student."), (self.teacher, "teacher.")]:
            load_weights(network, below(inputs, prefix))
            if channels_last:
                network.channels_last()
        self.student_state = list(self.student.state_dict().values())
        self.teacher_state = list(self.teacher.state_dict().values())
        self.optimizer = self.make_optimizer(below(inputs, "velocity."))
        self.prototypes = Prototypes(
            inputs["prototypes"],
            settings["prototypes"],
            settings["temperature"],
            settings["prototype_momentum"],
            settings["average"] != "raw",
        )
        self.percentile = 100 - settings["entropy_drop"] * (1 - settings["progress"])
        seeds = settings["dropout_seeds"][: settings["accumulate"]]
        self.micro_batches = [micro_batch(below(inputs, f"{index}."), seed) for index, seed in enumerate(seeds)]

    def make_optimizer(self, velocity: Tensors) -> torch.optim.SGD:
        settings, groups = self.settings, {True: [], False: []}
        for name, parameter in self.student.named_parameters():
            groups[name.startswith("encoder.")].append(parameter)
        rate = settings["learning_rate"]
        optimizer = torch.optim.SGD(
            [{"params": groups[True]}, {"params": groups[False], "lr": rate * settings["head_multiplier"]}],
            lr=rate,
            momentum=settings["momentum"],
            weight_decay=settings["weight_decay"],
            fused=True,
        )
        for name, parameter in self.student.named_parameters():
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(velocity[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
        return optimizer

    def upsample(self, logits: Tensor) -> Tensor:
        return upsample(logits, self.settings["crop"], self.settings["align_corners"])

    def backward(self, micro: MicroBatch) -> Tensor:
        """Accumulates the gradients and prototype sums of a micro-batch; returns the four losses."""
        settings = self.settings
        with torch.no_grad():
            teacher_logits = self.upsample(self.teacher(micro.unlabeled)[0])
            pseudo = mix_labels(pseudo_labels(teacher_logits, micro.valid), micro.boxes)
            pseudo, scale = drop_uncertain(pseudo, self.percentile)
            images = torch.cat([micro.labeled, cut_mix(micro.unlabeled, micro.boxes)])
        torch.manual_seed(micro.seed)
        logits, features, _ = self.student(images)
        # Splits before upsampling, while the logits are small.
        labeled, unlabeled = (self.upsample(half) for half in logits.chunk(2))

        sampled = features_at_points(features, micro.points, settings["crop"], settings["align_corners"])
        units = functional.normalize(sampled, dim=1)
        point_logits, nearest = self.prototypes.score(units)
        point_labels = at_points(torch.cat([micro.labels, pseudo.label]), micro.points)
        sure = torch.cat([torch.ones_like(pseudo.valid), pseudo.confidence > settings["gate"]])
        self.prototypes.collect(sampled, units, nearest, point_labels, at_points(sure, micro.points))

        losses = [
            cross_entropy(labeled, micro.labels),
            cross_entropy(unlabeled, pseudo.label) * scale,
            *map(cross_entropy, point_logits.chunk(2), point_labels.chunk(2)),
        ]
        prototype_loss = settings["prototype_weight"] * (losses[2] + losses[3])
        loss = losses[0] + settings["unlabeled_weight"] * losses[1] + prototype_loss
        (loss / len(self.micro_batches)).backward()
        return torch.stack(losses).detach()

    def backward_supervised(self, micro: MicroBatch) -> None:
        torch.manual_seed(micro.seed)
        logits = self.upsample(self.student(micro.labeled)[0])
        (cross_entropy(logits, micro.labels) / len(self.micro_batches)).backward()

    def move(self) -> None:
        """Applies SGD to the student, updates the teacher as its moving average, and clears the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch._foreach_lerp_(self.teacher_state, self.student_state, 1 - self.settings["teacher_decay"])

    def step(self) -> None:
        for micro in self.micro_batches:
            self.backward(micro)
        self.prototypes.update()
        self.move()

    def supervised(self) -> None:
        for micro in self.micro_batches:
            self.backward_supervised(micro)
        self.move()
