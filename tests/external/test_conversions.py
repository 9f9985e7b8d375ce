"""`protoseg convert` gives the pixels that other programs see in their own formats."""

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 61, 83
CLASSES = ["road", "car", "tree"]


def convert(protoseg, source, images, out, *more):
    command = [protoseg, "convert", source, "--images", images, "--out", out, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(out / "labels/a.png") as labels:
        return np.array(labels)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.jpg")
    return folder


def polygons(seed):
    """Random polygons, some beyond the image, with their classes."""
    draw = np.random.default_rng(seed)
    for _ in range(6):
        points = draw.uniform([-9, -9], [WIDTH + 9, HEIGHT + 9], (draw.integers(3, 9), 2))
        yield int(draw.integers(len(CLASSES))), np.round(points, 2) if seed % 2 else np.floor(points)


@pytest.mark.common
@pytest.mark.parametrize("seed", range(8))
def test_polygons_and_run_lengths_of_coco(protoseg, images, tmp_path, seed):
    from pycocotools import mask as rle

    annotations, expected = [], np.full((HEIGHT, WIDTH), 255, np.uint8)
    for number, (label, points) in enumerate(polygons(seed), 1):
        segmentation = [points.ravel().tolist()]
        mask = rle.decode(rle.merge(rle.frPyObjects(segmentation, HEIGHT, WIDTH)))
        if number % 3 == 0:
            letters = rle.encode(np.asfortranarray(mask))
            segmentation = {"size": letters["size"], "counts": letters["counts"].decode()}
        expected[mask == 1] = label
        annotations.append({"id": number, "image_id": 3, "category_id": label + 1, "segmentation": segmentation})
    file = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
        "annotations": annotations,
    }
    (tmp_path / "coco.json").write_text(json.dumps(file))
    found = convert(protoseg, tmp_path / "coco.json", images, tmp_path / "out")
    assert np.array_equal(found, expected), f"{np.sum(found != expected)} pixels differ"


@pytest.mark.parametrize("form", ["cvat", "coco", "coco_panoptic", "voc"])
def test_what_datumaro_writes(protoseg, images, tmp_path, form):
    import datumaro
    from datumaro.components.annotation import AnnotationType, LabelCategories, Mask

    draw = np.random.default_rng(5)
    names = ["background", *CLASSES] if form == "voc" else CLASSES
    labels = draw.integers(0, len(names), (6, 8)).repeat(9, 0).repeat(8, 1).astype(np.uint8)
    masks = [Mask(labels == label, label=label, id=label + 1, group=label + 1) for label in range(len(names))]
    height, width = labels.shape
    Image.new("RGB", (width, height)).save(images / "a.jpg")
    media = datumaro.components.media.Image.from_file(path=str(images / "a.jpg"))
    item = datumaro.DatasetItem(id="a", subset="train", media=media, annotations=masks)
    categories = {AnnotationType.label: LabelCategories.from_iterable(names)}
    if form == "voc":
        colors = {index: (40 * index, 9 * index, 7 * index) for index in range(len(names))}
        categories[AnnotationType.mask] = datumaro.components.annotation.MaskCategories(colors)
    dataset = datumaro.Dataset.from_iterable([item], categories=categories)
    dataset.export(str(tmp_path / "written"), {"voc": "voc_segmentation"}.get(form, form), save_media=form != "cvat")
    source = tmp_path / "written"
    if form == "cvat":
        source = next(source.rglob("*.xml"))
    found = convert(protoseg, source, images, tmp_path / "out")
    assert np.array_equal(found, labels), f"{np.sum(found != labels)} pixels differ"


def test_brushes_of_label_studio(protoseg, images, tmp_path):
    from label_studio_sdk.converter import brush

    mask = (np.random.default_rng(2).random((HEIGHT, WIDTH)) < 0.4).astype(np.uint8)
    region = {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "type": "brushlabels",
        "value": {"format": "rle", "rle": brush.mask2rle(mask * 255), "brushlabels": ["car"]},
    }
    task = {"data": {"image": "/data/upload/1/01234567-a.jpg"}, "annotations": [{"result": [region]}]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    found = convert(protoseg, tmp_path / "tasks.json", images, tmp_path / "out", "--background", "ground")
    assert np.array_equal(found, mask)
