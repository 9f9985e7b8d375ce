"""Holds a score of `protoseg eval --json` against the official evaluation of Cityscapes.

    cityscapes.py PACKAGES GROUND_TRUTH RESULTS SCORE.json

PACKAGES is the folder that cityscapesscripts is installed in. GROUND_TRUTH is a folder with `*_gtFine_labelIds.png` in folders
of cities, of which the first so many count as the score is of; below RESULTS the evaluation itself looks for predictions.
"""

import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

# Behind Python's own: what it needs brings a `typing` from the time before there was one.
sys.path.append(sys.argv[1])

from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

# Both divide the same whole numbers of pixels; ours are in percent.
ROUNDING = 1e-9


def equal(theirs, ours):
    """A class that is neither in the truth nor predicted where it counts has no score: NaN there, null here."""
    if ours is None:
        return math.isnan(theirs)
    return math.isclose(theirs, ours / 100, rel_tol=0, abs_tol=ROUNDING)


def main(truth, results, path):
    score = json.loads(Path(path).read_text())
    files = sorted(str(file) for file in Path(truth).glob("*/*_gtFine_labelIds.png"))[: score["images"]]
    assert len(files) == score["images"], f"{len(files)} files of {score['images']}"
    args = official.args
    args.predictionPath = results
    # Scores of instances need files that the sample of the data set lacks.
    args.evalInstLevelScore = False
    args.JSONOutput = False
    args.quiet = True
    predictions = [official.getPrediction(args, file) for file in files]
    found = official.evaluateImgLists(predictions, files, args)
    ours = {one["name"]: one["iou"] for one in score["scores"]["classes"]}
    theirs = {name: iou for name, iou in found["classScores"].items() if name in ours}
    # The official average is over all names that it scores.
    scored = {name for name, iou in found["classScores"].items() if not math.isnan(iou)}
    assert scored <= set(ours), scored - set(ours)
    print(f"{'class':16} {'official':>8} {'protoseg':>8}")
    for name, iou in [*theirs.items(), ("mean", found["averageScoreClasses"])]:
        own = score["scores"]["mean_iou"] if name == "mean" else ours[name]
        print(f"{name:16} {iou:8.4f} {math.nan if own is None else own / 100:8.4f}")
        assert equal(iou, own), f"{name}: {iou} is not {own} percent"
    assert set(theirs) == set(ours), set(theirs) ^ set(ours)
    absent = len(ours) - len(scored)
    print(f"cityscapesscripts {version('cityscapesscripts')}: equal for {len(files)} pictures, {absent} classes absent")


main(*sys.argv[2:])
