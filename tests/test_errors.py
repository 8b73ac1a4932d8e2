from __future__ import annotations

import pytest

from pixelwise.errors import RequestError, WorkError, closest


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("unet_smal", ["unet", "unet_small", "fcn8s_vgg16"], "unet_small, unet"),
        ("UNet", ["unet", "fcn8s_vgg16"], "unet"),
        ("lr", ["optimizer.lr", "seed"], "optimizer.lr, seed"),
        ("zzz", ["b", "a", "d", "c"], "a, b, c"),
        ("zzz", [], ""),
        ("val", {"train": 1, "val": 2}, "val"),
    ],
)
def test_closest_names_come_first_and_any_names_where_none_is_close(name, known, near) -> None:
    assert closest(name, known) == near


def test_closest_shows_no_more_than_asked_for() -> None:
    assert closest("unet", ["unet_a", "unet_b", "unet_c"], count=2).count("unet") == 2


def test_the_two_errors_are_what_python_programs_expect() -> None:
    assert issubclass(RequestError, ValueError)
    assert issubclass(WorkError, RuntimeError)
