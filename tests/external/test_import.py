"""`protoseg import` takes every model that ONNX Runtime runs, and labels as it does: random models of all kinds.

`PROTOSEG_IMPORT_MODELS` is their number, by default 300; `PROTOSEG_IMPORT_SEED` the first seed.
"""

import os
import subprocess

import numpy
import pytest
from PIL import Image

from import_models import Model

COUNT = int(os.environ.get("PROTOSEG_IMPORT_MODELS", "300"))
SEED = int(os.environ.get("PROTOSEG_IMPORT_SEED", "0"))

# Scores nearer than this share of the largest are ties: that is what another order of additions, or 16 bits, may change.
TIE = {False: 1e-4, True: 4e-3}


@pytest.mark.parametrize("seed", range(SEED, SEED + COUNT))
def test_a_model_is_imported_and_labels_as_onnx_runtime_does(protoseg, tmp_path, seed):
    model = Model(seed)
    (tmp_path / "theirs").mkdir()
    model.write(tmp_path / "theirs")

    def run(*words):
        done = subprocess.run([protoseg, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        return done, f"{model}\n{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"

    given, said = run("import", "theirs/model.onnx", "--classes", "theirs/classes.txt", *model.options(), "--out", "bundle")
    if model.fault:
        assert given.returncode == 2 and "theirs/model.onnx" in given.stderr, said
        assert not (tmp_path / "bundle").exists(), said
        return
    assert given.returncode == 0, said
    images = model.images()
    (tmp_path / "images").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"images/{index}.png")
    scored = model.scores not in ("labels", "mask")
    formats = ["--format", "ids,confidence"] if scored else []
    done, told = run("label", "bundle", "images", "--out", "out", "--batch", "2", *formats)
    if done.returncode == 2 and "--batch" in done.stderr:
        done, told = run("label", "bundle", "images", "--out", "out", *formats)
    assert done.returncode == 0, said + told
    for index, image in enumerate(images):
        truth = model.truth(tmp_path / "theirs", image)
        found = numpy.asarray(Image.open(tmp_path / f"out/ids/{index}.png"))
        if not scored:
            assert (found == truth).all(), f"{said}{told}{(found != truth).sum()} labels of image {index}"
            continue
        expected, gap, confidence = judged(model, truth)
        coarse = model.half_out or model.element == "float16"
        clear = gap > TIE[coarse] * max(1.0, numpy.abs(truth).max())
        wrong = (found != expected) & clear
        assert not wrong.any(), f"{said}{told}{wrong.sum()} labels of image {index}"
        steps = numpy.asarray(Image.open(tmp_path / f"out/confidence/{index}.png"))
        far = numpy.abs(steps - 255 * confidence) > (4 if coarse else 1)
        assert not (far & clear).any(), f"{said}{told}{(far & clear).sum()} confidences of image {index}"


def judged(model, scores):
    """Labels, the lead over the next class, and confidence of scores [C, H, W]."""
    if model.scores.startswith("one"):
        share = scores[0] if model.scores == "one sigmoid" else 1 / (1 + numpy.exp(-scores[0]))
        label = (share > 0.5).astype(int)
        lead = numpy.abs(scores[0] - (0.5 if model.scores == "one sigmoid" else 0.0))
        return label, lead, numpy.maximum(share, 1 - share)
    ordered = numpy.sort(scores, axis=0)
    lead = ordered[-1] - ordered[-2]
    if model.scores in ("softmax", "sigmoid"):
        return scores.argmax(0), lead, ordered[-1]
    share = numpy.exp(scores - ordered[-1])
    return scores.argmax(0), lead, 1 / share.sum(0)
