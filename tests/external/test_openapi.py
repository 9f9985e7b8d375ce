"""The service and its own description agree: the description is valid, and schemathesis finds no response beside it.

`PROTOSEG_SCHEMATHESIS` may hold more options of schemathesis.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

import pytest
from openapi_spec_validator import validate

KEY = "the key of the proof"
PHASES = "examples,coverage,fuzzing"


@pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
def test_every_response_is_described(serve, colors, tmp_path, key):
    models = [f"colors={colors}", f"spare={colors}"]
    with serve(*models, "--repository", "--serve-logits", key=key) as address:
        with urlopen(f"{address}/openapi.json") as response:
            document = json.load(response)
        validate(document)
        operations = sum(len(methods) for methods in document["paths"].values())
        print(f"valid by openapi-spec-validator {version('openapi-spec-validator')}: {operations} operations")
        run_schemathesis(address, key, tmp_path)


def run_schemathesis(address, key, folder):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    command += ["--phases", PHASES, "--seed", "1", "--max-examples", "100"]
    # Those are about how fast data are made.
    command += ["--suppress-health-check", "all", "--no-color", *shlex.split(os.environ.get("PROTOSEG_SCHEMATHESIS", ""))]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    # It looks for its settings where it is started, and leaves caches there.
    shutil.copytree(Path(__file__).parent / "openapi", folder, dirs_exist_ok=True)
    subprocess.run(command, check=True, cwd=folder)
