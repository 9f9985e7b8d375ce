"""Files for all images hold the label maps that they were made from, as the readers of each format see them.

The example `external_fixtures` writes ids/ and confidence/, one PNG an image, names.txt, the images in order of their paths,
classes.txt, one `name red green blue` a line, and the files to read.
"""

import json
import math
import zipfile
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

IGNORE = 255


@pytest.fixture(scope="module")
def folder(external_fixtures):
    return external_fixtures("annotations")


def read_classes(folder):
    lines = (folder / "classes.txt").read_text().splitlines()
    return [(line.rsplit(maxsplit=3)[0], tuple(map(int, line.split()[-3:]))) for line in lines]


def read_names(folder):
    return (folder / "names.txt").read_text().splitlines()


def gray(folder, kind, name):
    with Image.open((folder / kind / name).with_suffix(".png")) as image:
        assert image.mode == "L", image.mode
        return np.array(image)


def same_score(found, confidence):
    """Scores are given to four digits."""
    assert math.isclose(found, confidence.mean(dtype=np.float64) / 255, abs_tol=0.5e-4 + 1e-9), found


def check_present(found, ids):
    """Each class that the map holds was found, once."""
    assert sorted(found) == sorted(set(np.unique(ids)) - {IGNORE}), found


@pytest.mark.common
def test_pycocotools(folder):
    from pycocotools import mask
    from pycocotools.coco import COCO

    coco = COCO(str(folder / "coco.json"))
    classes = read_classes(folder)
    categories = [(coco.cats[id]["name"], tuple(coco.cats[id]["color"])) for id in range(1, len(classes) + 1)]
    assert categories == classes and len(coco.cats) == len(classes)
    names = read_names(folder)
    assert [coco.imgs[id]["file_name"] for id in sorted(coco.imgs)] == names
    masks = 0
    for image in coco.imgs.values():
        ids = gray(folder, "ids", image["file_name"])
        confidence = gray(folder, "confidence", image["file_name"])
        assert (image["height"], image["width"]) == ids.shape
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        check_present([annotation["category_id"] - 1 for annotation in annotations], ids)
        for annotation in annotations:
            expected = ids == annotation["category_id"] - 1
            assert np.array_equal(coco.annToMask(annotation), expected)
            letters = mask.encode(np.asfortranarray(expected, dtype=np.uint8))["counts"]
            assert annotation["segmentation"]["counts"] == letters.decode()
            assert annotation["area"] == expected.sum() == mask.area(annotation["segmentation"])
            assert annotation["bbox"] == mask.toBbox(annotation["segmentation"]).tolist()
            same_score(annotation["score"], confidence[expected])
            masks += 1
    results = coco.loadRes([dict(annotation) for annotation in coco.anns.values()])
    assert len(results.anns) == masks == len(coco.anns)
    assert masks > 0


def test_datumaro(folder, tmp_path):
    # What CVAT's importer of "Segmentation mask 1.1" does: unpacks, asks whether the folder is `voc`, and imports that. CVAT
    # keeps datumaro as it was at 0.3; later ones call a folder that holds masks only `voc_segmentation`.
    from datumaro.components.dataset import Dataset
    from datumaro.components.environment import Environment
    from datumaro.components.annotation import AnnotationType

    unpacked = str(tmp_path)
    with zipfile.ZipFile(folder / "cvat.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(unpacked)
    form = "voc" if version("datumaro").startswith("0.3") else "voc_segmentation"
    assert form in Environment().detect_dataset(unpacked)
    dataset = Dataset.import_from(unpacked, form)
    labels = [label.name for label in dataset.categories()[AnnotationType.label].items]
    classes = read_classes(folder)
    assert labels == ["background", *(name for name, _ in classes)], labels
    names = read_names(folder)
    items = {item.id: item for item in dataset}
    assert sorted(items) == sorted(name.rsplit(".", 1)[0] for name in names)
    masks = 0
    for name in names:
        ids = gray(folder, "ids", name)
        # The background is class 0 there; pixels without a class have no annotation.
        expected = np.where(ids == IGNORE, 0, ids.astype(int) + 1)
        annotations = items[name.rsplit(".", 1)[0]].annotations
        assert {annotation.label for annotation in annotations} == set(np.unique(expected)) - {0}
        # Each annotation is a piece of a class, and together they are the map.
        found = np.zeros_like(expected)
        for annotation in annotations:
            assert annotation.type == AnnotationType.mask
            piece = np.asarray(annotation.image).astype(bool)
            assert piece.any() and not found[piece].any()
            found[piece] = annotation.label
            masks += 1
        assert np.array_equal(found, expected)
    assert masks > 0


def test_label_studio(folder):
    from label_studio_sdk.converter.brush import decode_rle, mask2rle
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((folder / "labelstudio.xml").read_text())
    interface.validate()
    classes = [name for name, _ in read_classes(folder)]
    assert list(interface.get_control("tag").labels) == classes
    tasks = json.loads((folder / "labelstudio.json").read_text())
    names = read_names(folder)
    assert len(tasks) == len(names)
    masks = 0
    for name, task in zip(names, tasks):
        assert task["data"]["image"] == "/data/local-files/?d=" + name.replace(" ", "%20"), task["data"]
        [prediction] = task["predictions"]
        errors = interface.validate_prediction(prediction, return_errors=True)
        assert not errors, errors
        ids = gray(folder, "ids", name)
        confidence = gray(folder, "confidence", name)
        regions = prediction["result"]
        assert len({region["id"] for region in regions}) == len(regions)
        found = [classes.index(region["value"]["brushlabels"][0]) for region in regions]
        check_present(found, ids)
        for label, region in zip(found, regions):
            assert (region["original_height"], region["original_width"]) == ids.shape
            expected = np.where(ids == label, 255, 0).astype(np.uint8)
            pixels = decode_rle(region["value"]["rle"]).reshape(*ids.shape, 4)
            assert np.array_equal(pixels, np.repeat(expected[..., None], 4, axis=2))
            assert region["value"]["rle"] == mask2rle(expected)
            same_score(region["score"], confidence[ids == label])
            masks += 1
        if found:
            same_score(prediction["score"], confidence[ids != IGNORE])
    assert masks > 0
