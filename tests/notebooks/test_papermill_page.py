"""The commands of site/pages/papermill.md: their options parse, their files and parameters exist.

Each is given to its program's own parser, up to where something would start.
"""

import re
import shlex
from pathlib import Path

import papermill.cli
import pytest
import yaml

from helpers.runs import command, grid, parameters, train
from helpers.runs.series import declared

PROJECT = Path(__file__).resolve().parents[2]
PARAMS = PROJECT / "notebooks" / "params"
PAGE = (PROJECT / "site" / "pages" / "papermill.md").read_text(encoding="utf-8")
README = (PARAMS / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
PYTHON = re.compile(r"\S*python -m ")


def of(program: str) -> list[list[str]]:
    """The arguments of each command of the page that starts this program."""
    commands = []
    for line in LINES:
        words = shlex.split(PYTHON.sub("", line))
        while re.match(r"[A-Z_]+=", words[0]):  # a variable set for the command
            words.pop(0)
        if words[0] == program:
            commands.append(words[1:])
    return commands


@pytest.fixture
def checked(folders, monkeypatch, capsys):
    """Runs `helpers.run` up to where notebooks would start; returns what it would have run."""
    started = []
    monkeypatch.setattr(command, "run_series", lambda *what: started.append(what))
    # the page's runs have their earlier parts
    monkeypatch.setattr(command, "refuse", lambda notebook, run: None)
    monkeypatch.setattr(grid, "run_grid", lambda *what, **where: started.append(what) or {})
    monkeypatch.chdir(PROJECT)

    def check(arguments: list[str]) -> tuple:
        code = command.main(arguments)
        assert (code, capsys.readouterr().err) == (0, ""), arguments
        return started[-1]

    return check


def test_the_programs_are_those_checked_here():
    programs = ("dask", "helpers.run", "jq", "mkdir", "papermill", "torchrun")
    assert sum(len(of(program)) for program in programs) == len([line for line in LINES if line])


def test_the_series_takes_each_line(checked):
    inside = re.findall(r"python -m helpers\.run (.*?)(?= >>|$)", PAGE, re.MULTILINE)
    written = re.findall(r"^    python -m helpers\.run (.*)$", README, re.MULTILINE)
    assert len(inside) > len(of("helpers.run")) > 10 and written
    for text in [*inside, *written]:  # those for cron and systemd, too
        checked(shlex.split(text.replace(r"$(date +\%F)", "2026-01-01")))


def test_a_line_with_a_wrong_name_file_or_value_would_be_noticed(checked):
    for wrong in (
        ["--run", "x", "-p", "epoch", "4"],
        ["--params", "notebooks/params/paper.yml"],
        ["--run", "x", "--grid", "attention=soft"],
        ["--only", "7x"],
        ["--only", "01", "-p", "epochs", "4"],
    ):
        with pytest.raises(AssertionError):
            checked(wrong)


@pytest.mark.parametrize("arguments", of("papermill"), ids=" ".join)
def test_papermill_takes_each_line_and_the_notebook_its_parameters(arguments, monkeypatch):
    monkeypatch.chdir(PROJECT)
    options = papermill.cli.papermill.make_context("papermill", list(arguments)).params
    names = [name for name, _ in options["parameters"]]
    for file in options["parameters_file"]:
        assert Path(file).parent.samefile(PARAMS)
        parameters.read_parameters(file, [], parameters.known_parameters(parameters.NOTEBOOKS))
    assert set(names) <= set(declared(Path(options["notebook_path"])))


def test_torchrun_takes_its_line_and_training_the_rest(folders, monkeypatch):
    from torch.distributed.run import get_args_parser

    (line,) = of("torchrun")
    options = get_args_parser().parse_args(line)
    assert options.module and options.training_script == "helpers.train"
    started = []
    monkeypatch.setattr(train, "train_run", lambda *what: started.append(what))
    monkeypatch.chdir(PROJECT)
    assert train.main(options.training_script_args) == 0
    ((name, settings, _),) = started
    recipe = yaml.safe_load((PARAMS / "full.yaml").read_text(encoding="utf-8"))
    assert (name, settings.epochs) == ("big", recipe["epochs"])


@pytest.mark.parametrize("arguments", of("dask"), ids=" ".join)
def test_dask_takes_each_line(arguments):
    cli = pytest.importorskip("distributed.cli", reason="pip install distributed, as the page says")
    from distributed.cli import dask_scheduler, dask_worker

    assert cli
    kind, *options = arguments
    {"scheduler": dask_scheduler, "worker": dask_worker}[kind].main.make_context(kind, options)


def test_exit_codes_are_those_of_the_command():
    told = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    codes = re.findall(r"\b(\d+): ", command.__doc__.replace("Exit 0:", "0:"))
    assert told == codes == ["0", "1", "2", "130"]


@pytest.mark.parametrize("text", [PAGE, README], ids=["page", "README"])
def test_the_tables_say_what_is_in_each_file_of_parameters(text):
    rows = dict(re.findall(r"^\| (?:\*\*|\[)(\w+\.yaml).*?\|(.*)\|$", text, re.MULTILINE))
    assert set(rows) == {path.name for path in PARAMS.glob("*.yaml")}
    for name, row in rows.items():
        recipe = yaml.safe_load((PARAMS / name).read_text(encoding="utf-8"))
        if "epochs" in row:
            assert f"{recipe['epochs']} epochs" in row, name
        if "benign" not in recipe:
            photographs = "| the sample |"
        else:
            photographs = f"{recipe['benign']:,} benign" if recipe["benign"] else "| all"
        assert photographs in row and ("masks" in row) == ("masks" in recipe), name
