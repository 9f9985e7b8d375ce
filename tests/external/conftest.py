"""What the tests by other people's software share: the programs, a bundle, synthetic images, a running server.

`cargo xtask prove NAME` installs the packages of `requirements/` into a folder of its own and names it by PYTHONPATH.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serving import serving

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("PROTOSEG_DATA", REPOSITORY.parent / "shared/data"))


def pytest_addoption(parser):
    programs = REPOSITORY / "target/release"
    parser.addoption("--programs", type=Path, default=programs, help="folder of the built programs")
    parser.addoption("--bundle", type=Path, help="bundle to ask, instead of the small one of the tests")
    parser.addoption("--onnx", type=Path, nargs="*", default=[], help="more ONNX files for the checker")


@pytest.fixture(scope="session")
def protoseg(request):
    """The program, as an absolute path."""
    program = (request.config.getoption("--programs") / "protoseg").resolve()
    assert program.is_file(), f"{program} is missing; build it: cargo build --release --workspace --bins"
    return program


@pytest.fixture(scope="session")
def colors():
    """A bundle of a kilobyte that tells red, green and blue apart."""
    return REPOSITORY / "infer/tests/fixtures/colors"


@pytest.fixture(scope="session")
def bundle(request, colors):
    return request.config.getoption("--bundle") or colors


@pytest.fixture(scope="session")
def synthetic(protoseg, tmp_path_factory):
    """Writes synthetic images: `synthetic(3, "192x320")` returns their folder."""

    def write(count, size):
        out = tmp_path_factory.mktemp("synthetic")
        command = [protoseg, "synth", "--count", str(count), "--size", size, "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return out / "images"

    return write


@pytest.fixture(scope="session")
def external_fixtures(request, tmp_path_factory):
    """Files of the example `external_fixtures`: `external_fixtures("annotations")` returns their folder."""

    def write(*arguments):
        out = tmp_path_factory.mktemp(arguments[0])
        program = request.config.getoption("--programs").resolve() / "examples/external_fixtures"
        subprocess.run([program, out, *arguments], check=True, cwd=REPOSITORY)
        return out

    return write


@pytest.fixture(scope="session")
def serve(protoseg):
    """`with serve(*arguments, key=None) as address` runs `protoseg serve`."""
    return lambda *arguments, **options: serving(protoseg, *arguments, **options)


@pytest.fixture(scope="session")
def tool():
    """Path of a program of the system, or a failure with the package that has it."""

    def find(name, package):
        found = shutil.which(name)
        assert found, f"there is no {name}: `apt-get install {package}` provides it"
        return found

    return find
