"""`import-weights`: a `.caffemodel` becomes a model file that segments images as the original did."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caffe_writer import LayerToWrite, blob, caffemodel
from click.testing import CliRunner
from formula import numbers
from test_convert import changed, fully_connected, original_layers

from pixelwise.cli.import_weights import command
from pixelwise.data.known import CAMVID_CLASSES, VOC_CLASSES
from pixelwise.engine.import_weights import import_weights, normalisation
from pixelwise.engine.model_file import load_model
from pixelwise.engine.predict import Segmenter
from pixelwise.errors import RequestError
from pixelwise.models import create_model

NARROW = {"base_channels": 2}
VOC_MEAN = (104.00699, 116.66877, 122.67892)


def file_of(name: str, classes: int, folder: Path, *, layers: Sequence[LayerToWrite] = (), **how: Any) -> Path:
    """Write the file of a narrow network."""
    if not layers:
        layers = original_layers(name, create_model(name, num_classes=classes, in_channels=3, **NARROW))
    path = folder / f"{name}.caffemodel"
    path.write_bytes(caffemodel(layers, **how))
    return path


def run(*words: object) -> tuple[str, str]:
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_normalisation_subtracts_a_mean_from_bytes() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    found = normalisation(VOC_MEAN)(image)
    wanted = image.astype(np.float64) - VOC_MEAN[::-1]
    assert np.abs(found - wanted).max() < 1e-4  # of up to 150, rounding of float32
    assert normalisation(VOC_MEAN).intensity_range == (0.0, 255.0)  # so that `predict` knows it was trained on bytes


def test_prediction_is_what_caffe_would_do_with_the_image(tmp_path: Path) -> None:
    file = file_of("fcn8s_vgg16", 21, tmp_path)
    import_weights("fcn8s_vgg16", file, out=tmp_path / "fcn.safetensors", options=NARROW)
    model, card = load_model(tmp_path / "fcn.safetensors")
    image = (numbers("photo", (9, 14, 3)) * 127 + 128).astype(np.uint8)
    found = Segmenter(model=model, card=card).predict(image).probabilities
    # Caffe's own way: B, G, R, minus the mean, through the file's first convolution as it is.
    weights = model.get_submodule("conv1_1").weight
    with torch.no_grad():
        weights.copy_(weights.flip(1))
        seen = image[:, :, ::-1].astype(np.float32) - np.float32(VOC_MEAN)
        wanted = model(torch.from_numpy(seen.transpose(2, 0, 1).copy())[None]).logits.softmax(dim=1)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "classes", "first", "mean", "ignored"),
    [
        ("fcn32s_vgg16", 21, VOC_CLASSES, VOC_MEAN, 255),
        ("fcn16s_vgg16", 60, ("class_0", "class_1"), (104.007, 116.669, 122.679), 255),
        ("segnet_basic", 11, CAMVID_CLASSES, (0, 0, 0), 11),
        ("segnet_vgg16", 12, ("sky", "building", "pole", "road_marking", "road"), (0, 0, 0), 12),
        ("segnet_vgg16", 5, ("class_0",), (0, 0, 0), None),
    ],
)
def test_the_file_says_what_it_was_trained_on(
    name: str, classes: int, first: Sequence[str], mean: Sequence[float], ignored: int | None, tmp_path: Path
) -> None:
    done = import_weights(name, file_of(name, classes, tmp_path), out=tmp_path / "m.safetensors", options=NARROW)
    _, card = load_model(tmp_path / "m.safetensors")
    assert card == done.card
    assert len(card.classes) == len(card.palette) == card.num_classes == classes
    assert card.classes[: len(first)] == tuple(first)
    assert card.ignore_index == ignored
    assert card.licence is not None
    assert [value * 255 for value in card.normalisation.mean] == pytest.approx(list(reversed(mean)))
    assert [value * 255 for value in card.normalisation.std] == pytest.approx([1, 1, 1])


def test_command_reports_every_layer(tmp_path: Path) -> None:
    file = file_of("fcn8s_vgg16_atonce", 21, tmp_path)
    out = tmp_path / "sub" / "fcn.safetensors"
    text, _ = run("fcn8s_vgg16_atonce", file, "--out", out, "--set", "base_channels=2")
    assert "model       fcn8s_vgg16_atonce, 21 classes (PASCAL VOC)" in text
    assert "mean        104.00699, 116.66877, 122.67892 (B, G, R of 0..255), no division" in text
    assert "left out: scale_pool4: the constant 0.01, which the model has in its code" in text
    row = next(line for line in text.splitlines() if line.startswith("conv1_1 "))
    assert re.split("  +", row) == [
        *("conv1_1", "Convolution", "2 x 3 x 3 x 3", "conv1_1", "input channels turned from B, G, R to R, G, B")
    ]
    assert f"model file  {out}" in text
    said, _ = run("fcn8s_vgg16_atonce", file, "--out", out, "--set", "base_channels=2", "--json")
    result = json.loads(said)
    assert result["mean_bgr"] == list(VOC_MEAN)
    assert [row["layer"] for row in result["used"]][:2] == ["conv1_1", "conv1_2"]
    assert {row["layer"] for row in result["left_out"]} == {"scale_pool4", "scale_pool3"}
    assert result["own_initialisation"] == []
    weights = sum(each.blobs[0].size + (each.blobs[1].size if len(each.blobs) > 1 else 0) for each in atonce_layers())
    assert result["parameters"] == weights


def test_command_tells_of_absorbed_normalisations(tmp_path: Path) -> None:
    layers = original_layers("segnet_basic", create_model("segnet_basic", num_classes=11, in_channels=3, **NARROW))
    file = file_of("segnet_basic", 11, tmp_path, layers=[each for each in layers if each.type != "BN"])
    text, _ = run("segnet_basic", file, "--out", tmp_path / "m.safetensors", "--set", "base_channels=2")
    assert re.search(r"absorbed into the convolutions, so the identity: conv\w+_bn, .* and 2 more\n", text)


def atonce_layers() -> list[LayerToWrite]:
    model = create_model("fcn8s_vgg16_atonce", num_classes=21, in_channels=3, **NARROW)
    return [each for each in original_layers("fcn8s_vgg16_atonce", model) if each.type != "Scale"]


def test_a_start_from_a_classifier(tmp_path: Path) -> None:
    model = create_model("fcn32s_vgg16", num_classes=4, in_channels=3, **NARROW)
    layers = fully_connected(original_layers("fcn32s_vgg16", model))
    file = file_of("fcn32s_vgg16", 4, tmp_path, layers=layers, form="2014")
    words = ("fcn32s_vgg16", file, "--out", tmp_path / "a.safetensors", "--set", "base_channels=2")
    text, _ = run(*words, "--trunk", "--num-classes", 4)
    assert "own initialisation: score_fr.weight, score_fr.bias, upscore.weight" in text
    assert "left out: fc8: part of the ImageNet classifier only" in text
    first = load_model(tmp_path / "a.safetensors")[0].state_dict()
    assert not first["score_fr.weight"].any()
    create_model("fcn32s_vgg16", num_classes=4, in_channels=3, weights=tmp_path / "a.safetensors", **NARROW)
    with pytest.raises(RequestError, match=r"--trunk says nothing of the number of classes; accepted: --num-classes K"):
        import_weights("fcn32s_vgg16", file, out=tmp_path / "b.safetensors", options=NARROW, trunk=True)
    with pytest.raises(
        RequestError, match=r"has no score layer 'score_fr', .* ImageNet classifier, give --trunk as well"
    ):
        import_weights("fcn32s_vgg16", file, out=tmp_path / "b.safetensors", options=NARROW)
    file = file_of("fcn32s_vgg16", 4, tmp_path, layers=[each for each in layers if each.name != "fc8"])
    with pytest.raises(RequestError, match=r"lacks 3 tensors of .*'score_fr.weight' \(21 x 128 .*or --trunk to start"):
        import_weights("fcn32s_vgg16", file, out=tmp_path / "b.safetensors", options=NARROW, num_classes=21)
    assert not (tmp_path / "b.safetensors").exists()


def test_the_start_depends_on_the_seed_alone(tmp_path: Path) -> None:
    model = create_model("segnet_vgg16", num_classes=2, in_channels=3, **NARROW)
    layers = [each for each in original_layers("segnet_vgg16", model) if each.type != "BN" and "_D" not in each.name]
    file = file_of("segnet_vgg16", 2, tmp_path, layers=layers)
    decoders = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(decoders))
        import_weights(
            "segnet_vgg16", file, out=tmp_path / "s.safetensors", options=NARROW, trunk=True, num_classes=2, seed=seed
        )
        decoders.append(load_model(tmp_path / "s.safetensors")[0].state_dict()["conv5_3_D.weight"])
    assert torch.equal(decoders[0], decoders[1])
    assert not torch.equal(decoders[0], decoders[2])


def test_number_of_classes_is_counted_and_checked(tmp_path: Path) -> None:
    file = file_of("fcn32s_vgg16", 21, tmp_path)
    with pytest.raises(RequestError, match=r"--num-classes is 20, but layer 'score_fr' of .* has 21 outputs; .* out\."):
        import_weights("fcn32s_vgg16", file, out=tmp_path / "m.safetensors", options=NARROW, num_classes=20)
    import_weights("fcn32s_vgg16", file, out=tmp_path / "m.safetensors", options=NARROW, num_classes=21)


def test_the_mean_of_unknown_data_must_be_given(tmp_path: Path) -> None:
    file = file_of("fcn32s_vgg16", 7, tmp_path)
    out = tmp_path / "m.safetensors"
    with pytest.raises(
        RequestError, match=r"published for 21, 60, 40, 33 classes, and the file has 7, .*--mean B,G,R of"
    ):
        import_weights("fcn32s_vgg16", file, out=out, options=NARROW)
    done = import_weights("fcn32s_vgg16", file, out=out, options=NARROW, mean="10,20,30.5")
    assert done.mean == (10, 20, 30.5)
    assert done.card.normalisation.mean == pytest.approx((30.5 / 255, 20 / 255, 10 / 255))
    image = np.stack([np.full((4, 6), value, np.float32) for value in (12.0, 23.0, 34.0)])[None]
    (tmp_path / "mean.binaryproto").write_bytes(blob(image, old_shape=True))
    done = import_weights("fcn32s_vgg16", file, out=out, options=NARROW, mean=str(tmp_path / "mean.binaryproto"))
    assert done.mean == (12, 23, 34)
    for wrong in ("1,2", "a,b,c", "1,2,300", ""):
        with pytest.raises(RequestError, match=rf"--mean is '{wrong}'; accepted: three numbers B,G,R of 0\.\.255"):
            import_weights("fcn32s_vgg16", file, out=out, options=NARROW, mean=wrong)


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    file = file_of("fcn32s_vgg16", 21, tmp_path)
    out = tmp_path / "out" / "m.safetensors"
    with pytest.raises(
        RequestError, match=r"--out .*m.npz is not a model file; accepted: a name that ends in .safeten"
    ):
        import_weights("fcn32s_vgg16", file, out=tmp_path / "m.npz")
    with pytest.raises(RequestError, match=r"no whole network of 'hypercolumn_vgg16' was .* Give --trunk\."):
        import_weights("hypercolumn_vgg16", file, out=out)
    with pytest.raises(RequestError, match=r"no Caffe weights of 'unet' are known"):
        import_weights("unet", file, out=out)
    with pytest.raises(RequestError, match=r"layer 'conv1_1'; fcn32s_vgg16 wants 64 x 3 x 3 x 3"):
        import_weights("fcn32s_vgg16", file, out=out)  # the wide network
    layers = original_layers("fcn32s_vgg16", create_model("fcn32s_vgg16", num_classes=21, in_channels=3, **NARROW))
    cut = changed(layers, "fc7", blobs=[numbers("w", (128, 64, 1, 1)), numbers("b", (128,))])
    with pytest.raises(RequestError, match=r"128 x 64 x 1 x 1 in layer 'fc7'; fcn32s_vgg16 wants 128 x 128 x 1 x 1"):
        import_weights("fcn32s_vgg16", file_of("fcn32s_vgg16", 21, tmp_path, layers=cut), out=out, options=NARROW)
    assert not out.exists()
    assert not out.parent.exists()


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_than_three_are_refused(channels: int, tmp_path: Path) -> None:
    model = create_model("fcn32s_vgg16", num_classes=21, in_channels=channels, **NARROW)
    file = file_of("fcn32s_vgg16", 21, tmp_path, layers=original_layers("fcn32s_vgg16", model))
    with pytest.raises(
        RequestError, match=rf"sees {channels} channels in layer 'conv1_1'; accepted: 3, blue, green and"
    ):
        import_weights("fcn32s_vgg16", file, out=tmp_path / "m.safetensors", options=NARROW)
