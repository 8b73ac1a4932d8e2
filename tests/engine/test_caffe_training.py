"""What Caffe's trainings need: rates by layer, its momentum, averaged gradients, whole images, coarse scores."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pixelwise.data.augment import sample_rng, sample_warp
from pixelwise.data.augment_config import no_augmentation
from pixelwise.data.dataset import open_dataset
from pixelwise.data.loader import Crops, batches
from pixelwise.data.microscopy import write_microscopy
from pixelwise.data.scan import scan
from pixelwise.engine import session as sessions
from pixelwise.engine.coarse import labels_of_scores, score_margin
from pixelwise.engine.config import build_config, read_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.model_file import load_model
from pixelwise.engine.run_folder import Progress, RunFolder
from pixelwise.engine.schedule import (
    CaffeSGD,
    OptimizerConfig,
    build_optimizer,
    freeze,
    learning_rate,
    parameter_factors,
    set_rate,
)
from pixelwise.engine.session import SemanticSession
from pixelwise.engine.train import go_on, train
from pixelwise.errors import RequestError

TINY = (
    "options.base_channels=2",
    "options.depth=2",
    "data.batch_size=2",
    "val_every=3",
    "threads=1",
)


def settings(*extra: str) -> tuple[str, ...]:
    return (*TINY, "data.crop=[32,48]", *extra)


def prepared(data: Path, out: Path, *given: str, iterations: int = 4) -> SemanticSession:
    config = build_config({"data": {"path": str(data)}, "budget": {"iterations": iterations}}, given)
    return sessions.prepare(config, RunFolder(out), resume=False, started=0.0, listener=Silent())


class Net(nn.Module):
    """A convolution, a normalisation and a score layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.bn1 = nn.BatchNorm2d(2)
        self.fc8 = nn.Conv2d(2, 2, 1)


def test_step_policy_goldens() -> None:
    """DeconvNet's stage 1: 0.01, times 0.1 every 9000 of 20,000; DeepLab's: every 2000 of 6000."""
    deconvnet = OptimizerConfig(lr=0.01, schedule="step", step=9000, warmup=0)
    rates = [learning_rate(deconvnet, i, 20_000) for i in (0, 8999, 9000, 17_999, 18_000, 19_999)]
    assert rates == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4])
    deeplab = OptimizerConfig(lr=1e-3, schedule="step", step=2000, warmup=0)
    assert [learning_rate(deeplab, i, 6000) for i in (1999, 2000, 5999)] == pytest.approx([1e-3, 1e-4, 1e-5])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.schedule": "step"}, "schedule is step and step is not given"),
        ({"optimizer.step": "9000"}, "step=9000 has no effect with schedule=poly"),
        ({"optimizer.layers": "{fc8: {lrr: 10}}"}, "unknown key 'optimizer.layers.fc8.lrr'"),
        ({"data.whole_images": "true", "data.crop": "[32,32]"}, "crop has no effect on whole_images"),
        ({"data.whole_images": "true", "data.beyond": "186"}, "beyond has no effect on whole_images"),
        ({"data.mean": "[0]", "data.normalise_per_image": "true"}, "mean and normalise_per_image exclude each other"),
        ({"weights": "a.safetensors", "transplant": "b.safetensors"}, "weights and transplant are both given"),
        ({"precise_batch_norm": "94", "batch_norm": "renorm"}, "precise_batch_norm measures what batch_norm=renorm"),
        ({"train_on": "scores", "loss.separation": "true"}, "train_on=scores sees every eighth"),
    ],
)
def test_contradictions_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build_config({"data": {"path": "."}}, [f"{key}={value}" for key, value in values.items()])


def test_caffe_momentum_remembers_steps() -> None:
    """v = m v + lr (g + decay w); w = w - v, by hand, over a drop of the rate from 0.1 to 0.01."""
    weight = nn.Parameter(torch.tensor([[1.0]]))
    optimizer = CaffeSGD([{"params": [weight], "factor": 1.0, "weight_decay": 0.5}], lr=0.1, momentum=0.9)
    expected, velocity = 1.0, 0.0
    for gradient, rate in ((2.0, 0.1), (1.0, 0.1), (1.0, 0.01), (0.0, 0.01)):
        set_rate(optimizer, rate)
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        velocity = 0.9 * velocity + rate * (gradient + 0.5 * expected)
        expected -= velocity
        assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_caffe_momentum_is_pytorchs_at_a_constant_rate() -> None:
    nets = Net(), Net()
    configs = [OptimizerConfig(name=name, lr=0.1, weight_decay=0.01, bias_lr=2) for name in ("sgd", "sgd_caffe")]
    optimizers = [build_optimizer(config, net) for config, net in zip(configs, nets, strict=True)]
    for step in range(5):
        for net, optimizer in zip(nets, optimizers, strict=True):
            set_rate(optimizer, 0.1)
            for index, parameter in enumerate(net.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (index + step))
            optimizer.step()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_factors_of_deeplab_segnet_and_alexnet() -> None:
    """lr_mult and decay_mult of the prototxts: 1 and 1, bias 2 and 0; DeepLab's fc8 10 and 20; norms by the system."""
    net = Net()

    def factors(**given: Any) -> dict[str, tuple[float, float]]:
        config = OptimizerConfig(**given)
        return {name: parameter_factors(config, net, name) for name, _ in net.named_parameters()}

    deeplab = factors(bias_lr=2, layers={"fc8*": {"lr": 10, "bias_lr": 20}})
    assert (deeplab["conv1.weight"], deeplab["conv1.bias"]) == ((1, 1), (2, 0))
    assert (deeplab["fc8.weight"], deeplab["fc8.bias"]) == ((10, 1), (20, 0))
    segnet = factors(bias_lr=2, norm_decay="scale")
    assert (segnet["bn1.weight"], segnet["bn1.bias"]) == ((1, 1), (1, 0))
    deconvnet = factors(bias_lr=2, norm_decay="all")
    assert (deconvnet["bn1.weight"], deconvnet["bn1.bias"]) == ((1, 1), (1, 1))
    alexnet = factors(
        bias_lr=2, layers={"*": {"bias_lr": 1, "bias_decay": 1}, "fc8": {"lr": 1, "bias_lr": 2, "bias_decay": 0}}
    )
    assert (alexnet["conv1.bias"], alexnet["fc8.bias"]) == ((1, 1), (2, 0))


def test_groups_carry_their_factors_into_the_rate() -> None:
    config = OptimizerConfig(name="sgd", lr=0.1, weight_decay=0.3, bias_lr=2, layers={"fc8": {"lr": 10, "bias_lr": 20}})
    optimizer = build_optimizer(config, Net())
    set_rate(optimizer, 0.5)
    rates = {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {(0.5, 0.3), (0.5, 0.0), (1.0, 0.0), (5.0, 0.3), (10.0, 0.0)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_frozen_layers_are_left_out() -> None:
    net = Net()
    config = OptimizerConfig(layers={"*": {"lr": 0}, "fc8": {"lr": 1}})
    assert freeze(config, net) == 18 + 2 + 4
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["fc8.weight", "fc8.bias"]
    assert sum(len(group["params"]) for group in build_optimizer(config, net).param_groups) == 2


def test_wrong_layer_patterns_are_refused() -> None:
    with pytest.raises(RequestError, match=r"'fc9' fits none of the 3 layers; closest: fc8"):
        freeze(OptimizerConfig(layers={"fc9": {"lr": 10}}), Net())
    net = Net()
    config = OptimizerConfig(layers={"*": {"lr": 0}})
    freeze(config, net)
    with pytest.raises(RequestError, match="freezes every layer"):
        build_optimizer(config, net)


def test_accumulated_batches_equal_one_large_batch(cells: Path, tmp_path: Path) -> None:
    """Two batches of two against one of four: the mean of two means over equally many pixels is the mean over all."""
    common = (
        *("options.base_channels=2", "options.depth=2", "data.crop=[32,48]", "val_every=9", "threads=1"),
        *("optimizer.name=sgd", "optimizer.clip_norm=0", "loss.dice=0", "loss.class_weights=none", "ema=false"),
        *(
            "model=unet_padded",
            "options.dropout=0",
            "data.foreground_crops=0",
        ),  # no batch normalisation, no ignored pixels
    )
    weights = []
    for index, batch in enumerate(("data.batch_size=4", "data.batch_size=2 optimizer.accumulate=2")):
        session = prepared(cells, tmp_path / str(index), *common, *batch.split())
        go_on(session, Progress(), Silent())
        weights.append(torch.cat([p.flatten() for p in session.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-4)


def test_resumed_with_accumulation_and_caffe_momentum(cells: Path, tmp_path: Path) -> None:
    given = settings("optimizer.name=sgd_caffe", "optimizer.accumulate=2", "optimizer.lr=0.01", "data.replacement=true")

    class Pressed(Silent):
        def step(self, iteration: int, iterations: int, loss: float) -> None:
            if iteration == 2:
                os.kill(os.getpid(), signal.SIGINT)

    config = build_config({"data": {"path": str(cells)}, "budget": {"iterations": 4}}, given)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", listener=Pressed())
    train(config, tmp_path / "cut", resume=True)
    whole, cut = (load_file(tmp_path / name / "last/checkpoint.safetensors") for name in ("whole", "cut"))
    assert any(key.endswith("velocity") for key in whole)
    for key in whole:
        assert torch.equal(whole[key], cut[key]), key


def crops(data: Path, **given: Any) -> Crops:
    folder = open_dataset(data)
    dataset = scan(folder, folder.split("train"))
    defaults: dict[str, Any] = {"crop": (16, 16), "margin": 0, "scale": 1.0, "augment": no_augmentation(), "seed": 3}
    return Crops(dataset, folder.split("train"), **(defaults | given))


def test_whole_images_keep_their_own_size(tmp_path: Path) -> None:
    for index, size in enumerate(((70, 90), (100, 64))):
        write_microscopy(tmp_path / f"part{index}", num_train=1, num_val=1, size=size, seed=index)
    for kind in ("images", "masks", "instances"):
        for path in (tmp_path / "part1" / kind).rglob("*.png"):
            path.rename(tmp_path / "part0" / kind / path.parent.name / f"other_{path.name}")
    whole = crops(tmp_path / "part0", crop=None)
    seen = {tuple(batch.images.shape[2:]) for batch in batches(whole, batch_size=1, first=0, last=2, num_workers=0)}
    assert seen == {(70, 90), (100, 64)}
    item = whole.items[0]
    image = whole.dataset.card.normalisation(whole.dataset.image(item))
    sample = next(s for s in (whole[0], whole[1]) if s.name == item.name)
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), image)
    np.testing.assert_array_equal(sample.labels.numpy(), whole.dataset.labels(item))
    with pytest.raises(RequestError, match=r"batches of 2: the images have 2 sizes.*optimizer.accumulate=2"):
        prepared(tmp_path / "part0", tmp_path / "run", "data.whole_images=true", "data.batch_size=2")


def test_training_on_whole_images(cells: Path, tmp_path: Path) -> None:
    session = prepared(cells, tmp_path / "run", *TINY, "data.whole_images=true")
    assert session.config.data.crop is None
    assert session.config.data.foreground_crops == 0
    assert session.crops[0].image.shape[1:] == (80, 96)
    go_on(session, Progress(), Silent())
    assert read_config(tmp_path / "run/config.yaml").data.whole_images


def test_replacement_draws_each_image_independently(cells: Path) -> None:
    names = [crops(cells, replacement=True)[index].name for index in range(60)]
    assert len(set(names)) == 5
    assert any(len(set(names[5 * epoch : 5 * epoch + 5])) < 5 for epoch in range(12))
    shuffled = crops(cells)
    assert len({shuffled[index].name for index in range(5)}) == 5


def test_windows_beyond_the_border_show_every_pixel(cells: Path) -> None:
    """Windows of 60 that lose 20 a side show 20 x 20 pixels anywhere in the image of 80 x 96, its corners too."""
    augment = no_augmentation().model_copy(update={"random_crop": True})
    windows = crops(cells, crop=(60, 60), margin=20, beyond=20, augment=augment, replacement=True)
    truth = {item.name: windows.dataset.labels(item) for item in windows.items}
    rows, columns = set(), set()
    for index in range(200):
        labels, name = windows[index].labels.numpy(), windows[index].name
        views = np.lib.stride_tricks.sliding_window_view(truth[name], (20, 20))
        places = np.argwhere((views == labels).all(axis=(2, 3)))
        assert len(places)  # an unmirrored part of the image
        if len(places) == 1:
            rows.add(int(places[0][0]))
            columns.add(int(places[0][1]))
    assert min(rows) <= 3
    assert max(rows) >= 57
    assert min(columns) <= 3
    assert max(columns) >= 73


def test_mean_alone_is_subtracted_from_0_to_255(cells: Path, tmp_path: Path) -> None:
    session = prepared(cells, tmp_path / "run", *settings("data.mean=[104]"))
    stored = session.dataset.image(session.crops.items[0])
    result = session.card.normalisation(stored)
    if stored.dtype == np.uint8:
        np.testing.assert_allclose(result, stored.astype(np.float32) - 104, atol=1e-3)
    assert session.model_card(0, {}).normalisation == session.card.normalisation
    with pytest.raises(RequestError, match=r"data.mean has 3 values and the images have 1 channels"):
        prepared(cells, tmp_path / "other", *settings("data.mean=[1,2,3]"))


def test_transplant_takes_the_layers_of_the_same_name(cells: Path, tmp_path: Path) -> None:
    given = settings("model=unet_padded")
    first = train(build_config({"data": {"path": str(cells)}, "budget": {"iterations": 1}}, given), tmp_path / "first")
    source, _ = load_model(first.run / "best.safetensors")
    said: list[str] = []

    class Listens(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    path = tmp_path / "first/best.safetensors"
    config = build_config(
        {"data": {"path": str(cells)}, "budget": {"iterations": 1}}, (*given, f"transplant={path}", "seed=7")
    )
    session = sessions.prepare(config, RunFolder(tmp_path / "run"), resume=False, started=0.0, listener=Listens())
    for key, value in session.model.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[key])
    assert any("tensors taken, 0 are new" in line for line in said)


def test_precise_statistics_are_those_of_training_batches(cells: Path, tmp_path: Path) -> None:
    session = prepared(cells, tmp_path / "run", *settings("precise_batch_norm=2", "batch_norm=batch", "ema=false"))
    layer = next(module for module in session.model.modules() if isinstance(module, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3)).detach()))
    session.measure_statistics()
    torch.testing.assert_close(layer.running_mean, (seen[0] + seen[1]) / 2)


def test_labels_of_coarse_scores() -> None:
    """DeepLab-LargeFOV: 321 gives 41 scores at pixels 8 i; the 4x4 network: 306 gives 39 at pixels 8 i + 1;
    Dilation: 500 gives 16 at pixels 186 + 8 i.
    """
    from pixelwise.models.deeplabv1 import deeplabv1_vgg16_4x4_r4, deeplabv1_vgg16_largefov
    from pixelwise.models.dilation import dilated_frontend_vgg16

    grid = (torch.arange(321)[:, None] * 1000 + torch.arange(321))[None]
    model = deeplabv1_vgg16_largefov(num_classes=2, base_channels=1)
    sampled = labels_of_scores(model, grid, torch.empty(1, 2, 41, 41))
    assert sampled[0, 3, 2] == 24016
    model = deeplabv1_vgg16_4x4_r4(num_classes=2, base_channels=1)
    scores = model.scores(torch.zeros(1, 3, 306, 306))
    assert labels_of_scores(model, grid[:, :306, :306], scores)[0, 38, 0] == 305001
    dilated = dilated_frontend_vgg16(num_classes=2, base_channels=1, padding="valid").eval()
    assert score_margin(dilated) == 186
    with torch.no_grad():
        scores = dilated.scores(torch.zeros(1, 3, 500, 500))
    assert labels_of_scores(dilated, grid[:, :128, :128], scores).shape == (1, 16, 16)
    assert score_margin(dilated_frontend_vgg16(num_classes=2, base_channels=1)) == 0


def test_scores_are_refused_where_a_model_has_none(cells: Path, tmp_path: Path) -> None:
    session = prepared(cells, tmp_path / "run", *settings("train_on=scores"))
    with pytest.raises(RequestError, match="train_on=scores: UNet has no coarse scores"):
        go_on(session, Progress(), Silent())


def test_one_of_several_scales_is_drawn() -> None:
    """DeepLab v2 on ResNet: 0.5, 0.75, 1, 1.25, 1.5, each as often."""
    scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    config = no_augmentation().model_copy(update={"scales": scales})
    drawn = []
    for index in range(300):
        warp = sample_warp(sample_rng(0, 0, index), config, image_size=(64, 64), output_size=(9, 9))
        drawn.append(round(8 / float(warp.map_x[0, 8] - warp.map_x[0, 0]), 4))
    assert set(drawn) == set(scales)
    assert all(30 <= drawn.count(scale) <= 90 for scale in scales)
