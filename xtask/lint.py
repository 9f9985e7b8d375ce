"""House rules that no compiler checks: words, type names, file sizes and import cycles.

`python3 xtask/lint.py` prints every fault, and with `--figures` the measures too. Exits with 1 if there is a fault.
"""

import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Largest shares of doc comments that begin with these words.
WHAT, WHETHER = 0.003, 0.01
LONGEST = 1000
# Lines that may hold old words: names in files on disk, on the wire, and in commands of users.
QUOTATION = re.compile(r'alias(es)? ?= ?\[?"|rename ?= ?"|RENAMED|old name')
WORD = re.compile(r"picture|colour|labelled|labelling|normalis|quantis|\bcentre|optimis|neighbour|behaviour|honour|licence", re.I)
TEXT = {".rs", ".md", ".py", ".toml", ".js", ".css", ".html", ".yaml", ".yml", ".proto", ".sh", ".json"}
# Names that stay: a metric, an attribute of HTML, and settings that are accepted under their old names.
KEPT = re.compile(r"protoseg_pictures_total|aria-labelledby|(calibration|dumped)_pictures")
# Lines whose old words are bytes of exported files, of responses, of reports or names of fixtures.
KEPT_IN = {
    "export/src/bundle/triton.rs": r'name: \\"one picture\\"',
    "export/src/onnx/emit.rs": r"half-pixel centres|Input: RGB pictures|Classes, colours and windows",
    "export/src/onnx/prototype_confidence.rs": r'part\("centred"\)',
    "infer/bench/src/compare/tests.rs": r'"pictures": \{"height"',
    "infer/bench/src/perf_analyzer.rs": r'=> "Pictures"',
    "infer/cli/tests/cli/bench_compare.rs": r'"pictures": \{"height"',
    "infer/cli/tests/cli/tune.rs": r'\["labelled", "kept"\]',
    "infer/serve/src/http/segment.rs": r'name: "picture"',
    "infer/serve/src/metrics.rs": r'"pictures", "Images',
    "infer/src/lib.rs": r"tests/fixtures/pictures",
    "infer/src/pipeline.rs": r"tests/fixtures/pictures",
    "train/examples/sample_step/files.rs": r'"normalised"',
}
# Texts of others, measured results, and this file.
QUOTED = ["Cargo.lock", "LICENSE-", "benches/results/", "xtask/lint.py"]


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def package_of(name):
    folder = Path(name).parent
    while folder != Path(".") and not (ROOT / folder / "Cargo.toml").exists():
        folder = folder.parent
    return str(folder)


def doc_openings(text):
    """Yields the first lines of doc comments."""
    previous = None
    for line in text.splitlines():
        found = re.match(r"\s*//([/!]) ?(.*)", line)
        if found and previous != found[1]:
            yield found[2]
        previous = found[1] if found else None


def without_tests(text):
    """Removes inline test modules."""
    kept, lines, index = [], text.split("\n"), 0
    while index < len(lines):
        opens = index + 1 < len(lines) and re.match(r"\s*(pub(\(\w+\))? )?mod \w+ \{", lines[index + 1])
        if lines[index].strip() == "#[cfg(test)]" and opens:
            depth = 0
            index += 1
            while index < len(lines):
                depth += lines[index].count("{") - lines[index].count("}")
                index += 1
                if depth <= 0:
                    break
            continue
        kept.append(lines[index])
        index += 1
    return "\n".join(kept)


def modules(files):
    """Maps module paths to files, for the sources of one package."""
    found = {}
    for name in files:
        inner = name.split("/src/", 1)[1] if "/src/" in name else None
        if inner is None:
            continue
        parts = inner[: -len(".rs")].split("/")
        if parts[-1] == "mod":
            parts.pop()
        if parts in (["lib"], ["main"]):
            parts = []
        found["::".join(parts)] = name
    return found


def use_paths(tree):
    """Yields the paths of a `use` tree: `crate::{a, b::{c, d}}` gives crate::a, crate::b::c and crate::b::d."""
    head, brace, rest = tree.partition("{")
    if not brace:
        yield tree
        return
    depth, item = 0, ""
    for letter in rest[: rest.rindex("}")] + ",":
        if letter == "," and depth == 0:
            if item:
                yield from use_paths(head + item)
            item = ""
        else:
            depth += (letter == "{") - (letter == "}")
            item += letter


def imports(text, own, known):
    """Yields the modules that a file names by `crate::…`, `super::…` or `self::…`, also in groups."""
    text = re.sub(r"//.*", "", text)
    paths = re.findall(r"\b((?:crate|super|self)(?:::(?:\w+))+)", text)
    for tree in re.findall(r"\buse\s+((?:crate|super|self)::[^;]*\{[^;]*);", text):
        paths.extend(use_paths(re.sub(r"\s+as\s+\w+|\s+", "", tree)))
    for path in paths:
        parts = path.split("::")
        here = own.split("::") if own else []
        if parts[0] == "crate":
            here = []
        while parts and parts[0] in ("super", "crate", "self"):
            if parts[0] == "super":
                here = here[:-1]
            parts = parts[1:]
        target = here + parts
        while target and "::".join(target) not in known:
            target.pop()
        yield "::".join(target)


def cycles(edges):
    """Returns the strongly connected components of more than one node (Tarjan)."""
    index, low, stack, on_stack, result, counter = {}, {}, [], set(), [], [0]

    def visit(node):
        index[node] = low[node] = counter[0]
        counter[0] += 1
        stack.append(node)
        on_stack.add(node)
        for target in edges.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in on_stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = []
            while True:
                top = stack.pop()
                on_stack.discard(top)
                component.append(top)
                if top == node:
                    break
            if len(component) > 1:
                result.append(sorted(component))

    for node in list(edges):
        if node not in index:
            visit(node)
    return result


def main():
    sys.setrecursionlimit(10_000)
    faults = []
    files = tracked()
    sources = [name for name in files if name.endswith(".rs")]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in sources}

    openings = [line for text in texts.values() for line in doc_openings(text)]
    shares = {word: sum(line.startswith(word + " ") for line in openings) / len(openings) for word in ("What", "Whether")}
    for word, most in (("What", WHAT), ("Whether", WHETHER)):
        if shares[word] > most:
            faults.append(f"{shares[word]:.2%} of doc comments begin with {word}; at most {most:.1%}")

    for name in files:
        if Path(name).suffix in TEXT and not any(name.startswith(quoted) for quoted in QUOTED):
            for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
                found = WORD.search(KEPT.sub("", line))
                stays = name in KEPT_IN and re.search(KEPT_IN[name], line)
                if found and not stays and not QUOTATION.search(line):
                    faults.append(f"{name}:{number}: {found[0]}: {line.strip()[:90]}")

    packages = defaultdict(list)
    for name in sources:
        packages[package_of(name)].append(name)
    sizes = {}
    for package, own in sorted(packages.items()):
        types = Counter()
        for name in own:
            if "/src/" not in f"/{name}":
                continue
            body = without_tests(texts[name])
            if name.endswith("tests.rs") or "/tests/" in name:
                continue
            sizes[name] = body.count("\n")
            types.update(re.findall(r"^\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union) (\w+)", body, re.M))
            if re.search(r"\bfn of\b", body):
                faults.append(f"{name}: a function called `of`")
        for twice, count in types.items():
            if count > 1:
                faults.append(f"{package}: {count} types called {twice}")
        known = modules(own)
        edges = defaultdict(set)
        for module, name in known.items():
            for target in imports(without_tests(texts[name]), module, known):
                # Parents and children may use each other: they share a subject.
                related = module.startswith(target) or target.startswith(module) if target and module else True
                if target != module and not related:
                    edges[module].add(target)
        for circle in cycles(edges):
            folders = {known[module].rsplit("/", 1)[0] for module in circle}
            if len(folders) > 1:
                faults.append(f"{package}: modules that import each other across folders: {', '.join(circle)}")

    for name, size in sizes.items():
        if size > LONGEST:
            faults.append(f"{name}: {size} lines; at most {LONGEST}")

    if "--figures" in sys.argv[1:]:
        total = sum(sizes.values())
        print(f"{total} lines of Rust without tests in {len(sizes)} files, {total // len(sizes)} on average")
        print(f"{len(openings)} doc comments, {shares['What']:.2%} What, {shares['Whether']:.2%} Whether")
        for package, lines in Counter(
            {p: sum(sizes.get(name, 0) for name in own) for p, own in packages.items()}
        ).most_common():
            print(f"  {lines:6d} {package}")
    print("\n".join(faults) if faults else "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
