"""bench/full_table.py: it runs on any table in the layout, and what it counts can be counted."""

from helpers.photographs.sample import make_sample


def test_relatives_of_a_drawn_table_are_counted(run_program, tmp_path):
    table = make_sample(tmp_path / "sample", count=300)
    result = run_program("full_table", str(tmp_path / "sample" / "marking.csv"))
    sides = result["figures"]["leaks"]
    assert list(sides) == ["tutorial", "our validation", "our test"]
    assert sides["tutorial"]["leak"] > 0, "the sample has relatives, and photographs were dealt"
    for ours in ("our validation", "our test"):
        assert sides[ours]["leak"] == 0 and sides[ours]["photographs"] > 0
    assert set(result["figures"]["baselines"]) == {"tutorial", "ours"}
    assert result["data"]["photographs"] == len(table) == 300
