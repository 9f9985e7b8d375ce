"""Interleaved comparison of model files in ONNX Runtime: `precisions.py ROUNDS FILE FILE…`.

Runs each file once per round on one thread with an image of 512x512, so that other load affects all files. Prints median
times, and the time of the first file relative to each.
"""

import sys
import time

import numpy
import onnxruntime

SIDE = 512


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    rounds, paths = int(sys.argv[1]), sys.argv[2:]
    sessions = [open_session(path) for path in paths]
    images = numpy.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=numpy.uint8)
    seconds = numpy.zeros((rounds + 1, len(paths)))
    for row in seconds:
        for place, session in enumerate(sessions):
            start = time.process_time()
            session.run(["logits"], {"image": images})
            row[place] = time.process_time() - start
    # The first run allocates.
    seconds = seconds[1:]
    for path, column in zip(paths, seconds.T):
        ratios = seconds[:, 0] / column
        low, middle, high = numpy.quantile(ratios, [0.0, 0.5, 1.0])
        milliseconds = 1e3 * numpy.median(column)
        print(f"{path}: {milliseconds:.1f} ms of processor time, ratio {middle:.2f} ({low:.2f} to {high:.2f})")


main()
