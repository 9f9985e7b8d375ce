"""Serves a bundle as a careful script would: FastAPI, Pillow, NumPy and ONNX Runtime with two threads.

`serve_fastapi.py BUNDLE PORT`: `POST /segment` takes a picture file and gives its labels as PNG. Two requests are worked on
at a time, so that one is decoded while another runs; more would only take cores from each other.
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
room = threading.Semaphore(2)
app = FastAPI()


def segment(body):
    with room:
        picture = numpy.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
        out = io.BytesIO()
        Image.fromarray(label(picture, model, session)).save(out, "PNG", compress_level=1)
        return out.getvalue()


@app.post("/segment")
async def answer(request: Request):
    return Response(await run_in_threadpool(segment, await request.body()), media_type="image/png")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
