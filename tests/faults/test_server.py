"""A server that misbehaves and a disk that fills: Kaggle's own client against loopback_kaggle.py.

Refusals (401, 403, 404, 503), no network, one cut and a killed download are in
tests/photographs/test_kaggle.py.
"""
# ruff: noqa: F811  (fixtures are imported by name)

import random
import zipfile
from pathlib import Path

import pytest

from helpers.photographs import kaggle
from tests.conftest import PATIENCE, files
from tests.kaggle_reader import NAME, SLUG, forks, reader, sign_in  # noqa: F401
from tests.loopback_kaggle import STALL, LoopbackKaggle

MIB = 1 << 20
FETCH = f"print('at', kaggle.fetch({NAME!r}).name)"
# The client waits up to a minute between its attempts; here the waits are noted in the output.
QUICK = """
import sys, time
time.sleep = lambda seconds: print('waits', round(seconds), file=sys.stderr)
"""
STOPPED = rf"KaggleFailed: {NAME} .*\({{}}\)"
REMOVED = rf"KaggleFailed: .*{NAME} .*\({{}}"


@pytest.fixture
def fetch(reader):
    """Fetches in a process of its own with good credentials; `code` runs there before."""
    signed_in = sign_in(reader.home, "KAGGLE_KEY")
    return lambda server, code="": reader.run(server, QUICK + code + "\n" + FETCH, **signed_in)


def refused(result, sentence: str) -> None:
    """The process ended in one sentence, without a traceback of the client's."""
    assert result.status == 1
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(result.last)
    assert result.output.count("Traceback") == 1 and "site-packages" not in result.output


def kept(reader) -> bytes:
    """What has arrived of the zip."""
    return (reader.folder.with_name(f"{SLUG}.download") / f"{SLUG}.zip").read_bytes()


def whole(reader, archive: Path) -> None:
    """The set is unpacked, equal to the archive byte for byte, and nothing else is left."""
    with zipfile.ZipFile(archive) as zipped:
        members = [member.filename for member in zipped.infolist() if not member.is_dir()]
        assert files(reader.folder) == set(members)
        for name in members:
            assert (reader.folder / name).read_bytes() == zipped.read(name), name
    left = {path.name for path in reader.folder.parent.iterdir()}
    assert left == {SLUG, f"{SLUG}.manifest.csv", f".{SLUG}.lock"}


# cuts and lengths


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))]
)
def test_ten_cuts_in_a_row_end_in_a_whole_set(seed, fetch, reader, tiny_zip):
    """The client tries six times, then the sentence; the next run goes on from what arrived."""
    print("seed", seed)
    rng = random.Random(seed)
    cuts = tuple(rng.randrange(3 * MIB // 2) for _ in range(10))
    with LoopbackKaggle(tiny_zip, cuts=cuts) as server:
        refused(fetch(server), STOPPED.format("ConnectionError|ChunkedEncodingError"))
        assert server.names().count("zip") == 6 and tiny_zip.read_bytes().startswith(kept(reader))
        assert fetch(server).last == f"at {SLUG}"
    assert server.cuts == [] and server.names().count("DownloadDataset") == 2
    whole(reader, tiny_zip)


def test_cuts_without_an_end_keep_what_arrived(fetch, reader, tiny_zip):
    rng = random.Random(7)
    cuts = tuple(rng.randrange(3 * MIB // 2) for _ in range(1000))
    arrived = b""
    with LoopbackKaggle(tiny_zip, cuts=cuts) as server:
        for _ in range(2):
            refused(fetch(server), STOPPED.format("ConnectionError|ChunkedEncodingError"))
            assert tiny_zip.read_bytes().startswith(kept(reader)) and len(kept(reader)) >= len(
                arrived
            )
            arrived = kept(reader)
    assert len(arrived) >= MIB and len(server.requests) < 20 and not reader.folder.exists()


def of_length(more: int):
    """An answer that says `more` bytes than it has, and ends where the zip or what it said ends."""

    def fault(handler, start):
        content = handler.server.kaggle.content[start:]
        handler.send_zip(start, len(content) + more)
        handler.wfile.write(content[: len(content) + more] if more < 0 else content)

    return fault


@pytest.mark.parametrize(
    "more, sentence",
    [(1000, STOPPED.format("ValueError")), (-1000, REMOVED.format("File is not a zip file"))],
)
def test_a_wrong_length_is_noticed_and_the_next_run_has_the_set(
    more, sentence, fetch, reader, tiny_zip
):
    with LoopbackKaggle(tiny_zip, faults=(of_length(more),)) as server:
        refused(fetch(server), sentence)
        assert not reader.folder.exists()
        assert fetch(server).last == f"at {SLUG}"
    whole(reader, tiny_zip)


def test_a_page_in_place_of_the_zip_is_removed(fetch, reader, tiny_zip):
    def page(handler, start):
        content = b"<html>Welcome to the hotel's network: sign in</html>"
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    with LoopbackKaggle(tiny_zip, faults=(page,)) as server:
        refused(
            fetch(server),
            REMOVED.format("File is not a zip file"),
        )
        assert files(reader.folder.parent) == set()
        assert fetch(server).last == f"at {SLUG}"
    whole(reader, tiny_zip)


# the server refuses, or has trouble


def test_too_many_requests_are_told_and_not_repeated(fetch, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip, status=429, headers={"Retry-After": "17"}) as server:
        result = fetch(server)
    refused(
        result,
        r"KaggleFailed: .*\b429\b.*\b17\b",
    )
    assert server.names() == ["DownloadDataset"] and "waits" not in result.output


def says(status: int, **headers):
    """An answer of this status from the place where the zip lies."""
    return lambda handler, start: handler.answer(status, {"message": "x" * 5000}, **headers)


def cut(handler, start):
    """An answer that breaks off after one and a half MiB, and soon where it goes on from there."""
    content = handler.server.kaggle.content
    handler.send_zip(start, len(content) - start)
    handler.wfile.write(content[start : start + (1000 if start else 3 * MIB // 2)])


def gone(handler, start):
    """An answer that breaks off, and nobody there any more."""
    cut(handler, start)
    handler.wfile.flush()
    handler.server.shutdown()
    handler.server.server_close()


@pytest.mark.parametrize(
    "status, sentence",
    [
        (429, r"429\b.*\b999999\b"),
        (403, r"\b403\b"),
        pytest.param(410, STOPPED.format(r".*\b410\b.*\b999999\b.*"), marks=pytest.mark.long),
    ],
)
def test_a_refusal_after_a_cut_is_not_written_over_what_arrived(
    status, sentence, fetch, reader, tiny_zip
):
    """403 and 410: what a signed address says when its time is over; the next run has a new one."""
    faults = (cut, says(status, **{"Retry-After": "999999"}))
    with LoopbackKaggle(tiny_zip, faults=faults) as server:
        result = fetch(server)
        refused(result, sentence)
        assert kept(reader) == tiny_zip.read_bytes()[:MIB]
        assert result.output.count("waits") == 1 and server.names().count("zip") == 2
        assert fetch(server).last == f"at {SLUG}"
    assert server.requests[-1]["headers"]["Range"] == f"bytes={MIB}-"
    whole(reader, tiny_zip)


@pytest.mark.parametrize(
    "plan, asked",
    [
        ({"refusals": (500,)}, ["DownloadDataset"] * 2 + ["zip"]),
        ({"refusals": (502, 503, 504)}, ["DownloadDataset"] * 4 + ["zip"]),
        ({"faults": (cut, says(500), says(503), says(500))}, ["DownloadDataset"] + ["zip"] * 5),
    ],
)
def test_a_servers_passing_trouble_is_waited_for(plan, asked, fetch, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip, **plan) as server:
        assert fetch(server).last == f"at {SLUG}"
    assert server.names() == asked
    whole(reader, tiny_zip)


def test_a_servers_lasting_trouble_is_told_after_four_requests(fetch, tiny_zip):
    with LoopbackKaggle(tiny_zip, status=500, headers={"Retry-After": "999999"}) as server:
        result = fetch(server)
    refused(result, STOPPED.format(r".*\b500\b.*\b999999\b.*"))
    assert server.names() == ["DownloadDataset"] * 4
    assert [line for line in result.output.splitlines() if "waits" in line] == [
        "waits 1",
        "waits 2",
    ]


def test_a_server_that_goes_away_in_the_middle(fetch, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip, faults=(gone,)) as server:
        refused(fetch(server), STOPPED.format("ProxyError"))
    assert kept(reader) == tiny_zip.read_bytes()[:MIB]


# nothing comes: the server holds on until the test is over

IMPATIENT = "kaggle.PATIENCE = 1"  # hundreds of times what an answer takes here


def silent(handler, start):
    """No answer, not even its head."""
    handler.server.kaggle.closing.wait(PATIENCE)


def stall(handler, start):
    """An answer that stops after one and a half MiB, and stays open."""
    cut(handler, start)
    handler.wfile.flush()
    handler.server.kaggle.closing.wait(PATIENCE)


@pytest.mark.parametrize(
    "plan, sentence, arrived",
    [
        ({"status": STALL}, STOPPED.format("ReadTimeout"), None),
        ({"faults": (silent,)}, STOPPED.format("ReadTimeout"), None),
        ({"faults": (stall,) * 6}, STOPPED.format("ConnectionError"), MIB),
        pytest.param(
            {"faults": (stall, *[silent] * 5)},
            STOPPED.format("ReadTimeout"),
            MIB,
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_stalled_connection_ends_in_a_sentence(plan, sentence, arrived, fetch, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip, **plan) as server:
        refused(fetch(server, IMPATIENT), sentence)
    assert arrived is None or len(kept(reader)) >= arrived
    assert arrived is None or tiny_zip.read_bytes().startswith(kept(reader))


def test_a_connection_that_stalls_once_goes_on(fetch, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip, faults=(stall,)) as server:
        assert fetch(server, IMPATIENT).last == f"at {SLUG}"
    assert server.requests[-1]["headers"]["Range"] == f"bytes={MIB}-"
    whole(reader, tiny_zip)


def test_nobody_waits_for_more_than_minutes():
    """Six attempts of the client with a time-out each, and its waits: 2, 4, 8, 16, 32 seconds."""
    assert 6 * kaggle.PATIENCE + 67 < 8 * 60


# a full disk

FULL = "import sys\nfrom tests.faults import limits\nlimits.full_disk({})()"


def test_a_disk_that_fills_while_downloading(fetch, reader, tiny_zip):
    with LoopbackKaggle(tiny_zip) as server:
        result = fetch(server, FULL.format(2 * MIB + 5))
        refused(result, STOPPED.format(".*"))
        assert kept(reader) == tiny_zip.read_bytes()[: 2 * MIB + 5]
        assert fetch(server).last == f"at {SLUG}"
    assert server.requests[-1]["headers"]["Range"] == f"bytes={2 * MIB + 5}-"
    whole(reader, tiny_zip)


def test_a_disk_that_fills_while_unpacking(fetch, reader, tiny_zip, tmp_path):
    archive = tmp_path / "set.zip"
    archive.write_bytes(tiny_zip.read_bytes())
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("large.bin", bytes(8 * MIB))
    with LoopbackKaggle(archive) as server:
        result = fetch(server, FULL.format(5 * MIB))
        assert result.status == 1
        assert "CannotWrite" in result.last and str(reader.folder) in result.last
        assert "ATTENTION_DATA" in result.last
        assert kept(reader) == archive.read_bytes() and not reader.folder.exists()
        assert fetch(server).last == f"at {SLUG}"
    assert server.names() == ["DownloadDataset", "zip"]  # nothing was asked for twice
    whole(reader, archive)


def test_a_readers_own_zip_on_a_disk_that_fills(reader, tiny_zip, folders, tmp_path):
    code = f"\nprint('at', archives.open_folder({str(tiny_zip)!r}, 'dataset').name)"
    with LoopbackKaggle(tiny_zip) as server:
        assert "CannotWrite: " in reader.run(server, FULL.format(2 * MIB) + code).last
        assert files(folders.data) == set()
        assert reader.run(server, code).last.startswith("at tiny-")


# two processes

BOTH = """
import os
from helpers.photographs import archives
plain = archives.unpack
archives.unpack = lambda *places: (print('unpacks', flush=True), plain(*places))
other = os.fork()
{}
sys.stdout.flush()
if not other:
    os._exit(0)
assert os.waitpid(other, 0)[1] == 0
"""


def test_two_processes_that_fetch_at_once_ask_once(reader, tiny_zip, tmp_path):
    """The zip is held back until the second process has said that it waits."""

    def later(handler, start):
        while str(reader.folder) not in (tmp_path / "output.txt").read_text():
            if handler.server.kaggle.closing.wait(0.05):
                return
        content = handler.server.kaggle.content
        handler.send_zip(start, len(content))
        handler.wfile.write(content)

    with LoopbackKaggle(tiny_zip, faults=(later,)) as server:
        result = reader.run(server, BOTH.format(FETCH), **sign_in(reader.home, "KAGGLE_KEY"))
    assert result.status == 0 and server.names() == ["DownloadDataset", "zip"]
    said = [str(reader.folder), f"at {SLUG}", "unpacks"]
    assert [result.output.count(words) for words in said] == [1, 2, 1], (
        result.output
    )  # lines of two may run together
    whole(reader, tiny_zip)


def test_two_processes_that_unpack_at_once_unpack_once(reader, tiny_zip, folders):
    code = f"print('at', archives.open_folder({str(tiny_zip)!r}, 'dataset').name)"
    with LoopbackKaggle(tiny_zip) as server:
        result = reader.run(server, BOTH.format(code))
    assert result.status == 0
    folder = next(path for path in (folders.data / "raw").iterdir() if path.is_dir())
    assert [result.output.count(words) for words in (f"at {folder.name}", "unpacks")] == [2, 1], (
        result.output
    )
    assert sum(path.is_file() for path in folder.rglob("*")) == 40 * 2 + 3
