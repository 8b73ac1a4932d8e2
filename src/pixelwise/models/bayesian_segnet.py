"""Bayesian SegNet: A. Kendall, V. Badrinarayanan, R. Cipolla, "Bayesian SegNet: Model Uncertainty in Deep Convolutional
Encoder-Decoder Architectures for Scene Understanding", BMVC 2017, https://arxiv.org/abs/1511.02680.

Map from the paper to this file:

- section 3, dropout in the central six encoders and decoders  -> `bayesian_segnet_vgg16`, `bayesian_segnet_basic`
- section 3, Monte Carlo dropout sampling                      -> `sample`

The networks are SegNet's with dropout of rate 0.5, in training as usual. `sample` also drops in use: the mean of the
softmax over several passes is the prediction, their variance the uncertainty, of each class or averaged over the
classes for one map. Outside of `sample` an evaluated network drops nothing and is deterministic.

Places of the dropout follow the release (alexgkendall/SegNet-Tutorial, commit bb68b64): in `bayesian_segnet_vgg16`
after pool3, pool4, pool5 and decoder blocks 5, 4 and 3 ("central"), or before each pool and each unpooling ("every",
its PASCAL network); in `bayesian_segnet_basic` after pool3, pool4 and decoder layers 4 and 3. The large network's
normalisations start with shift 0 (SegNet's with 0.001). The release calls the small network's classifier
"dense_softmax_inner_prod"; here it is `conv_classifier`, as in SegNet-Basic.

Axes: N batch, C image channels, K classes, H and W image size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.models.segnet import EPS, DropoutPlaces, SegNet, SegNetBasic
from pixelwise.registry import register

PAPER = (
    'Kendall, Badrinarayanan, Cipolla, "Bayesian SegNet: Model Uncertainty in Deep Convolutional Encoder-Decoder '
    'Architectures for Scene Understanding", BMVC 2017'
)


class Sampled(NamedTuple):
    """What several stochastic passes say about a batch.

    Attributes:
        probabilities: float (N, K, H, W), mean of the softmax over the passes.
        uncertainty: float (N, H, W), the classes' variances averaged.
        class_uncertainty: float (N, K, H, W), variance of the softmax over the passes (divided by their number).
    """

    probabilities: Tensor
    uncertainty: Tensor
    class_uncertainty: Tensor


@torch.no_grad()
def sample(model: nn.Module, images: Tensor, *, num_samples: int = 40, seed: int = 0) -> Sampled:
    """Predict with dropout on, several times, and return mean and variance.

    Everything but dropout is in evaluation mode, so batch normalisation uses its running statistics. The model's modes
    and the random state of the program are as before when this returns; equal seeds give equal results.

    Args:
        model: any semantic model with dropout layers.
        images: float (N, C, H, W), legal for the model.
        num_samples: passes, at least 2. (The paper sees no gain beyond about 40; the release's definitions take 4
            for the large network and 8 for the small one.)
        seed: of the dropped units.

    Raises:
        RequestError: if there are too few passes, or nothing that drops.

    Source: the release's test_bayesian_segnet.py.
    """
    if num_samples < 2:
        raise RequestError(
            f"num_samples={num_samples}; accepted: whole numbers from 2, since one pass has no variance."
        )
    devices = [images.device] if images.device.type == "cuda" else []
    with _dropping(model), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        mean = model(images).logits.softmax(dim=1)  # (N, K, H, W)
        squares = torch.zeros_like(mean)
        for count in range(2, num_samples + 1):  # Welford's running mean and sum of squared differences
            probabilities = model(images).logits.softmax(dim=1)
            before = probabilities - mean
            mean = mean + before / count
            squares = squares + before * (probabilities - mean)
    variance = squares / num_samples
    return Sampled(probabilities=mean, uncertainty=variance.mean(dim=1), class_uncertainty=variance)


@contextmanager
def _dropping(model: nn.Module) -> Iterator[None]:
    """Evaluate a model with its dropout layers in training mode."""
    dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout2d) and m.p]
    if not dropouts:
        raise RequestError(
            f"{type(model).__name__} has no dropout layer that drops; accepted: a model built with dropout above 0. "
            "Build a bayesian_segnet, or give this one its option dropout=0.5."
        )
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for dropout in dropouts:
        dropout.train()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@register(
    family="SegNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source="the release's bayesian_segnet_train.prototxt, whose network is the paper's",
    input_size=(360, 480),
    debug={"base_channels": 2},
)
def bayesian_segnet_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    dropout_places: DropoutPlaces = "central",
    eps: float = EPS,
) -> SegNet:
    """Build SegNet with dropout; `sample` gives its uncertainty."""
    return SegNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        dropout=dropout,
        dropout_places=dropout_places,
        eps=eps,
        shift=0.0,
    )


@register(
    family="SegNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source="the release's bayesian_segnet_basic_train.prototxt; its biases and its normalisation across channels "
    "depart from the paper's text (bias=false takes the biases away)",
    input_size=(360, 480),
    debug={"base_channels": 4},
)
def bayesian_segnet_basic(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    bias: bool = True,
    single_channel: bool = False,
    dropout: float = 0.5,
    eps: float = EPS,
) -> SegNetBasic:
    """Build SegNet-Basic with dropout; `sample` gives its uncertainty."""
    return SegNetBasic(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        bias=bias,
        single_channel=single_channel,
        dropout=dropout,
        eps=eps,
    )
