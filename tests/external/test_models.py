"""`protoseg import` takes the models of transformers, torchvision and segmentation_models_pytorch as PyTorch exports them, and labels photos as
these libraries do; networks that are no segmentors of pixels are refused with the reason and the way out.
"""

import subprocess

import numpy
import pytest
from PIL import Image

from conftest import DATA
from real_models import MODELS, build

# Scores nearer than this share of the largest are ties.
TIE = 1e-3
# The same where images are resized, as a share of the mean lead, and the share of other pixels that may still differ.
RESIZED_TIE, RESIZED_SHARE = 0.25, 2e-3


@pytest.fixture(scope="module")
def photos(synthetic):
    """Two images of unequal sizes, photos if there are any."""
    found = [next(iter(sorted(DATA.glob(pattern))), None) for pattern in ("camvid/val/*.png", "cityscapes-mini/leftImg8bit/train/aachen/*.png")]
    if None in found:
        found = sorted(synthetic(2, "360x960").iterdir())
    first, second = (numpy.asarray(Image.open(path).convert("RGB")) for path in found)
    return [first[:360, :480], second[-231:, -333:]]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_imported_and_labels_as_its_library_does(protoseg, tmp_path, photos, name):
    case = build(name, tmp_path / "theirs", photos[0])

    def run(*words):
        done = subprocess.run([protoseg, *words], cwd=tmp_path / "theirs", capture_output=True, text=True, timeout=300)
        return done, f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"

    given, said = run("import", "model.onnx", *case.options, "--out", "../bundle")
    if case.refused:
        assert given.returncode == 2 and all(word in given.stderr for word in case.refused), said
        assert not (tmp_path / "bundle").exists(), said
        return
    assert given.returncode == 0, said
    (tmp_path / "images").mkdir()
    for index, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"images/{index}.png")
    done, told = run("label", "../bundle", "../images", "--out", "../out")
    assert done.returncode == 0, said + told
    for index, photo in enumerate(photos):
        found = numpy.asarray(Image.open(tmp_path / f"out/ids/{index}.png"))
        labels, lead = case.labels(photo)
        assert found.shape == labels.shape, said + told
        assert len(numpy.unique(labels)) > 1, "the truth is one class alone, which shows nothing"
        if case.resized:
            wrong = (found != labels) & (lead > RESIZED_TIE * lead.mean())
            assert wrong.mean() <= RESIZED_SHARE, f"{said}{told}{wrong.mean():.5f} of image {index}"
        else:
            wrong = (found != labels) & (lead > TIE * max(1.0, lead.max()))
            assert not wrong.any(), f"{said}{told}{wrong.sum()} labels of image {index}"
