"""bench/running_times.py: each notebook's seconds, its kernel's processor's, and a step's."""

from tests.bench.conftest import record


def test_a_notebook_is_timed_with_what_its_kernel_spent(start, tmp_path):
    words = ("--only", "01", "--name", "of_seed_3", "-p", "seed", "3")
    done = start("running_times", *words, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = record.read("of_seed_3", tmp_path)
    (name,) = result["figures"]
    assert name == "01_download"
    figures = result["figures"][name]
    assert figures["seconds"] > 0 and figures["processor_seconds"] > 0
    assert result["machine"]["step_seconds"] > 0 or result["machine"]["device"] != "cpu"
    assert result["data"]["photographs"] == 600 and result["seeds"] == [3]
    assert result["command"].startswith("python bench/running_times.py --only 01 --name")
