"""Caffe layers become state dicts: what goes where, what is done to it, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caffe_writer import LayerToWrite, caffemodel, convolutions
from formula import numbers, weight
from numpy.typing import NDArray
from torch import nn

from pixelwise.backbones.resnet import BLOCKS
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models, model_info
from pixelwise.weights.caffemodel import read_caffemodel
from pixelwise.weights.catalogue import PUBLISHED, published_weights
from pixelwise.weights.convert import Conversion, convert
from pixelwise.weights.published import VGG16_TRUNK, Published

K = 3
DECODER = [name for name in reversed(VGG16_TRUNK) if name != "conv1_1"]
TRUNK = " ".join(VGG16_TRUNK)
NORMS = [name.replace("conv", "bn") for name in VGG16_TRUNK]
DECONV = [
    f"{block}_{layer}" for block, depth in ((5, 3), (4, 3), (3, 3), (2, 2), (1, 2)) for layer in range(1, depth + 1)
]
CONTEXT = ["conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1", "conv5_1", "fc1", "final"]
BRANCHES = [f"{source}_{part}" for source in ("data", "pool1", "pool2", "pool3", "pool4") for part in ("conv", "fc")]
# Layers with weights of the original definitions, in their order, as far as the order says anything.
ORIGINAL = {
    "fcn32s_vgg16": f"{TRUNK} fc6 fc7 score_fr upscore",
    "fcn16s_vgg16": f"{TRUNK} fc6 fc7 score_fr upscore2 score_pool4 upscore16",
    "fcn8s_vgg16": f"{TRUNK} fc6 fc7 score_fr upscore2 score_pool4 upscore_pool4 score_pool3 upscore8",
    "fcn_alexnet": "conv1 conv2 conv3 conv4 conv5 fc6 fc7 score_fr upscore",
    "segnet_vgg16": " ".join(f"{name} {name}_bn" for name in [*VGG16_TRUNK, *(f"{each}_D" for each in DECODER)])
    + " conv1_1_D",
    "segnet_basic": " ".join(f"{n} {n}_bn" for n in ["conv1", "conv2", "conv3", "conv4"])
    + " ".join([""] + [f"conv_decode{i} conv_decode{i}_bn" for i in (4, 3, 2, 1)])
    + " conv_classifier",
    "deconvnet_vgg16": f"{TRUNK} {' '.join(NORMS)} fc6 bnfc6 fc7 bnfc7 fc6-deconv fc6-deconv-bn "
    + " ".join(f"deconv{i} debn{i}" for i in DECONV)
    + " seg-score-voc",
    "dilated_frontend_vgg16": f"{TRUNK} fc6 fc7 final",
    "dilation8_voc": f"{TRUNK} fc6 fc7 fc-final " + " ".join(f"ct_{name}" for name in CONTEXT),
    "dilation8_camvid": f"{TRUNK} fc6 fc7 final " + " ".join(f"ctx_{name}" for name in CONTEXT),
    "dilation7_kitti": f"{TRUNK} fc6 fc7 final " + " ".join(f"ctx_{name}" for name in CONTEXT if name != "conv5_1"),
    "dilation10_cityscapes": f"{TRUNK} fc6 fc7 final "
    + " ".join(f"ctx_{name}" for name in [*CONTEXT, "conv6_1", "conv7_1", "upsample"]),
    "deeplabv1_vgg16_largefov": f"{TRUNK} fc6 fc7 fc8_voc12",
    "deeplabv1_vgg16_4x4_r4": f"{TRUNK} fc6 fc7 fc8_pascal",
    "deeplabv1_vgg16_msc_largefov": f"{TRUNK} fc6 fc7 fc8_voc12 {' '.join(BRANCHES)} data_ms pool1_ms pool2_ms "
    "pool3_ms pool4_ms",
    "deeplabv2_vgg16_largefov": f"{TRUNK} fc6 fc7 fc8_voc12",
    "deeplabv2_vgg16_aspp_l": f"{TRUNK} " + " ".join(f"fc6_{i} fc7_{i} fc8_voc12_{i}" for i in (1, 2, 3, 4)),
}
ORIGINAL["fcn8s_vgg16_atonce"] = ORIGINAL["fcn8s_vgg16"] + " scale_pool4 scale_pool3"
ORIGINAL["crfrnn_fcn8s_vgg16"] = f"{TRUNK} fc6 fc7 score-fr score2 score-pool4 score4 score-pool3 upsample inference1"
ORIGINAL["bayesian_segnet_vgg16"] = ORIGINAL["segnet_vgg16"]
ORIGINAL["bayesian_segnet_basic"] = ORIGINAL["segnet_basic"].replace("conv_classifier", "dense_softmax_inner_prod")
ORIGINAL["deeplabv1_vgg16_7x7"] = ORIGINAL["deeplabv1_vgg16_4x4_r8"] = ORIGINAL["deeplabv1_vgg16_4x4_r4"]
ORIGINAL["deeplabv2_vgg16_aspp_s"] = ORIGINAL["deeplabv2_vgg16_aspp_l"]
# In test_deeplab_resnet.py and test_pspnet_caffe.py; fewer units in the debug size than the file has.
RESNETS = {"deeplabv2_resnet101": 101, "deeplabv2_resnet101_msc": 101, "pspnet_resnet50": 50, "pspnet_resnet101": 101}


def build(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=K, in_channels=3, **{**model_info(name).debug, **options}).eval()


def diagonal(kernels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return kernels (C, 1, k, k) as a dense blob (C, C, k, k)."""
    dense = np.zeros((len(kernels), *kernels.shape), np.float32)[:, :, 0]
    dense[range(len(kernels)), range(len(kernels))] = kernels[:, 0]
    return dense


def original_layers(name: str, model: nn.Module) -> list[LayerToWrite]:
    """Make a file's layers for a model: the names of the original definition, weights by the formula."""
    published = PUBLISHED[name]
    state = model.state_dict()
    layers = []
    for layer in ORIGINAL[name].split():
        module = published.module(layer)
        if layer in published.parts:
            blobs = [weight(layer + part, (1, 1, K, K)) for part in published.parts[layer]]
            layers.append(LayerToWrite(name=layer, type="MultiStageMeanfield", blobs=blobs))
            continue
        if layer in published.constants:
            width = state[f"{layer.replace('scale', 'score')}.weight"].shape[1]
            blobs = [np.full(width, published.constants[layer], np.float32)]
            layers.append(LayerToWrite(name=layer, type="Scale", blobs=blobs))
            continue
        each = model.get_submodule(module)
        wanted = [tuple(state[key].shape) for key in (f"{module}.weight", f"{module}.bias") if key in state]
        if isinstance(each, nn.BatchNorm2d):
            blobs = [numbers(f"{layer}{i}", (1, *shape, 1, 1)) + 1.5 for i, shape in enumerate(wanted)]
            layers.append(LayerToWrite(name=layer, type="BN", blobs=blobs, bn_mode=1))
            continue
        kind = "Convolution" if isinstance(each, nn.Conv2d) else "Deconvolution"
        blobs = [weight(layer + str(i), shape) for i, shape in enumerate(wanted)]
        if kind == "Deconvolution" and wanted[0][1] == 1 and name != "dilation10_cityscapes":
            blobs[0] = diagonal(blobs[0])
        layers.append(LayerToWrite(name=layer, type=kind, blobs=blobs))
    return layers


def converted(
    layers: list[LayerToWrite], model: nn.Module, name: str, folder: Path, *, form: Any = "2015", **how: Any
) -> Conversion:
    file = folder / "net.caffemodel"
    file.write_bytes(caffemodel(layers, form=form))
    published = how.pop("published", None) or PUBLISHED[name]
    return convert(read_caffemodel(file), model, published, name=name, **how)


def changed(layers: list[LayerToWrite], name: str, **what: Any) -> list[LayerToWrite]:
    return [replace(each, **what) if each.name == name else each for each in layers]


def without(layers: list[LayerToWrite], *names: str) -> list[LayerToWrite]:
    return [each for each in layers if each.name not in names]


built = pytest.mark.parametrize("name", [name for name in PUBLISHED if name in list_models()])
whole = pytest.mark.parametrize("name", [name for name in ORIGINAL if name in list_models()])


def test_every_system_has_its_original_names() -> None:
    assert ORIGINAL.keys() | RESNETS.keys() == {name for name, published in PUBLISHED.items() if published.trained_on}


@whole
def test_every_original_layer_goes_to_the_module_of_its_name(name: str, tmp_path: Path) -> None:
    model = build(name)
    layers = original_layers(name, model)
    done = converted(layers, model, name, tmp_path)
    model.load_state_dict(done.tensors)
    assert done.own == ()
    assert {use.layer for use in done.used} | done.left_out.keys() == {layer.name for layer in layers}
    assert set(done.left_out) == set(PUBLISHED[name].constants)
    by_name = {layer.name: layer for layer in layers}
    for use in done.used:
        found = done.tensors[f"{use.module}.weight"].numpy()
        parts = PUBLISHED[name].parts.get(use.layer, (use.module,))
        wanted = by_name[use.layer].blobs[parts.index(use.module)]
        if use.module in PUBLISHED[name].images:
            found = found[:, ::-1]
        elif by_name[use.layer].type == "Deconvolution" and found.shape != wanted.shape:
            found = diagonal(found)
        np.testing.assert_array_equal(found, wanted.reshape(found.shape))


@built
def test_score_module_and_image_convolutions_exist(name: str) -> None:
    depth = {"blocks": BLOCKS[RESNETS[name]]} if name in RESNETS else {}
    model, published = build(name, **depth), PUBLISHED[name]
    state = model.state_dict()
    assert state[f"{published.score}.weight"].shape[0] == K
    assert [state[f"{image}.weight"].shape[1] for image in published.images] == [3] * len(published.images)
    assert all(f"{module}.weight" in state for module in published.trunk)
    for key in published.fold.values():
        assert key in state


def test_files_of_2014_are_the_same(tmp_path: Path) -> None:
    model = build("deconvnet_vgg16")
    layers = original_layers("deconvnet_vgg16", model)
    old = converted(layers, model, "deconvnet_vgg16", tmp_path, form="2014")
    new = converted(layers, model, "deconvnet_vgg16", tmp_path)
    assert old.tensors.keys() == new.tensors.keys()
    assert all(torch.equal(old.tensors[key], new.tensors[key]) for key in new.tensors)


def test_both_channel_orders_are_the_same_function(tmp_path: Path) -> None:
    model = build("fcn32s_vgg16")
    layers = original_layers("fcn32s_vgg16", model)
    image = torch.from_numpy(numbers("image", (1, 3, 9, 14)) * 120)  # B, G, R
    outputs = []
    for order, seen in (("bgr", image), ("rgb", image.flip(1))):
        model.load_state_dict(converted(layers, model, "fcn32s_vgg16", tmp_path, channel_order=order).tensors)
        with torch.no_grad():
            outputs.append(model(seen).logits)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert not torch.allclose(model(image).logits, outputs[0], rtol=1e-2)


def fully_connected(layers: list[LayerToWrite]) -> list[LayerToWrite]:
    """Turn fc6 and fc7 into what an ImageNet classifier has, and end it in one."""
    out = without(layers, "score_fr", "upscore")
    for name in ("fc6", "fc7"):
        one = next(each for each in out if each.name == name)
        flat = one.blobs[0].reshape(len(one.blobs[0]), -1)
        out = changed(out, name, type="InnerProduct", blobs=[flat, one.blobs[1]])
    return [*out, *(replace(each, type="InnerProduct") for each in convolutions({"fc8": (10, 128)}))]


@pytest.mark.parametrize("form", ["2015", "2014", "2013"])
def test_a_classifier_starts_a_network(form: Any, tmp_path: Path) -> None:
    model = build("fcn32s_vgg16")
    whole = original_layers("fcn32s_vgg16", model)
    done = converted(fully_connected(whole), model, "fcn32s_vgg16", tmp_path, trunk=True, form=form)
    assert done.own == ("score_fr.weight", "score_fr.bias", "upscore.weight")
    assert done.left_out == {"fc8": "part of the ImageNet classifier only"}
    direct = converted(whole, model, "fcn32s_vgg16", tmp_path)
    assert torch.equal(done.tensors["fc6.weight"], direct.tensors["fc6.weight"])
    assert torch.equal(done.tensors["score_fr.weight"], model.state_dict()["score_fr.weight"])
    notes = {use.layer: use.note for use in done.used}
    assert notes["fc6"] == "rows of 784 read as 16 x 7 x 7"
    assert notes["conv1_1"] == "input channels turned from B, G, R to R, G, B"


def test_a_classifier_whose_fc6_does_not_fit_says_so(tmp_path: Path) -> None:
    model = build("fcn32s_vgg16")
    layers = fully_connected(original_layers("fcn32s_vgg16", model))
    narrow = changed(layers, "fc6", blobs=[numbers("fc6", (7, 784)), numbers("b", (7,))])
    done = converted(narrow, model, "fcn32s_vgg16", tmp_path, trunk=True)
    assert done.left_out["fc6"] == "7 x 784 in the file, 128 x 16 x 7 x 7 in the model"
    assert "fc6.weight" in done.own
    wrong = changed(layers, "conv1_2", blobs=[numbers("c", (4, 4, 1, 1))])
    with pytest.raises(RequestError, match="holds weights of 4 x 4 x 1 x 1 in layer 'conv1_2'; fcn32s_vgg16 wants 2 x"):
        converted(wrong, model, "fcn32s_vgg16", tmp_path, trunk=True)
    with pytest.raises(RequestError, match=r"lacks 2 tensors of fcn32s_vgg16, first 'conv4_2.weight' \(16 x 16 x 3 x"):
        converted(without(layers, "conv4_2"), model, "fcn32s_vgg16", tmp_path, trunk=True)


GOOGLENET = [f"inception_{block}/{part}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
             for part in ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")]  # fmt: skip


def test_googlenet_starts_its_fcn(tmp_path: Path) -> None:
    model, published = build("fcn_googlenet"), PUBLISHED["fcn_googlenet"]
    names = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3", *GOOGLENET]
    shapes = {name: tuple(model.get_parameter(f"{published.module(name)}.weight").shape) for name in names}
    done = converted(convolutions(shapes), model, "fcn_googlenet", tmp_path, trunk=True)
    assert [use.layer for use in done.used] == names
    assert done.own == ("score_fr.weight", "score_fr.bias", "upscore.weight")
    assert {use.module for use in done.used} == set(published.trunk)


def test_wrong_networks_are_refused_by_layer(tmp_path: Path) -> None:
    name = "fcn16s_vgg16"
    model = build(name)
    layers = original_layers(name, model)
    cases = [
        (without(layers, "score_pool4"), r"lacks 2 tensors of fcn16s_vgg16, first 'score_pool4.weight' \(3 x 16 x 1"),
        (without(layers, "score_pool4"), "it has 18 layers with weights: conv1_1, conv1_2, conv2_1, conv2_2, ..."),
        (
            [*layers, *convolutions({"score_pool3": (3, 8, 1, 1)})],
            r"a layer 'score_pool3' \(Convolution, 3 x 8 x 1 x 1, 3\), for which fcn16s_vgg16 has no place",
        ),
        (
            changed(layers, "fc6", blobs=[numbers("w", (128, 16, 4, 4)), numbers("b", (128,))]),
            "holds weights of 128 x 16 x 4 x 4 in layer 'fc6'; fcn16s_vgg16 wants 128 x 16 x 7 x 7. Accepted: shel",
        ),
        (
            changed(layers, "fc7", blobs=[numbers("w", (128, 128, 1, 1)), numbers("b", (64,))]),
            "holds blob 1 of 64 in layer 'fc7'; fcn16s_vgg16 wants 128",
        ),
        (
            changed(layers, "fc7", blobs=[numbers("w", (128, 128, 1, 1))] * 3),
            "has 3 blobs in layer 'fc7'; weight and bias are known",
        ),
        (changed(layers, "fc7", blobs=[numbers("w", (128, 128, 1, 1))]), r"lacks 1 tensors .*'fc7.bias' \(128\)"),
        (
            changed(layers, "upscore2", blobs=[diagonal(numbers("u", (3, 1, 4, 4))), numbers("b", (3,))]),
            "holds blob 1 in layer 'upscore2', for which fcn16s_vgg16 has no 'upscore2.bias'",
        ),
        (
            [*layers, replace(next(each for each in layers if each.name == "score_fr"), name="score-fr")],
            "fills 'score_fr.weight' twice, the second time from layer 'score-fr'",
        ),
    ]
    for wrong, said in cases:
        with pytest.raises(RequestError, match=said) as refusal:
            converted(wrong, model, name, tmp_path)
        assert str(refusal.value).startswith(f"{tmp_path}/net.caffemodel ")


def test_kernels_that_mix_channels_need_a_model_that_does(tmp_path: Path) -> None:
    model = build("fcn32s_vgg16")
    mixing = numbers("u", (K, K, 64, 64))
    layers = changed(original_layers("fcn32s_vgg16", model), "upscore", blobs=[mixing])
    off = np.abs(mixing * (1 - np.eye(K, dtype=np.float32))[:, :, None, None]).max()
    with pytest.raises(
        RequestError, match=rf"layer 'upscore' \(weights up to {off:g} off .*--set learn_upsampling=true"
    ):
        converted(layers, model, "fcn32s_vgg16", tmp_path)
    learning = build("fcn32s_vgg16", learn_upsampling=True)
    done = converted(layers, learning, "fcn32s_vgg16", tmp_path)
    np.testing.assert_array_equal(done.tensors["upscore.weight"].numpy(), mixing)


def test_constants_of_the_atonce_net_are_checked(tmp_path: Path) -> None:
    name = "fcn8s_vgg16_atonce"
    model = build(name)
    layers = original_layers(name, model)
    done = converted(layers, model, name, tmp_path)
    assert done.left_out == {
        "scale_pool4": "the constant 0.01, which the model has in its code",
        "scale_pool3": "the constant 0.0001, which the model has in its code",
    }
    wrong = changed(layers, "scale_pool4", blobs=[np.full(16, 0.02, np.float32)])
    with pytest.raises(RequestError, match=r"other numbers than 0.01 in layer 'scale_pool4' \(0.02 to 0.02\)"):
        converted(wrong, model, name, tmp_path)
    with pytest.raises(RequestError, match=r"lacks layer 'scale_pool3', the constant 0.0001"):
        converted(without(layers, "scale_pool3"), model, name, tmp_path)
    with pytest.raises(
        RequestError, match=r"in layer 'scale_pool4', for which fcn8s_vgg16 has no 'scale_pool4.weight'"
    ):
        converted(layers, build("fcn8s_vgg16"), "fcn8s_vgg16", tmp_path)


def test_the_older_names_of_fcn8s_and_the_bias_of_its_deconvolution(tmp_path: Path) -> None:
    name = "fcn8s_vgg16"
    model = build(name)
    layers = original_layers(name, model)
    older = {"score_fr": "score-fr", "upscore2": "score2", "score_pool4": "score-pool4", "upscore_pool4": "score4"}
    older |= {"score_pool3": "score-pool3", "upscore8": "upsample"}
    bias = numbers("bias", (K,))
    renamed = [replace(each, name=older.get(each.name, each.name)) for each in layers]
    kernel = next(each for each in renamed if each.name == "score2").blobs[0]
    renamed = changed(renamed, "score2", blobs=[kernel, bias])
    done = converted(renamed, model, name, tmp_path, form="2014")
    plain = converted(layers, model, name, tmp_path)
    torch.testing.assert_close(
        done.tensors["score_pool4.bias"], plain.tensors["score_pool4.bias"] + torch.from_numpy(bias), rtol=0, atol=0
    )
    rest = [key for key in plain.tensors if key != "score_pool4.bias"]
    assert all(torch.equal(done.tensors[key], plain.tensors[key]) for key in rest)
    assert {use.layer: use.note for use in done.used}["score2"].endswith("bias added to score_pool4.bias")


def normalised(name: str, module: str, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    model = build(name)
    model.load_state_dict(tensors)
    out: torch.Tensor = model.get_submodule(module)(x)
    return out


def test_folded_batch_norm_is_a_scale_and_a_shift(tmp_path: Path) -> None:
    model = build("segnet_vgg16")
    layers = original_layers("segnet_vgg16", model)
    scale, shift = next(each for each in layers if each.name == "conv2_1_bn").blobs
    done = converted(layers, model, "segnet_vgg16", tmp_path)
    x = torch.from_numpy(numbers("x", (2, 4, 5, 5)))
    found = normalised("segnet_vgg16", "conv2_1_bn", done.tensors, x)
    torch.testing.assert_close(found, x * torch.from_numpy(scale) + torch.from_numpy(shift))
    by_layer = {use.layer: use.note for use in done.used}
    assert by_layer["conv2_1_bn"] == "folded scale and shift; mean 0, variance 1"


def test_batch_norm_in_training_is_refused(tmp_path: Path) -> None:
    model = build("segnet_basic")
    layers = original_layers("segnet_basic", model)
    training = [replace(each, bn_mode=None) for each in layers]
    with pytest.raises(RequestError, match=r"in training: layer 'conv1_bn' holds no statistics.*--folded"):
        converted(training, model, "segnet_basic", tmp_path)
    # The script that folds the statistics saves the network that counted them, with mean and variance as outputs.
    counting = [replace(each, bn_mode=None, tops=("x", "x-mean", "x-var")) for each in layers]
    expected = converted(layers, model, "segnet_basic", tmp_path).tensors
    for done in (
        converted(counting, model, "segnet_basic", tmp_path),
        converted(training, model, "segnet_basic", tmp_path, folded=True),
    ):
        assert all(torch.equal(done.tensors[key], expected[key]) for key in expected)


def test_batch_norm_absorbed_into_convolutions_becomes_the_identity(tmp_path: Path) -> None:
    model = build("segnet_basic")
    layers = original_layers("segnet_basic", model)
    zeros = [replace(each, blobs=[blob * 0 for blob in each.blobs]) if each.type == "BN" else each for each in layers]
    absent = [each for each in layers if each.type != "BN"]
    x = torch.from_numpy(numbers("x", (2, 4, 5, 5)))
    for each in (zeros, absent):
        done = converted(each, model, "segnet_basic", tmp_path)
        torch.testing.assert_close(normalised("segnet_basic", "conv_decode3_bn", done.tensors, x), x)
        assert sorted(done.identities) == sorted(one.name for one in layers if one.type == "BN")
    with pytest.raises(RequestError, match=r"lacks 4 tensors of segnet_basic, first 'conv3_bn.weight'"):
        converted(without(layers, "conv3_bn"), model, "segnet_basic", tmp_path)


class Normalised(nn.Module):
    """A convolution and a batch normalisation, as Caffe's residual networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)


@pytest.mark.parametrize("factor", [0.0, 1.0, 999.98])
def test_caffe_batch_norm_and_scale(factor: float, tmp_path: Path) -> None:
    mean, variance = numbers("mean", (4,)), numbers("variance", (4,)) + 2
    gamma, beta = numbers("gamma", (4,)), numbers("beta", (4,))
    layers = [
        LayerToWrite(name="conv1", type="Convolution", blobs=[weight("w", (4, 3, 3, 3))]),
        LayerToWrite(name="bn_conv1", type="BatchNorm", blobs=[mean, variance, np.float32([factor])]),
        LayerToWrite(name="scale_conv1", type="Scale", blobs=[gamma, beta]),
    ]
    published = Published(
        score="conv1", trained_on={}, mean=(0, 0, 0), images=("conv1",), trunk=(), source="a test",
        names={r"(?:bn|scale)_conv(\d)": r"bn\1"},
    )  # fmt: skip
    model = Normalised().eval()
    done = converted(layers, model, "residual", tmp_path, published=published)
    model.load_state_dict(done.tensors)
    x = torch.from_numpy(numbers("x", (2, 4, 3, 3)))
    by = factor or 1.0
    wanted = (x.numpy() - mean[:, None, None] / by) / np.sqrt(variance[:, None, None] / by + 1e-5)
    wanted = wanted * gamma[:, None, None] + beta[:, None, None]
    np.testing.assert_allclose(model.bn1(x).detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(
        RequestError, match="blobs of 4, 4 in layer 'bn_conv1'; mean, variance and one factor are known"
    ):
        converted(changed(layers, "bn_conv1", blobs=[mean, variance]), model, "residual", tmp_path, published=published)


def test_front_end_of_a_context_network_is_listed(tmp_path: Path) -> None:
    published = PUBLISHED["dilated_frontend_vgg16"]
    for layer in ("ct_conv1_1", "ctx_conv1_1", "ctx_upsample", "ct_final"):
        assert published.reason_to_leave_out(layer) == "the context network; the front end stands before it"
    assert published.reason_to_leave_out("conv1_1") is None


def test_second_head_of_sift_flow_is_listed(tmp_path: Path) -> None:
    model = build("fcn32s_vgg16")
    layers = original_layers("fcn32s_vgg16", model)
    renamed = [
        replace(each, name=f"{each.name}_sem") if each.name in ("score_fr", "upscore") else each for each in layers
    ]
    both = [*renamed, *convolutions({"score_fr_geo": (3, 128, 1, 1)})]
    done = converted(both, model, "fcn32s_vgg16", tmp_path)
    assert done.left_out == {"score_fr_geo": "SIFT Flow's second head, of geometric classes"}
    plain = converted(layers, model, "fcn32s_vgg16", tmp_path)
    assert all(torch.equal(done.tensors[key], plain.tensors[key]) for key in plain.tensors)


def test_unknown_names_are_answered_with_known_ones() -> None:
    with pytest.raises(RequestError, match=r"no Caffe weights of 'fcn8_vgg16' are known.* fcn8s_vgg16"):
        published_weights("fcn8_vgg16")


@pytest.mark.parametrize("name", PUBLISHED)
def test_tables_are_consistent(name: str) -> None:
    published = PUBLISHED[name]
    for count, data in published.trained_on.items():
        assert len(data.classes) in (0, count)
        assert len(data.palette) in (0, count)
        assert len(set(data.classes)) == len(data.classes)
        assert all(0 <= value < 256 for value in data.mean)
    for pattern in (*published.names, *published.leave_out):
        re.compile(pattern)
    assert not published.one_mean or all(data.mean == published.mean for data in published.trained_on.values())
