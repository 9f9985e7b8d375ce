"""By hand what a container engine does with the image, and the metrics of the server in it against deploy/.

The files that deploy/stage.sh lays out, and the system's libraries that they need and no other, become a root that cannot be
written; there the program runs as a user without rights, serves, labels as the job does, and ends. Needs root for the
namespaces.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from conftest import REPOSITORY

LIBRARY = REPOSITORY / ".runtime/onnxruntime/libonnxruntime.so"
ONNXRUNTIME = Path(os.environ.get("ORT_DYLIB_PATH", LIBRARY)).resolve().parent
DEPLOY = REPOSITORY / "deploy"
USER = 65532
# Labels that Prometheus adds.
OUTER = {"job", "instance", "pod", "namespace", "le"}

# Takes the root, then what is mounted in it, as ro:FROM=TO or rw:FROM=TO up to --, then the command.
CONTAINER = r"""
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
while [ "$1" != -- ]; do
    mode=${1%%:*} pair=${1#*:}
    mount --bind "${pair%%=*}" "$root${pair#*=}"
    mount -o "remount,bind,$mode" "$root${pair#*=}"
    shift
done
shift
exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= "$root" "$@"
"""


def lay_out(root, program):
    subprocess.run([DEPLOY / "stage.sh", program, ONNXRUNTIME, root], check=True, cwd=REPOSITORY)
    own = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    files = [root / "usr/local/bin/protoseg", *(root / "usr/local/lib").iterdir()]
    for line in subprocess.run(["ldd", *files], check=True, text=True, capture_output=True).stdout.splitlines():
        # Of `libm.so.6 => /lib/… (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)` the path.
        if found := re.match(r"\s+(?:\S+ => )?(/\S+) \(", line):
            target = root / found[1].lstrip("/")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found[1], target)
    for folder in ("proc", "tmp", "models/street", "images", "labels"):
        (root / folder).mkdir(parents=True)
    whole = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    print(f"the image adds {own / 1e6:.1f} MB to its base; with the libraries that it needs of that, {whole / 1e6:.1f} MB")


def variables():
    """What the container file puts into the environment of the image."""
    image = (DEPLOY / "Containerfile").read_text().rsplit("\nFROM ", 1)[1]
    blocks = re.findall(r"^ENV ((?:.*\\\n)*.*)$", image, re.M)
    return dict(re.findall(r"(\w+)=(\S+)", "\n".join(blocks)))


class Container:
    """A program in the root, with folders mounted."""

    def __init__(self, root, mounts, arguments, **own):
        mounts = [f"{mode}:{outside}={inside}" for mode, outside, inside in mounts]
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh", root, *mounts, "--"]
        # Of the variables nothing comes from here: ORT_DYLIB_PATH above all.
        self.process = subprocess.Popen(
            [*command, "/usr/local/bin/protoseg", *arguments],
            env={"PATH": os.environ["PATH"], **variables(), **own},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def program(self):
        """The number of the program itself, the only child of `unshare`."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def end(self, expected):
        said, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == expected, f"status {self.process.returncode} instead of {expected}:\n{said}"
        return said


def ask(url, data=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as answer:
        return answer.read()


def serve_one(root, bundle, image):
    """Serves one image as the deployment does; the text of the metrics."""
    with socket.socket() as free, socket.socket() as another:
        free.bind(("127.0.0.1", 0))
        another.bind(("127.0.0.1", 0))
        port, probes = free.getsockname()[1], another.getsockname()[1]
    places = {"HTTP": f"127.0.0.1:{port}", "GRPC": "off", "PROBES": f"127.0.0.1:{probes}"}
    own = {f"PROTOSEG_{name}": place for name, place in places.items()}
    server = Container(root, [("ro", bundle, "/models/street")], ["serve", "street=/models/street"], **own)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                ask(f"http://127.0.0.1:{probes}/v2/health/ready")
                break
            except OSError:
                assert server.process.poll() is None, server.process.stdout.read()
                time.sleep(0.1)
        assert json.loads(ask(f"{base}/v1/segment", image.read_bytes()))["classes"]
        metrics = ask(f"http://127.0.0.1:{probes}/metrics").decode()
        status = Path(f"/proc/{server.program()}/status").read_text()
        for line in (f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"):
            assert line in status, f"{line} is not in\n{status}"
        os.kill(server.program(), 15)
        server.end(0)
    finally:
        server.process.kill()
    print("served as user 65532 under a root that cannot be written, and ended with 0 on SIGTERM")
    return metrics


def label(root, bundle, images, folder):
    """The job's exit statuses are those that its policy is made for, and its parts join."""
    labels = folder / "labels"
    labels.mkdir()
    os.chown(labels, USER, USER)
    mounts = [("ro", bundle, "/models/street"), ("ro", images, "/images"), ("rw", labels, "/labels")]
    arguments = ["label", "/models/street", "/images", "--out=/labels", "--shard=auto", "--shards=2", "--resume"]
    for index in ("0", "1"):
        # A home that can be written would show what a library keeps there.
        Container(root, mounts, arguments, JOB_COMPLETION_INDEX=index, HOME="/labels").end(0)
    assert {path.name for path in labels.iterdir()} == {".protoseg", "ids"}, list(labels.iterdir())
    merge = ["merge", "/labels", "--bundle=/models/street"]
    Container(root, mounts, merge).end(0)
    count = len(list(images.iterdir()))
    assert len(list((labels / "ids").rglob("*.png"))) == count

    Container(root, mounts, arguments, JOB_COMPLETION_INDEX="2").end(2)
    (images / "broken.png").write_bytes(b"\x89PNG")
    statuses = set()
    for index in ("0", "1"):
        part = Container(root, mounts, arguments, JOB_COMPLETION_INDEX=index)
        part.process.communicate(timeout=300)
        statuses.add(part.process.returncode)
    assert statuses == {0, 3}, statuses
    Container(root, mounts, merge).end(3)
    print(f"labeled {count} images in two shards and merged them; a wrong shard ends with 2, a broken image with 3")


def compare(metrics):
    """Every name and label in the rules, the dashboard and the autoscaler's metric is one that the server exports."""
    labels = {}
    for name, inner in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", metrics, re.M):
        labels.setdefault(name, set()).update(re.findall(r"(\w+)=\"", inner))
    rules = (DEPLOY / "prometheus/rules.yaml").read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    panels = json.loads((DEPLOY / "grafana/dashboard.json").read_text())["panels"]
    board = "\n".join(target["expr"] for panel in panels for target in panel["targets"])
    adapter = (DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text()
    # Without comments, texts, and the name that the adapter gives.
    queries = [re.sub(r"#.*|summary: .*|as: \w+", "", text) for text in (rules, board, adapter)]
    used = set()
    for query in queries:
        for name, inner in re.findall(r"(?<![\w:])((?:\w+:)?protoseg_\w+(?::\w+)?)(?:\{([^}]*)\})?", query):
            assert name in recorded if ":" in name else name in labels, f"the server exports no {name}"
            used.add(name)
            known = set().union(*labels.values()) if ":" in name else labels[name]
            for wanted in re.findall(r"(\w+)=~?\"", inner):
                assert wanted in known | OUTER, f"{name} has no label {wanted}"
        for inner in re.findall(r"(?:by|on) \(([\w, ]+)\)", query):
            for wanted in inner.split(", "):
                assert wanted in set().union(*labels.values()) | OUTER, f"nothing has a label {wanted}"
    outcomes = set(re.findall(r'^ +.*\("(\w+)", Http::', (REPOSITORY / "infer/serve/src/error.rs").read_text(), re.M)) | {"ok"}
    for inner in re.findall(r'outcome=~?"([^"]+)"', "\n".join(queries)):
        assert set(inner.split("|")) <= outcomes, f"no request ends as one of {inner}"
    # Of a histogram one of its three parts is enough.
    whole = re.compile(r"_(?:sum|count|bucket)$")
    unseen = {whole.sub("", name) for name in labels} - {whole.sub("", name) for name in used}
    assert not unseen, f"nobody looks at {sorted(unseen)}"
    print(f"{len(used)} names in rules, dashboard and autoscaler are exported or recorded, and all that is exported is used")


@pytest.fixture(scope="module")
def root(protoseg, tmp_path_factory):
    assert os.geteuid() == 0, "namespaces need root: run the proof as root"
    folder = tmp_path_factory.mktemp("image")
    # Another user has to pass through the folders above.
    for above in [folder, *folder.parents][: len(folder.parts) - 2]:
        above.chmod(0o755)
    lay_out(folder / "root", protoseg)
    return folder / "root"


def test_the_image_serves_and_its_metrics_are_used(root, bundle, synthetic):
    image = sorted(synthetic(1, "256x512").iterdir())[0]
    compare(serve_one(root, bundle.resolve(), image))


def test_the_image_labels_as_the_job_does(root, bundle, synthetic):
    label(root, bundle.resolve(), synthetic(4, "256x512"), root.parent)
