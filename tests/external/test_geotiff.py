"""GDAL writes TIFFs of many kinds: protoseg labels each like the plain one, and GDAL finds the label maps at the image's place."""

import subprocess

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

IGNORE = 255
PLACE = {"crs": "EPSG:32632", "transform": from_origin(500000, 5400000, 0.5, 0.25), "nodata": 0}
# Creation options of GDAL, and the bands beside the colors.
KINDS = {
    "plain": ({}, 0),
    "lzw": ({"compress": "lzw", "predictor": 2}, 0),
    "tiles": ({"compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 48}, 0),
    "big": ({"bigtiff": "yes", "tiled": True, "blockxsize": 64, "blockysize": 64}, 0),
    "planes": ({"interleave": "band", "compress": "deflate"}, 0),
    "packbits": ({"compress": "packbits"}, 0),
    "zstd": ({"compress": "zstd", "predictor": 2}, 0),
    "webp": ({"compress": "webp", "webp_lossless": True}, 0),
    "jpeg": ({"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 95}, 0),
    "alpha": ({"alpha": "yes", "compress": "lzw", "predictor": 2}, 1),
    "bands": ({"alpha": "no", "compress": "deflate", "predictor": 2, "photometric": "rgb"}, 2),
    "sparse": ({"sparse_ok": True, "tiled": True, "blockxsize": 16, "blockysize": 16}, 0),
}


@pytest.fixture(scope="module")
def scene():
    """Stripes in red, green and blue within an edge of 32 pixels without data: `[3, height, width]`."""
    pixels = np.zeros((3, 160, 224), np.uint8)
    for column in range(32, 192):
        pixels[:, 32:-32, column] = 20
        pixels[column // 16 % 3, 32:-32, column] = 220
    return pixels


@pytest.fixture(scope="module")
def labels(scene):
    return np.where(scene.any(0), scene.argmax(0), IGNORE)


def write(path, scene, options, further):
    band = np.full((further, *scene.shape[1:]), 77, np.uint8)
    pixels = np.concatenate([scene, band])
    count, height, width = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype="uint8", **PLACE, **options) as out:
        out.write(pixels)


def label(protoseg, bundle, folder, *options):
    command = [protoseg, "label", bundle, folder / "in", "--out", folder / "out", "--format", "geotiff,ids", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_gdal_writes_is_labeled_at_its_place(kind, protoseg, colors, scene, labels, tmp_path):
    (tmp_path / "in").mkdir()
    options, further = KINDS[kind]
    write(tmp_path / "in/scene.tif", scene, options, further)
    label(protoseg, colors, tmp_path)
    with rasterio.open(tmp_path / "out/geotiff/scene.tif") as found:
        assert (found.crs, found.transform, found.nodata) == (PLACE["crs"], PLACE["transform"], IGNORE)
        ids = found.read(1)
    if kind == "jpeg":
        assert (ids == labels)[40:-40, 40:-40].mean() > 0.95
    else:
        assert (ids == labels).all()
    with rasterio.open(tmp_path / "out/ids/scene.png") as png:
        assert (png.read(1) == ids).all()


def test_overviews_are_not_taken_for_the_image(protoseg, colors, scene, labels, tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/scene.tif", scene, {}, 0)
    with rasterio.open(tmp_path / "in/scene.tif", "r+") as file:
        file.build_overviews([2, 4])
    done = label(protoseg, colors, tmp_path)
    assert "pages" not in done.stderr, done.stderr
    with rasterio.open(tmp_path / "out/geotiff/scene.tif") as found:
        assert (found.read(1) == labels).all()


def test_reflectances_are_read_by_their_range(protoseg, colors, scene, labels, tmp_path):
    (tmp_path / "in").mkdir()
    deep = scene.astype(np.uint16) * 39
    options = {"driver": "GTiff", "count": 3, "height": 160, "width": 224, "dtype": "uint16"}
    with rasterio.open(tmp_path / "in/scene.tif", "w", **options, **PLACE) as out:
        out.write(deep)
    assert f"is {deep.max()} of 65535" in label(protoseg, colors, tmp_path).stderr
    done = label(protoseg, colors, tmp_path, "--range", f"0:{deep.max()}", "--resume")
    assert "of 65535" not in done.stderr
    with rasterio.open(tmp_path / "out/geotiff/scene.tif") as found:
        assert (found.read(1) == labels).all()
