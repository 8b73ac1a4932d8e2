"""TextonBoost in the catalogue: the estimator of `pixelwise.classical.textonboost`, under the options that runs note.

J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost: Joint Appearance, Shape and Context Modeling for Multi-class
Object Recognition and Segmentation", ECCV 2006; IJCV 81(1), 2009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelwise.errors import RequestError
from pixelwise.registry import register

if TYPE_CHECKING:
    from pixelwise.classical.textonboost import TextonBoost

CHANNELS = 3  # red, green, blue: the filters see lightness and two colour differences


@register(
    family="Classical",
    task="classical",
    year=2006,
    paper='J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost", ECCV 2006; IJCV 81(1), 2009',
    fidelity="reconstructed",
    source=(
        "filters and their order from the code of DARWIN and STAIR; the authors' training code was not released, and "
        "400 textons, 100 rectangles within 100 pixels, a grid of 5 pixels and 0.3 % of the features a round are "
        "remembered from the paper and not checked against it; the filters are exact Gaussian derivatives in float"
    ),
    input_size=(213, 320),
    debug={"num_textons": 6, "num_rectangles": 8, "box": 24, "feature_share": 0.3, "num_thresholds": 4},
)
def textonboost(
    *,
    num_classes: int,
    in_channels: int = CHANNELS,
    num_textons: int = 400,
    num_rectangles: int = 100,
    box: int = 200,
    grid_step: int = 5,
    feature_share: float = 0.003,
    num_thresholds: int = 32,
    seed: int = 0,
    bank: str = "textonboost17",
    kappa: float = 1.0,
    class_balance: float = 0.5,
) -> TextonBoost:
    """Build an estimator that knows nothing yet: `fit` learns textons and stumps from images and their labels."""
    from pixelwise.classical.textonboost import TextonBoost

    if in_channels != CHANNELS:
        raise RequestError(
            f"in_channels is {in_channels}; accepted by textonboost: {CHANNELS}, since its filters see colour. Give it "
            "grey images as three equal channels; `train` and `predict` do so by themselves."
        )
    return TextonBoost(
        num_classes,
        num_textons=num_textons,
        num_rectangles=num_rectangles,
        box=box,
        grid_step=grid_step,
        feature_share=feature_share,
        num_thresholds=num_thresholds,
        seed=seed,
        bank=bank,
        kappa=kappa,
        class_balance=class_balance,
    )
