"""What the tests share: the real material where it is at hand, and folders that no reader's files lie in."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small tensors gain nothing from more, and lose by sharing
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real photographs, masks, weights and the whole table: ATTENTION_TEST_DATA, or `../shared/data`."""
    folder = Path(os.environ.get("ATTENTION_TEST_DATA") or PROJECT.parent / "shared" / "data")
    if not (folder / "melanoma-512.zip").is_file():
        pytest.skip(f"no real photographs in {folder}; name a folder that has them in ATTENTION_TEST_DATA")
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch) -> SimpleNamespace:
    """`data` and `runs` in a temporary folder, for this test and the processes that it starts."""
    found = SimpleNamespace(data=tmp_path / "data", runs=tmp_path / "runs")
    monkeypatch.setenv("ATTENTION_DATA", str(found.data))
    monkeypatch.setenv("ATTENTION_RUNS", str(found.runs))
    return found
