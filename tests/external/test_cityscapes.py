"""A score of `protoseg eval --json` equals the official evaluation of Cityscapes, class by class.

Scores of `cityscapes-mini` in the data folder: all images, and one, so that classes are absent.
"""

import json
import math
import subprocess
from importlib.metadata import version

import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

from conftest import DATA

SET = DATA / "cityscapes-mini"

# Both divide the same integers; ours are in percent.
ROUNDING = 1e-9


def equal(theirs, ours):
    """A class that is neither in the ground truth nor predicted has no score: NaN there, null here."""
    if ours is None:
        return math.isnan(theirs)
    return math.isclose(theirs, ours / 100, rel_tol=0, abs_tol=ROUNDING)


@pytest.fixture(scope="module")
def bundle(request, external_fixtures):
    """The named one, or an untrained one: its classes are those of Cityscapes, its labels any."""
    preset = "deeplabv3plus-efficientnet-lite0"
    return request.config.getoption("--bundle") or external_fixtures("bundle", preset) / preset


@pytest.fixture(scope="module")
def label_ids(protoseg, bundle, tmp_path_factory):
    assert SET.is_dir(), f"there is no {SET}; name the folder that holds cityscapes-mini/ by PROTOSEG_DATA"
    out = tmp_path_factory.mktemp("labels")
    images = SET / "leftImg8bit/train"
    subprocess.run([protoseg, "label", bundle, images, "--out", out, "--format", "labelids"], check=True)
    return out / "labelids"


@pytest.mark.parametrize("limit", [500, 1])
def test_scores_equal_the_official_evaluation(protoseg, bundle, label_ids, limit):
    data = ["--data", "cityscapes", "--root", SET, "--split", "train", "--limit", str(limit), "--json"]
    evaluated = subprocess.run([protoseg, "eval", bundle, *data], check=True, stdout=subprocess.PIPE)
    score = json.loads(evaluated.stdout)
    files = sorted(str(file) for file in (SET / "gtFine/train").glob("*/*_gtFine_labelIds.png"))[: score["images"]]
    assert len(files) == score["images"], f"{len(files)} files of {score['images']}"
    args = official.args
    args.predictionPath = str(label_ids)
    # Instance scores need files that the sample of the dataset lacks.
    args.evalInstLevelScore = False
    args.JSONOutput = False
    args.quiet = True
    predictions = [official.getPrediction(args, file) for file in files]
    found = official.evaluateImgLists(predictions, files, args)
    ours = {one["name"]: one["iou"] for one in score["scores"]["classes"]}
    theirs = {name: iou for name, iou in found["classScores"].items() if name in ours}
    # The official mean is over all classes that it scores.
    scored = {name for name, iou in found["classScores"].items() if not math.isnan(iou)}
    assert scored <= set(ours), scored - set(ours)
    print(f"{'class':16} {'official':>8} {'protoseg':>8}")
    for name, iou in [*theirs.items(), ("mean", found["averageScoreClasses"])]:
        own = score["scores"]["mean_iou"] if name == "mean" else ours[name]
        print(f"{name:16} {iou:8.4f} {math.nan if own is None else own / 100:8.4f}")
        assert equal(iou, own), f"{name}: {iou} is not {own} percent"
    assert set(theirs) == set(ours), set(theirs) ^ set(ours)
    absent = len(ours) - len(scored)
    print(f"cityscapesscripts {version('cityscapesscripts')}: equal for {len(files)} images, {absent} classes absent")

