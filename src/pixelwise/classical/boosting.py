"""The training of TextonBoost: weights of pixels on a grid in all images, round by round.

Axes: H, W image; K classes; S sampled pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical.joint_boost import JointBoosting, Stumps
from pixelwise.classical.texture_layout import SampledPixels, TextureLayoutFeatures
from pixelwise.errors import RequestError

if TYPE_CHECKING:
    from pixelwise.classical.textonboost import TextonBoost


class Boosting:
    """A training under way: the texton maps and weights of the sampled pixels. `TextonBoost.begin` makes one.

    The estimator holds the stumps and can predict and be saved after any round.
    """

    def __init__(
        self,
        estimator: TextonBoost,
        features: TextureLayoutFeatures,
        maps: list[NDArray[np.uint16]],
        classes: list[NDArray[np.int16]],
        *,
        num_threads: int,
    ) -> None:
        self.estimator = estimator
        options = estimator.options
        step = int(options["grid_step"])
        self._source = SampledPixels(features, maps, [truth >= 0 for truth in classes], step=step)
        chosen = [truth[pixels] for truth, pixels in zip(classes, self._source.pixels, strict=True)]
        labels = np.concatenate(chosen).astype(np.uint8)
        if not len(labels):
            raise RequestError(
                f"no pixel on the grid of step {step} has a label that counts; accepted: at least one. Give other "
                "label maps or a smaller grid_step."
            )
        frequency = np.bincount(labels, minlength=estimator.num_classes) / len(labels)
        present = frequency > 0
        weight = np.where(present, frequency, 1.0) ** -float(options["class_balance"])
        weight /= (weight * frequency).sum()  # 1 on average
        self._first_weights = weight.astype(np.float32)[labels]
        self.boosting = JointBoosting(
            self._source,
            labels,
            estimator.num_classes,
            sample_weights=self._first_weights,
            feature_share=float(options["feature_share"]),
            seed=int(options["seed"]),
            num_threads=num_threads,
        )

    @property
    def num_rounds(self) -> int:
        """Rounds so far, replayed ones included."""
        return self.boosting.num_rounds

    @property
    def num_pixels(self) -> int:
        """S, the sampled pixels that are trained on."""
        return len(self._first_weights)

    def round(self) -> float:
        """Add the best of this round's stumps, which depend on the seed and the number of the round alone.

        Returns:
            The weighted squared error that is left, over the sum of the weights before the round: below 1, lower is
            better for this round's weights (it is no training error and does not fall monotonically).
        """
        stump, error = self.boosting.round()
        self.estimator.stumps = Stumps.joined([self.estimator.stumps, stump])
        return error

    def resume(self, stumps: Stumps) -> None:
        """Replay stumps on a training without rounds; `begin` does so itself for an estimator that has some.

        Raises:
            RequestError: if there are rounds already, or the stumps do not fit.
        """
        if self.num_rounds:
            raise RequestError(
                f"the training has {self.num_rounds} rounds; accepted: one without rounds. Begin with a new estimator."
            )
        self.estimator.check_stumps(stumps)
        self.boosting.replay(stumps)
        self.estimator.stumps = stumps

    def accuracy(self) -> float:
        """Return the share of the sampled training pixels that are classified rightly, by the present weights."""
        labels = self.boosting.labels
        # A weight is the first one times exp(H_c), for the pixel's own class exp(-H_c).
        with np.errstate(divide="ignore"):
            scores = np.log(self.boosting.weights[:, : self.estimator.num_classes] / self._first_weights[:, None])
        places = np.arange(len(labels))
        own = -scores[places, labels]
        scores[places, labels] = -np.inf
        return float((own > scores.max(axis=1)).mean())
