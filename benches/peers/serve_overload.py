"""Overload test: an open loop at twice the capacity of a server, for some minutes.

`serve_overload.py MINUTES PROTOSEG BUNDLE IMAGES [SIDE]` measures the throughput of eight clients for 15 seconds, then
sends squares of SIDE (512) pixels at twice that rate, at exponentially distributed intervals. Every response must be the
right labels or 429 with Retry-After; the peak memory must be below the bound that the README states, and SIGTERM must end
the server with status 0.
"""

import collections
import hashlib
import http.client
import io
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
from PIL import Image

QUEUE_MEGAPIXELS = 8
BODY_MIB = 8
# As in the README: bytes per admitted pixel, and bodies that are read at a time.
PIXEL_BYTES = 10
BODIES = 4


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def segment(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/segment?as=labels", body)
        response = connection.getresponse()
        return response.status, response.read(), response.headers.get("Retry-After")
    finally:
        connection.close()


def memory(process, field):
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def main():
    minutes, program, bundle, folder = float(sys.argv[1]), *sys.argv[2:5]
    side = int(sys.argv[5]) if len(sys.argv) > 5 else 512
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = subprocess.Popen([program, "serve", f"model={bundle}", "--http", f"127.0.0.1:{port}", "--grpc", "off",
                               "--queue-megapixels", str(QUEUE_MEGAPIXELS), "--max-pixels", "4000000", "--max-body",
                               f"{BODY_MIB}M", "--log-level", "error"])
    try:
        rate_and_load(server, port, minutes, folder, side)
    finally:
        if server.poll() is None:
            server.kill()


def rate_and_load(server, port, minutes, folder, side):
    squares = []
    for path in sorted(Path(folder).rglob("*.png"))[:8]:
        image = numpy.asarray(Image.open(path).convert("RGB"))
        squares += [png(image[:side, left : left + side]) for left in range(0, image.shape[1] - side + 1, side)]
    for _ in range(600):
        try:
            if segment(port, squares[0])[0] == 200:
                break
        except OSError:
            pass
        time.sleep(0.1)
    expected = [hashlib.sha256(segment(port, square)[1]).digest() for square in squares]
    idle = memory(server.pid, "VmRSS")

    done, stop = collections.Counter(), time.perf_counter() + 15
    def client(index):
        while time.perf_counter() < stop:
            done[segment(port, squares[index % len(squares)])[0]] += 1
    threads = [threading.Thread(target=client, args=(index,)) for index in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    capacity = done[200] / 15
    print(f"8 clients get {capacity:.2f} images/s; now {2 * capacity:.2f} images/s for {minutes} minutes", flush=True)

    seen, waits, wrong, taken = collections.Counter(), [], 0, []
    lock = threading.Lock()
    def one(index):
        nonlocal wrong
        start = time.perf_counter()
        try:
            status, labels, retry = segment(port, squares[index])
        except OSError as error:
            status, labels, retry = type(error).__name__, b"", None
        with lock:
            seen[status] += 1
            if status == 200:
                taken.append(time.perf_counter() - start)
                wrong += hashlib.sha256(labels).digest() != expected[index]
            if status == 429:
                waits.append(int(retry))
    chance = random.Random(7)
    end, threads, due = time.perf_counter() + 60 * minutes, [], time.perf_counter()
    while time.perf_counter() < end:
        due += chance.expovariate(2 * capacity)
        time.sleep(max(0, due - time.perf_counter()))
        threads.append(threading.Thread(target=one, args=(chance.randrange(len(squares)),)))
        threads[-1].start()
        threads = [thread for thread in threads if thread.is_alive()]
    [thread.join() for thread in threads]
    peak = memory(server.pid, "VmHWM")
    bound = idle + (QUEUE_MEGAPIXELS * 1e6 * PIXEL_BYTES) / 2**20 + BODIES * BODY_MIB
    server.send_signal(signal.SIGTERM)
    ended = server.wait(60)
    taken.sort()
    print(f"responses: {dict(seen)}, {wrong} wrong; retry after {min(waits, default=0)} to {max(waits, default=0)} s")
    print(f"labels: {seen[200] / (60 * minutes) / capacity:.2f} of the capacity; p50 {taken[len(taken) // 2]:.2f} s, "
          f"p99 {taken[int(0.99 * len(taken))]:.2f} s")
    print(f"memory: {idle:.0f} MB idle, {peak:.0f} MB at most, bound {bound:.0f} MB; status after SIGTERM {ended}")
    if set(seen) - {200, 429} or wrong or not seen[429] or peak > bound or ended != 0:
        raise SystemExit("the server fails under overload: see the lines above")


if __name__ == "__main__":
    main()
