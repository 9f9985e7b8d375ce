"""`protoseg convert` gives the pixels that other programs see in their own formats."""

import base64
import io
import json
import subprocess
import zipfile

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


@pytest.mark.parametrize("form", ["polygon", "rectangle", "circle", "oriented_rectangle", "mask"])
def test_shapes_of_labelme(protoseg, images, tmp_path, form):
    # LabelMe draws with Pillow, whose outlines belong to the shape; ours follow pycocotools. All pixels but those on outlines are
    # the same, and all those of masks.
    import labelme

    draw = np.random.default_rng(11)
    shapes, outlines = [], np.zeros((HEIGHT, WIDTH), bool)
    for number in range(5):
        corner = draw.uniform([2, 2], [WIDTH - 30, HEIGHT - 25])
        size = draw.uniform([8, 8], [26, 22])
        label, mask = CLASSES[number % len(CLASSES)], None
        if form in ["polygon", "oriented_rectangle"]:
            ends = corner, corner + size * [1, 0.2], corner + size, corner + size * [0, 0.8]
            points = [end.tolist() for end in ends]
        elif form == "circle":
            points = [(corner + 8).tolist(), (corner + [8, 8 + draw.uniform(3, 7)]).tolist()]
        else:
            points = [corner.tolist(), (corner + size).tolist()]
        if form == "mask":
            (left, top), (right, bottom) = np.asarray(points).astype(int)
            pixels = draw.random((bottom + 1 - top, right + 1 - left)) < 0.5
            png = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(png, "PNG")
            mask = base64.b64encode(png.getvalue()).decode()
        shapes.append({"label": label, "points": points, "shape_type": form, "mask": mask})
    path = tmp_path / "a.json"
    labelme.LabelFile().save(str(path), shapes, "images/a.jpg", HEIGHT, WIDTH)
    values = {"_background_": 0} | {name: number for number, name in enumerate(CLASSES, 1)}
    loaded = labelme.LabelFile(str(path)).shapes
    expected, _ = labelme.utils.shapes_to_label((HEIGHT, WIDTH), loaded, values)
    found = convert(protoseg, path, images, tmp_path / "out", "--background", "_background_")
    if form != "mask":
        for shape in loaded:
            inside = labelme.utils.shape_to_mask((HEIGHT, WIDTH), shape["points"], form)
            near = np.pad(inside, 2)
            moved = [near[2 + y : 2 + y + HEIGHT, 2 + x : 2 + x + WIDTH] for y in (-1, 0, 1) for x in (-1, 0, 1)]
            outlines |= np.any(moved, 0) & ~np.all(moved, 0)
    classes = {int(line.split()[0]): line.split()[1] for line in (tmp_path / "out/classes.txt").read_text().splitlines()}
    found = np.vectorize(lambda id: values[classes[id]])(found)
    differ = (found != expected) & ~outlines
    assert not differ.any(), f"{differ.sum()} pixels differ"
    assert (found > 0).any() and outlines.mean() < 0.5


def written(protoseg, source, form, out):
    done = subprocess.run([protoseg, "convert", source, "--to", form, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def folder(images, tmp_path):
    """A data set of ours, with its ids and the names of its classes."""
    ids = np.random.default_rng(3).integers(0, 3, (6, 8)).repeat(9, 0).repeat(8, 1).astype(np.uint8)
    Image.new("RGB", ids.shape[::-1]).save(images / "a.jpg")
    (tmp_path / "labels").mkdir()
    Image.fromarray(ids).save(tmp_path / "labels/a.png")
    lines = [f"{number} {name}\n" for number, name in enumerate(CLASSES)]
    (tmp_path / "classes.txt").write_text("".join(lines))
    return tmp_path, ids


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_what_datumaro_reads_and_writes_again(protoseg, images, folder, form):
    # Ours to the other program, and from there back.
    import datumaro
    from datumaro.components.annotation import AnnotationType

    root, ids = folder
    if form == "coco":
        (root / "read/annotations").mkdir(parents=True)
        written(protoseg, root, "coco", root / "read/annotations/instances_all.json")
        (root / "read/images/all").mkdir(parents=True)
        (root / "read/images/all/a.jpg").write_bytes((images / "a.jpg").read_bytes())
    else:
        with zipfile.ZipFile(written(protoseg, root, "cvat", root / "cvat.zip")) as archive:
            archive.extractall(root / "read")
    dataset = datumaro.Dataset.import_from(str(root / "read"), {"coco": "coco", "cvat": "voc_segmentation"}[form])
    names = [label.name for label in dataset.categories()[AnnotationType.label].items]
    [item] = list(dataset)
    seen = np.full(ids.shape, 255, np.uint8)
    # Boxes of the masks come with them.
    for annotation in (annotation for annotation in item.annotations if annotation.type == AnnotationType.mask):
        seen[np.asarray(annotation.image).astype(bool)] = CLASSES.index(names[annotation.label])
    assert np.array_equal(seen, ids)
    again = {"coco": "coco", "cvat": "voc_segmentation"}[form]
    dataset.export(str(root / "again"), again, save_media=True)
    found = convert(protoseg, root / "again", images, root / "out", "--classes", root / "classes.txt")
    assert np.array_equal(found, ids), f"{np.sum(found != ids)} pixels differ"


@pytest.mark.common
def test_panoptic_masks_of_coco(protoseg, images, tmp_path):
    # The ids of segments as panopticapi's `id2rgb` writes them: it is on no package index.
    draw = np.random.default_rng(6)
    segments = draw.integers(0, 4, (HEIGHT, WIDTH))
    ids = np.array([0, 70_001, 513, 9])
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(colors[segments]).save(tmp_path / "panoptic/a.png")
    known = [{"id": int(id), "category_id": label + 1} for label, id in enumerate(ids[1:])]
    file = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": number, "name": name, "isthing": 0} for number, name in enumerate(CLASSES, 1)],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": known}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(file))
    found = convert(protoseg, tmp_path / "panoptic.json", images, tmp_path / "out")
    assert np.array_equal(found, np.where(segments == 0, 255, segments - 1))
