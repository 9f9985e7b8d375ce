"""Asks `protoseg serve` by others' load generators and by `protoseg bench --url`, in turns, and holds them against each other.

`latency_http.py PROTOSEG BUNDLE PICTURES [ROUNDS [QUERIES]]`: a folder with one PNG file. Clients that wait for their answers
come from `hey` (Debian's package); pictures that come by themselves are sent by aiohttp at the very moments that our report
names, as two draws of random arrivals differ by more than what is to be seen. A round's figures come of the same number of
queries; what counts is the median of the rounds' ratios.
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
import time
from pathlib import Path

import aiohttp
import numpy
from PIL import Image

from turns import bench, compared, judge, library

TOLERANCE = 0.05
CLIENTS = 4
# Of what clients are answered in a second.
SHARE = 0.6


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
    rounds, queries = ([int(word) for word in sys.argv[4:6]] + [10, 60][len(sys.argv[4:6]) :])
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
                    taken, rate, to = point["samples"]["latency_ms"], point["images_a_second"], ours
                else:
                    (taken, rate), to = hey(address, path, header, queries), theirs
                for name, figure in zip(names, (statistics.mean(taken), statistics.median(taken), rate)):
                    to[name].append(figure)
            rate = SHARE * statistics.median(ours[names[2]])
            words_server = (*words, "--scenario", "server", "--rate", f"{rate:.3f}", "--seed", number)
            point = bench(program, *words_server)
            for taken, to in (
                (point["samples"]["latency_ms"], ours),
                (asyncio.run(arrivals(address, body, header, point["samples"]["due_ms"])), theirs),
            ):
                for name, figure in zip(names[3:], (statistics.mean(taken), statistics.median(taken))):
                    to[name].append(figure)
        print(f"{rounds} rounds of {queries} queries, {CLIENTS} clients; arrivals at {SHARE:.0%} of their rate")
        print(f"{'':44} {'protoseg':>9} {'other':>9}   ratio, median of rounds (range)")
        judge({name: compared(name, ours[name], theirs[name]) for name in names}, TOLERANCE)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    main()
