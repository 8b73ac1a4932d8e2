"""Files of probabilities that other programs wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pixelwise.engine.probability_maps import enlarged_text, read_probabilities
from pixelwise.errors import RequestError

SIZE = (8, 12)


def maps(size: tuple[int, int] = SIZE, labels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(labels), size).transpose(2, 0, 1)


def saved(path: Path, array: Any, **arrays: Any) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **({} if array is None else {"probabilities": array}), **arrays)
    else:
        np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_files(tmp_path: Path, dtype: type) -> None:
    for name in ("a.npy", "a.npz"):
        found, stored = read_probabilities(saved(tmp_path / name, maps().astype(dtype)), SIZE, resize=False)
        assert found.dtype == np.float32
        assert stored == SIZE
        np.testing.assert_allclose(found, maps(), atol=1e-3)
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


def test_bytes_are_255ths(tmp_path: Path) -> None:
    rounded = np.rint(maps(labels=11) * 255).astype(np.uint8)
    path = saved(tmp_path / "a.npz", None, prob_u8=rounded, other=np.zeros(3))
    np.testing.assert_allclose(
        read_probabilities(path, SIZE, resize=False)[0], rounded / rounded.sum(axis=0), atol=1e-6
    )


def test_one_array_needs_no_name_and_order_in_memory_does_not_matter(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.asfortranarray(maps()))
    found, _ = read_probabilities(tmp_path / "a.npz", SIZE, resize=False)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, maps(), atol=1e-6)


def test_small_maps_are_enlarged_between_pixel_centres(tmp_path: Path) -> None:
    small = maps((4, 6))
    found, stored = read_probabilities(saved(tmp_path / "a.npy", small), SIZE, resize=True)
    wanted = functional.interpolate(torch.tensor(small)[None], size=SIZE, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert enlarged_text(stored, SIZE) == {
        "enlarged": "probabilities from 4 x 6 to 8 x 12, bilinear, align_corners=False"
    }
    assert enlarged_text(SIZE, SIZE) == {}


def test_rounded_sizes_are_the_same_shape(tmp_path: Path) -> None:
    for size in ((47, 63), (46, 62), (47, 62)):
        read_probabilities(saved(tmp_path / "a.npy", maps(size)), (375, 500), resize=True)


@pytest.mark.parametrize(
    ("array", "resize", "message"),
    [
        (maps().transpose(1, 2, 0), False, r"shape \(8, 12, 3\), the image is 8 x 12.*Move the last axis to the front"),
        (maps((4, 6)).transpose(1, 2, 0), True, r"shape \(4, 6, 3\).*Move the last axis to the front"),
        (maps((4, 6)), False, r"accepted: \(K, 8, 12\)\. Give --resize to enlarge it"),
        (maps((12, 8)), True, r"shape \(3, 12, 8\).*Write the probabilities of this image at its size"),
        (maps((16, 24)), True, "Write the probabilities of this image at its size"),
        (maps()[0], False, r"shape \(8, 12\); accepted: \(K, 8, 12\), K classes first\. Stack 1 - p and p"),
        (maps()[None], False, "Write one map for each image"),
        (maps()[:0], False, r"shape \(0, 8, 12\)"),
        (np.log(maps()), False, "values down to -"),
        (maps() * 1.02, False, r"sums from 1\.02 to 1\.02 over the classes; accepted: .* within 0\.01"),
        (maps() * np.nan, False, "NaN or infinite values over the classes"),
        ((maps() * 100).astype(np.uint8), False, "over the classes of 255ths"),
        ((maps() * 100).astype(np.int32), False, "values of type int32"),
        (maps() > 0.5, False, "values of type bool"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, array: np.ndarray, resize: bool, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_probabilities(saved(tmp_path / "a.npy", array), SIZE, resize=resize)


def test_files_that_are_refused(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(RequestError) as caught:
            read_probabilities(path, SIZE, resize=False)
        return str(caught.value)

    assert "no such file" in message(tmp_path / "missing.npy")
    assert "is no file of probabilities" in message(tmp_path)
    assert "is no file of probabilities" in message(tmp_path / "a.pt")
    (tmp_path / "empty.npy").touch()
    assert "cannot be read" in message(tmp_path / "empty.npy")
    (tmp_path / "text.npz").write_text("nonsense")
    assert "cannot be read" in message(tmp_path / "text.npz")
    assert "no array of NumPy's" in message(tmp_path / "text.npz")
    whole = saved(tmp_path / "cut.npz", maps()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in message(tmp_path / "cut.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    assert "cannot be read (Object arrays cannot be loaded" in message(tmp_path / "objects.npy")
    assert "holds a, b; accepted" in message(saved(tmp_path / "two.npz", None, a=maps(), b=maps()))
    assert "holds no array" in message(saved(tmp_path / "none.npz", None))
