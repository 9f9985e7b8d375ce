"""The files of deploy/ are accepted by the tools of those who read them, and agree with each other and with the program."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
PACKAGES = Path(kubernetes_validate.__file__).parents[1]
# The oldest in which every field of the job counts, and the newest that is known.
KUBERNETES = ["1.33", kubernetes_validate.latest_version()]
FOREIGN = ["serving.kserve.io/", "monitoring.coreos.com/", "kustomize.config.k8s.io/"]
# What an operator adds where the cluster has what it needs.
OPTIONAL = {"image-volume.yaml", "job.yaml", "kserve.yaml", "prometheus-adapter.yaml", "servicemonitor.yaml"}
# The key is no option, as anybody may read a program's options; the others are no variables that are set.
NO_OPTIONS = {"PROTOSEG_API_KEY", "PROTOSEG_PORT", "PROTOSEG_NAME"}

problems = []


@pytest.fixture(autouse=True)
def nothing_is_wrong():
    """A test collects all that is wrong and fails at its end."""
    problems.clear()
    yield
    assert not problems, "\n".join(problems)


def check(holds, what):
    if not holds:
        problems.append(what)
    return holds


def run(*command, **options):
    """The output of a command, whose failure is a problem."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    check(done.returncode == 0, f"{Path(command[0]).name} {' '.join(map(str, command[1:]))}:\n{done.stdout}")
    return done.stdout


def documents():
    """Every object in kubernetes/, with its file's name."""
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def test_containerfiles():
    files = [DEPLOY / "Containerfile", DEPLOY / "Containerfile.cuda"]
    run(PACKAGES / "bin/hadolint", "--failure-threshold", "warning", *files)
    texts = [path.read_text() for path in files]
    for path, text in zip(files, texts):
        for base in re.findall(r"^FROM (\S+)", text, re.M):
            check(re.search(r":\d+\.\d+", base), f"{path.name}: {base} is not pinned")
    steps = [re.findall(r"^(?:ENV|RUN|COPY|USER|ENTRYPOINT|CMD|EXPOSE) .*", text, re.M) for text in texts]
    check([step.replace("--cpu", "--cuda") for step in steps[0]] == steps[1], "the container files have other steps")


def merged(base, patch):
    """`patch` over `base` as Kubernetes merges them: lists of named objects by name, null removes."""
    if isinstance(patch, dict) and isinstance(base, dict):
        both = {key: merged(base.get(key), value) for key, value in patch.items()}
        return {key: value for key, value in {**base, **both}.items() if value is not None}
    if isinstance(patch, list) and isinstance(base, list):
        names = {item["name"]: item for item in patch}
        kept = [merged(item, names.pop(item["name"], {})) for item in base]
        return kept + list(names.values())
    return patch


@pytest.fixture(scope="module")
def objects():
    """Every object in kubernetes/ by kind and name."""
    found = [document for name, document in documents() if "kind" in document and name != "image-volume.yaml"]
    return {(document["kind"], document.get("metadata", {}).get("name", "")): document for document in found}


def test_kubernetes_accepts_every_object(objects):
    for name, document in documents():
        if "kind" not in document or any(document["apiVersion"].startswith(group) for group in FOREIGN):
            continue
        patch = name == "image-volume.yaml"
        whole = merged(objects["Deployment", "protoseg"], document) if patch else document
        for version in KUBERNETES[1:] if patch else KUBERNETES:
            try:
                kubernetes_validate.validate(whole, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                check(False, f"{name}, Kubernetes {version}: {error.message}")


def pods(objects):
    """The specification of every pod that comes from the objects."""
    for (kind, name), document in objects.items():
        if kind in ("Deployment", "Job"):
            yield f"{kind} {name}", document["spec"]["template"]["spec"]
        elif kind == "ServingRuntime":
            yield f"{kind} {name}", document["spec"]


def test_pods_are_restricted(objects):
    """Kubernetes' pod security standard `restricted`, and a root that cannot be written."""
    for name, pod in pods(objects):
        for container in pod["containers"]:
            security = {**pod.get("securityContext", {}), **container["securityContext"]}
            for key, value in {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }.items():
                check(security.get(key) == value, f"{name}: {key} is {security.get(key)}")
            check("memory" in container["resources"]["limits"], f"{name}: no limit of memory")


def test_references_between_objects(objects):
    """What one object says of another."""
    deployment = objects["Deployment", "protoseg"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    container = deployment["template"]["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    for kind, selector in {
        "Service": objects["Service", "protoseg"]["spec"]["selector"],
        "PodDisruptionBudget": objects["PodDisruptionBudget", "protoseg"]["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": objects["NetworkPolicy", "protoseg"]["spec"]["podSelector"]["matchLabels"],
    }.items():
        check(selector.items() <= labels.items(), f"{kind} selects {selector}, and pods have {labels}")
    service = objects["Service", "protoseg"]
    check({port["targetPort"] for port in service["spec"]["ports"]} == ports, "the service has other ports")
    monitor = objects["ServiceMonitor", "protoseg"]["spec"]
    check(monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items(), "nothing is monitored")
    scaler = objects["HorizontalPodAutoscaler", "protoseg"]["spec"]
    adapter = yaml.safe_load((DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    metric = scaler["metrics"][0]["pods"]["metric"]["name"]
    check(metric == adapter[0]["name"]["as"], f"the autoscaler's metric {metric} is unknown")
    for name, pod in pods(objects):
        env = {entry["name"]: entry.get("value") for entry in pod["containers"][0].get("env", [])}
        drain = sum(int(env.get(f"PROTOSEG_{word}", 0)) for word in ("DRAIN", "DRAIN_DELAY"))
        grace = pod.get("terminationGracePeriodSeconds", 30)
        check(drain < grace, f"{name}: draining takes {drain} s, and {grace} s are given")
    job = objects["Job", "protoseg-label"]["spec"]
    arguments = job["template"]["spec"]["containers"][0]["args"]
    check(f"--shards={job['completions']}" in arguments, "the job has another number of parts than --shards says")
    resources = objects["Kustomization", ""]["resources"]
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    check(set(resources) == files - OPTIONAL, "kustomization.yaml lists other files than are there")


def test_options_and_variables_are_known(objects, protoseg):
    """Every option and variable is one that the program has."""
    known = {command: run(protoseg, command, "--help") for command in ("serve", "label", "merge")}
    for name, pod in pods(objects):
        command, *arguments = pod["containers"][0]["args"]
        for option in re.findall(r"--[a-z-]+", " ".join(arguments)):
            check(re.search(rf"{option}\b", known[command]), f"{name}: {command} has no option {option}")
    for path in filter(Path.is_file, DEPLOY.rglob("*")):
        for variable in set(re.findall(r"PROTOSEG_[A-Z_]*[A-Z]\b", path.read_text())) - NO_OPTIONS:
            check(f"[env: {variable}" in known["serve"], f"{path.name}: serve knows no {variable}")


def test_kserve_models_know_every_field(objects):
    """KServe's own models, which are made of Kubernetes' own, know every field and miss none."""
    from kserve import models
    from kubernetes import client

    def build(value, kind, place):
        """An instance of the model `kind`; the constructors refuse what lacks a field or has a wrong value."""
        if several := re.fullmatch(r"[Ll]ist\[(.*)\]", kind):
            return [build(item, several[1], place) for item in value]
        model = getattr(models, kind, None) or getattr(client, kind, None)
        if not hasattr(model, "attribute_map"):
            return value
        names = {name: attribute for attribute, name in model.attribute_map.items()}
        fields = {}
        for name, inner in value.items():
            if check(name in names, f"{place}.{name}: {kind} has no such field"):
                fields[names[name]] = build(inner, model.openapi_types[names[name]], f"{place}.{name}")
        try:
            return model(**fields)
        except ValueError as error:
            check(False, f"{place}: {error}")

    for (kind, name), document in objects.items():
        if document["apiVersion"].startswith("serving.kserve.io/"):
            build(document, document["apiVersion"].rsplit("/")[-1].capitalize() + kind, f"{kind} {name}")


def test_prometheus():
    promtool = shutil.which("promtool")
    if not check(promtool, "promtool is not on the path: Debian's package prometheus has it"):
        return
    folder = DEPLOY / "prometheus"
    run(promtool, "check", "rules", folder / "rules.yaml")
    run(promtool, "test", "rules", folder / "rules_test.yaml")
    run(promtool, "check", "config", folder / "prometheus.yaml")
    dashboard = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
    panels = dashboard["panels"]
    check(len({panel["id"] for panel in panels}) == len(panels), "two panels have one number")
    for panel in panels:
        place = panel["gridPos"]
        check(place["x"] + place["w"] <= 24, f"the panel {panel['title']!r} is beside the page")
    expressions = [target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel["targets"]]
    rules = [{"record": f"panel:{index}", "expr": expression} for index, expression in enumerate(expressions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        run(promtool, "check", "rules", file.name)


def test_systemd(protoseg):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        print("systemd-analyze is not here: the unit is not checked")
        return
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "protoseg.service"
        text = (DEPLOY / "systemd/protoseg.service").read_text()
        check("\nEnvironment=ORT_DISABLE_TELEMETRY=1\n" in text, "protoseg.service: ONNX Runtime reports to its maker")
        unit.write_text(text.replace("/usr/local/bin/protoseg", str(protoseg)))
        # A key that it does not know is a warning.
        said = run(analyze, "verify", "--man=no", unit)
        check(not said, f"systemd-analyze verify: {said}")
        # Of 100; the network, which a server needs, is most of what is left.
        print(run(analyze, "security", "--offline=true", "--no-pager", "--threshold=20", unit).strip().splitlines()[-1])


def test_compose():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    service = services["protoseg"]
    check(service["read_only"] and service["cap_drop"] == ["ALL"], "compose.yaml: the container can do too much")
    for name, other in services.items():
        for port in other["ports"]:
            check(port.startswith("127.0.0.1:"), f"compose.yaml: {name} opens {port} to everybody")
