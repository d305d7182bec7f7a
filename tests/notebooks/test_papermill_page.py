"""The commands of site/pages/papermill.md, taken out of the page: parsed by the programs' own parsers, or run.

What would train for long is checked up to its start (options, names and types of parameters, files). papermill's lines
run for real, on notebook 03 cut behind its set-up; the one that writes to S3 runs against moto's server on this machine
and needs `pip install "moto[server]" boto3`, which nothing else here does: without them that test is skipped.
"""

import ast
import configparser
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import papermill
import papermill.cli
import pytest
import yaml
from click.testing import CliRunner

from helpers.runs import command, grid, parameters, train
from helpers.runs.train import main

PROJECT = Path(__file__).resolve().parents[2]
PARAMS = PROJECT / "notebooks" / "params"
PAGE = (PROJECT / "site" / "pages" / "papermill.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines() if line]
(CRON,) = [block.strip() for language, block in BLOCKS if language == "text"]
UNITS = [block for language, block in BLOCKS if language == "ini"]
(PYTHON,) = [block for language, block in BLOCKS if language == "python"]
PROGRAMS = ("dask", "helpers.run", "jq", "mkdir", "papermill", "torchrun")
SETUP = 7  # cells of notebook 03 up to its set-up


def words(line: str) -> tuple[str, list[str]]:
    """Program and arguments of a command, without the variables set before it; `python -m X` is the program X."""
    found = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    found = found[2:] if found[1:2] == ["-m"] and found[0].endswith("python") else found
    return found[0], found[1:]


def of(program: str) -> list[str]:
    return [line for line in LINES if words(line)[0] == program]


@pytest.fixture
def checked(folders, monkeypatch):
    """Runs `helpers.run` up to where it would start notebooks; returns its exit code and what it would have run."""
    started = []
    monkeypatch.setattr(
        command, "run_series", lambda values, notebooks: started.append((values, notebooks))
    )
    monkeypatch.setattr(grid, "run_grid", lambda plan, **where: started.append((plan, where)) or {})
    monkeypatch.setenv("ATTENTION_HEADLESS", "1")
    monkeypatch.chdir(PROJECT)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda arguments: (command.main(arguments), started)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project's folder as the page takes it: the helpers, 04, and 03 up to its set-up; lines run in it, in order."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "helpers").symlink_to(PROJECT / "helpers")
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "params").symlink_to(PARAMS)
    (folder / "notebooks" / "04_train.ipynb").symlink_to(PROJECT / "notebooks" / "04_train.ipynb")
    notebook = nbformat.read(PROJECT / "notebooks" / "03_attention_model.ipynb", as_version=4)
    notebook.cells = notebook.cells[:SETUP]
    assert (
        notebook.cells[-2].metadata.tags == ["parameters"]
        and "check_here" in notebook.cells[-1].source
    )
    nbformat.write(notebook, folder / "notebooks" / "03_attention_model.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_RUNS", str(folder / "left"))
        patch.setenv("ATTENTION_HEADLESS", "1")
        patch.chdir(folder)
        for line in of("mkdir"):
            subprocess.run(shlex.split(line), check=True)
        yield folder


def call(line: str) -> str:
    """A line of papermill's, by its own command, in this process; returns what it printed and warned of."""
    with warnings.catch_warnings(record=True):
        done = CliRunner().invoke(papermill.cli.papermill, [*words(line)[1], "--no-progress-bar"])
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    return done.output


def injected(path: Path) -> dict:
    """The parameters in the cell that papermill put into a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
    return {one.targets[0].id: ast.literal_eval(one.value) for one in ast.parse(cell.source).body}


def test_every_command_is_of_a_kind_that_is_checked_here():
    assert len(LINES) > 20 and {words(line)[0] for line in LINES} == set(PROGRAMS)
    assert {language for language, _ in BLOCKS} == {"", "ini", "python", "text"}


@pytest.mark.parametrize("line", of("helpers.run"))
def test_the_series_takes_each_line(checked, line):
    code, started = checked(words(line)[1])
    assert code == 0 and len(started) == 1
    if "--grid" in line:
        plan, where = started[0]
        wanted = [word for word in ("--workers", "--scheduler") if word in line]
        assert plan.axes and [f"--{name}" for name, value in where.items() if value] == wanted


def test_a_line_with_a_wrong_name_file_or_value_would_be_noticed(checked, capsys):
    for wrong in (
        ["--run", "x", "-p", "epoch", "4"],
        ["--params", "notebooks/params/paper.yml"],
        ["--run", "x", "--grid", "attention=soft"],
        ["--only", "7"],
    ):
        assert checked(wrong) == (2, []), wrong


def test_torchrun_takes_its_line_and_training_the_rest(folders, monkeypatch):
    from torch.distributed.run import get_args_parser

    (line,) = of("torchrun")
    options = get_args_parser().parse_args(words(line)[1])
    assert (
        options.module
        and options.training_script == "helpers.train"
        and options.nproc_per_node == "4"
    )
    started = []
    monkeypatch.setattr(train, "train_run", lambda *what: started.append(what))
    monkeypatch.chdir(PROJECT)
    assert main(options.training_script_args) == 0
    ((name, settings),) = started
    wanted = yaml.safe_load((PARAMS / "full.yaml").read_text(encoding="utf-8"))
    assert name == "big" and (settings.epochs, settings.image_size) == (
        wanted["epochs"],
        wanted["image_size"],
    )


@pytest.mark.parametrize("line", of("dask"))
def test_dask_takes_each_line(line):
    from distributed.cli import dask_scheduler, dask_worker

    kind, *arguments = words(line)[1]
    {"scheduler": dask_scheduler, "worker": dask_worker}[kind].main.make_context(kind, arguments)


def test_papermill_runs_its_lines(place):
    """All of papermill's own lines but that to S3, in the page's order, then what reads the outputs again."""
    said = {line: call(line) for line in of("papermill") if "s3://" not in line}
    assert len(said) == 3
    assert injected(place / "runs" / "small.ipynb") == {"run": "small", "image_size": 32}
    executed = nbformat.read(place / "runs" / "small.ipynb", as_version=4)
    assert "seed 42" in executed.cells[-1].outputs[0].text and (place / "left" / "small").is_dir()
    (listed,) = [output for line, output in said.items() if "--help-notebook" in line]
    assert all(f"{name}: " in listed for name in ("run", "image_size", "dropout"))
    recipe = yaml.safe_load((PARAMS / "tutorial.yaml").read_text(encoding="utf-8"))
    assert injected(place / "runs" / "plan.ipynb") == recipe | {"run": "tutorial"}
    plan, stored = (
        nbformat.read(place / path, as_version=4).cells
        for path in ("runs/plan.ipynb", "notebooks/04_train.ipynb")
    )
    plan = [cell for cell in plan if "injected-parameters" not in cell.metadata.get("tags", [])]
    assert [cell.get("outputs") for cell in plan] == [cell.get("outputs") for cell in stored], (
        "executed"
    )
    (line,) = of("jq")
    if shutil.which("jq"):
        done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
        assert yaml.safe_load(done.stdout) == {"run": "small", "image_size": 32}
    done = subprocess.run(
        [sys.executable, "-c", PYTHON], capture_output=True, text=True, check=True
    )
    first, second = map(ast.literal_eval, done.stdout.splitlines())
    assert first == {"run": "small", "image_size": 32}
    assert {name: ast.literal_eval(value) for name, value in second.items()}[
        "recipe"
    ] == "one_cycle"


def test_papermill_only_warns_of_an_unknown_name(place, caplog):
    """The first line of the page's table."""
    with caplog.at_level(logging.WARNING, "papermill"):
        call(
            "papermill notebooks/03_attention_model.ipynb runs/unknown.ipynb -p epochz 3 --prepare-only"
        )
    assert "epochz" in caplog.text and injected(place / "runs" / "unknown.ipynb") == {"epochz": 3}


def test_papermill_writes_to_s3(place, monkeypatch):
    """The page's line against a real HTTP server: few uploads, the parameters in the object, no credential."""
    server = pytest.importorskip("moto.server", reason='needs pip install "moto[server]" boto3')
    boto3 = pytest.importorskip("boto3", reason='needs pip install "moto[server]" boto3')
    from papermill.s3 import S3

    secret = {
        "AWS_ACCESS_KEY_ID": "an-id-of-this-test",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-this-test",
    }
    s3 = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    s3.start()
    try:
        host, port = s3.get_host_and_port()
        for name, value in (
            secret
            | {
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "NO_PROXY": "127.0.0.1",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        ).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(S3, "s3_session", (None, None, None))
        client = boto3.client("s3")
        client.create_bucket(Bucket="notebooks")
        client.put_bucket_versioning(
            Bucket="notebooks", VersioningConfiguration={"Status": "Enabled"}
        )

        def uploads(line: str) -> int:
            before = len(client.list_object_versions(Bucket="notebooks").get("Versions", []))
            call(line)
            return len(client.list_object_versions(Bucket="notebooks")["Versions"]) - before

        (line,) = [
            line.replace("BUCKET", "notebooks") for line in of("papermill") if "s3://" in line
        ]
        sparing = uploads(line)
        stored = client.get_object(Bucket="notebooks", Key="small.ipynb")["Body"].read().decode()
        notebook = nbformat.reads(stored, as_version=4)
        assert notebook.metadata.papermill.parameters == {"run": "small", "image_size": 32}
        assert notebook.metadata.papermill.output_path == "s3://notebooks/small.ipynb"
        assert "seed 42" in notebook.cells[-1].outputs[0].text
        assert not any(value in stored for value in secret.values())
        cells = sum(cell.cell_type == "code" for cell in notebook.cells)
        assert sparing < cells <= uploads(line.split(" --")[0]), (
            "without its options: again at every cell"
        )
    finally:
        s3.stop()


def test_the_cron_line_holds_a_lock_and_starts_the_series(checked, tmp_path):
    fields, command = CRON.split()[:5], CRON.split(maxsplit=5)[5]
    assert all(re.fullmatch(r"[\d*,/-]+", field) for field in fields)
    assert not re.search(r"(?<!\\)%", command), "cron takes a bare % for the end of the line"
    lock = re.search(r"flock .*?(?=\.venv)", command)[0]
    _, arguments = words(
        command.split(lock)[1].split(" >> ")[0].replace(r"$(date +\%F)", "2026-01-01")
    )
    code, started = checked(arguments)
    assert code == 0 and started[0][0]["run"] == "nightly-2026-01-01"

    (tmp_path / "runs").mkdir(exist_ok=True)
    if not shutil.which("flock"):
        pytest.skip("flock is not installed here")
    start = shlex.split(lock)
    with subprocess.Popen(
        [*start, "sh", "-c", "echo held; cat"],
        cwd=tmp_path,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        assert first.stdout.readline() == "held\n"
        assert subprocess.run([*start, "true"], cwd=tmp_path).returncode == 75
        first.stdin.close()
    assert first.returncode == 0 and subprocess.run([*start, "true"], cwd=tmp_path).returncode == 0


def test_systemds_units_are_whole(checked, tmp_path):
    service, timer = (configparser.ConfigParser(interpolation=None) for _ in UNITS)
    service.optionxform = timer.optionxform = str
    service.read_string(UNITS[0]), timer.read_string(UNITS[1])
    program, _, rest = service["Service"]["ExecStart"].partition(" ")
    code, started = checked(words(f"python {rest}")[1])
    assert code == 0 and started[0][0]["run"] == "nightly"
    assert program == service["Service"]["WorkingDirectory"] + "/.venv/bin/python"
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd is not installed here: the units were read, not verified by it")
    there = tmp_path / program.removeprefix("%h/")
    there.parent.mkdir(parents=True)
    there.symlink_to(sys.executable)
    for name, text in zip(("nightly.service", "nightly.timer"), UNITS, strict=True):
        (tmp_path / name).write_text(text.replace("%h", str(tmp_path)))
    for call in (
        ["verify", "--man=no", tmp_path / "nightly.service", tmp_path / "nightly.timer"],
        ["calendar", timer["Timer"]["OnCalendar"]],
    ):
        done = subprocess.run(
            [analyze, *call],
            capture_output=True,
            text=True,
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        )
        assert done.returncode == 0 and str(tmp_path) not in done.stderr, done.stderr


def test_exit_codes_are_those_of_helpers_run():
    told = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert (
        told
        == re.findall(r"\b(\d+): ", command.__doc__.replace("Exit 0:", "0:"))
        == ["0", "1", "2", "130"]
    )


@pytest.mark.parametrize(
    "text", [PAGE, (PARAMS / "README.md").read_text(encoding="utf-8")], ids=["page", "README"]
)
def test_the_tables_name_each_file_of_parameters_and_say_what_is_in_it(text):
    rows = dict(re.findall(r"^\| (?:\*\*|\[)(\w+\.yaml).*?\|(.*)\|$", text, re.MULTILINE))
    assert set(rows) == {path.name for path in PARAMS.glob("*.yaml")}
    known = parameters.known_parameters(parameters.NOTEBOOKS)
    for name, row in rows.items():
        values = parameters.read_parameters(str(PARAMS / name), [], known)
        parameters.check(values, known)
        if "epochs" in row:
            assert f"{values['epochs']} epochs" in row, name
        assert f"{values['benign']:,} benign" in row if values["benign"] else "| all" in row, name
        assert ("masks" in row) == ("masks" in values), name
        assert "ImageNet" in row or "the same" in row


def test_readme_command_is_taken(checked):
    (line,) = re.findall(
        r"^    (python .*)$", (PARAMS / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    code, started = checked(words(line)[1])
    assert code == 0 and started[0][0]["epochs"] == 4 and started[0][0]["benign"] == 6000
