"""helpers/pictures/sheet.py: each photograph in its place, and nothing where there is none."""

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from helpers.pictures.sheet import sheet  # noqa: E402


def photograph(value: int, height: int = 5, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_stand_in_the_order_given_and_keep_their_pixels():
    pictures = [photograph(10), None, photograph(30, 9, 4), photograph(40)]
    figure = sheet(pictures, ["a", "", "c", "d"], columns=3, heading="H", row_names=["x", "y"])
    assert figure.get_suptitle() == "H"
    assert len(figure.axes) == 6, "two rows of three"
    for axis, picture in zip(figure.axes, [*pictures, None, None], strict=True):
        shown = [image.get_array() for image in axis.images]
        if picture is None:
            assert not shown and not axis.get_title()
        else:
            assert np.array_equal(shown[0], picture)
    assert [axis.get_title() for axis in figure.axes] == ["a", "", "c", "d", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["x", "", "", "y", "", ""]


def test_no_frames_and_no_ticks():
    for axis in sheet([photograph(10)], ["a"], columns=2).axes:
        assert not any(spine.get_visible() for spine in axis.spines.values())
        assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0


def test_an_outline_runs_where_the_mask_begins():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:20] = 255
    pictures = [photograph(10, 20, 30)] * 3
    figure = sheet(pictures, ["a", "b", "c"], columns=3, outlines=[mask, None, mask * 0])
    drawn = [axis.collections for axis in figure.axes]
    assert [len(lines) for lines in drawn] == [1, 0, 0]
    x, y = np.concatenate([path.vertices for path in drawn[0][0].get_paths()]).T
    assert (round(x.min() - 0.01), round(x.max() + 0.01)) == (9, 20), "columns 10 to 19"
    assert (round(y.min() - 0.01), round(y.max() + 0.01)) == (4, 15), "rows 5 to 14"


def test_no_picture_at_all():
    (axis,) = sheet([], [], columns=1, heading="none").axes
    assert not axis.images


def test_a_title_too_few_is_refused():
    with pytest.raises(ValueError, match="1 titles for 2 pictures"):
        sheet([photograph(10)] * 2, ["a"], columns=2)
