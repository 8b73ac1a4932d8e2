"""CRF-RNN: the released front end, colours as the CRF compares them, and what its sight over the whole image asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pixelwise.crf.layer import CRFRNN
from pixelwise.data.normalise import Normalisation
from pixelwise.engine.config import TrainConfig, build_config
from pixelwise.engine.describe import describe
from pixelwise.engine.import_card import imported_card
from pixelwise.engine.model_file import load_model, save_model
from pixelwise.engine.plan import Plan
from pixelwise.engine.plan_data import plan_normalisation
from pixelwise.engine.predict import Segmenter, load_segmenter
from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import bilinear_kernel
from pixelwise.models import create_model, model_info
from pixelwise.models.crfrnn import CRFRNNNet
from pixelwise.models.fcn import fcn8s_vgg16

NAME = "crfrnn_fcn8s_vgg16"
STD = (58.395, 57.12, 57.375)
MEAN = (122.67892, 116.66877, 104.00699)


def small(**options: Any) -> CRFRNNNet:
    torch.manual_seed(0)
    model = create_model(NAME, num_classes=3, base_channels=2, iterations=2, **{"test_iterations": 2, **options})
    assert isinstance(model, CRFRNNNet)
    for name, parameter in model.named_parameters():
        if name.startswith(("score", "upscore2.bias")):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def photo(height: int = 30, width: int = 40) -> Tensor:
    """Return an image of 0..255 (1, 3, H, W) of smooth colours."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([2 * x + y, 3 * y + 20 * (x > width // 2), 200 - x - y])[None].float()


def test_parameters_are_the_front_ends_and_three_matrices() -> None:
    """FCN-8s, two dense deconvolutions of 4 x 4, a bias, two weight matrices and the compatibility."""
    described = describe("crfasrnn", num_classes=21)
    fcn8s = 134_362_751
    assert described.parameters == fcn8s + 2 * 21 * 21 * 4 * 4 + 21 + 3 * 21 * 21 == 134_378_207
    assert sum(row.parameters for row in described.layers) == described.parameters
    crf = described.layers[-1]
    assert (crf.name, crf.kind, crf.parameters, crf.output) == ("crf", "dense CRF", 3 * 21 * 21, [21, 500, 500])
    assert described.receptive_field is None
    assert described.legal_sizes == "any side, from 1"


def test_the_front_end_is_fcn8s_with_what_learns() -> None:
    model, plain = small().eval(), fcn8s_vgg16(num_classes=3, base_channels=2).eval()
    with torch.no_grad():
        model.upscore2.bias.zero_()  # type: ignore[union-attr]
        plain.load_state_dict({key: value for key, value in model.state_dict().items() if key in plain.state_dict()} | {
            key: value for key, value in plain.state_dict().items() if key.startswith("up")
        }, strict=True)  # fmt: skip
        seen: list[Tensor] = []
        model.crf.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
        model(photo())
        torch.testing.assert_close(seen[0], plain(photo()).logits, rtol=1e-4, atol=1e-4)
    learnt = dict(model.named_parameters())
    assert learnt["upscore2.weight"].shape == learnt["upscore_pool4.weight"].shape == (3, 3, 4, 4)
    assert learnt["upscore2.bias"].shape == (3,)
    assert "upscore8.weight" not in learnt
    assert torch.equal(model.upscore8.weight[1, 0], bilinear_kernel(16))
    assert torch.equal(torch.diagonal(model.upscore_pool4.weight, 0, 0, 1)[..., 0], bilinear_kernel(4))


def test_the_crf_sees_the_networks_input_blue_first() -> None:
    model = small().eval()
    images = photo() - torch.tensor(MEAN)[:, None, None]
    seen: list[Tensor] = []
    model.crf.register_forward_pre_hook(lambda layer, given: seen.extend(given))
    with torch.no_grad():
        logits = model(images).logits
        assert torch.equal(seen[1], images.flip(1))
        torch.testing.assert_close(logits, model.crf(seen[0], images.flip(1)))


def test_a_division_of_the_colours_is_undone() -> None:
    divided = small(color_std=STD).eval()
    seen: list[Tensor] = []
    divided.crf.register_forward_pre_hook(lambda layer, given: seen.append(given[1]))
    with torch.no_grad():
        divided((photo() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    torch.testing.assert_close(seen[0].flip(1) + torch.tensor(MEAN)[:, None, None], photo(), rtol=1e-5, atol=1e-3)


def test_five_iterations_train_and_ten_test() -> None:
    model = create_model("crfasrnn", num_classes=2, base_channels=1)
    assert isinstance(model.crf, CRFRNN)
    assert (model.crf.iterations, model.crf.test_iterations) == (5, 10)
    assert model.crf.sigmas == (3.0, 160.0, 3.0)
    state = model.crf.state_dict()
    assert [state[f"{name}.weight"].tolist() for name in ("spatial", "bilateral", "compatibility")] == [
        [[value, 0.0], [0.0, value]] for value in (3.0, 5.0, -1.0)
    ]


def test_all_parts_learn_together() -> None:
    model = small().train()
    labels = (photo()[:, 0] > 60).long()
    loss = functional.cross_entropy(model(photo() - 100).logits, labels)
    loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 7}, r"in_channels=7; accepted: up to 6"),
        (
            {"color_std": (58.0, 57.0)},
            r"color_std=\(58\.0, 57\.0\) for 3 channels; accepted: a number above 0 for each",
        ),
        ({"color_std": (58.0, 0.0, 57.0)}, r"color_std=\(58\.0, 0\.0, 57\.0\)"),
        ({"color_std": 58.0}, r"color_std=58\.0 for 3 channels"),
        ({"test_iterations": 0}, r"test_iterations is 0; accepted: whole numbers from 1"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        create_model(NAME, num_classes=2, base_channels=1, **options)


# How images are brought to it -----------------------------------------------------------------------------------


class Card:
    """What `plan_normalisation` reads of a data card."""

    channels = 3
    normalisation = Normalisation(
        intensity_range=(0.0, 255.0), mean=(0.5, 0.4, 0.25), std=(0.2, 0.2, 0.3), per_image=True
    )


def planned(*settings: str) -> tuple[Plan[Any], Normalisation]:
    config = build_config({"model": NAME, "data": {"path": "data"}}, ("options.base_channels=1", *settings))
    assert isinstance(config, TrainConfig)
    plan = Plan(config)
    return plan, plan_normalisation(plan, Card())  # type: ignore[arg-type]


def test_training_subtracts_the_datas_mean_and_divides_by_nothing() -> None:
    plan, normalisation = planned()
    assert plan.config.data.mean == (127.5, 102.0, 63.75)
    assert not normalisation.per_image
    assert normalisation.std == (1 / 255,) * 3
    assert plan.lines == ["data.mean = [127.5, 102, 63.75] (crfrnn_fcn8s_vgg16 compares colours in steps of 0..255)"]
    image = np.array([[[130, 100, 60], [140, 100, 60]]], dtype=np.uint8)
    found = normalisation(image)
    np.testing.assert_allclose(found[0, 1] - found[0, 0], [10, 0, 0], atol=1e-4)


def test_a_declared_deviation_becomes_the_datas() -> None:
    plan, normalisation = planned(f"options.color_std={list(STD)}")
    assert plan.config.data.std == STD
    np.testing.assert_allclose(normalisation.std, np.array(STD) / 255)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("data.normalise_per_image=true",),
            r"data\.normalise_per_image=true: .* which would differ from image to image",
        ),
        (
            ("data.mean=[1,2,3]", "data.std=[58,57,56]"),
            r"undoes a division by color_std=\[1, 1, 1\], .* divided by \[58, 57, 56\]; .* Give color_std=\[58,57,56\]",
        ),
        (("data.mean=[1,2,3]", "options.color_std=[58,57,56]"), r"color_std=\[58, 57, 56\], and .* by \[1, 1, 1\]"),
        (("data.mean=[1]",), r"data\.mean has 1 values and the images have 3 channels"),
    ],
)
def test_other_normalisations_are_refused(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        planned(*settings)


def written(path: Path, std: tuple[float, ...], *, per_image: bool = False) -> Path:
    options = dict(model_info(NAME).debug)
    model = create_model(NAME, num_classes=3, **options)
    normalisation = Normalisation(
        intensity_range=(0.0, 255.0),
        mean=tuple(value / 255 for value in MEAN),
        std=tuple(value / 255 for value in std),
        per_image=per_image,
    )
    card = imported_card(
        NAME,
        model,
        num_classes=3,
        classes=(),
        palette=(),
        ignore_index=None,
        normalisation=Normalisation(intensity_range=(0.0, 255.0), mean=(0.0,) * 3, std=(1 / 255,) * 3),
        licence=None,
        origin="a test",
        options=options,
    )
    save_model(path, model, card.model_copy(update={"normalisation": normalisation}))
    return path


def test_a_model_file_is_held_to_its_images(tmp_path: Path) -> None:
    file = written(tmp_path / "m.safetensors", (1.0, 1.0, 1.0))
    load_model(file)
    with pytest.raises(RequestError, match=r"color_std=\[2, 2, 2\], and its images are divided by \[1, 1, 1\]"):
        load_model(file, options={"color_std": (2.0, 2.0, 2.0)})
    load_model(written(tmp_path / "m.safetensors", STD), options={"color_std": STD})
    with pytest.raises(RequestError, match=r"are each divided by its own deviation; .* Normalise all images alike"):
        load_model(written(tmp_path / "m.safetensors", STD, per_image=True), options={"color_std": STD})


# The whole image at every pixel -----------------------------------------------------------------------------------


def test_tiles_are_refused_and_large_images_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter: Segmenter = load_segmenter(written(tmp_path / "m.safetensors", (1.0, 1.0, 1.0)), device="cpu")
    image = photo(40, 60)[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()
    assert segmenter.halo is None
    with pytest.raises(RequestError, match="tile 32: crfrnn_fcn8s_vgg16 sees the whole image at every pixel"):
        segmenter.predict(image, tile=32)
    assert segmenter.predict(image).window is None
    monkeypatch.setattr("pixelwise.engine.predict.WHOLE_IMAGE_PIXELS", 1000)
    monkeypatch.setattr("pixelwise.engine.predict.TILE", 32)
    assert segmenter.predict(image).window == (32, 32)
