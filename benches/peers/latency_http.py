"""Interleaved comparison of `protoseg bench --url` with other load generators.

`latency_http.py PROTOSEG BUNDLE IMAGES [ROUNDS [QUERIES]]`, where IMAGES is a folder with one PNG file. Closed loop:
`protoseg serve` under our clients and under those of `hey` (a package of Debian). Open loop: a simulated server with one
queue and a constant service time, so that the Lindley recurrence gives the expected latency of every request; the other
generator, on aiohttp, sends at the moments that our report lists, since two samples of a Poisson process differ by more
than the tolerance. The result is the median of the ratios of the rounds.
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

from interleaved import bench, compared, judge, library

TOLERANCE = 0.05
CLIENTS = 4
ARRIVALS = 120
# Service time of the simulated server in seconds, and arrivals per second: a utilization of 0.6.
SERVICE, RATE = 0.05, 12


def request_of(image):
    head = {
        "inputs": [
            {
                "name": "image",
                "shape": [1, *image.shape],
                "datatype": "UINT8",
                "parameters": {"binary_data_size": image.size},
            }
        ],
        "outputs": [{"name": "labels", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    return text + image.tobytes(), len(text)


def serve(program, bundle):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [program, "serve", f"model={bundle}", "--http", address, "--grpc", "off", "--log-level", "warn"]
    words += ["--window", "whole", "--queue-megapixels", "512", "--deadline", "600"]
    return subprocess.Popen(words, env={**os.environ, "ORT_DYLIB_PATH": library()}), address


class SimulatedServer:
    """A server of the Open Inference Protocol with one queue and a constant service time."""

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
        """Starts serving on a thread and returns the address."""
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/v2/repository/index", self.index)
        application.router.add_get("/v2/models/model", self.describe)
        application.router.add_post("/v2/models/model/infer", self.infer)
        listening = socket.create_server(("127.0.0.1", 0))
        keeps = {"handle_signals": False, "print": None}
        threading.Thread(target=lambda: web.run_app(application, sock=listening, **keeps), daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"


def queued(due_ms):
    """Returns the latencies of the simulated server in milliseconds, by the Lindley recurrence."""
    free, taken = 0.0, []
    for due in due_ms:
        free = max(free, due) + 1e3 * SERVICE
        taken.append(free - due)
    return taken


async def wait_for(address):
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            try:
                async with session.get(f"http://{address}/v2/health/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the server is not ready after 60 s")


def hey(address, body, header, queries):
    """Runs hey; returns latencies in milliseconds and responses per second of closed-loop clients."""
    command = ["hey", "-n", str(queries), "-c", str(CLIENTS), "-t", "0", "-o", "csv", "-m", "POST", "-D", str(body)]
    command += ["-H", f"Inference-Header-Content-Length: {header}", "-T", "application/octet-stream"]
    text = subprocess.run([*command, f"http://{address}/v2/models/model/infer"], stdout=subprocess.PIPE, check=True).stdout
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    if len(rows) != queries or any(row["status-code"] != "200" for row in rows):
        raise SystemExit(f"hey got {len(rows)} responses of {queries}; statuses {set(row['status-code'] for row in rows)}")
    taken = [float(row["response-time"]) for row in rows]
    ended = max(float(row["offset"]) + float(row["response-time"]) for row in rows)
    return [1e3 * each for each in taken], queries / ended


async def arrivals(address, body, header, due_ms):
    """Sends requests at the given moments; returns latencies in milliseconds, counted from when each was due."""
    taken = [0.0] * len(due_ms)
    headers = {"Inference-Header-Content-Length": str(header), "Content-Type": "application/octet-stream"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send(number):
            due = start + due_ms[number] / 1e3
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            async with session.post(f"http://{address}/v2/models/model/infer", data=body, headers=headers) as response:
                await response.read()
                if response.status != 200:
                    raise SystemExit(f"a request failed with status {response.status}")
            taken[number] = 1e3 * (time.perf_counter() - due)

        start = time.perf_counter() + 0.05
        await asyncio.gather(*map(send, range(len(due_ms))))
    return taken


def main():
    program, bundle, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    rounds, queries = ([int(word) for word in sys.argv[4:6]] + [12, 40][len(sys.argv[4:6]) :])
    body, header = request_of(numpy.asarray(Image.open(next(folder.glob("*.png"))).convert("RGB")))
    path = folder / "request.bin"
    path.write_bytes(body)
    server, address = serve(program, bundle)
    words = ("--url", f"http://{address}", "--images", folder / "*.png", "--warm-up", CLIENTS, "--queries", queries)
    names = ("mean ms of clients", "median ms of clients", "responses/s of clients", "mean ms of arrivals", "median ms of arrivals")
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
        address = SimulatedServer(len(body[header:]) // 3).start()
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
