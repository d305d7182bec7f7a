"""The house: dependencies, environment.yml, layout, and the direction of the imports."""

import ast
import functools
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parent.parent
ASKED = {
    "torch",
    "torchvision",
    "jupyterlab",
    "nbval",
    "papermill",
    "pandas",
    "scikit-learn",
    "opencv-python-headless",
    "pillow",
    "matplotlib",
    "kaggle",
    "tqdm",
    "six",
    "captum",
    "pydantic",
}
# a folder or file of the package imports those before it, and none after it
ORDER = [
    "hosts",
    "workspace",
    "model",
    "photographs",
    "training",
    "scores",
    "pictures",
    "audit",
    "runs",
]
COMMANDS = ["run", "train", "preprocess"]  # doors to the rooms behind them
MODULES = sorted((PROJECT / "helpers").rglob("*.py"))


def requirements() -> list[Requirement]:
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]


def dotted(path: Path) -> str:
    """helpers/training/loop.py -> helpers.training.loop; a folder's __init__.py is the folder."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


BY_NAME = {dotted(path): path for path in MODULES}


def imported(text: str) -> set[tuple[str, str]]:
    """(module, name) for each import in Python text; the name is "" where the module is taken."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {(name.name, "") for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                module = f"{node.module}.{name.name}"
                found.add((module, "") if module in BY_NAME else (node.module, name.name))
    return found


@functools.cache
def defined(path: Path) -> set[str]:
    """Names that a module makes itself, and does not import."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in filter(None, targets):
            names |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def names_in(*trees: ast.AST) -> set[str]:
    """The variables in pieces of code."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def all_code() -> dict[str, str]:
    """Python text by file: package, tests, programs, and the cells of the notebooks."""
    texts = {}
    for folder in ("helpers", "tests", "bench", "site"):
        for path in (PROJECT / folder).rglob("*.py"):
            texts[path.relative_to(PROJECT).as_posix()] = path.read_text(encoding="utf-8")
    for path in (PROJECT / "notebooks").rglob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        texts[path.relative_to(PROJECT).as_posix()] = "\n".join(code)
    return texts


def test_each_dependency_is_pinned_once():
    found = requirements()
    names = [one.name.lower() for one in found]
    assert len(names) == len(set(names)) and set(names) >= ASKED
    for one in found:
        assert re.fullmatch(r"==[\d.]+", str(one.specifier)), one
    assert [name for name in names if "opencv" in name] == ["opencv-python-headless"], (
        "two would break each other"
    )


def test_what_the_package_imports_is_listed():
    distributions = {
        "cv2": "opencv-python-headless",
        "sklearn": "scikit-learn",
        "yaml": "pyyaml",
        "PIL": "pillow",
        "IPython": "ipython",
        "annotated_types": "pydantic",  # brings it, and its constraints are of it
    }
    listed = {one.name.lower() for one in requirements()}
    for path in MODULES:
        for module, _ in imported(path.read_text(encoding="utf-8")):
            root = module.split(".")[0]
            # google.colab is on Colab alone
            if root not in ("helpers", "google", *sys.stdlib_module_names):
                assert distributions.get(root, root) in listed, f"{path.name} imports {root}"


def test_conda_installs_the_same():
    content = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    assert set(content) == {"name", "channels", "dependencies"} and content["channels"] == [
        "conda-forge"
    ]
    *conda, pip = content["dependencies"]
    assert pip == {"pip": ["-r requirements.txt"]}
    assert re.fullmatch(r"python=3\.1[123]", conda[0]) and conda[1:] == ["pip"], (
        "all else comes from requirements.txt"
    )


def test_imports_point_one_way():
    rooms = {path.relative_to(PROJECT / "helpers").parts[0].removesuffix(".py") for path in MODULES}
    assert rooms == {"__init__", *ORDER, *COMMANDS}
    for name, path in BY_NAME.items():
        if name == "helpers":
            continue
        room = name.split(".")[1]
        if room in COMMANDS:
            continue
        above = ORDER[: ORDER.index(room) + 1]
        for module, _ in imported(path.read_text(encoding="utf-8")):
            if module.startswith("helpers."):
                assert module.split(".")[1] in above, f"{name} imports {module}"


def test_no_circle_within_a_folder():
    graph = {}
    for name, path in BY_NAME.items():
        modules = {module for module, _ in imported(path.read_text(encoding="utf-8"))}
        graph[name] = modules & set(BY_NAME)
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_a_name_is_imported_from_where_it_is_made():
    for file, text in all_code().items():
        for module, name in imported(text):
            if module in BY_NAME and name:
                assert name in defined(BY_NAME[module]), f"{file}: {module} does not make {name}"


def test_each_file_says_why_it_exists():
    for folder in ("helpers", "tests", "bench"):
        for path in (PROJECT / folder).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
    for path in [
        PROJECT / "Makefile",
        PROJECT / "environment.yml",
        *(PROJECT / "notebooks" / "params").iterdir(),
    ]:
        assert path.read_text(encoding="utf-8").startswith("# "), path


def test_no_test_asks_how_fast_a_machine_is():
    """Limits are PATIENCE of tests/conftest.py; what a clock says is asserted nowhere."""
    clocks = {"time", "monotonic", "perf_counter", "process_time", "thread_time"}

    def timed(tree: ast.AST, names: set[str]) -> bool:
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        return bool(attributes & clocks or names_in(tree) & names)

    for path in (PROJECT / "tests").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        for node in nodes:
            if isinstance(node, ast.keyword) and (node.arg or "").endswith("timeout"):
                limit = getattr(node.value, "value", None)
                assert not isinstance(limit, int | float) or limit <= 0, f"{path}:{node.lineno}"
        seconds = set()
        for node in nodes:
            if isinstance(node, ast.Assign) and timed(node.value, set()):
                seconds |= names_in(*node.targets)
        for node in nodes:
            if isinstance(node, ast.Assert):
                assert not timed(node.test, seconds), f"{path}:{node.lineno}"


def test_the_readme_names_what_there_is():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert "make tutorial" in text and "make test" in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (PROJECT / target).exists(), target


def test_parameter_files_hold_known_parameters():
    from helpers.runs import parameters

    known = parameters.known_parameters(parameters.NOTEBOOKS)
    files = sorted((PROJECT / "notebooks" / "params").glob("*.yaml"))
    assert {path.stem for path in files} >= {"tutorial", "paper", "full"}
    for path in files:
        parameters.check(parameters.read_parameters(str(path), [], known), known)


def test_the_table_of_faults_names_what_there_is():
    """Each row has a test, in the file linked before it, or a program; no file is left out."""
    folder = PROJECT / "tests" / "faults"
    table = (folder / "README.md").read_text(encoding="utf-8")
    tests = {}
    for path in (PROJECT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        tests[path] = set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
    everywhere = set().union(*tests.values())
    linked = {(folder / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", table)}
    absent = {path.name for path in set(folder.glob("*.py")) - linked}
    assert not absent, "files that the table does not link"
    rows = re.findall(r"^\| (?!fault |-)(.+) \|$", table, re.MULTILINE)
    named = set()
    for row in rows:
        *_, proof = row.split(" | ")
        where = everywhere
        references = re.findall(r"\]\(([^)]+)\)|`(test_\w+)`", proof)
        assert references, f"no test: {row}"
        for link, name in references:
            if link:
                path = (folder / link).resolve()
                assert path.is_file(), row
                where = tests.get(path, set())
            else:
                assert name in where, f"{name}: {row}"
                named.add(name)
    print(f"\n{len(rows)} kinds of fault, {len(named)} tests")


@pytest.mark.parametrize("own", [None, "77"])
def test_threads_that_wait_leave_the_processor_to_others_unless_told_otherwise(own):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if own:
        environment["GOMP_SPINCOUNT"] = own
    code = "import helpers, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [own or "1000", "False"], "it counts before torch is there"
