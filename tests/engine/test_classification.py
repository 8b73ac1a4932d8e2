"""Image classifiers: trained, resumed bit by bit, scored by one crop and ten, taken as a start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from pixelwise.data.images import read_image
from pixelwise.data.resized_crop import crops_of
from pixelwise.engine.classifier import load_classifier
from pixelwise.engine.config import ClassifierConfig, build_config, read_config
from pixelwise.engine.evaluate_classes import ClassEvaluation
from pixelwise.engine.listener import Silent
from pixelwise.engine.predict import load_segmenter
from pixelwise.engine.train import train
from pixelwise.errors import RequestError
from pixelwise.losses.classification import ClassLossConfig, class_loss

TINY = ("options.base_channels=2", "options.blocks=[1,1,1,1]", "data.batch_size=4", "threads=1", "data.crop=33")


def write_shapes(root: Path, *, train: int, val: int, side: int = 40) -> Path:
    """Write circles, squares and triangles of any colour, size and place."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name in ("circle", "square", "triangle"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                dark, light = (tuple(map(int, rng.integers(*limits, 3))) for limits in ((0, 90), (150, 256)))
                picture = Image.new("RGB", (side + 4, side), dark)
                radius = int(rng.integers(side // 4, side // 3))
                x, y = (int(rng.integers(radius + 1, side - radius - 1)) for _ in range(2))
                box = (x - radius, y - radius, x + radius, y + radius)
                draw = ImageDraw.Draw(picture)
                if name == "circle":
                    draw.ellipse(box, fill=light)
                elif name == "square":
                    draw.rectangle(box, fill=light)
                else:
                    draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=light)
                picture.save(folder / f"{index:03d}.png")
    return root


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), train=4, val=2)


def config(data: Path, *settings: str, iterations: int = 6, model: str = "resnet50") -> ClassifierConfig:
    values = {"model": model, "data": {"path": str(data)}, "budget": {"iterations": iterations}}
    built = build_config(values, (*TINY, *settings))
    assert isinstance(built, ClassifierConfig)
    return built


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(shapes), tmp_path_factory.mktemp("runs") / "whole").run


class Stops(Silent):
    """Interrupts after an iteration, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Raise the signal."""
        if iteration == self.after:
            import signal

            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("settings", [(), ("data.replacement=true", "optimizer.name=sgd", "optimizer.accumulate=2")])
def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(
    shapes: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    whole = train(config(shapes, *settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config(shapes, *settings), tmp_path / "parts", listener=Stops(3))
    parts = train(config(shapes, *settings), tmp_path / "parts", resume=True)
    assert parts.iterations == whole.iterations == 6
    for name in ("last/checkpoint.safetensors", "best.safetensors"):
        ours, theirs = (load_file(folder / name) for folder in (tmp_path / "parts", tmp_path / "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    stored = [(tmp_path / folder / "metrics.json").read_text() for folder in ("parts", "whole")]
    assert stored[0] == stored[1]


def test_the_model_file_knows_classes_crop_and_normalisation(run: Path) -> None:
    classifier = load_classifier(run)
    assert classifier.card.classes == ("circle", "square", "triangle")
    assert classifier.crop == 33
    assert not classifier.card.normalisation.per_image
    assert not read_config(run / "config.yaml").data.normalise_per_image
    with pytest.raises(RequestError, match=r"holds resnet50, which gives an image one class and no label map"):
        load_segmenter(run)


def test_ten_crops_are_the_mean_of_the_softmax_by_hand(run: Path, shapes: Path) -> None:
    classifier = load_classifier(run)
    path = shapes / "val/circle/000.png"
    image = read_image(path)
    by_hand = []
    for crop in crops_of(image, 33, 10):
        batch = torch.from_numpy(classifier.card.normalisation(np.ascontiguousarray(crop)))
        with torch.no_grad():
            by_hand.append(classifier.model(batch.permute(2, 0, 1)[None]).logits.softmax(dim=1)[0].numpy())
    np.testing.assert_allclose(classifier.predict(path, crops=10).probabilities, np.mean(by_hand, axis=0), atol=1e-6)
    np.testing.assert_allclose(classifier.predict(image).probabilities, by_hand[4], atol=1e-6)


def test_many_images_at_once_are_each_alone(run: Path, shapes: Path) -> None:
    classifier = load_classifier(run)
    images = [read_image(path) for path in sorted((shapes / "train/square").iterdir())]
    images.append(np.full((9, 200, 3), 7, np.uint8))
    together = classifier.probabilities(images, crops=10)
    alone = [classifier.predict(image, crops=10).probabilities for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)


def test_predictions_order_equal_classes_by_index(run: Path) -> None:
    from pixelwise.engine.classifier import ClassPrediction

    tied = ClassPrediction(classes=("a", "b", "c"), probabilities=np.array([0.2, 0.4, 0.4], np.float32))
    assert tied.label == "b"
    assert [name for name, _ in tied.top(2)] == ["b", "c"]


def test_scores_by_hand() -> None:
    evaluation = ClassEvaluation(
        classes=tuple("abcdef"),
        names=("x", "y", "z"),
        labels=np.array([0, 1, 1]),
        probabilities=np.array(
            [[0.5, 0.3, 0.2, 0, 0, 0], [0.5, 0.3, 0.2, 0, 0, 0], [0.3, 0.01, 0.2, 0.2, 0.15, 0.14]], np.float32
        ),
        protocol={},
    )
    result = evaluation.to_json()
    assert result["metrics"] == {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)}
    assert result["loss"] == pytest.approx(-np.log([0.5, 0.3, 0.01]).mean(), rel=1e-5)
    assert result["per_class"]["b"] == {"accuracy": 0.0, "truth_images": 2, "predicted_images": 0}
    assert result["per_class"]["c"]["accuracy"] is None
    assert [row["rank"] for row in result["per_image"]] == [1, 2, 6]
    confusions = [{"truth": "b", "prediction": "a", "images": 2, "share": 1.0, "image": "y"}]
    assert result["confusions"] == confusions


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_smoothed_targets(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 1])
    target = torch.full((5, 4), smoothing / 4) + (1 - smoothing) * torch.nn.functional.one_hot(labels, 4)
    expected = -(target * logits.float().log_softmax(dim=1)).sum(dim=1).mean()
    found = class_loss(logits, labels, ClassLossConfig(label_smoothing=smoothing))
    torch.testing.assert_close(found, expected)
    # In two processes every sum goes over both: the halves' losses are the whole's.
    halves = [logits[:2], logits[2:]], [labels[:2], labels[2:]]
    sums = [
        torch.nn.functional.cross_entropy(x.float(), y, label_smoothing=smoothing, reduction="sum")
        for x, y in zip(*halves, strict=True)
    ]
    totals = iter([sum(sums), torch.tensor(5.0)])
    both = class_loss(
        logits[:2], labels[:2], ClassLossConfig(label_smoothing=smoothing), total_of=lambda _: next(totals)
    )
    torch.testing.assert_close(both, expected)


def test_a_time_budget_becomes_iterations(shapes: Path, tmp_path: Path) -> None:
    values = {"model": "resnet50", "data": {"path": str(shapes)}, "budget": {"cpu_minutes": 0.02}}
    result = train(build_config(values, TINY), tmp_path / "run")
    assert read_config(tmp_path / "run/config.yaml").iterations == result.iterations >= 1


@pytest.mark.parametrize(
    ("model", "settings", "crop", "rate"),
    [
        ("alexnet", ("options.base_channels=4",), 63, 2e-4),
        ("drn_c_26", ("options.base_channels=8", "options.blocks=[1,1,1,1,1,1,1,1]"), 35, 1e-3),
    ],
)
def test_crop_and_rate_follow_images_and_model(
    shapes: Path, tmp_path: Path, model: str, settings: tuple[str, ...], crop: int, rate: float
) -> None:
    values = {"model": model, "data": {"path": str(shapes)}, "budget": {"iterations": 1}}
    train(build_config(values, (*settings, "threads=1", "data.batch_size=2")), tmp_path / "run")
    resolved = read_config(tmp_path / "run/config.yaml")
    assert (resolved.data.model_dump()["crop"], resolved.optimizer.lr) == (crop, rate)


def write_masks(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(2):
            for kind, array in (
                ("images", rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)),
                ("masks", rng.integers(0, 2, (48, 48), dtype=np.uint8)),
            ):
                path = root / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


def test_a_classifiers_run_is_the_start_of_its_kin(shapes: Path, tmp_path: Path) -> None:
    small = ("options.base_channels=2", "threads=1", "data.batch_size=2")
    pretrained = {"model": "vgg16", "data": {"path": str(shapes)}, "budget": {"iterations": 1}}
    run = train(build_config(pretrained, (*small, "data.crop=32")), tmp_path / "classifier").run
    data = write_masks(tmp_path / "masks")
    lines: list[str] = []

    class Hears(Silent):
        """Keeps what is said."""

        def say(self, line: str) -> None:
            """Keep a line."""
            lines.append(line)

    values = {"model": "fcn8s_vgg16", "data": {"path": str(data)}, "budget": {"iterations": 1}, "weights": str(run)}
    # A rate that moves nothing shows what training started from.
    settings = (*small, "optimizer.lr=1e-30", "optimizer.weight_decay=0", "ema=false")
    segmented = train(build_config(values, settings), tmp_path / "run", listener=Hears()).run
    ours, theirs = load_file(segmented / "best.safetensors"), load_file(run / "best.safetensors")
    assert torch.equal(ours["conv3_2.weight"], theirs["features.12.weight"])
    assert torch.equal(ours["fc7.weight"].flatten(1), theirs["classifier.3.weight"])
    said = next(line for line in lines if "weights: of the classifier" in line)
    assert "vgg16 (3 classes), 30 tensors are taken (conv1_1, " in said
    assert "left: 2 (classifier.6)" in said
    seen = json.loads((segmented / "data_card.json").read_text())["normalisation"]
    meant = load_classifier(run).card.normalisation
    np.testing.assert_allclose(seen["mean"], meant.mean, rtol=1e-6)
    np.testing.assert_allclose(seen["std"], meant.std, rtol=1e-6)


def test_weights_of_the_same_classifier_are_loaded_strictly(run: Path, shapes: Path, tmp_path: Path) -> None:
    again = train(config(shapes, f"weights={run}", "optimizer.lr=1e-30", "ema=false", iterations=1), tmp_path / "run")
    ours, theirs = (load_file(folder / "best.safetensors") for folder in (again.run, run))
    assert torch.equal(ours["layer4.0.conv2.weight"], theirs["layer4.0.conv2.weight"])
    (tmp_path / "two").mkdir()
    for split in ("train", "val"):
        for name in ("circle", "square"):
            (tmp_path / "two" / split).mkdir(exist_ok=True)
            (tmp_path / "two" / split / name).symlink_to(shapes / split / name)
    with pytest.raises(RequestError, match=r"are of 3 classes, and the data has 2; .* replace_classifier=true"):
        train(config(tmp_path / "two", f"weights={run}/best.safetensors"), tmp_path / "other")


@pytest.mark.slow
def test_a_small_network_learns_three_shapes(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", train=150, val=40)
    settings = (
        *("options.base_channels=16", "options.blocks=[1,1,1,1]", "threads=1", "augment.area=[0.6,1]"),
        *("optimizer.lr=0.003", "data.batch_size=32"),
    )
    values = {"model": "resnet50", "data": {"path": str(data)}, "budget": {"epochs": 25}}
    result = train(build_config(values, settings), tmp_path / "run")
    assert result.best["metrics"]["top1"] >= 0.9
