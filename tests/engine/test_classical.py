"""The training of classical pipelines at tiny size: exact resumption, budgets, types of images, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

from pixelwise import api
from pixelwise.classical.textonboost import TextonBoost
from pixelwise.data.normalise import Normalisation
from pixelwise.engine import classical, classical_plan, processes
from pixelwise.engine.classical_config import ClassicalConfig
from pixelwise.engine.classical_images import rgb8
from pixelwise.engine.classical_plan import Costs, plan_rounds, rounds_within
from pixelwise.engine.classical_segmenter import load_classical, resized
from pixelwise.engine.config import build_config, read_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.plan import Plan
from pixelwise.engine.train import train
from pixelwise.errors import RequestError

TINY = (
    "options.num_textons=6",
    "options.num_rectangles=8",
    "options.box=24",
    "options.feature_share=0.3",
    "options.num_thresholds=4",
    "val_every=3",
    "threads=1",
)
FILES = ("best.safetensors", "last/checkpoint.safetensors")


def config(cells: Path, *settings: str, **budget: float) -> ClassicalConfig:
    values = {"model": "textonboost", "data": {"path": str(cells)}, "budget": budget or {"iterations": 8}}
    built = build_config(values, (*TINY, *settings))
    assert isinstance(built, ClassicalConfig)
    return built


@pytest.fixture(scope="module")
def whole(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight rounds, not to be changed."""
    return train(config(cells), tmp_path_factory.mktemp("runs") / "whole").run


def log_of(run: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in event.items() if key != "seconds"} for event in events]


class StopsAt(Silent):
    """A listener that presses Ctrl-C."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration
        self.stages: list[str] = []

    def stage(self, what: str, done: int, total: int) -> None:
        self.stages.append(what)

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        if iteration == self.iteration:
            import signal

            signal.raise_signal(signal.SIGINT)


def test_resume_equals_the_uninterrupted_run(cells: Path, whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            train(config(cells), cut, resume=cut.exists(), listener=StopsAt(stop))
    last = StopsAt(0)
    result = train(config(cells), cut, resume=True, listener=last)
    assert result.iterations == 8
    assert dict.fromkeys(last.stages) == dict.fromkeys(["texton maps", "replaying rounds"])
    for name in FILES:
        ours, theirs = load_file(cut / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert log_of(cut) == log_of(whole)
    assert (cut / "metrics.json").read_text() == (whole / "metrics.json").read_text()


def test_resume_of_a_finished_run_changes_nothing(cells: Path, whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    heard = StopsAt(0)
    assert train(config(cells), whole, resume=True, listener=heard).iterations == 8
    assert heard.stages == []
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_before_its_first_state_begins_again(cells: Path, whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("config.yaml", "data_card.json", "environment.json"):
        (cut / name).write_bytes((whole / name).read_bytes())
    (cut / "log.jsonl").write_text('{"event": "train", "iteration": 1, "weighted_error": 9}\n{"ev')
    train(config(cells), cut, resume=True)
    assert log_of(cut) == log_of(whole)


def test_run_folder_and_model_file_say_all_that_decided_the_run(cells: Path, whole: Path) -> None:
    resolved = read_config(whole / "config.yaml")
    assert isinstance(resolved, ClassicalConfig)
    assert (resolved.iterations, resolved.data.scale) == (8, 1.0)
    assert resolved.options["num_textons"] == 6
    assert resolved.options["kappa"] == 1.0  # a default, written out
    assert "seed" not in resolved.options
    loaded = load_classical(whole / "best.safetensors")
    assert loaded.card.classes == ("background", "cell", "nucleus")
    assert loaded.card.iteration == loaded.estimator.num_rounds
    assert loaded.card.options == resolved.options
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["parameters"] > 6 * 17
    assert loaded.card.metrics == metrics["metrics"] == api.evaluate(whole, cells)["metrics"]
    events = log_of(whole)
    assert [event["iteration"] for event in events if event["event"] == "validation"] == [3, 6, 8]
    rounds = [event for event in events if event["event"] == "train"]
    assert len(rounds) == 8
    assert all(0 < event["weighted_error"] < 1 and 0 <= event["sample_accuracy"] <= 1 for event in rounds)


@pytest.mark.slow
def test_threads_and_seed(cells: Path, whole: Path, tmp_path: Path) -> None:
    two = train(config(cells, "threads=2"), tmp_path / "two").run
    other = train(config(cells, "seed=1"), tmp_path / "other").run
    first, same, different = (load_file(run / FILES[0]) for run in (whole, two, other))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["features.rectangles"], different["features.rectangles"])


def test_a_time_budget_becomes_rounds_whose_first_ones_were_timed(cells: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(classical_plan, "BUDGET_SHARE", 1e-9)  # no time is left beyond the calibration
    run = train(config(cells, cpu_minutes=0.001), tmp_path / "run").run
    rounds = read_config(run / "config.yaml").iterations
    assert rounds is not None
    assert rounds >= 5
    again = train(config(cells, iterations=rounds), tmp_path / "again").run
    ours, theirs = load_file(run / FILES[0]), load_file(again / FILES[0])
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("seconds", "image", "rounds", "every"),
    [(100.0, 0.1, 91, 11), (100.0, 20.0, 5, 3), (1.0, 0.001, 5, 1)],
)
def test_rounds_leave_time_for_validations(cells: Path, seconds: float, image: float, rounds: int, every: int) -> None:
    plan = Plan(config(cells, minutes=1))
    plan.config = plan.config.model_copy(update={"val_every": None})
    plan_rounds(plan, 10, Costs(round=1.0, image=image), done=4, left=seconds)
    assert (plan.config.iterations, plan.config.val_every) == (rounds, every)


def test_later_validations_take_longer() -> None:
    costs = Costs(round=1.0, image=0.1, stump=0.01)
    assert costs.validations(1, 10, 50) == pytest.approx(10 * (0.1 + 0.01 * 50))
    assert costs.validations(2, 10, 50) == pytest.approx(10 * (0.1 + 0.01 * 25) + 10 * (0.1 + 0.01 * 50))
    rounds, validations = rounds_within(100.0, 4, 10, costs)
    assert validations == 2
    assert rounds - 4 + costs.validations(validations, 10, rounds) <= 100 + 1


@pytest.mark.slow
def test_half_the_size_where_a_budget_allows_few_rounds(cells: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(classical_plan, "SMALLEST_HALVED", 64)
    monkeypatch.setattr(classical_plan, "PROBE_ROUNDS", 1)
    said: list[str] = []
    listener = Silent()
    listener.say = said.append  # type: ignore[method-assign]
    run = train(config(cells, cpu_minutes=0.001), tmp_path / "run", listener=listener).run
    assert any(line.startswith("planned: data.scale = 0.5 (at full size the budget would allow") for line in said)
    assert load_classical(run / "best.safetensors").card.scale == 0.5


def test_early_stop(cells: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(TextonBoost, "predict_probabilities", flat)
    result = train(config(cells, "early_stop=1"), tmp_path / "run")
    assert result.iterations == 6  # validated at 3 and 6, which is no better
    again = train(config(cells), tmp_path / "run", resume=True)
    assert again.iterations == 6


def flat(estimator: TextonBoost, image: np.ndarray, *, num_threads: int | None = None) -> np.ndarray:
    return np.full((estimator.num_classes, *image.shape[:2]), 1 / estimator.num_classes, np.float32)


NORMALISATION = Normalisation(intensity_range=(100.0, 1100.0), mean=(0.5,), std=(0.2,))


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (np.array([[[7]]], np.uint8), [7, 7, 7]),
        (np.array([[[7, 8, 9]]], np.uint8), [7, 8, 9]),
        (np.array([[[100]]], np.uint16), [0, 0, 0]),
        (np.array([[[600]]], np.uint16), [128, 128, 128]),
        (np.array([[[60000]]], np.uint16), [255, 255, 255]),
        (np.array([[[1100.0]]], np.float32), [255, 255, 255]),
    ],
)
def test_what_the_filters_see(image: np.ndarray, wanted: list[int]) -> None:
    seen = rgb8(image, NORMALISATION)
    assert seen.dtype == np.uint8
    assert seen[0, 0].tolist() == wanted


def test_images_of_16_bit_are_brought_to_8(cells: Path, tmp_path: Path) -> None:
    deep = copied(cells, tmp_path / "deep", lambda image: image.astype(np.uint16) * 13 + 500)
    run = train(config(deep, iterations=3), tmp_path / "run").run
    assert load_classical(run / "best.safetensors").card.normalisation.intensity_range[0] >= 500
    assert api.evaluate(run, deep)["num_images"] == 2
    with pytest.raises(RequestError, match="accepted: 16-bit or float images"):
        api.load(run).predict(sorted(cells.glob("images/val/*.png"))[0])


def test_other_channels_are_refused(cells: Path, tmp_path: Path) -> None:
    two = copied(cells, tmp_path / "two", lambda image: np.dstack([image, image, image, image // 2]))
    with pytest.raises(RequestError, match=r"have 4 channels; accepted by textonboost: 1 \(grey\) or 3"):
        train(config(two), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def copied(cells: Path, folder: Path, change: Any) -> Path:
    """Copy a data set with changed images, as TIFF, which holds any number of channels."""
    for path in [path for path in cells.rglob("*") if path.is_file()]:
        place = folder / path.relative_to(cells)
        place.parent.mkdir(parents=True, exist_ok=True)
        if "images" in path.parts:
            image = change(np.asarray(Image.open(path)))
            tifffile.imwrite(place.with_suffix(".tif"), image, photometric="minisblack", planarconfig="contig")
        else:
            place.write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("budget.epochs=2", "budget.iterations=null"),
            r"epochs=2 has no effect on textonboost.*iterations, which are",
        ),
        (("options.seed=3",), r"options\.seed=3 has no effect beside the run's own seed; accepted: seed"),
        (("optimizer.lr=1",), r"key 'optimizer\.lr' has no effect here: it is for the training of semantic models"),
        (("data.crop=[32,32]",), r"key 'data\.crop' has no effect here"),
        (("options.num_textons=1",), r"num_textons is 1; accepted: a whole number from 2"),
        (("options.textons=9",), r"model 'textonboost' has no option 'textons'; closest: num_textons"),
        (("data.scale=0",), r"data\.scale is 0; accepted: greater than 0"),
    ],
)
def test_settings_without_effect_are_refused(
    cells: Path, tmp_path: Path, settings: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        train(config(cells, *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(cells: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(RequestError, match="textonboost in 2 processes, which would all learn the same"):
        train(config(cells), tmp_path / "run")


def test_a_state_of_something_else_is_refused(cells: Path, whole: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "data_card.json", "environment.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "last").mkdir()
    (tmp_path / "last/checkpoint.safetensors").write_bytes((whole / "best.safetensors").read_bytes())
    with pytest.raises(RequestError, match="is no training state of pixelwise"):
        train(config(cells), tmp_path, resume=True)


def test_resized_probabilities_still_sum_to_one() -> None:
    small = np.random.default_rng(0).dirichlet(np.ones(4), (5, 7)).transpose(2, 0, 1).astype(np.float32)
    large = resized(small, (11, 13))
    assert large.shape == (4, 11, 13)
    np.testing.assert_allclose(large.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(resized(small, (5, 7)), small)


def test_views_are_averaged_and_others_refused(cells: Path, whole: Path) -> None:
    segmenter = api.load(whole)
    path = sorted(cells.glob("images/val/*.png"))[0]
    image = np.asarray(Image.open(path))
    straight = segmenter.predict(image).probabilities
    mirrored = segmenter.predict(image[:, ::-1]).probabilities.flip(2)
    torch.testing.assert_close(segmenter.predict(path, flip=True).probabilities, (straight + mirrored) / 2)
    half = segmenter.predict(image, scales=(0.5,)).probabilities
    both = segmenter.predict(image, scales=(0.5, 1.0))
    torch.testing.assert_close(both.probabilities, (half + straight) / 2)
    assert both.labels.shape == image.shape
    for views, words in (
        ({"tile": 64}, "tile 64: textonboost sees an image of any size whole"),
        ({"window": 64}, "window 64: textonboost sees"),
        ({"scales": (0.5, 1.0), "fusion": "max"}, "fusion max: textonboost gives probabilities and no logits"),
        ({"boxes": [[0, 0, 9, 9]]}, "boxes have no effect on textonboost"),
    ):
        with pytest.raises(RequestError, match=words):
            segmenter.predict(image, **views)  # type: ignore[arg-type]


def test_options_cannot_be_changed_afterwards(whole: Path) -> None:
    with pytest.raises(RequestError, match=r"kappa=2: no option of textonboost leaves what it has learnt"):
        api.load(whole, options={"kappa": 2})


def test_stages_have_names_for_people() -> None:
    assert set(classical.STAGES) == {"responses", "k-means", "textons", "replay"}
