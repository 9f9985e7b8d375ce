"""Constraints on requests that a schema cannot express: image files that decode, and tensors of their shape."""

import base64
import random
import struct
import zlib

import schemathesis
from hypothesis import strategies
from schemathesis.generation import GenerationMode


def png(width, height, color):
    """Returns a PNG file of one color."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress((b"\0" + bytes(color) * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


side = strategies.integers(1, 70)
color = strategies.tuples(*[strategies.integers(0, 255)] * 3)
images = strategies.builds(png, side, side, color)
for media in ["image/*", "application/octet-stream"]:
    schemathesis.openapi.media_type(media, images)

LENGTH = "Inference-Header-Content-Length"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes the parts of a positive request consistent."""
    if case.meta.generation.mode is not GenerationMode.POSITIVE or not case.path.endswith("/infer"):
        return
    name = "colors"
    if case.media_type == "application/octet-stream":
        case.headers[LENGTH] = "0"
        name = "colors.encoded"
    else:
        case.headers.pop(LENGTH, None)
        [tensor] = case.body["inputs"]
        tensor.pop("parameters", None)
        rng = random.Random(str(tensor))
        count, height, width = [rng.randint(1, most) for most in [3, 40, 40]]
        if tensor["datatype"] == "BYTES":
            name = "colors.encoded"
            tensor["shape"] = [count]
            tensor["data"] = [base64.b64encode(png(width, height, (200, 0, 9 * n))).decode() for n in range(count)]
        else:
            tensor["shape"] = [count, height, width, 3]
            tensor["data"] = [rng.randint(0, 255) for _ in range(count * height * width * 3)]
        # Without duplicates.
        names = {output["name"]: output for output in case.body.get("outputs") or []}
        if "outputs" in case.body:
            case.body["outputs"] = list(names.values())
    case.path_parameters["model"] = name
