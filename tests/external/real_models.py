"""Segmentation models as people have them, with random weights: networks of transformers, torchvision and segmentation_models_pytorch, exported
by both exporters of PyTorch, and the labels that these libraries give.

`python real_models.py FOLDER [NAMES…]` writes the models for a look; `test_models.py` imports them.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn import functional

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
FREE = ("batch_size", "num_channels", "height", "width")


class Spread(nn.Module):
    """Scores of a network with random weights, spread so that every class wins somewhere."""

    def __init__(self, network, classes):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(1, classes, 1, 1))
        self.register_buffer("deviation", torch.ones(1, classes, 1, 1))

    def forward(self, pixels):
        return (self.network(pixels) - self.mean) / self.deviation * 3

    @torch.no_grad()
    def fit(self, pixels):
        # Statistics of batch normalization first: those of a new network make all pixels alike.
        self.network.train()
        for _ in range(3):
            self.network(torch.cat([pixels, pixels.flip(3), pixels.flip(2)]))
        self.network.eval()
        scores = self.network(pixels)
        self.mean.copy_(scores.mean((0, 2, 3), keepdim=True))
        self.deviation.copy_(scores.std((0, 2, 3), keepdim=True).clamp(min=1e-6))
        return self.eval()


class Named(nn.Module):
    """One tensor of what a network returns."""

    def __init__(self, network, name):
        super().__init__()
        self.network = network
        self.name = name

    def forward(self, pixels):
        return self.network(pixels)[self.name]


class Ended(nn.Module):
    """Scores, and an end as exporters add it."""

    def __init__(self, network, end):
        super().__init__()
        self.network = network
        self.end = end

    def forward(self, pixels):
        scores = self.network(pixels)
        if self.end == "argmax":
            # mmsegmentation's deployment: labels [N, 1, H, W] at the size of the image.
            scores = functional.interpolate(scores, pixels.shape[2:], mode="bilinear", align_corners=False)
            return scores.argmax(1, keepdim=True)
        if self.end == "int32":
            # PaddleSeg's: labels [N, H, W].
            scores = functional.interpolate(scores, pixels.shape[2:], mode="bilinear", align_corners=False)
            return scores.argmax(1).to(torch.int32)
        if self.end == "sigmoid":
            return scores.sigmoid()
        if self.end == "two":
            return scores, scores[:, :, ::2, ::2] * 0.5
        return scores


class Queries(nn.Module):
    """Outputs of networks that predict masks with a class each, as Mask2Former: no segmentation of pixels."""

    def __init__(self, queries=20, classes=5):
        super().__init__()
        self.masks = nn.Conv2d(3, queries, 4, stride=4)
        self.classes = nn.Linear(3, queries * (classes + 1))
        self.shape = (queries, classes + 1)

    def forward(self, pixels):
        return self.classes(pixels.mean((2, 3))).reshape(-1, *self.shape), self.masks(pixels)


class Prototypes(nn.Module):
    """Outputs of YOLO's segmentation: boxes with coefficients, and prototypes of masks."""

    def __init__(self, classes=5):
        super().__init__()
        self.boxes = nn.Conv2d(3, 4 + classes + 32, 8, stride=8)
        self.masks = nn.Conv2d(3, 32, 4, stride=4)

    def forward(self, pixels):
        return self.boxes(pixels).flatten(2), self.masks(pixels)


class Prompted(nn.Module):
    """A network of an image and a point, as SAM."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1)

    def forward(self, pixels, point):
        return self.convolution(pixels) + point.sum()


def normalized(image, mean=IMAGENET[0], std=IMAGENET[1]):
    """The input [1, 3, H, W] of an RGB image."""
    planes = torch.from_numpy(image.astype(numpy.float32) / 255).permute(2, 0, 1)[None]
    return (planes - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)


def padded(pixels, multiple):
    height, width = pixels.shape[2:]
    more = (0, -width % multiple, 0, -height % multiple)
    return functional.pad(pixels, more, mode="replicate")


def own_size(model, image, multiple=1):
    """Scores [1, C, H, W] over an image that is run at its own size, padded to a multiple."""
    height, width = image.shape[:2]
    with torch.no_grad():
        pixels = padded(normalized(image), multiple)
        scores = model(pixels)
        return functional.interpolate(scores, pixels.shape[2:], mode="bilinear", align_corners=False)[..., :height, :width]


def processed(model, image, processor):
    """Scores over an image as a processor of transformers prepares it, and `post_process_semantic_segmentation` enlarges them."""
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return functional.interpolate(model(pixels), image.shape[:2], mode="bilinear", align_corners=False)


class Case:
    """A model in a folder, the words of its import, and its truth."""

    def __init__(self, options="", truth=None, refused=None, binary=False, resized=False):
        self.options = options.split()
        # Scores [1, C, H, W] of an image.
        self.truth = truth
        # Words of the message.
        self.refused = refused
        self.binary = binary
        # Pillow rounds twice where images are resized, and protoseg once: bytes differ by one.
        self.resized = resized

    def labels(self, image):
        """Labels, and the lead of the best class."""
        scores = self.truth(image)[0]
        if self.binary:
            return (scores[0] > 0).numpy().astype(numpy.uint8), scores[0].abs().numpy()
        best = scores.topk(2, dim=0).values
        return scores.argmax(0).numpy().astype(numpy.uint8), (best[0] - best[1]).numpy()


def export(model, folder, *, size=(96, 128), names=("logits",), free=FREE, dynamo=False, external=False, opset=17, inputs=None):
    pixels = inputs or (torch.rand(1, 3, *size),)
    path = folder / "model.onnx"
    input_names = ["pixel_values", "points"][: len(pixels)]
    if dynamo:
        axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if free else None
        torch.onnx.export(
            model.eval(), pixels, path, dynamo=True, input_names=input_names, output_names=list(names),
            dynamic_shapes=(axes,) if axes else None, external_data=external, verbose=False,
        )
    else:
        axes = {"pixel_values": dict(enumerate(free))} if free else {}
        if free:
            axes |= {name: {0: "batch_size"} for name in names}
        torch.onnx.export(model.eval(), pixels, path, dynamo=False, input_names=input_names, output_names=list(names), dynamic_axes=axes, opset_version=opset)


def write_classes(folder, count):
    (folder / "classes.txt").write_text("".join(f"class {index}\n" for index in range(count)))


def transformers_case(folder, photo, network, processor, classes, **how):
    """A model of transformers with its two configurations."""
    options, multiple, resized = how.pop("options", ""), how.pop("multiple", 1), how.pop("resized", True)
    network.config.id2label = {index: f"class {index}" for index in range(classes)}
    network.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    model = Spread(Named(network.eval(), "logits"), classes).fit(normalized(photo[: how["size"][0], : how["size"][1]]))
    export(model, folder, **how)

    def truth(image):
        return processed(model, image, processor) if resized else own_size(model, image, multiple)

    return Case(f"--classes config.json {options}", truth, resized=resized)


def segformer(classes=7):
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes))


def segformer_processor(side=128):
    from transformers import SegformerImageProcessor

    return SegformerImageProcessor(size={"height": side, "width": side}, image_mean=IMAGENET[0], image_std=IMAGENET[1])


def segformer_legacy(folder, photo):
    return transformers_case(folder, photo, segformer(), segformer_processor(), 7, size=(128, 160))


def segformer_resized(folder, photo):
    return transformers_case(folder, photo, segformer(), segformer_processor(), 7, size=(128, 160), options="--fit resize --size 128x128")


def segformer_fixed(folder, photo):
    return transformers_case(folder, photo, segformer(), segformer_processor(), 7, size=(128, 128), free=None)


def segformer_dynamo(folder, photo):
    return transformers_case(folder, photo, segformer(), segformer_processor(), 7, size=(128, 160), options="--fit window", resized=False, multiple=4, dynamo=True, external=True)


def dpt(folder, photo):
    from transformers import DPTConfig, DPTForSemanticSegmentation, DPTImageProcessor

    config = DPTConfig(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96, image_size=96, patch_size=16, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 16, 16], fusion_hidden_size=16, num_labels=6, reassemble_factors=[4, 2, 1, 0.5], use_auxiliary_head=False,
    )
    processor = DPTImageProcessor(size={"height": 96, "width": 96}, image_mean=IMAGENET[0], image_std=IMAGENET[1])
    return transformers_case(folder, photo, DPTForSemanticSegmentation(config), processor, 6, size=(96, 96))


def upernet(folder, photo):
    from transformers import ConvNextConfig, SegformerImageProcessor, UperNetConfig, UperNetForSemanticSegmentation

    backbone = ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 24, 32, 48], out_features=["stage1", "stage2", "stage3", "stage4"])
    config = UperNetConfig(backbone_config=backbone, hidden_size=32, num_labels=5, use_auxiliary_head=False)
    return transformers_case(folder, photo, UperNetForSemanticSegmentation(config), segformer_processor(), 5, size=(128, 128), free=None, dynamo=True)


def mask2former(folder, photo):
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    swin = SwinConfig(embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(
        backbone_config=swin, num_labels=5, num_queries=10, hidden_dim=32, feature_size=32, mask_feature_size=32, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, dim_feedforward=32, encoder_feedforward_dim=32,
    )
    network = Mask2FormerForUniversalSegmentation(config).eval()

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, pixels):
            found = self.network(pixels)
            return found.class_queries_logits, found.masks_queries_logits

    network.config.id2label = {index: f"class {index}" for index in range(5)}
    config.save_pretrained(folder)
    # ONNX Runtime does not run it on a CPU; `queries` has its outputs.
    export(Both(), folder, size=(128, 128), names=("class_queries_logits", "masks_queries_logits"), free=None, opset=20)
    return Case("--classes config.json --normalization imagenet", refused=["GridSample", "opset"])


def queries(folder, photo):
    write_classes(folder, 5)
    export(Queries(), folder, names=("class_queries_logits", "masks_queries_logits"))
    return Case("--classes classes.txt --normalization imagenet", refused=["masks of 20 queries", "einsum"])


def yolo(folder, photo):
    write_classes(folder, 5)
    export(Prototypes(), folder, names=("output0", "output1"), size=(128, 128), free=None)
    return Case("--classes classes.txt --normalization unit", refused=["32 prototypes", "semantic segmentation"])


def prompted(folder, photo):
    write_classes(folder, 2)
    export(Prompted(), folder, inputs=(torch.rand(1, 3, 64, 64), torch.rand(1, 2)), free=None, names=("masks",))
    return Case("--classes classes.txt --normalization unit", refused=["2 inputs", "constants"])


def torchvision_case(folder, photo, network, classes, names, end=None, **how):
    model = Spread(Named(network.eval(), "out"), classes).fit(normalized(photo[:96, :128]))
    write_classes(folder, classes)
    export(Ended(model, end) if end else model, folder, names=names, **how)
    return Case("--classes classes.txt --normalization imagenet", lambda image: own_size(model, image))


def deeplab(classes=6):
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)


def deeplab_legacy(folder, photo):
    return torchvision_case(folder, photo, deeplab(), 6, ("out", "aux"), end="two")


def deeplab_dynamo(folder, photo):
    return torchvision_case(folder, photo, deeplab(), 6, ("out",), dynamo=True, external=True)


def lraspp(folder, photo):
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return torchvision_case(folder, photo, lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4), 4, ("out",))


def mmsegmentation(folder, photo):
    return torchvision_case(folder, photo, deeplab(), 6, ("output",), end="argmax")


def paddleseg(folder, photo):
    return torchvision_case(folder, photo, deeplab(), 6, ("argmax_0.tmp_0",), end="int32")


def unet(folder, photo, end=None, multiple=1, options="", **how):
    import segmentation_models_pytorch as smp

    network = smp.Unet("resnet18", encoder_weights=None, classes=1, decoder_channels=(32, 24, 16, 12, 8))
    network.check_input_shape = lambda pixels: None
    model = Spread(network.eval(), 1).fit(normalized(photo[:96, :128]))
    write_classes(folder, 2)
    export(Ended(model, end), folder, **how)
    return Case(f"--classes classes.txt --normalization imagenet {options}", lambda image: own_size(model, image, multiple), binary=True)


def unet_logits(folder, photo):
    return unet(folder, photo)


def unet_sigmoid(folder, photo):
    return unet(folder, photo, end="sigmoid")


def unet_padded(folder, photo):
    # segmentation_models_pytorch itself takes multiples of 32 alone; its graphs take any size.
    return unet(folder, photo, multiple=32, options="--multiple 32")


def unet_dynamo(folder, photo):
    return unet(folder, photo, dynamo=True)


MODELS = {
    builder.__name__.replace("_", "-"): builder
    for builder in [
        segformer_legacy, segformer_resized, segformer_fixed, segformer_dynamo, dpt, upernet, mask2former, queries, yolo, prompted,
        deeplab_legacy, deeplab_dynamo, lraspp, mmsegmentation, paddleseg, unet_logits, unet_sigmoid, unet_padded, unet_dynamo,
    ]
}


def build(name, folder, photo):
    """Writes a model; the same for the same photo."""
    torch.manual_seed(1)
    torch.set_num_threads(2)
    folder.mkdir(parents=True, exist_ok=True)
    return MODELS[name](folder, photo)


if __name__ == "__main__":
    photo = numpy.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=numpy.uint8)
    for name in sys.argv[2:] or MODELS:
        case = build(name, Path(sys.argv[1]) / name, photo)
        print(name, json.dumps(case.options))
