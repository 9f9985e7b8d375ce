"""GDAL writes TIFFs of many kinds: protoseg labels each like the plain one, and GDAL finds the label maps at the image's place."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio
import rasterio.windows
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


def label(protoseg, bundle, folder, *options, out="out"):
    command = [protoseg, "label", bundle, folder / "in", "--out", folder / out, "--format", "geotiff,ids", *options]
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


# Windows that overlap, and memory for no image at once.
WINDOWS = ("--window", "64:48")
BY_ROWS = (*WINDOWS, "--image-memory", "20K")


def read(path):
    with rasterio.open(path) as file:
        return file.read(1), file.crs, file.transform, file.nodata


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_labeled_by_rows_as_in_memory(kind, protoseg, colors, scene, tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/scene.tif", scene, *KINDS[kind])
    whole = label(protoseg, colors, tmp_path, *WINDOWS)
    rows = label(protoseg, colors, tmp_path, *BY_ROWS, "--verbose", out="rows")
    assert "scene.tif: " in rows.stderr, "not by rows"
    warnings = [line for line in rows.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == whole.stderr.splitlines()
    for result in ("geotiff/scene.tif", "ids/scene.png"):
        expected, found = read(tmp_path / "out" / result), read(tmp_path / "rows" / result)
        assert (expected[0] == found[0]).all() and expected[1:] == found[1:], result


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 128, "blockysize": 64}, {"blockysize": 1}, {"blockysize": 700}])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_deep_bands_are_labeled_by_rows_as_in_memory(dtype, layout, interleave, protoseg, colors, tmp_path):
    (tmp_path / "in").mkdir()
    rows, columns = np.mgrid[:700, :900]
    pixels = np.stack([(rows * 7 + columns * 3 * band) % 997 + 40 for band in range(1, 6)]).astype(dtype)
    pixels[:, 300:420, 200:333] = -9999 if dtype == "float32" else 65535
    place = {**PLACE, "nodata": pixels[0, 310, 210]}
    with rasterio.open(
        tmp_path / "in/scene.tif", "w", driver="GTiff", count=5, height=700, width=900, dtype=dtype, interleave=interleave,
        compress="deflate", predictor=2 if dtype == "uint16" else 3, photometric="minisblack", **place, **layout
    ) as out:
        out.write(pixels)
    options = ("--range", "0:1100", "--channels", "5,3,1")
    label(protoseg, colors, tmp_path, *WINDOWS, *options)
    label(protoseg, colors, tmp_path, *BY_ROWS, *options, out="rows")
    expected, found = read(tmp_path / "out/geotiff/scene.tif"), read(tmp_path / "rows/geotiff/scene.tif")
    assert (expected[0] == found[0]).all() and expected[1:] == found[1:]
    assert (found[0][300:420, 200:333] == IGNORE).all() and (found[0] != IGNORE).mean() > 0.9


def test_a_large_tiled_file_takes_little_memory(protoseg, colors, tmp_path):
    """9000 x 9000 pixels, of which 243 MB are pixels alone, in less than 200 MB."""
    (tmp_path / "in").mkdir()
    side = 9000
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "bigtiff": "yes"}
    with rasterio.open(tmp_path / "in/scene.tif", "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", **PLACE, **options) as out:
        for top in range(0, side, 1000):
            rows, columns = np.mgrid[top : top + 1000, :side]
            own = (rows // 100 + columns // 70) % 3
            block = np.stack([np.where(own == band, 220, 20) for band in range(3)]).astype(np.uint8)
            out.write(block, window=rasterio.windows.Window(0, top, side, 1000))
    command = [protoseg, "label", colors, tmp_path / "in", "--out", tmp_path / "out", "--format", "geotiff", "--image-memory", "300M"]
    # A child's peak begins with its parent's memory, and here that of GDAL's cache.
    measure = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", measure, *command], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200_000, f"{done.stdout} KB"
    with rasterio.open(tmp_path / "out/geotiff/scene.tif") as found:
        assert found.transform == PLACE["transform"]
        for top in range(0, side, 1000):
            rows, columns = np.mgrid[top : top + 1000, :side]
            ids = found.read(1, window=rasterio.windows.Window(0, top, side, 1000))
            # The model sees 4x4 pixels at once, and stripes begin at multiples of 70.
            assert (ids == (rows // 100 + columns // 70) % 3).mean() > 0.97
