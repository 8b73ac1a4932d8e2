"""EDeconvNet: two networks, two ways to join them, and inference box by box down to a run's predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.instance_wise import PUBLISHED, InstanceWise, aggregate_scores, instance_wise_probabilities
from pixelwise.engine.model_file import ModelCard, save_model
from pixelwise.engine.predict import Segmenter, load_segmenter
from pixelwise.engine.proposals import Boxes
from pixelwise.errors import RequestError
from pixelwise.models.deconvnet import DeconvNet
from pixelwise.models.edeconvnet import EDeconvNet, edeconvnet
from pixelwise.models.fcn import FCN8s

CLASSES = 3


def small(ensemble: str = "mean", *, seed: int = 0) -> EDeconvNet:
    torch.manual_seed(seed)
    model = edeconvnet(num_classes=CLASSES, base_channels=2, fc_channels=16, ensemble=ensemble)
    for module in model.modules():  # score layers start at zero, and small weights fade through twenty layers
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
    return model.eval()


def card(ensemble: str = "mean") -> ModelCard:
    return ModelCard(
        pixelwise="0",
        model="edeconvnet",
        options={"base_channels": 2, "fc_channels": 16, "ensemble": ensemble},
        num_classes=CLASSES,
        in_channels=3,
        classes=("ground", "disc", "box"),
        palette=((0, 0, 0), (255, 0, 0), (0, 0, 255)),
        ignore_index=None,
        normalisation=Normalisation(intensity_range=(0, 255), mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2)),
        scale=1.0,
        input_rule="224",
        licence=None,
        iteration=0,
        metrics={},
    )


def picture(height: int = 250, width: int = 300) -> NDArray[np.uint8]:
    image = np.full((height, width, 3), 60, np.uint8)
    image[40:180, 50:190] = (200, 120, 60)
    image[130:240, 160:290] = (30, 180, 220)
    return image


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_are_those_of_the_two_networks() -> None:
    with torch.device("meta"):
        assert count(edeconvnet(num_classes=21)) == 251_805_653 + 134_362_751 == 386_168_404


def test_mean_is_the_mean_of_probabilities_and_product_that_of_scores() -> None:
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        model = small()
        parts = [part(images).logits for part in (model.deconvnet, model.fcn8s)]
        assert not torch.allclose(parts[0], parts[1])
        mean = model(images).logits.softmax(dim=1)
        torch.testing.assert_close(mean, (parts[0].softmax(dim=1) + parts[1].softmax(dim=1)) / 2)
        product = small("product")(images).logits
        torch.testing.assert_close(product, parts[0].clamp(min=0) * parts[1].clamp(min=0))


def test_parts_that_were_trained_apart_can_be_put_together() -> None:
    model = small()
    joined = EDeconvNet(deconvnet=model.deconvnet, fcn8s=model.fcn8s, ensemble="product")
    assert {key.split(".")[0] for key in joined.state_dict()} == {"deconvnet", "fcn8s"}
    other = FCN8s(num_classes=5, in_channels=3, base_channels=2, dropout=0.5, learn_upsampling=False, fixed_final=False)
    with pytest.raises(RequestError, match=r"DeconvNet has 3 classes and 3 channels, FCN-8s 5 and 3; accepted: equal"):
        EDeconvNet(deconvnet=model.deconvnet, fcn8s=other, ensemble="mean")
    with pytest.raises(RequestError, match=r"ensemble='sum'; accepted: 'mean' \(the paper's\) or 'product'"):
        edeconvnet(num_classes=2, base_channels=2, fc_channels=16, ensemble="sum")


@pytest.mark.parametrize("ensemble", ["mean", "product"])
def test_fcn_sees_the_image_and_deconvnet_the_boxes(ensemble: str) -> None:
    model, image, normalisation = small(ensemble), picture(150, 200), card().normalisation
    boxes = Boxes(corners=np.array([[10.0, 10, 140, 130], [60, 20, 180, 140]]))
    chances = instance_wise_probabilities(model, image, boxes, normalisation=normalisation)
    view = torch.from_numpy(normalisation(image)).permute(2, 0, 1)
    fill = torch.full((3,), -2.0)  # (0 - 0.4) / 0.2
    windows = np.array([[-3, -2, 153, 142], [48, 8, 192, 152]])
    with torch.no_grad():
        objects = aggregate_scores(model.deconvnet, view, windows, fill=fill)
        scene = model.fcn8s(view[None]).logits[0]
    if ensemble == "mean":
        expected = (objects.softmax(dim=0) + scene.softmax(dim=0)) / 2
    else:
        expected = (objects * scene.clamp(min=0)).softmax(dim=0)
    torch.testing.assert_close(chances, expected)
    half = instance_wise_probabilities(model, image, boxes, normalisation=normalisation, scale=0.5)
    assert half.shape == chances.shape
    assert not torch.allclose(half, chances)


def test_a_run_predicts_large_images_box_by_box_and_small_ones_whole(tmp_path: Path) -> None:
    save_model(tmp_path / "best.safetensors", small(), card())
    segmenter = load_segmenter(tmp_path)
    found = segmenter.predict(picture())
    assert found.num_boxes is not None
    assert 1 <= found.num_boxes <= 50
    assert found.labels.shape == (250, 300)
    torch.testing.assert_close(found.probabilities.sum(dim=0), torch.ones(250, 300))
    assert torch.equal(segmenter.predict(picture()).probabilities, found.probabilities)
    whole = segmenter.predict(picture(200, 224))
    assert whole.num_boxes is None
    assert whole.labels.shape == (200, 224)


def test_other_rules_boxes_of_ones_own_and_whole_images(tmp_path: Path) -> None:
    segmenter = Segmenter(model=small(), card=card())  # as training validates: no boxes
    shrunk = segmenter.predict(picture())
    assert shrunk.num_boxes is None
    assert shrunk.labels.shape == (250, 300)
    mine = Boxes(corners=np.array([[20.0, 20, 220, 220]]))
    how = InstanceWise(propose=lambda image: mine, aggregate="mean")
    seen = replace(segmenter, instance_wise=how).predict(picture(), flip=True)
    assert seen.num_boxes == 1
    none = InstanceWise(propose=lambda image: Boxes(corners=np.array([[0.0, 0, 20, 20]])))
    again = replace(segmenter, instance_wise=none).predict(picture())
    assert again.num_boxes is None  # no box is large enough
    assert torch.equal(again.probabilities, shrunk.probabilities)


def test_given_boxes_take_the_place_of_proposals_in_images_of_any_size() -> None:
    mine = Boxes(corners=np.array([[20.0, 20, 220, 220], [0, 0, 30, 30]]))
    segmenter = Segmenter(model=small(), card=card(), instance_wise=PUBLISHED)
    seen = segmenter.predict(picture(), boxes=mine)
    assert seen.num_boxes == 1  # the other is too small, enlarged too
    how = replace(PUBLISHED, propose=lambda image: mine)
    proposed = replace(segmenter, instance_wise=how).predict(picture())
    assert torch.equal(seen.probabilities, proposed.probabilities)
    rows = segmenter.predict(picture(), boxes=mine.corners.tolist())
    assert torch.equal(rows.probabilities, seen.probabilities)
    little = segmenter.predict(picture(200, 220), boxes=Boxes(corners=np.array([[0.0, 0, 200, 200]])))
    assert little.num_boxes == 1
    none = segmenter.predict(picture(200, 220), boxes=Boxes(corners=np.empty((0, 4))))
    assert none.num_boxes is None  # seen whole
    with pytest.raises(RequestError, match=r"box 20, 20, 220, 220 is not inside the image, 200 x 220 pixels"):
        segmenter.predict(picture(200, 220), boxes=mine)
    with pytest.raises(RequestError, match=r"boxes have no effect on edeconvnet, which sees images whole here"):
        replace(segmenter, instance_wise=None).predict(picture(), boxes=mine)


def test_tiles_are_refused_above_the_largest_input() -> None:
    segmenter = Segmenter(model=small(), card=card())
    with pytest.raises(RequestError, match=r"tile 224: edeconvnet sees 224 x 224 pixels at most.*accepted: no tile"):
        segmenter.predict(picture(), tile=224)


def test_a_run_of_deconvnet_is_seen_box_by_box_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeconvNet, "instance_wise", True, raising=False)
    own = card().model_copy(
        update={"model": "deconvnet_vgg16", "options": {"base_channels": 2, "fc_channels": 16}},
    )
    save_model(tmp_path / "best.safetensors", small().deconvnet, own)
    assert load_segmenter(tmp_path).predict(picture()).num_boxes is not None
