"""Compares a score of `protoseg eval --json` with the official evaluation of Cityscapes.

    test_cityscapes.py PACKAGES GROUND_TRUTH RESULTS SCORE.json

PACKAGES is the folder that cityscapesscripts is installed in. GROUND_TRUTH holds folders of cities
with `*_gtFine_labelIds.png`, of which the score covers the first; RESULTS holds the predictions.
"""

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

# Last in the path: one of its dependencies brings an old `typing`.
sys.path.append(sys.argv[1])

from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

# Both divide the same integers; ours are in percent.
ROUNDING = 1e-9


def equal(theirs, ours):
    """A class that is neither in the ground truth nor predicted has no score: NaN there, null here."""
    if ours is None:
        return math.isnan(theirs)
    return math.isclose(theirs, ours / 100, rel_tol=0, abs_tol=ROUNDING)


def main(truth, results, path):
    score = json.loads(Path(path).read_text())
    files = sorted(str(file) for file in Path(truth).glob("*/*_gtFine_labelIds.png"))[: score["images"]]
    assert len(files) == score["images"], f"{len(files)} files of {score['images']}"
    args = official.args
    args.predictionPath = results
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


main(*sys.argv[2:])
