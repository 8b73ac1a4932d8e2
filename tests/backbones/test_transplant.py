"""Weights by name from one network or file to another; nothing is left out silently."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from pixelwise.backbones.alexnet import AlexNet, CaffeNet
from pixelwise.backbones.googlenet import TORCHVISION, GoogLeNet
from pixelwise.backbones.transplant import load_imagenet, read_weights, transplant
from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling


def net(**layers: nn.Module) -> nn.Sequential:
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network


def test_names_in_both_are_copied_and_the_others_told() -> None:
    source, target = net(a=nn.Linear(2, 2), b=nn.Linear(2, 3)), net(a=nn.Linear(2, 2), c=nn.Linear(2, 1, bias=False))
    kept = target.c.weight.clone()
    done = transplant(source.state_dict(), target)
    assert done.copied == ("a.bias", "a.weight")
    assert done.new == ("c.weight",)
    assert done.unused == ("b.bias", "b.weight")
    assert torch.equal(target.a.weight, source.a.weight)
    assert torch.equal(target.c.weight, kept)


def test_buffers_are_weights_too() -> None:
    source, target = net(n=nn.BatchNorm2d(2)), net(n=nn.BatchNorm2d(2))
    source.n.running_mean += 3
    transplant(source.state_dict(), target)
    assert target.n.running_mean.tolist() == [3, 3]


def test_fully_connected_weight_fills_a_convolution() -> None:
    source, target = net(fc6=nn.Linear(2 * 9, 4)), net(fc6=nn.Conv2d(2, 4, 3))
    transplant(source.state_dict(), target)
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(target(x)[:, :, 0, 0], source(x.flatten(1)))


def test_another_shape_changes_nothing() -> None:
    source, target = net(a=nn.Linear(2, 2), b=nn.Linear(2, 3)), net(a=nn.Linear(2, 2), b=nn.Linear(2, 5))
    before = {name: t.clone() for name, t in target.state_dict().items()}
    with pytest.raises(RequestError, match=r"b\.bias is \(3,\), the network wants \(5,\)\. Build it with"):
        transplant(source.state_dict(), target)
    assert all(torch.equal(t, before[name]) for name, t in target.state_dict().items())


def test_a_network_without_common_names_is_refused() -> None:
    with pytest.raises(RequestError, match=r"none of the 2 names given \(a\.bias, a\.weight\) is one of the network's"):
        transplant(net(a=nn.Linear(2, 2)).state_dict(), net(b=nn.Linear(2, 2)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imagenet_weights_from_a_file(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = (AlexNet(num_classes=4, base_channels=2) for _ in range(2))
    path = tmp_path / f"alexnet{suffix}"
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    load_imagenet(target, path)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_auxiliary_classifiers_are_skipped_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "googlenet.pth"
    with_auxiliary = GoogLeNet(style=TORCHVISION, num_classes=4, base_channels=8, auxiliary=True)
    torch.save(with_auxiliary.state_dict(), path)
    target = GoogLeNet(style=TORCHVISION, num_classes=4, base_channels=8)
    with pytest.raises(RequestError, match=r"0 names missing \(none\), 20 unexpected \(aux1\.conv\.bn\.bias, aux1"):
        load_imagenet(target, path)
    load_imagenet(target, path, skip=("aux1.", "aux2."))
    assert torch.equal(target.fc.weight, with_auxiliary.fc.weight)


def test_file_of_another_classifier_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.pth"
    torch.save(AlexNet(num_classes=4, base_channels=2).state_dict(), path)
    with pytest.raises(RequestError, match=r"16 names missing \(conv1\.bias.*16 unexpected \(classifier\.1\.bias"):
        load_imagenet(CaffeNet(num_classes=4, base_channels=6), path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nothing\.pth is not a file; give the path"):
        read_weights(tmp_path / "nothing.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors", "empty.pth", "cut.pth"])
def test_unreadable_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"no weights")
    if name == "empty.pth":
        path.write_bytes(b"")
    if name == "cut.pth":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(RequestError, match=rf"{name} cannot be read \(.*\); accepted: a whole \.safetensors or \.pth"):
        read_weights(path)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.booleans())
def test_foreign_bytes_are_named(tmp_path: Path, content: bytes, looks_pickled: bool) -> None:
    path = tmp_path / "foreign.pth"
    path.write_bytes(b"\x80\x02" + content + b"." if looks_pickled else content)
    with pytest.raises(RequestError, match=r"foreign\.pth (cannot be read|holds a)"):
        read_weights(path)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("executed",)


def test_pickle_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(RequestError, match=r"evil\.pth cannot be read"):
        read_weights(path)
    torch.save({"a": Payload()}, path)
    with pytest.raises(RequestError, match=r"evil\.pth cannot be read"):
        read_weights(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3, "a": torch.zeros(2)}])
def test_file_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(RequestError, match=r"other\.pth holds a (list|dict) that is not a state dict.*; accepted: ten"):
        read_weights(path)


def test_kernels_of_single_channels_fill_an_upsampling_of_all() -> None:
    fixed = nn.ModuleDict({"up": BilinearUpsampling(3, kernel_size=4, stride=2)})
    dense = nn.ModuleDict({"up": BilinearUpsampling(3, kernel_size=4, stride=2, learnt=True)})
    state = {"up.weight": torch.rand(3, 1, 4, 4)}
    fixed.load_state_dict(state)
    nn.init.ones_(dense["up"].weight)
    assert transplant(state, dense).copied == ("up.weight",)
    x = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(dense["up"](x), fixed["up"](x))
    grey = nn.ModuleDict({"up": nn.Conv2d(3, 3, 4)})
    with pytest.raises(RequestError, match=r"up\.weight is \(3, 1, 4, 4\), the network wants \(3, 3, 4, 4\)"):
        transplant({"up.weight": state["up.weight"]}, grey)
