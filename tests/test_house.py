"""The house: dependencies, environment.yml, layout, size of the package and the direction of its imports."""

import ast
import re
import sys
from pathlib import Path

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
}
# who may import whom: each name only what stands after it
ORDER = [
    "run",
    "grid",
    "compare",
    "interventions",
    "audit",
    "attribution",
    "explorer",
    "diagrams",
    "visualize",
    "train",
    "parameters",
    "checkpoint",
    "recipes",
    "distributed",
    "metrics",
    "batches",
    "loss",
    "model",
    "shortcuts",
    "lookalikes",
    "download",
    "archives",
    "preprocess",
    "pixel_cache",
    "sample",
    "workspace",
    "hosts",
]


def requirements() -> list[Requirement]:
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]


def imported(path: Path) -> set[str]:
    """Modules that a file imports; of helpers, as helpers.<module>."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= (
                {f"helpers.{name.name}" for name in node.names}
                if node.module == "helpers"
                else {node.module}
            )
    return found


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
    }
    listed = {one.name.lower() for one in requirements()}
    for path in (PROJECT / "helpers").glob("*.py"):
        for module in imported(path):
            root = module.split(".")[0]
            if root not in (
                "helpers",
                "google",
                *sys.stdlib_module_names,
            ):  # google.colab is on Colab alone
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


def test_a_small_package():
    modules = (PROJECT / "helpers").glob("*.py")
    sizes = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert max(sizes.values()) <= 250, sizes
    assert sum(sizes.values()) <= 4525, sizes


def test_imports_point_one_way():
    modules = {path.stem for path in (PROJECT / "helpers").glob("*.py")} - {"__init__"}
    assert modules == set(ORDER)
    for number, name in enumerate(ORDER):
        ours = {
            one.split(".")[1]
            for one in imported(PROJECT / "helpers" / f"{name}.py")
            if one.startswith("helpers.")
        }
        assert ours <= set(ORDER[number + 1 :]), (
            f"{name} imports {sorted(ours - set(ORDER[number + 1 :]))}"
        )


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


def test_the_readme_is_under_two_screens_and_names_what_there_is():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
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


def test_the_table_of_faults_names_tests_that_exist():
    table = (PROJECT / "tests" / "faults" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", table))
    there = {
        name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 50 and named <= there, named - there
