"""Serves a bundle with FastAPI, Pillow, NumPy and ONNX Runtime on two threads.

`serve_fastapi.py BUNDLE PORT`: `POST /segment` takes an image file and returns its labels as PNG. Two requests are
processed at a time, so that one is decoded while the other runs; more would compete for two cores.
"""

import io
import sys
import threading
from pathlib import Path

import numpy
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from label_folder import label, open_session

model, session = open_session(Path(sys.argv[1]), 2)
permits = threading.Semaphore(2)
app = FastAPI()


def segment(body):
    with permits:
        image = numpy.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
        out = io.BytesIO()
        Image.fromarray(label(image, model, session)).save(out, "PNG", compress_level=1)
        return out.getvalue()


@app.post("/segment")
async def respond(request: Request):
    return Response(await run_in_threadpool(segment, await request.body()), media_type="image/png")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
