"""A trained network is used with other options than it was trained with, where they leave its weights as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixelwise import api
from pixelwise.data.microscopy import CLASSES, write_microscopy
from pixelwise.engine.describe import read_options
from pixelwise.engine.import_card import imported_card
from pixelwise.engine.import_state import normalisation_of
from pixelwise.engine.model_file import load_model, options_text, save_model
from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.weights.state_format import IMAGENET

NAME = "deeplabv3_resnet50"
NARROW = {"base_channels": 2, "blocks": (1, 1, 1, 2)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model file as of a training at output stride 16, the paper's."""
    torch.manual_seed(0)
    model = create_model(NAME, num_classes=3, **NARROW)
    path = tmp_path_factory.mktemp("trained") / "best.safetensors"
    card = imported_card(
        NAME,
        model,
        num_classes=3,
        classes=("background", "cell", "border"),
        palette=((0, 0, 0), (255, 0, 0), (0, 255, 0)),
        ignore_index=None,
        normalisation=normalisation_of(IMAGENET),
        licence=None,
        origin="made here",
        options=NARROW,
    )
    save_model(path, model, card)
    return path


def test_trained_at_stride_16_and_used_at_8(file: Path) -> None:
    coarse, fine = api.load(file), api.load(file, options={"output_stride": 8})
    assert fine.card.options == {**NARROW, "output_stride": 8}
    assert fine.model.output_stride == 8
    assert all(torch.equal(value, fine.model.state_dict()[key]) for key, value in coarse.model.state_dict().items())
    image = np.random.default_rng(0).integers(0, 255, (65, 81, 3), dtype=np.uint8)
    one, other = coarse.predict(image), fine.predict(image)
    assert one.probabilities.shape == other.probabilities.shape
    assert not torch.equal(one.probabilities, other.probabilities)
    torch.manual_seed(1)
    wanted = create_model(NAME, num_classes=3, output_stride=8, weights=None, **NARROW)
    wanted.load_state_dict(coarse.model.state_dict())
    pixels = torch.from_numpy(fine.card.normalisation(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        torch.testing.assert_close(fine.model(pixels).logits, wanted.eval()(pixels).logits, rtol=1e-4, atol=1e-5)


def test_the_protocol_says_what_was_changed(file: Path, tmp_path: Path) -> None:
    data = write_microscopy(tmp_path / "data", num_train=1, num_val=1, size=(64, 64))
    model, card = load_model(file)
    save_model(tmp_path / "m.safetensors", model, card.model_copy(update={"classes": CLASSES}))
    plain = api.evaluate(tmp_path / "m.safetensors", data)
    fine = api.evaluate(tmp_path / "m.safetensors", data, options={"output_stride": 8})
    assert "options" not in plain["protocol"]
    assert fine["protocol"]["options"] == "output_stride=8"
    assert plain["loss"] != fine["loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"base_channels": 4},
            r"with base_channels=4, deeplabv3_resnet50 wants other weights than .*best\.safetensors",
        ),
        ({"head": "torchvision"}, r"with head=torchvision, .*accepted: options that leave the weights as they are"),
        ({"output_strid": 8}, r"has no option 'output_strid'; closest: output_stride"),
        ({"output_stride": 12}, r"output_stride=12; accepted: 8, 16, 32"),
    ],
)
def test_options_that_need_other_weights_are_refused(file: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        api.load(file, options=options)


def test_options_are_written_as_they_are_given() -> None:
    given = ("output_stride=8", "options.multi_grid=[1,2,4]", "aux=true", "head=paper")
    assert options_text(read_options(given)) == "output_stride=8, multi_grid=[1,2,4], aux=true, head=paper"
