"""TextonBoost: J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost: Joint Appearance, Shape and Context Modeling
for Multi-class Object Recognition and Segmentation", ECCV 2006; IJCV 81(1), 2009.

Axes: H, W image; K classes; N images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical.joint_boost import Stumps

Progress = Callable[[str, int, int], None]


class TextonBoost:
    """Textons, texture-layout features and joint boosting: what each pixel is, from the texture around it.

    Args:
        num_classes: K, from 2.
        num_textons: clusters of filter responses.
        num_rectangles: shapes of which the count of a texton is a feature.
        box: side of the square around a pixel in which the rectangles lie, in pixels.
        grid_step: every which pixel, in both directions, is trained on.
        feature_share: share of all features (rectangles times textons) that a round tries, in (0, 1].
        num_thresholds: of a feature, from a fixed set.
        seed: of k-means, of the rectangles and of what a round tries.
        bank: filter bank, "textonboost17", "mr8", "lm" or "schmid".
        kappa: factor of all standard deviations of the filters.

    Raises:
        RequestError: if an option is out of range or the bank is unknown.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_textons: int = 400,
        num_rectangles: int = 100,
        box: int = 200,
        grid_step: int = 5,
        feature_share: float = 0.003,
        num_thresholds: int = 32,
        seed: int = 0,
        bank: str = "textonboost17",
        kappa: float = 1.0,
    ) -> None:
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        """K."""
        raise NotImplementedError

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the constructor, for a run's config."""
        raise NotImplementedError

    @property
    def num_rounds(self) -> int:
        """Stumps so far."""
        raise NotImplementedError

    @property
    def stumps(self) -> Stumps:
        """The stumps so far."""
        raise NotImplementedError

    def begin(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[NDArray[np.integer]],
        *,
        ignore_index: int = 255,
        on_progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> Boosting:
        """Learn the textons, or keep those that were loaded, and prepare the rounds.

        Stumps that the estimator has (`from_state`) are replayed, so that training goes on as if it had not stopped.

        Args:
            images: N images, uint8 (H, W, 3), of any sizes; may be lazy: only indexing and len are used, and each image
                is read twice at most.
            labels: N label maps (H, W); -1 and `ignore_index` are not counted.
            ignore_index: label of pixels that are not counted.
            on_progress: called with the name of the stage ("responses", "k-means", "textons", "replay"), how much of it
                is done and how much there is.
            num_threads: None takes all cores that the process may use; the result is the same.

        Raises:
            RequestError: if there are no images, sizes differ, or labels are out of range.
        """
        raise NotImplementedError

    def fit(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[NDArray[np.integer]],
        *,
        num_rounds: int = 500,
        ignore_index: int = 255,
        on_progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> Self:
        """Learn the textons and boost for so many rounds; the arguments of `begin`, and "rounds" as last stage."""
        raise NotImplementedError

    def predict_probabilities(self, image: NDArray[np.uint8], *, num_threads: int | None = None) -> NDArray[np.float32]:
        """Return the classes' probabilities at each pixel, the softmax of the boosted scores.

        Args:
            image: uint8 (H, W, 3).
            num_threads: None takes all cores that the process may use; the result is the same.

        Returns:
            float32 (K, H, W), summing to 1 over K; uniform before the first round.

        Raises:
            RequestError: if the image has another form, or there are no textons yet.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return everything that prediction and resuming need, as arrays (for a safetensors file)."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild an estimator from `state_dict`, to the bit.

        Raises:
            RequestError: if arrays are missing or do not fit each other.
        """
        raise NotImplementedError


class Boosting:
    """A training under way: the texton maps and weights of the sampled pixels. `TextonBoost.begin` makes one.

    The estimator holds the stumps and can predict and be saved after any round.
    """

    @property
    def num_rounds(self) -> int:
        """Rounds so far, replayed ones included."""
        raise NotImplementedError

    @property
    def num_pixels(self) -> int:
        """Sampled pixels that are trained on."""
        raise NotImplementedError

    def round(self) -> float:
        """Add the best of this round's stumps, which depend on the seed and the number of the round alone.

        Returns:
            The weighted squared error that is left, over the sum of the weights before the round: below 1, lower is
            better for this round's weights (it is no training error and does not fall monotonically).
        """
        raise NotImplementedError

    def resume(self, stumps: Stumps) -> None:
        """Replay stumps on a training without rounds; `begin` does so itself for an estimator that has some.

        Raises:
            RequestError: if there are rounds already, or the stumps do not fit.
        """
        raise NotImplementedError

    def accuracy(self) -> float:
        """Return the share of the sampled training pixels that are classified rightly, by the present weights."""
        raise NotImplementedError
