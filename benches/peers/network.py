"""The two networks of the reference in PyTorch; their state dicts have the published names.

A network takes pixels as bytes `[N, H, W, 3]` and returns logits `[N, classes, h, w]` and features `[N, D, h, w]` at
stride 4, and the logits of the auxiliary head at stride 8 where it has one, else None.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

Outputs = tuple[Tensor, Tensor, Tensor | None]

DROPOUT = 0.1


class Norm(nn.BatchNorm2d):
    """Batch normalization without `num_batches_tracked`."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)
        self.num_batches_tracked = None


class Network(nn.Module):
    """Base of both networks: normalization of pixels, in the memory format `memory_format`."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.memory_format = torch.contiguous_format
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def channels_last(self) -> "Network":
        self.memory_format = torch.channels_last
        return self.to(memory_format=torch.channels_last)

    def normalize(self, pixels: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=self.memory_format)
        return planes.sub_(self.mean).div_(self.std)


def resize(planes: Tensor, like: Tensor, align_corners: bool) -> Tensor:
    return functional.interpolate(planes, size=like.shape[2:], mode="bilinear", align_corners=align_corners)


def expand_mean(mean: Tensor, like: Tensor) -> Tensor:
    """Expands the mean to every pixel, channels-last: a contiguous input would make the concatenation contiguous."""
    return mean.expand(-1, -1, *like.shape[2:]).contiguous(memory_format=torch.channels_last)


class SameConv(nn.Conv2d):
    """Static TensorFlow-SAME padding: at stride 2 one pixel less at the top and left than at the bottom and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, groups: int) -> None:
        total = dilation * (kernel - 1) + 1 - stride
        before, after = total // 2, total - total // 2
        even = before == after
        padding = before if even else 0
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        self.margins = None if even else (before, after, before, after)

    def forward(self, planes: Tensor) -> Tensor:
        return super().forward(planes if self.margins is None else functional.pad(planes, self.margins))


class InvertedBottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.expands = expand != 1
        self.adds = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, wide, 1, bias=False)
            self._bn0 = Norm(wide, 1e-3)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, dilation, groups=wide)
        self._bn1 = Norm(wide, 1e-3)
        self._project_conv = nn.Conv2d(wide, outputs, 1, bias=False)
        self._bn2 = Norm(outputs, 1e-3)

    def forward(self, inputs: Tensor) -> Tensor:
        planes = inputs
        if self.expands:
            planes = functional.relu6(self._bn0(self._expand_conv(planes)), inplace=True)
        planes = functional.relu6(self._bn1(self._depthwise_conv(planes)), inplace=True)
        planes = self._bn2(self._project_conv(planes))
        return planes.add_(inputs) if self.adds else planes


class Lite0Encoder(nn.Module):
    """EfficientNet-Lite0 at output stride 16. Returns the maps at stride 4 (24 channels) and 16 (320 channels)."""

    # Repeats, kernel, stride, expansion, channels, dilation of the first block and of the others. The stage whose
    # stride became dilation enters at the dilation before it.
    STAGES = [
        (1, 3, 1, 1, 16, 1, 1),
        (2, 3, 2, 6, 24, 1, 1),
        (2, 5, 2, 6, 40, 1, 1),
        (3, 3, 2, 6, 80, 1, 1),
        (3, 5, 1, 6, 112, 1, 1),
        (4, 5, 1, 6, 192, 1, 2),
        (1, 3, 1, 6, 320, 2, 2),
    ]
    # Blocks before the map at stride 4 is taken.
    LOW = 3

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, stride=2, dilation=1, groups=1)
        self._bn0 = Norm(32, 1e-3)
        self._blocks = nn.ModuleList()
        inputs = 32
        for repeats, kernel, stride, expand, outputs, first_dilation, dilation in self.STAGES:
            self._blocks.append(InvertedBottleneck(inputs, outputs, expand, kernel, stride, first_dilation))
            for _ in range(repeats - 1):
                self._blocks.append(InvertedBottleneck(outputs, outputs, expand, kernel, 1, dilation))
            inputs = outputs

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        planes = functional.relu6(self._bn0(self._conv_stem(planes)), inplace=True)
        for block in self._blocks[: self.LOW]:
            planes = block(planes)
        low = planes
        for block in self._blocks[self.LOW :]:
            planes = block(planes)
        return low, planes


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
    return [conv, Norm(outputs), nn.ReLU(inplace=True)]


def unit(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    parts = conv_norm_relu(inputs, outputs, kernel, dilation=dilation, groups=groups)
    return nn.Sequential(OrderedDict(zip(("conv", "norm", "relu"), parts)))


def separable(inputs: int, dilation: int = 1) -> nn.Sequential:
    depthwise = unit(inputs, inputs, 3, dilation, groups=inputs)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=unit(inputs, 128)))


class LitePyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = unit(320, 128)
        self.point = unit(320, 128)
        self.dilated6, self.dilated12, self.dilated18 = (separable(320, dilation) for dilation in (6, 12, 18))
        self.project = unit(5 * 128, 128)

    def forward(self, high: Tensor) -> Tensor:
        mean = expand_mean(self.image(high.mean((2, 3), keepdim=True)), high)
        branches = [mean] + [part(high) for part in (self.point, self.dilated6, self.dilated12, self.dilated18)]
        return functional.dropout2d(self.project(torch.cat(branches, 1)), DROPOUT, self.training)


class LiteDecoder(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.aspp = LitePyramid()
        self.low = unit(24, 32)
        self.refine1 = separable(32 + 128)
        self.refine2 = separable(128)
        self.classifier = nn.Conv2d(128, classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Outputs:
        pyramid = self.aspp(high)
        low = self.low(low)
        pyramid = resize(pyramid, low, align_corners=False)
        features = self.refine2(self.refine1(torch.cat([low, pyramid], 1)))
        return self.classifier(functional.dropout2d(features, DROPOUT, self.training)), features, None


class OnLite0(Network):
    def __init__(self, classes: int) -> None:
        super().__init__([127.0] * 3, [128.0] * 3)
        self.encoder = Lite0Encoder()
        self.decoder = LiteDecoder(classes)

    def forward(self, pixels: Tensor) -> Outputs:
        return self.decoder(*self.encoder(self.normalize(pixels)))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), Norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = Norm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), Norm(4 * width)
        shortcut = [nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), Norm(4 * width)]
        self.downsample = nn.Sequential(*shortcut) if project else None

    def forward(self, inputs: Tensor) -> Tensor:
        planes = functional.relu(self.bn1(self.conv1(inputs)), inplace=True)
        planes = functional.relu(self.bn2(self.conv2(planes)), inplace=True)
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        return functional.relu(self.bn3(self.conv3(planes)).add_(shortcut), inplace=True)


def stage(inputs: int, width: int, stride: int, dilations: list[int]) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride, dilations[0], project=True)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1, dilation, False) for dilation in dilations[1:]))


class ResNet101Encoder(nn.Module):
    """Deep stem, output stride 8, multi-grid 2-2-4 on the last stage."""

    def __init__(self) -> None:
        super().__init__()
        stem = conv_norm_relu(3, 64, 3, stride=2) + conv_norm_relu(64, 64, 3)
        self.conv1 = nn.Sequential(*stem, nn.Conv2d(64, 128, 3, padding=1, bias=False))
        self.bn1 = Norm(128)
        self.layer1 = stage(128, 64, 1, [1] * 3)
        self.layer2 = stage(256, 128, 2, [1] * 4)
        # A stage whose stride became dilation enters at the dilation before it.
        self.layer3 = stage(512, 256, 1, [1] + [2] * 22)
        self.layer4 = stage(1024, 512, 1, [2 * 2, 4 * 2, 4 * 4])

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        planes = functional.relu(self.bn1(self.conv1(planes)), inplace=True)
        layer1 = self.layer1(functional.max_pool2d(planes, 3, 2, 1, ceil_mode=True))
        layer3 = self.layer3(self.layer2(layer1))
        return layer1, layer3, self.layer4(layer3)


class ResNetPyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_norm_relu(2048, 256))
        self.conv2 = nn.Sequential(*conv_norm_relu(2048, 256))
        dilated = (nn.Sequential(*conv_norm_relu(2048, 256, 3, dilation=dilation)) for dilation in (12, 24, 36))
        self.conv3, self.conv4, self.conv5 = dilated

    def forward(self, high: Tensor) -> Tensor:
        mean = expand_mean(self.conv1(high), high)
        return torch.cat([mean] + [part(high) for part in (self.conv2, self.conv3, self.conv4, self.conv5)], 1)


class ResNetDecoder(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.aspp = ResNetPyramid()
        self.head = nn.Sequential(*conv_norm_relu(5 * 256, 256, 3), nn.Dropout2d(DROPOUT))
        self.low_conv = nn.Sequential(*conv_norm_relu(256, 256, bias=True))
        first = [*conv_norm_relu(512, 256, 3, bias=True), nn.Dropout2d(DROPOUT)]
        second = [*conv_norm_relu(256, 256, 3, bias=True), nn.Dropout2d(DROPOUT)]
        self.classifier = nn.Sequential(*first, *second, nn.Conv2d(256, classes, 1))

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.head(self.aspp(high))
        low = self.low_conv(low)
        pyramid = resize(pyramid, low, align_corners=True)
        features = torch.cat([low, pyramid], 1)
        return self.classifier(features), features


class OnResNet101(Network):
    def __init__(self, classes: int, auxiliary: bool) -> None:
        super().__init__([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
        self.encoder = ResNet101Encoder()
        self.decoder = ResNetDecoder(classes)
        head = [*conv_norm_relu(1024, 256, 3, bias=True), nn.Dropout2d(DROPOUT), nn.Conv2d(256, classes, 1)]
        self.auxor = nn.ModuleDict({"aux": nn.Sequential(*head)}) if auxiliary else None

    def forward(self, pixels: Tensor) -> Outputs:
        low, middle, high = self.encoder(self.normalize(pixels))
        logits, features = self.decoder(low, high)
        return logits, features, None if self.auxor is None else self.auxor["aux"](middle)


def build(preset: str, classes: int, auxiliary: bool = False) -> Network:
    """Builds the network of a preset; only that with ResNet can have the auxiliary head."""
    if preset == "deeplabv3plus-resnet101":
        return OnResNet101(classes, auxiliary)
    if preset == "deeplabv3plus-efficientnet-lite0" and not auxiliary:
        return OnLite0(classes)
    raise ValueError(f"unknown network {preset} (auxiliary head: {auxiliary})")
