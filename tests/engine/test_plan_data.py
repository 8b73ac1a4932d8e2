"""What the data, or the weights to start from, decide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.config import build_config, read_config
from pixelwise.engine.model_file import ModelCard, card_of, load_model, save_model
from pixelwise.engine.plan import Plan
from pixelwise.engine.plan_data import plan_batch_norm
from pixelwise.engine.train import train
from pixelwise.errors import RequestError
from pixelwise.layers.frozen_batch_norm import freeze_batch_norm
from pixelwise.models import create_model, model_info
from pixelwise.structures import SegmentationOutput, SizeRule

TINY = ("options.base_channels=2", "options.depth=2", "data.crop=[32,48]", "data.batch_size=2", "threads=1")
MEAN = (113.0,)


@pytest.fixture
def published(cells: Path, tmp_path: Path) -> Path:
    """Weights that want a mean subtracted from 0..255, as those of the Caffe age do."""
    torch.manual_seed(0)
    model = create_model("unet_small", num_classes=3, in_channels=1, base_channels=2, depth=2)
    card = ModelCard(
        pixelwise="0",
        model="unet_small",
        options={"base_channels": 2, "depth": 2},
        num_classes=3,
        in_channels=1,
        classes=("a", "b", "c"),
        palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
        ignore_index=None,
        normalisation=Normalisation(
            intensity_range=(0.0, 255.0), mean=tuple(value / 255 for value in MEAN), std=(1 / 255,)
        ),
        scale=1.0,
        input_rule="any",
        licence=None,
        iteration=0,
        metrics={},
    )
    save_model(tmp_path / "published.safetensors", model, card)
    return tmp_path / "published.safetensors"


def test_published_weights_bring_their_normalisation(cells: Path, published: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "weights": str(published), "budget": {"iterations": 2}}
    train(build_config(values, TINY), tmp_path / "run")
    assert read_config(tmp_path / "run/config.yaml").data.mean == pytest.approx(MEAN)
    _, card = load_model(tmp_path / "run/best.safetensors")
    assert card.normalisation.std == (1 / 255,)
    assert card.normalisation.mean == pytest.approx([value / 255 for value in MEAN])


@pytest.mark.parametrize(
    ("normalisation", "wanted"),
    [
        (Normalisation(intensity_range=(0, 255), mean=(0.485,), std=(0.229,)), ((123.675,), (58.395,), None)),
        (Normalisation(intensity_range=(0, 255), mean=(0.4,), std=(0.2,), per_image=True), (None, None, True)),
    ],
)
def test_deviations_and_the_way_come_with_weights_too(
    normalisation: Normalisation,
    wanted: tuple[tuple[float, ...] | None, tuple[float, ...] | None, bool | None],
    cells: Path,
    published: Path,
    tmp_path: Path,
) -> None:
    model, card = load_model(published)
    save_model(tmp_path / "other.safetensors", model, card.model_copy(update={"normalisation": normalisation}))
    values = {"data": {"path": str(cells)}, "weights": str(tmp_path / "other.safetensors"), "budget": {"iterations": 2}}
    train(build_config(values, TINY), tmp_path / "run")
    data = read_config(tmp_path / "run/config.yaml").data
    mean, std, per_image = wanted
    assert data.mean == (mean if mean is None else pytest.approx(mean))
    assert data.std == (std if std is None else pytest.approx(std))
    assert data.normalise_per_image is per_image


def test_what_is_asked_for_beats_it(cells: Path, published: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "weights": str(published), "budget": {"iterations": 2}}
    train(build_config(values, (*TINY, "data.normalise_per_image=false")), tmp_path / "run")
    assert read_config(tmp_path / "run/config.yaml").data.mean is None


def test_a_file_without_a_card_has_none(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    assert card_of(tmp_path / "x.safetensors") is None
    assert card_of(tmp_path / "missing.safetensors") is None


class Pooled(torch.nn.Module):
    """A segmentation model that adds the normalised mean of the image."""

    size_rule = SizeRule()

    def __init__(self) -> None:
        super().__init__()
        self.near = torch.nn.Conv2d(1, 3, 1)
        self.far = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3))

    def forward(self, images: torch.Tensor) -> SegmentationOutput:
        return SegmentationOutput(self.near(images) + self.far(images))


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("beginning.build_model", "model_file.build_model"):
        monkeypatch.setattr(f"pixelwise.engine.{name}", lambda *_, **__: Pooled())


def settings_of(*more: str) -> tuple[str, ...]:
    return ("data.crop=[32,48]", "threads=1", *more)


@pytest.mark.usefixtures("pooled")
@pytest.mark.parametrize("kind", ["batch", "sync"])  # which is the same in one process
def test_a_single_value_is_refused_before_training(kind: str, cells: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "budget": {"iterations": 2}}
    alone = settings_of("data.batch_size=1", f"batch_norm={kind}")
    wanted = (
        rf"{kind} with batches of 1: far\.2 of unet_small sees a single value.*32 x 48.*from 2, or batch_norm=renorm"
    )
    with pytest.raises(RequestError, match=wanted):
        train(build_config(values, alone), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("pooled")
def test_a_single_value_trains_corrected_or_frozen_or_in_larger_batches(cells: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "budget": {"iterations": 2}}
    for number, more in enumerate(
        (("data.batch_size=1",), ("data.batch_size=1", "batch_norm=frozen"), ("data.batch_size=2", "batch_norm=batch"))
    ):
        train(build_config(values, settings_of(*more)), tmp_path / str(number))
    assert [read_config(tmp_path / f"{n}/config.yaml").batch_norm for n in range(3)] == ["renorm", "frozen", "batch"]


def test_frozen_statistics_stay_as_they_were_given(cells: Path, published: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "weights": str(published), "budget": {"iterations": 3}}
    train(build_config(values, (*TINY, "batch_norm=frozen", "options.depth=2")), tmp_path / "run")
    before, after = load_file(published), load_file(tmp_path / "run/best.safetensors")
    model = create_model("unet_small", num_classes=3, in_channels=1, base_channels=2, depth=2)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for name in names:
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(before[f"{name}.{tensor}"], after[f"{name}.{tensor}"])
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_batch_norm_of_a_model_without_one(cells: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "model": "unet_small", "budget": {"iterations": 2}}
    plan = Plan(build_config(values, ("data.batch_size=2", "batch_norm=frozen")))
    with pytest.raises(RequestError, match="batch_norm=frozen has no effect: unet_small has no batch normalisation"):
        plan_batch_norm(plan, torch.nn.Conv2d(1, 1, 1))
    plan = Plan(build_config(values, ("data.batch_size=2",)))
    plan_batch_norm(plan, torch.nn.Conv2d(1, 1, 1))
    assert (plan.config.batch_norm, plan.lines) == ("batch", [])


def test_a_model_that_keeps_its_normalisations_has_none_to_plan(cells: Path) -> None:
    """DeepLab v2 on ResNet trains with batches of one and the statistics that it was given."""
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    freeze_batch_norm(model)
    plan = Plan(build_config({"data": {"path": str(cells)}}, ("data.batch_size=1",)))
    plan_batch_norm(plan, model, window=(32, 32))
    assert (plan.config.batch_norm, plan.lines) == ("batch", [])
    plan = Plan(build_config({"data": {"path": str(cells)}}, ("data.batch_size=1", "batch_norm=renorm")))
    with pytest.raises(RequestError, match="batch_norm=renorm has no effect: unet_small keeps its batch normalisation"):
        plan_batch_norm(plan, model)


def test_frozen_without_weights_is_said(cells: Path) -> None:
    plan = Plan(build_config({"data": {"path": str(cells)}}, ("data.batch_size=2", "batch_norm=frozen")))
    plan_batch_norm(plan, torch.nn.BatchNorm2d(1))
    assert "statistics that no data gave" in plan.lines[0]
    with pytest.raises(RequestError, match="precise_batch_norm measures what batch_norm=frozen keeps"):
        build_config({"data": {"path": str(cells)}}, ("precise_batch_norm=2", "batch_norm=frozen"))


@pytest.mark.parametrize("name", ["pspnet_resnet50", "deeplabv3_resnet50"])
def test_global_poolings_in_batches_of_one(cells: Path, tmp_path: Path, name: str) -> None:
    """PSPNet's bin of one and DeepLab's image pooling: corrected statistics train them, the batch's own cannot."""
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in model_info(name).debug.items()}
    values = {"model": name, "options": options, "data": {"path": str(cells)}, "budget": {"iterations": 2}}
    tiny = ("data.crop=[33,41]", "data.batch_size=1", "threads=1")
    with pytest.raises(RequestError, match=rf"batches of 1: \S+ of {name} sees a single value per channel"):
        train(build_config(values, (*tiny, "batch_norm=batch")), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    train(build_config(values, tiny), tmp_path / "run")
    assert read_config(tmp_path / "run/config.yaml").batch_norm == "renorm"
