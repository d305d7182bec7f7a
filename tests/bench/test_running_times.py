"""bench/running_times.py: each notebook's seconds, its kernel's processor's, and a step's."""


def test_a_notebook_is_timed_with_what_its_kernel_spent(run_program):
    result = run_program("running_times", "--only", "01")
    (name,) = result["figures"]
    assert name == "01_download"
    figures = result["figures"][name]
    assert figures["seconds"] > 0 and figures["processor_seconds"] > 0
    assert result["machine"]["step_seconds"] > 0 or result["machine"]["device"] != "cpu"
    assert result["data"]["photographs"] == 600
    assert result["command"].startswith("python bench/running_times.py --only 01")
