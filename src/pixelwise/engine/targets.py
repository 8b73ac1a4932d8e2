"""What a network is trained towards, where that is not the labels as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pixelwise.data.images import AnyArray
from pixelwise.data.scan import DataCard
from pixelwise.data.separation import label_components, separate_touching, separation_weights
from pixelwise.losses.segmentation import LossConfig


@dataclass(frozen=True)
class Separation:
    """U-Net's training against objects that grow together; without object ids, connected areas get the weights.

    Attributes:
        config: height and reach of the weights.
        ignore_index: label that does not count.
        background: id of the class between objects, None where there is none: then labels stay as they are.
    """

    config: LossConfig
    ignore_index: int | None
    background: int | None

    def __call__(self, labels: AnyArray, instances: AnyArray | None) -> tuple[AnyArray, AnyArray]:
        """Return class ids, with a thin ridge of background between touching numbered objects, and weights (H, W).

        Args:
            labels: class ids (H, W).
            instances: object ids (H, W), or None.
        """
        numbered = instances is not None
        if instances is None:
            instances = label_components(labels, (labels > 0) & (labels != self.ignore_index))
        apart = separate_touching(instances)
        if self.background is not None and numbered:
            ridge = (instances > 0) & (apart == 0) & (labels != self.ignore_index)
            labels = np.where(ridge, np.asarray(self.background, labels.dtype), labels)
        weights = separation_weights(
            instances * apart, w0=self.config.separation_w0, sigma=self.config.separation_sigma
        )
        return labels, weights


def background_of(card: DataCard) -> int | None:
    """Return the class between objects: the one named background, or the first of two."""
    if "background" in card.classes:
        return card.classes.index("background")
    return 0 if len(card.classes) == 2 else None
