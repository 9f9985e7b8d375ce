"""Random small segmentation models as exporters of all kinds write them, and their labels by ONNX Runtime in Python.

Every model scores a pixel by a 1x1 convolution, perhaps of means over small squares, so that it can be run at any size and
in any windows with the same result. What varies is all around that: order and types of dimensions, sizes and batches that
run, what the output holds, and where the weights lie.
"""

import random

import numpy
import onnxruntime
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from PIL import Image

ELEMENTS = {
    "float32": (TensorProto.FLOAT, numpy.float32),
    "float16": (TensorProto.FLOAT16, numpy.float16),
    "float64": (TensorProto.DOUBLE, numpy.float64),
    "uint8": (TensorProto.UINT8, numpy.uint8),
    "int32": (TensorProto.INT32, numpy.int32),
}
LABEL_TYPES = {
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "uint16": TensorProto.UINT16,
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
}
# Dimensions of the input, and the axes that the image [N, C, H, W] gets by a transposition before.
LAYOUTS = {"nchw": "NCHW", "nhwc": "NHWC", "chw": "CHW", "hwc": "HWC"}
FAULTS = ["two inputs", "not finite", "classes", "weights missing", "weights short", "weights above"]


class Model:
    """A model of random kind; the same for the same seed."""

    def __init__(self, seed):
        self.seed = seed
        draw = self.draw = random.Random(seed)
        self.numbers = numpy.random.default_rng(seed)
        self.gray = draw.random() < 0.15
        self.layout = draw.choices(list(LAYOUTS), [6, 3, 1, 1])[0]
        self.element = draw.choices(list(ELEMENTS), [8, 3, 1, 2, 1])[0]
        self.order = draw.choice(["rgb", "rgb", "bgr"])
        self.scores = draw.choices(
            ["logits", "softmax", "log-softmax", "sigmoid", "one logit", "one sigmoid", "labels", "mask"], [6, 3, 2, 2, 2, 2, 6, 1]
        )[0]
        two = self.scores in ("one logit", "one sigmoid", "mask")
        self.classes = 2 if two else draw.randint(2, 6)
        self.stride = draw.choices([1, 2, 4, 3], [6, 1, 2, 1])[0]
        if self.scores in ("labels", "mask") and draw.random() < 0.7:
            self.stride = 1
        self.multiple = draw.choices([1, 4, 8, 16], [6, 1, 1, 1])[0] if self.stride == 1 else 1
        self.sizes = draw.choices(["any", "fixed", "lying", "height free", "all free"], [6, 3, 1, 1, 3])[0]
        self.size = draw.choice([[64, 64], [64, 96], [96, 48], [128, 128]])
        if self.sizes == "lying":
            self.size = [64, 64]
        self.batch = draw.choices(["free", "one", "two", "lying"], [5, 3, 1, 1])[0]
        if self.layout in ("chw", "hwc"):
            self.batch = "one"
        # A dimension that is free cannot be told from a fixed one in an output without names.
        self.last = draw.random() < 0.25
        self.rank = draw.choice([3, 4])
        self.label_type = draw.choice(list(LABEL_TYPES))
        self.void = self.scores == "labels" and self.label_type == "uint8" and self.classes > 2 and draw.random() < 0.3
        self.half_out = self.scores not in ("labels", "mask") and draw.random() < 0.2
        self.undeclared = draw.random() < 0.2
        self.auxiliary = draw.random() < 0.15
        self.gain = 10 ** draw.uniform(-0.5, 1.3)
        self.external = draw.choices(["none", "one", "two", "folder"], [6, 1, 1, 1])[0]
        self.fault = draw.choice(FAULTS) if draw.random() < 0.12 else None
        if self.scores in ("labels", "mask") and self.fault in ("not finite", "classes"):
            # Labels show neither.
            self.fault = None
        if self.fault and self.fault.startswith("weights"):
            self.external = "one"

    def __str__(self):
        hidden = ("draw", "numbers")
        return ", ".join(f"{key} {value}" for key, value in vars(self).items() if key not in hidden)

    @property
    def channels(self):
        return 1 if self.gray else 3

    @property
    def is_float(self):
        return self.element.startswith("float")

    def options(self):
        """What a user must say, as nothing in the file does."""
        words = ["--normalization", "unit"] if self.is_float else []
        return [*words, "--order", self.order]

    def write(self, folder):
        """Writes `model.onnx`, its weights and `classes.txt`."""
        graph, weights = self.graph()
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        written = {}
        if self.external != "none":
            for tensor in model.graph.initializer:
                if tensor.name not in weights:
                    continue
                place = {"one": "model.onnx.data", "two": f"{tensor.name}.bin", "folder": "weights/all.bin"}[self.external]
                if self.fault == "weights above":
                    place = "../above.bin"
                data = bytes(tensor.raw_data)
                offset = len(written.get(place, b""))
                written[place] = written.get(place, b"") + data
                external_data_helper.set_external_data(tensor, place, offset, len(data))
                tensor.ClearField("raw_data")
        for place, data in written.items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.fault != "weights missing":
                path.write_bytes(data[:-1] if self.fault == "weights short" else data)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        count = self.classes + (1 if self.fault == "classes" else 0)
        (folder / "classes.txt").write_text("".join(f"{index} class {index}\n" for index in range(count)))

    def graph(self):
        nodes, values, last = [], {}, "x"

        def add(kind, *sources, **attributes):
            nonlocal last
            target = f"v{len(nodes)}"
            nodes.append(helper.make_node(kind, [last, *sources], [target], **attributes))
            last = target
            return target

        def constant(name, value):
            values[name] = numpy.asarray(value)
            return name

        letters = LAYOUTS[self.layout]
        if "N" not in letters:
            add("Unsqueeze", constant("front", numpy.int64([0])))
            letters = "N" + letters
        if letters == "NHWC":
            add("Transpose", perm=[0, 3, 1, 2])
        half = self.element == "float16" and self.multiple == self.stride == 1
        if self.element != "float32" and not half:
            add("Cast", to=TensorProto.FLOAT)
        number = numpy.float16 if half else numpy.float32
        if self.multiple > 1:
            image, side = last, self.multiple
            pooled = add("MaxPool", kernel_shape=[side, side], strides=[side, side])
            nodes.append(helper.make_node("Resize", [pooled, "", constant("up", numpy.float32([1, 1, side, side]))], ["resized"], mode="nearest"))
            last = "resized"
            add("Mul", constant("nothing", number(0)))
            add("Add", image)
        if self.sizes == "lying":
            add("Add", constant("position", numpy.zeros((1, 1, *self.size), number)))
        if self.stride > 1:
            add("AveragePool", kernel_shape=[self.stride] * 2, strides=[self.stride] * 2)
        outputs = 1 if self.scores in ("one logit", "one sigmoid", "mask") else self.classes
        scale = 1.0 if self.is_float else 1 / 255
        weight = self.numbers.normal(size=(outputs, self.channels, 1, 1)) * self.gain
        # The middle of the image's values is about where classes change.
        bias = -weight.sum((1, 2, 3)) / 2
        add("Conv", constant("weight", (weight * scale).astype(number)), constant("bias", bias.astype(number)))
        if half:
            add("Cast", to=TensorProto.FLOAT)
        if self.fault == "not finite":
            add("Mul", constant("lost", numpy.float32("nan")))
        if self.batch == "lying":
            scored = last
            nodes.append(helper.make_node("Shape", [scored], ["shape"]))
            nodes.append(helper.make_node("Slice", ["shape", constant("two", numpy.int64([2])), constant("four", numpy.int64([4]))], ["tail"]))
            nodes.append(helper.make_node("Concat", [constant("head", numpy.int64([1, outputs])), "tail"], ["target"], axis=0))
            add("Reshape", "target")
        inside = last
        element, dimensions = self.finish(add, constant)
        names = ["y"]
        nodes.append(helper.make_node("Identity", [last], ["y"]))
        declared = None if self.undeclared else dimensions
        ports = [helper.make_tensor_value_info("y", element, declared)]
        if self.auxiliary:
            nodes.append(helper.make_node("Neg", [inside], ["auxiliary"]))
            ports.insert(self.draw.randint(0, 1), helper.make_tensor_value_info("auxiliary", TensorProto.FLOAT, None))
            names.append("auxiliary")
        kind, _ = ELEMENTS[self.element]
        inputs = [helper.make_tensor_value_info("x", kind, self.shape())]
        if self.fault == "two inputs":
            inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
            nodes.append(helper.make_node("Identity", ["z"], ["unused"]))
        tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
        return helper.make_graph(nodes, "g", inputs, ports, tensors), {"weight", "bias"}

    def finish(self, add, constant):
        """Turns scores [N, C, h, w] into the output; gives its type and dimensions."""
        free = ["n", "c", "h", "w"]
        if self.scores in ("labels", "mask"):
            if self.scores == "mask":
                add("Greater", constant("zero", numpy.float32(0)))
                kind = self.draw.choice([TensorProto.BOOL, TensorProto.UINT8])
                if kind == TensorProto.UINT8:
                    add("Cast", to=kind)
                    add("Mul", constant("most", numpy.uint8(255)))
            else:
                add("ArgMax", axis=1, keepdims=1)
                kind = LABEL_TYPES[self.label_type]
                label = add("Cast", to=kind)
                if self.void:
                    # 255, which is no class, instead of the last class.
                    add("Div", constant("last class", numpy.uint8(self.classes - 1)))
                    add("Mul", constant("more", numpy.uint8(256 - self.classes)))
                    add("Add", label)
            if self.rank == 3:
                add("Squeeze", constant("channel", numpy.int64([1])))
                return kind, ["n", "h", "w"]
            return kind, ["n", 1, "h", "w"]
        if self.scores == "softmax":
            add("Softmax", axis=1)
        elif self.scores == "log-softmax":
            add("LogSoftmax", axis=1)
        elif self.scores in ("sigmoid", "one sigmoid"):
            add("Sigmoid")
        kind = TensorProto.FLOAT
        if self.half_out:
            add("Cast", to=TensorProto.FLOAT16)
            kind = TensorProto.FLOAT16
        if self.scores.startswith("one") and self.rank == 3:
            add("Squeeze", constant("channel", numpy.int64([1])))
            return kind, ["n", "h", "w"]
        if self.last:
            add("Transpose", perm=[0, 2, 3, 1])
            return kind, ["n", "h", "w", "c"]
        return kind, free

    def shape(self):
        """The declared input."""
        batch = {"free": "N", "one": 1, "two": 2, "lying": "N"}[self.batch]
        channels = "C" if self.sizes == "all free" and self.layout in ("nchw", "nhwc") else self.channels
        height, width = "H", "W"
        if self.sizes == "fixed":
            height, width = self.size
        elif self.sizes == "height free":
            width = self.size[1]
        letters = {"N": batch, "C": channels, "H": height, "W": width}
        return [letters[letter] for letter in LAYOUTS[self.layout]]

    def images(self):
        """RGB images of sizes that the model takes."""
        sizes = [self.size, [75, 101], [130, 67]]
        if self.sizes in ("fixed", "lying") and (self.stride > 1 or self.scores in ("labels", "mask")):
            # Windows of coarse scores and of labels are another matter.
            sizes = [self.size]
        if self.sizes == "height free":
            sizes = [self.size, [101, self.size[1]], [48, self.size[1]]]
        images = []
        for height, width in sizes:
            coarse = self.numbers.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=numpy.uint8)
            images.append(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])
        return images

    def truth(self, folder, image):
        """Scores [classes, H, W] over an image, or labels [H, W], by ONNX Runtime."""
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        height, width = image.shape[:2]
        if self.sizes in ("fixed", "lying") and [height, width] != self.size:
            whole = None
            for top in range(0, height, self.size[0]):
                for left in range(0, width, self.size[1]):
                    part = image[top : top + self.size[0], left : left + self.size[1]]
                    found = self.run(session, padded(part, self.size))
                    if whole is None:
                        whole = numpy.zeros((*found.shape[:-2], height, width), found.dtype)
                    part = found[..., : part.shape[0], : part.shape[1]]
                    whole[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
            return whole
        step = self.stride * self.multiple if self.stride != 3 else 1
        if self.sizes in ("fixed", "lying"):
            step = 1
        rounded = [-(-max(side, 32) // step) * step for side in (height, width)]
        if self.sizes == "height free":
            rounded[1] = width
        return self.run(session, padded(image, rounded))[..., :height, :width]

    def run(self, session, image):
        """Runs one image of a size that the model takes; the output at the size of the image."""
        if self.gray:
            planes = numpy.asarray(Image.fromarray(image).convert("L"))[None]
        else:
            planes = (image if self.order == "rgb" else image[..., ::-1]).transpose(2, 0, 1)
        _, element = ELEMENTS[self.element]
        values = (planes / 255.0).astype(numpy.float32).astype(element) if self.is_float else planes.astype(element)
        tensor = values[None] if self.layout in ("nchw", "chw") else values.transpose(1, 2, 0)[None]
        if self.layout in ("chw", "hwc"):
            tensor = tensor[0]
        elif self.batch == "two":
            tensor = numpy.concatenate([tensor, numpy.zeros_like(tensor)])
        output = session.run(["y"], {"x": numpy.ascontiguousarray(tensor)})[0][0]
        if self.scores in ("labels", "mask"):
            labels = output.reshape(output.shape[-2:]).astype(numpy.int64)
            if self.scores == "mask":
                labels = (labels > 0).astype(numpy.int64)
            rows, columns = (
                numpy.minimum((numpy.arange(side) + 0.5) * count / side, count - 1).astype(int)
                for side, count in zip(image.shape[:2], labels.shape)
            )
            return labels[rows][:, columns]
        scores = output.astype(numpy.float64)
        if self.scores.startswith("one"):
            rows, columns = (side for side in scores.shape if side != 1)
            return stretched(scores.reshape(1, rows, columns), image.shape[:2])
        return stretched(scores.transpose(2, 0, 1) if self.last else scores, image.shape[:2])


def padded(image, size):
    """Repeats the edge at the bottom and right."""
    more = [(0, size[axis] - image.shape[axis]) for axis in range(2)]
    return numpy.pad(image, [*more, (0, 0)], mode="edge")


def stretched(scores, size):
    """Bilinear, edges on edges: `interpolate(mode="bilinear", align_corners=False)` of PyTorch."""
    for axis, side in zip((1, 2), size):
        count = scores.shape[axis]
        place = numpy.clip((numpy.arange(side) + 0.5) * count / side - 0.5, 0, count - 1)
        first = place.astype(int)
        second = numpy.minimum(first + 1, count - 1)
        weight = (place - first).reshape([-1 if index == axis else 1 for index in range(3)])
        scores = scores.take(first, axis) * (1 - weight) + scores.take(second, axis) * weight
    return scores
