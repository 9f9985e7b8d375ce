"""Asks servers by others' load generators and by `protoseg bench --url`, in turns, and holds them against each other.

`latency_http.py PROTOSEG BUNDLE PICTURES [ROUNDS [QUERIES]]`: a folder with one PNG file. Clients that wait for their answers
ask `protoseg serve`; the others are `hey` (Debian's package). Pictures that come by themselves go to a server that takes a
fixed time for each, one after the other, so that the recurrence of its queue says what each has to wait, and a full machine
moves it little; the other generator is of aiohttp and sends at the very moments that our report names, as two draws of random
arrivals differ by more than what is to be seen. What counts is the median of the rounds' ratios.
"""

import asyncio
import csv
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import aiohttp
import numpy
from aiohttp import web
from PIL import Image

from turns import bench, compared, judge, library

TOLERANCE = 0.05
CLIENTS = 4
ARRIVALS = 120
# Seconds that the simulated server takes for a picture, and pictures that come in a second: it is busy for 0.6 of the time.
SERVICE, RATE = 0.05, 12


def request_of(picture):
    head = {
        "inputs": [
            {
                "name": "image",
                "shape": [1, *picture.shape],
                "datatype": "UINT8",
                "parameters": {"binary_data_size": picture.size},
            }
        ],
        "outputs": [{"name": "labels", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    return text + picture.tobytes(), len(text)


def serve(program, bundle):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [program, "serve", f"model={bundle}", "--http", address, "--grpc", "off", "--log-level", "warn"]
    words += ["--window", "whole", "--queue-megapixels", "512", "--deadline", "600"]
    return subprocess.Popen(words, env={**os.environ, "ORT_DYLIB_PATH": library()}), address


class Metronome:
    """A server of the Open Inference Protocol that answers pictures one after the other, each after a fixed time."""

    def __init__(self, pixels):
        self.free = 0.0
        tensor = {"name": "labels", "datatype": "UINT8", "parameters": {"binary_data_size": pixels}}
        self.head = json.dumps({"outputs": [tensor]}).encode()
        self.labels = bytes(pixels)
        shape = {"datatype": "UINT8", "shape": [-1, -1, -1, 3]}
        self.metadata = {"name": "model", "versions": ["1"], "inputs": [{"name": "image", **shape}]}
        self.metadata["outputs"] = [{"name": "labels", "datatype": "UINT8", "shape": [-1, -1, -1]}]

    async def index(self, _):
        return web.json_response([{"name": "model", "state": "READY"}])

    async def describe(self, _):
        return web.json_response(self.metadata)

    async def infer(self, request):
        loop = asyncio.get_running_loop()
        self.free = done = max(loop.time(), self.free) + SERVICE
        await request.read()
        await asyncio.sleep(done - loop.time())
        headers = {"Inference-Header-Content-Length": str(len(self.head))}
        return web.Response(body=self.head + self.labels, headers=headers)

    def start(self):
        """Serves on a thread; returns the address."""
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/v2/repository/index", self.index)
        application.router.add_get("/v2/models/model", self.describe)
        application.router.add_post("/v2/models/model/infer", self.infer)
        listening = socket.create_server(("127.0.0.1", 0))
        keeps = {"handle_signals": False, "print": None}
        threading.Thread(target=lambda: web.run_app(application, sock=listening, **keeps), daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"


def queued(due_ms):
    """What the metronome makes of arrivals, by the recurrence of its queue."""
    free, taken = 0.0, []
    for due in due_ms:
        free = max(free, due) + 1e3 * SERVICE
        taken.append(free - due)
    return taken


async def wait_for(address):
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            try:
                async with session.get(f"http://{address}/v2/health/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the server does not become ready")


def hey(address, body, header, queries):
    """Latencies in milliseconds and answers in a second of clients that wait."""
    command = ["hey", "-n", str(queries), "-c", str(CLIENTS), "-t", "0", "-o", "csv", "-m", "POST", "-D", str(body)]
    command += ["-H", f"Inference-Header-Content-Length: {header}", "-T", "application/octet-stream"]
    text = subprocess.run([*command, f"http://{address}/v2/models/model/infer"], stdout=subprocess.PIPE, check=True).stdout
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    if len(rows) != queries or any(row["status-code"] != "200" for row in rows):
        raise SystemExit(f"hey had {len(rows)} answers: {set(row['status-code'] for row in rows)}")
    taken = [float(row["response-time"]) for row in rows]
    ended = max(float(row["offset"]) + float(row["response-time"]) for row in rows)
    return [1e3 * each for each in taken], queries / ended


async def arrivals(address, body, header, due_ms):
    """Latencies in milliseconds of pictures that come at these moments, from when each was due."""
    taken = [0.0] * len(due_ms)
    headers = {"Inference-Header-Content-Length": str(header), "Content-Type": "application/octet-stream"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(number):
            due = start + due_ms[number] / 1e3
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            async with session.post(f"http://{address}/v2/models/model/infer", data=body, headers=headers) as answer:
                await answer.read()
                if answer.status != 200:
                    raise SystemExit(f"status {answer.status}")
            taken[number] = 1e3 * (time.perf_counter() - due)

        start = time.perf_counter() + 0.05
        await asyncio.gather(*map(ask, range(len(due_ms))))
    return taken


def main():
    program, bundle, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    rounds, queries = ([int(word) for word in sys.argv[4:6]] + [12, 40][len(sys.argv[4:6]) :])
    body, header = request_of(numpy.asarray(Image.open(next(folder.glob("*.png"))).convert("RGB")))
    path = folder / "request.bin"
    path.write_bytes(body)
    server, address = serve(program, bundle)
    words = ("--url", f"http://{address}", "--pictures", folder / "*.png", "--warm-up", CLIENTS, "--queries", queries)
    names = ("mean ms of clients", "median ms of clients", "answers/s of clients", "mean ms of arrivals", "median ms of arrivals")
    ours, theirs = ({name: [] for name in names} for _ in range(2))
    try:
        asyncio.run(wait_for(address))
        hey(address, path, header, 2 * CLIENTS)
        for number in range(rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                if side == 0:
                    point = bench(program, *words, "--scenario", "clients", "--clients", CLIENTS)
                    taken, rate, to = point["samples"]["latency_ms"], point["images_per_second"], ours
                else:
                    (taken, rate), to = hey(address, path, header, queries), theirs
                for name, figure in zip(names, (statistics.mean(taken), statistics.median(taken), rate)):
                    to[name].append(figure)
        address = Metronome(len(body[header:]) // 3).start()
        words = ("--url", f"http://{address}", *words[2:-1], ARRIVALS, "--scenario", "server", "--rate", RATE)
        due_ms = bench(program, *words)["samples"]["due_ms"]
        expected = [statistics.mean(queued(due_ms)), statistics.median(queued(due_ms))]
        for number in range(rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                if side == 0:
                    taken, to = bench(program, *words)["samples"]["latency_ms"], ours
                else:
                    taken, to = asyncio.run(arrivals(address, body, header, due_ms)), theirs
                for name, figure in zip(names[3:], (statistics.mean(taken), statistics.median(taken))):
                    to[name].append(figure)
        print(f"{rounds} rounds: {CLIENTS} clients, {queries} queries; {ARRIVALS} arrivals at {RATE}/s, {1e3 * SERVICE:.0f} ms each")
        print(f"{'':44} {'protoseg':>9} {'other':>9}   ratio, median of rounds (range)")
        ratios = {name: compared(name, ours[name], theirs[name]) for name in names}
        for name, figure in zip(names[3:], expected):
            ratios[f"{name}, queue"] = compared(f"{name}, by the queue", ours[name], [figure] * rounds)
        judge(ratios, TOLERANCE)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    main()
