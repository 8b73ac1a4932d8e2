"""CRF-RNN: S. Zheng, S. Jayasumana, B. Romera-Paredes, V. Vineet, Z. Su, D. Du, C. Huang, P. Torr, "Conditional Random
Fields as Recurrent Neural Networks", ICCV 2015, https://arxiv.org/abs/1502.03240: mean field as a layer of any network.

Map from the paper to this file:

- a mean-field iteration as a stack of layers: message passing, weighting of the filters' outputs, compatibility
  transform, adding the unary potentials, normalising                    -> `iterate`; the softmax is the next one's
- what is learnt: the filters' weights and the compatibility, in full    -> `Weights`
- the CRF as a recurrent network                                         -> `refine`, `CRFRNN`

As in the release (torrvision/caffe d779ee3, layer MULTI_STAGE_MEANFIELD), filters are divided by their own sums, a
pixel's message includes its own belief, the result is un-normalised logits, and neither the image nor the standard
deviations get gradients.

Axes: N batch, C image channels, K classes, H and W size, P = H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.crf.dense import CRFParameters
from pixelwise.crf.lattice import MOST_FEATURES
from pixelwise.crf.mean_field import MeanField
from pixelwise.crf.pixel_filter import Method, NormalizedFilter, bilateral_filter, pixel_features, spatial_filter
from pixelwise.errors import RequestError

MOST_CHANNELS = MOST_FEATURES - 2  # of an image, beside x and y
FEWEST_FUSED = 3  # iterations for which building the lattices of the fused inference pays


class Weights(NamedTuple):
    """What a CRF-RNN learns, (K, K) each; row l says what goes into class l."""

    spatial: Tensor
    bilateral: Tensor
    compatibility: Tensor


class Sigmas(NamedTuple):
    """Standard deviations: theta_gamma of the spatial kernel, theta_alpha and theta_beta of the bilateral one."""

    spatial: float
    bilateral_spatial: float
    bilateral_color: float


class CRFRNN(nn.Module):
    """Mean field of a fully connected CRF as a layer behind any segmentation network, trained together with it.

    It starts as the CRF of the preset "crfrnn". The colours' scale matters, since differences of colours are compared
    with `bilateral_color_sigma`; a shift, such as a subtracted mean, does not.

    Args:
        num_classes: K.
        iterations: of mean field in training.
        test_iterations: of mean field in evaluation.
        spatial_sigma: theta_gamma of the smoothness kernel, in pixels.
        spatial_weight: with which its weights start, on the diagonal.
        bilateral_spatial_sigma: theta_alpha of the appearance kernel, in pixels.
        bilateral_color_sigma: its theta_beta, in steps of colours of 0..255.
        bilateral_weight: with which its weights start, on the diagonal.
        method: "lattice", or "exact" (the Gaussian matrices) for tiny images.

    Raises:
        RequestError: if an option is impossible.

    A model of one's own, for images of 0..255 and a network that wants them otherwise:

    >>> class Sharp(nn.Module):
    ...     def __init__(self, network: nn.Module, num_classes: int) -> None:
    ...         super().__init__()
    ...         self.network, self.crf = network, CRFRNN(num_classes)
    ...     def forward(self, images: Tensor) -> Tensor:
    ...         return self.crf(self.network(images / 255), images)
    >>> Sharp(nn.Conv2d(3, 21, 1), num_classes=21)(torch.zeros(1, 3, 8, 9)).shape
    torch.Size([1, 21, 8, 9])

    Behind a model of the catalogue it is `CRFRNN(21)(model(x).logits, images)`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        iterations: int = 5,
        test_iterations: int = 10,
        spatial_sigma: float = 3.0,
        spatial_weight: float = 3.0,
        bilateral_spatial_sigma: float = 160.0,
        bilateral_color_sigma: float = 3.0,
        bilateral_weight: float = 5.0,
        method: Method = "lattice",
    ) -> None:
        super().__init__()
        start = CRFParameters(
            spatial_sigma=spatial_sigma,
            spatial_weight=spatial_weight,
            bilateral_spatial_sigma=bilateral_spatial_sigma,
            bilateral_color_sigma=bilateral_color_sigma,
            bilateral_weight=bilateral_weight,
            iterations=iterations,
            normalization="after",
        )
        for key, value in (("iterations", iterations), ("test_iterations", test_iterations)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RequestError(f"{key} is {value!r}; accepted: whole numbers from 1. Give for example 5.")
        if method not in ("lattice", "exact"):
            raise RequestError(f"method is {method!r}; accepted: lattice, exact. Give one.")
        self.num_classes = num_classes
        self.iterations = iterations
        self.test_iterations = test_iterations
        self.sigmas = Sigmas(start.spatial_sigma, start.bilateral_spatial_sigma, start.bilateral_color_sigma)
        self.method: Method = method
        self.spatial = _diagonal(num_classes, start.spatial_weight)
        self.bilateral = _diagonal(num_classes, start.bilateral_weight)
        self.compatibility = _diagonal(num_classes, -1.0)

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        """Refine logits.

        Args:
            logits: float (N, K, H, W) of a network.
            images: (N, C, H, W) of the same pixels, C from 1 to 6, differences of colours as in values of 0..255.

        Returns:
            Un-normalised logits (N, K, H, W); in float32 where the given ones have half precision.

        Raises:
            RequestError: if the shapes do not fit each other.
        """
        check_inputs(logits, images, num_classes=self.num_classes)
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        count = self.iterations if self.training else self.test_iterations
        weights = Weights(*(layer.weight.to(dtype) for layer in (self.spatial, self.bilateral, self.compatibility)))
        unary, image = logits.to(dtype), images.to(dtype)
        refined: Tensor
        if logits.is_meta or torch.compiler.is_exporting() or not _needs_gradient(unary, weights):
            refined = _infer(unary, image, *weights, count, list(self.sigmas), self.method == "exact")
        else:
            # Compilers leave the loop to Python. Not a decorator, which would import them at once: that takes seconds.
            compiling = torch.compiler.is_compiling()
            run = torch.compiler.disable(refine) if compiling else refine  # type: ignore[no-untyped-call]
            refined = run(unary, image, weights, iterations=count, sigmas=self.sigmas, method=self.method)
        return refined

    def extra_repr(self) -> str:
        """Name the numbers in the printed network."""
        spatial, bilateral_spatial, bilateral_color = self.sigmas
        return (
            f"iterations={self.iterations}, test_iterations={self.test_iterations}, spatial_sigma={spatial:g}, "
            f"bilateral_spatial_sigma={bilateral_spatial:g}, bilateral_color_sigma={bilateral_color:g}"
        )


def _diagonal(num_classes: int, value: float) -> nn.Linear:
    layer = nn.Linear(num_classes, num_classes, bias=False)
    with torch.no_grad():
        layer.weight.copy_(value * torch.eye(num_classes))
    return layer


def check_inputs(logits: Tensor, images: Tensor, *, num_classes: int) -> None:
    """Refuse logits of other classes, and images of another size or with too many channels."""
    if logits.ndim != 4 or logits.shape[1] != num_classes or not logits.numel():
        raise RequestError(
            f"logits have shape {tuple(logits.shape)}; accepted: (N, {num_classes}, H, W). Give the logits of the "
            "network that this layer was built for."
        )
    wanted = (len(logits), *logits.shape[2:])
    if images.ndim != 4 or (len(images), *images.shape[2:]) != wanted or not 1 <= images.shape[1] <= MOST_CHANNELS:
        n, height, width = wanted
        raise RequestError(
            f"images have shape {tuple(images.shape)}, the logits {tuple(logits.shape)}; accepted: ({n}, C, {height}, "
            f"{width}) with C from 1 to {MOST_CHANNELS}. Give the images at the size of the logits."
        )


def _needs_gradient(logits: Tensor, weights: Weights) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (logits, *weights))


def refine(
    logits: Tensor, images: Tensor, weights: Weights, *, iterations: int, sigmas: Sigmas, method: Method
) -> Tensor:
    """Refine logits (N, K, H, W) so that gradients flow to them and to the weights."""
    unaries = logits.flatten(2).transpose(1, 2).contiguous()  # (N, P, K)
    refined = []
    with torch.autocast(logits.device.type, enabled=False):
        for unary, image in zip(unaries, images.detach(), strict=True):
            filters = _filters(image, sigmas, method)
            scores = unary
            for _ in range(iterations):
                scores = iterate(unary, scores.softmax(dim=1), filters, weights)
            refined.append(scores)
    return torch.stack(refined).transpose(1, 2).reshape(logits.shape).contiguous()


def iterate(
    unary: Tensor, beliefs: Tensor, filters: tuple[NormalizedFilter, NormalizedFilter], weights: Weights
) -> Tensor:
    """Do one iteration for an image: from logits of the network and beliefs (P, K) to new logits (P, K)."""
    spatial, bilateral = filters
    messages = functional.linear(spatial(beliefs), weights.spatial)
    messages = messages + functional.linear(bilateral(beliefs), weights.bilateral)
    pairwise = functional.linear(messages, weights.compatibility)
    return unary - pairwise


def _filters(image: Tensor, sigmas: Sigmas, method: Method) -> tuple[NormalizedFilter, NormalizedFilter]:
    """Return the filters of an image (C, H, W)."""
    return (
        spatial_filter(image, sigmas.spatial, method),
        bilateral_filter(image, sigmas.bilateral_spatial, sigmas.bilateral_color, method),
    )


@torch.library.custom_op("pixelwise::crf_rnn", mutates_args=())
def _infer(
    logits: Tensor,
    images: Tensor,
    spatial: Tensor,
    bilateral: Tensor,
    compatibility: Tensor,
    iterations: int,
    sigmas: Sequence[float],
    exact: bool,
) -> Tensor:
    """Refine logits (N, K, H, W) without gradients: one operation, also in exported programs and layer tables."""
    weights, thetas = Weights(spatial, bilateral, compatibility), Sigmas(*sigmas)
    method: Method = "exact" if exact else "lattice"
    if exact or logits.dtype != torch.float32 or logits.device.type != "cpu" or iterations < FEWEST_FUSED:
        return refine(logits, images, weights, iterations=iterations, sigmas=thetas, method=method)
    with torch.autocast("cpu", enabled=False):
        return _refine_fused(logits, images, weights, iterations=iterations, sigmas=thetas)


def _refine_fused(logits: Tensor, images: Tensor, weights: Weights, *, iterations: int, sigmas: Sigmas) -> Tensor:
    """Do what `refine` does, without gradients, all iterations but the last by the fused mean field.

    The last one leaves logits, of which a belief of 0 would know nothing.
    """
    refined = torch.empty_like(logits, memory_format=torch.contiguous_format)
    for unary, image, out in zip(logits.flatten(2), images, refined.flatten(2), strict=True):
        beliefs = _beliefs(unary, image, weights, iterations=iterations - 1, sigmas=sigmas)  # (K, P)
        filters = _filters(image, sigmas, "lattice")
        out.copy_(iterate(unary.T, beliefs.T.contiguous(), filters, weights).T)
    return refined


@_infer.register_fake
def _shape(
    logits: Tensor,
    images: Tensor,
    spatial: Tensor,
    bilateral: Tensor,
    compatibility: Tensor,
    iterations: int,
    sigmas: Sequence[float],
    exact: bool,
) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _beliefs(unary: Tensor, image: Tensor, weights: Weights, *, iterations: int, sigmas: Sigmas) -> Tensor:
    """Return the beliefs (K, P) of an image after some iterations, by the fused mean field."""
    rewards = [-(weights.compatibility @ kernel).numpy() for kernel in (weights.spatial, weights.bilateral)]
    places = pixel_features(image[:0], sigmas.spatial, 1.0).numpy()
    colors = pixel_features(image, sigmas.bilateral_spatial, sigmas.bilateral_color).numpy()
    threads = torch.get_num_threads()
    field = MeanField([places, colors], "after", num_threads=threads)
    probabilities = unary.softmax(dim=0).numpy()
    return torch.from_numpy(field.infer(probabilities, rewards, iterations=iterations, num_threads=threads))
