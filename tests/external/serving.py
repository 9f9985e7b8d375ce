"""A running `protoseg serve`, for those who ask it something."""

import os
import re
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

# Seconds for models to be loaded, and for a server that is told to end.
PATIENCE = 60


@contextmanager
def serving(program, *arguments, key=None):
    """Starts the program on a free port, gives its address once it is ready, and ends it by SIGTERM, which must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROTOSEG_")}
    if key:
        environment["PROTOSEG_API_KEY"] = key
    command = [program, "serve", *arguments, "--http", "127.0.0.1:0", "--grpc", "off"]
    # Into a file: a pipe that nobody empties would stop the server.
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as errors:
            server = subprocess.Popen(command, env=environment, stderr=errors)
        try:
            yield ready(server, log)
            server.terminate()
            status = server.wait(PATIENCE)
            assert status == 0, f"protoseg serve ended with status {status}: {log.read_text()[-2000:]}"
        finally:
            server.kill()


def ready(server, log):
    """The address that the server's log names, once it says that it is ready."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        text = log.read_text()
        if re.search(r"\bready$", text, re.MULTILINE):
            return re.search(r"listening on (\S+)", text)[1]
        time.sleep(0.05)
    raise RuntimeError(f"protoseg serve did not start:\n{log.read_text()}")
