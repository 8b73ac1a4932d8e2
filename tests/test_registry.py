from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pixelwise import registry
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models, model_info


def test_list_models_by_task() -> None:
    assert list_models()[:3] == ["unet", "unet_padded", "unet_small"]
    assert "drn_c_26" in list_models("classification")
    others = {*list_models("classification"), *list_models("classical")}
    assert set(list_models("semantic")) == set(list_models()) - others
    assert list_models("classical") == ["textonboost"]
    assert list_models("instance") == []


def test_unknown_model_is_answered_with_the_closest_names() -> None:
    with pytest.raises(RequestError, match=r"unknown model 'unet_smal'; closest names: unet_small"):
        create_model("unet_smal", num_classes=2)


def test_unknown_option_is_answered_with_the_options() -> None:
    with pytest.raises(RequestError, match=r"no option 'base_chanels'; closest: base_channels.*depth, dropout"):
        create_model("unet_small", num_classes=2, base_chanels=4)


@pytest.mark.parametrize("value", [0, -1, 2.5, "2", True])
def test_class_count_must_be_a_whole_number(value: object) -> None:
    with pytest.raises(RequestError, match="num_classes is"):
        create_model("unet_small", num_classes=value)  # type: ignore[arg-type]


def test_duplicate_names_are_refused() -> None:
    def unet() -> None: ...

    with pytest.raises(ValueError, match="'unet' is registered twice"):
        registry.register(
            family="", task="semantic", year=2015, paper="", fidelity="ours", source="", input_size=(1, 1)
        )(unet)  # type: ignore[type-var]


ALIASES = {
    "fcn8s_atonce": "fcn8s_vgg16_atonce",
    "FCN8sAtOnce": "fcn8s_vgg16_atonce",
    "fcn32s_alexnet": "fcn_alexnet",
    "fcn32s_googlenet": "fcn_googlenet",
    "deconvnet": "deconvnet_vgg16",
    "DeconvNet": "deconvnet_vgg16",
    "segnet": "segnet_vgg16",
    "frontend_vgg16": "dilated_frontend_vgg16",
    "dilation8_vgg16": "dilation8_voc",
    "deeplab_largefov": "deeplabv1_vgg16_largefov",
    "deeplab_vgg16": "deeplabv1_vgg16_4x4_r4",
    "pspnet50": "pspnet_resnet50",
    "pspnet101": "pspnet_resnet101",
    "pspnet152": "pspnet_resnet152",
    "pspnet269": "pspnet_resnet269",
    "gcn": "gcn_resnet152",
    "gcn_seg": "gcn_resnet152",
    "gcn_largekernel": "gcn_resnet152",
    "gcn_k15": "gcn_resnet152",
    "fusionnet_em": "fusionnet",
    "fusionnet64": "fusionnet",
}


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_names_users_expect(alias: str, name: str) -> None:
    assert registry.model_info(alias) is registry.model_info(name)
    assert alias in registry.model_info(name).aliases
    assert alias in registry.known_names()
    assert alias not in list_models()


def test_a_model_is_built_by_its_alias() -> None:
    built, asked = (create_model(name, num_classes=2, base_channels=1) for name in ("segnet_vgg16", "segnet"))
    assert type(built) is type(asked)
    with pytest.raises(RequestError, match="model 'segnet_vgg16' has no option 'depth'"):
        create_model("segnet", num_classes=2, depth=2)


def test_a_mistyped_alias_is_answered_with_it() -> None:
    with pytest.raises(RequestError, match="unknown model 'deeplab_largfov'; closest names: deeplab_largefov"):
        create_model("deeplab_largfov", num_classes=2)


@pytest.mark.parametrize(
    ("name", "aliases", "twice"),
    [
        ("segnet", (), "segnet"),
        ("another", ("unet",), "unet"),
        ("another", ("segnet",), "segnet"),
        ("another", ("other", "other"), "other"),
        ("another", ("another",), "another"),
    ],
)
def test_duplicate_aliases_are_refused(name: str, aliases: tuple[str, ...], twice: str) -> None:
    def another() -> None: ...

    another.__name__ = name
    before = registry.known_names()
    with pytest.raises(ValueError, match=f"model '{twice}' is registered twice; names and aliases must be unique"):
        registry.register(
            family="", task="", year=0, paper="", fidelity="ours", source="", input_size=(1, 1), aliases=aliases
        )(another)  # type: ignore[type-var]
    assert registry.known_names() == before


def test_weights_that_do_not_fit_name_the_differences(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = create_model("unet_small", num_classes=2, base_channels=2).state_dict()
    state["head.weight"] = torch.zeros(5, 2, 1, 1)
    state["extra"] = state.pop("head.bias")
    save_file(state, path)
    with pytest.raises(
        RequestError, match=r"3 differences: head\.weight is \(5, 2, 1, 1\), model wants \(2, 2, 1, 1\)"
    ) as error:
        create_model("unet_small", num_classes=2, base_channels=2, weights=path)
    assert "missing head.bias" in str(error.value)
    assert "unexpected extra" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a safetensors file", b"\x08\0\0\0\0\0\0\0{}"])
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"w\.safetensors (cannot be read|do not fit)"):
        create_model("unet_small", num_classes=2, weights=path)
    with pytest.raises(RequestError, match="is not a file"):
        create_model("unet_small", num_classes=2, weights=tmp_path / "none.safetensors")


def test_a_list_stands_for_an_option_of_several_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def build(*, num_classes: int, in_channels: int = 3, blocks: tuple[int, ...] = (3, 4)) -> nn.Module:
        given.append(blocks)
        return nn.Identity()

    info = replace(model_info("unet_small"), name="net", build=build)
    monkeypatch.setitem(registry._MODELS, "net", info)
    create_model("net", num_classes=2, blocks=[1, 2])
    assert given == [(1, 2)]
    with pytest.raises(
        RequestError, match=r"blocks of model 'net' is 3; accepted: a list of numbers, such as \[3, 4\]"
    ):
        create_model("net", num_classes=2, blocks=3)
