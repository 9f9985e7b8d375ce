"""Holds the server against its own description: the description is valid, and no request that follows or breaks it finds an
answer that it does not know.

    openapi.py PROTOSEG BUNDLE [ARGS…]

ARGS go to schemathesis. BUNDLE is a small one; its model is called `colors`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

from openapi_spec_validator import validate

from serving import serving

KEY = "the key of the proof"
PHASES = "examples,coverage,fuzzing"


def main(program, bundle, *arguments):
    models = [f"colors={bundle}", f"spare={bundle}"]
    for key in [None, KEY]:
        with serving(program, *models, "--repository", "--serve-logits", key=key) as address:
            with urlopen(f"{address}/openapi.json") as answer:
                document = json.load(answer)
            validate(document)
            operations = sum(len(methods) for methods in document["paths"].values())
            print(f"valid by openapi-spec-validator {version('openapi-spec-validator')}: {operations} operations")
            run_schemathesis(address, key, arguments)


def run_schemathesis(address, key, arguments):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    command += ["--phases", PHASES, "--seed", "1", "--max-examples", "100"]
    # Those are about how fast data are made.
    command += ["--suppress-health-check", "all", "--no-color", *arguments]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    # It looks for its settings where it is started, and leaves caches there.
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(Path(__file__).parent / "openapi", folder, dirs_exist_ok=True)
        subprocess.run(command, check=True, cwd=folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
