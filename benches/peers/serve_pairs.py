"""Interleaved comparison of `protoseg serve` with a FastAPI server on the same images.

`serve_pairs.py ROUNDS PROTOSEG BUNDLE IMAGES [CLIENTS [REQUESTS]]` runs CLIENTS (8) closed-loop clients for REQUESTS (32)
requests a round. Ratios are taken within a round, so that other load affects both. Labels of the two must agree.
"""

import http.client
import io
import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
from PIL import Image

# Another order of summation decides ties differently.
LEAST_AGREEMENT = 0.9999
PEERS = Path(__file__).parent


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def post(port, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, body, {"Content-Type": "application/octet-stream"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{path}: {response.status} {content[:200]}")
    return content


def wait_for(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"no server listens on port {port} after 60 s")


def run_clients(port, path, images, clients, requests):
    """Runs closed-loop clients; returns requests per second and the sorted seconds of each request."""
    taken, numbers = [], iter(range(requests))
    lock = threading.Lock()

    def client():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            start = time.perf_counter()
            post(port, path, images[number % len(images)])
            with lock:
                taken.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return requests / (time.perf_counter() - start), sorted(taken)


def main():
    rounds, program, bundle, folder = int(sys.argv[1]), *map(Path, sys.argv[2:5])
    clients, requests = ([int(word) for word in sys.argv[5:7]] + [8, 32][len(sys.argv[5:7]) :])
    images = [path.read_bytes() for path in sorted(folder.rglob("*.png"))]
    ports = {"protoseg": free_port(), "FastAPI": free_port()}
    commands = {
        "protoseg": [program, "serve", f"model={bundle}", "--http", f"127.0.0.1:{ports['protoseg']}", "--grpc", "off",
                     "--deadline", "600", "--queue-megapixels", "512", "--mode", "throughput", "--log-level", "warn"],
        "FastAPI": [sys.executable, PEERS / "serve_fastapi.py", bundle, str(ports["FastAPI"])],
    }
    paths = {"protoseg": "/v1/segment?as=labels", "FastAPI": "/segment"}
    servers = {name: subprocess.Popen([str(word) for word in command]) for name, command in commands.items()}
    try:
        for name, port in ports.items():
            wait_for(port)
        while json.loads(http_get(ports["protoseg"], "/v2/health/ready"))["ready"] is not True:
            time.sleep(0.1)
        labels = [numpy.asarray(Image.open(io.BytesIO(post(ports[name], paths[name], images[0])))) for name in servers]
        same = float((labels[0] == labels[1]).mean())
        rates, tails = ({name: [] for name in servers} for _ in range(2))
        for _ in range(rounds):
            for name in servers:
                rate, taken = run_clients(ports[name], paths[name], images, clients, requests)
                rates[name].append(rate)
                tails[name].append(taken[min(len(taken) - 1, int(0.99 * len(taken)))])
        print(f"{clients} clients, {requests} requests a round, {rounds} rounds")
        for name, server in servers.items():
            memory = peak(server.pid)
            print(f"{name:9} {statistics.median(rates[name]):7.3f} requests/s   p99 {statistics.median(tails[name]):7.3f} s"
                  f"   peak {memory:.0f} MB")
        ratio = [ours / theirs for ours, theirs in zip(rates["protoseg"], rates["FastAPI"])]
        tail = [ours / theirs for ours, theirs in zip(tails["protoseg"], tails["FastAPI"])]
        print(f"requests/s relative to FastAPI: {statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})")
        print(f"p99 relative to FastAPI: {statistics.median(tail):.2f} ({min(tail):.2f} to {max(tail):.2f})")
        print(f"labels equal: {100 * same:.4f} %")
        if same < LEAST_AGREEMENT:
            raise SystemExit("the labels of the two servers differ")
    finally:
        for server in servers.values():
            server.send_signal(signal.SIGTERM)
            server.wait()


def http_get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().read()


def peak(process):
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main()
