"""Every ONNX file of every network is valid, and other runtimes compute the same labels.

onnx's checker accepts each file with strict shape inference; OpenVINO gives ONNX Runtime's labels from 32-bit files;
Triton's own schema takes config.pbtxt.
"""

import hashlib
import json

import numpy
import onnx
import onnxruntime
import openvino
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

# Two best logits closer than this share of the largest logit are a tie: rounding decides.
TIE = 1e-5
# Smallest share of equal labels in fp32.
AGREEMENT = 0.9999


def scene(height, width):
    """Two images of colored waves, [2, height, width, 3]."""
    down, across = numpy.mgrid[0:height, 0:width]
    planes = [numpy.sin(down / a + across / b) for a, b in [(5, 9), (31, 4), (7, -13)]]
    image = (127.5 + 127.5 * numpy.stack(planes, axis=2)).astype(numpy.uint8)
    return numpy.stack([image, image[:, ::-1]])


def by_openvino(path, images):
    """Runs OpenVINO; returns all outputs by name."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"image": images})
    return {output.any_name: found[output] for output in compiled.outputs}


def labels_differ(path, images, theirs):
    """Share of labels that differ except at ties, and the number of ties."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    ours = dict(zip(names, session.run(names, {"image": images})))
    if "logits" in ours:
        scores = numpy.sort(ours["logits"], axis=1)
        tie = scores[:, -1] - scores[:, -2] < TIE * numpy.abs(scores).max()
        differ = ours["logits"].argmax(axis=1) != theirs["logits"].argmax(axis=1)
    else:
        tie = ours["margin"] < TIE * numpy.abs(ours["margin"]).max()
        differ = ours["labels"] != theirs["labels"]
        confidence = numpy.abs(ours["confidence"].astype(int) - theirs["confidence"].astype(int))
        assert confidence.max() <= 1, f"{path}: confidence differs by {confidence.max()}"
    return (differ & ~tie).mean(), tie.sum()


def check_file(folder, described):
    path = str(folder / described["file"])
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    ports = list(zip(model.graph.output, described["outputs"]))
    assert len(ports) == len(described["outputs"]) == len(model.graph.output)
    for found, port in ports:
        shape = [dim.dim_value or dim.dim_param for dim in found.type.tensor_type.shape.dim]
        assert found.name == port["name"] and shape == port["shape"], f"{path}: {found.name} {shape}"
    form = json.loads({entry.key: entry.value for entry in model.metadata_props}["protoseg.form"])
    assert form == described["form"], path
    frame = form["frame"]
    images = scene(frame["height"], frame["width"]) if frame else scene(97, 128)
    line = f"{described['file']}: {len(model.graph.node)} nodes"
    if form["precision"] == "fp32":
        share, ties = labels_differ(path, images, by_openvino(path, images))
        line += f", labels differ from OpenVINO's in {100 * share:.4f} % ({ties} ties)"
        assert share <= 1 - AGREEMENT, line
    else:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for output, found in zip(session.get_outputs(), session.run(None, {"image": images})):
            assert numpy.isfinite(found).all(), f"{path}: {output.name}"
    print(line)


def check_taps(folder):
    """Checks the files, not in the manifest, that output the value of every node."""
    for path in map(str, sorted(folder.glob("taps*.onnx"))):
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = session.run(None, {"image": scene(97, 128)})
        assert len(found) > 100 and all(numpy.isfinite(value).all() for value in found), path


def check_external(folder, described):
    """Checks external weights against their digest in the manifest."""
    data = folder / (described["file"] + ".data")
    digest = described.get("data_sha256")
    assert data.exists() == (digest is not None), data
    if digest is not None:
        assert hashlib.sha256(data.read_bytes()).hexdigest() == digest
        assert (folder / described["file"]).stat().st_size < data.stat().st_size


def check_triton(folder, manifest):
    [place] = (folder / "triton").iterdir()
    config = text_format.Parse((place / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.name == place.name and config.max_batch_size > 1 and config.HasField("dynamic_batching")
    served = next(file for file in manifest["files"] if file["form"]["kind"] == "frame")
    assert (place / "1" / "model.onnx").read_bytes() == (folder / served["file"]).read_bytes()
    for ports, described in [(config.input, served["inputs"]), (config.output, served["outputs"])]:
        assert [port.name for port in ports] == [port["name"] for port in described]
        assert [list(port.dims) for port in ports] == [port["shape"][1:] for port in described]
    assert [warm.batch_size for warm in config.model_warmup] == [1]
    names = [entry["name"] for entry in manifest["model"]["classes"]]
    assert (place / "labels.txt").read_text().splitlines() == names


PRESETS = ["deeplabv3plus-resnet101", "deeplabv3plus-resnet50", *(f"deeplabv3plus-efficientnet-lite{n}" for n in range(3))]


@pytest.mark.common
@pytest.mark.parametrize("preset", PRESETS)
def test_every_file_of_a_bundle(external_fixtures, preset):
    folder = external_fixtures("bundle", preset) / preset
    manifest = json.loads((folder / "manifest.json").read_text())
    for described in manifest["files"]:
        check_external(folder, described)
        check_file(folder, described)
    check_taps(folder)
    check_triton(folder, manifest)


def test_files_that_were_named(request):
    for path in request.config.getoption("--onnx"):
        onnx.checker.check_model(str(path), full_check=True)
