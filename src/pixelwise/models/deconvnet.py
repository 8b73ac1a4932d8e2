"""DeconvNet: H. Noh, S. Hong, B. Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015,
https://arxiv.org/abs/1505.04366.

Map from the paper and the release (HyeonwooNoh/DeconvNet, commit 87dd133) to this file:

- Fig. 2, convolution network: VGG-16 up to fc7, with batch normalisation -> conv1_1 ... fc7
- Fig. 2, deconvolution network, its mirror image                        -> fc6_deconv ... deconv1_2
- section 3.2.1, unpooling by switches                                   -> `layers.unpooling`
- section 3.2.2, deconvolution                                           -> `nn.ConvTranspose2d`
- section 4.1, batch normalisation of every layer                        -> `normalisation_name`

Axes: N batch, C image channels, K classes, b base channels (64 in the paper), f channels of fc6 and fc7 (4096).
Layers have the names of the release's definitions, with "_" for "-".

The input is 224 x 224, no more and no less: fc6 turns the 7 x 7 map under pool5 into 1 x 1, and the decoder starts
there. The published scores come from object proposals that are each scaled to this size, not from whole images.
Every decoder layer but the score is a transposed convolution (weights are input x output channels). There is no
dropout. The decoder sees the image through fc7 and, for the places of values, through the switches; the latter
carry no gradient.

Batch normalisation is Caffe's: eps 1e-9, scale 1, shift 0.001. The originals have no running statistics (they
average those of training batches once, after training: `engine.precise_batch_norm`); here PyTorch keeps them.
In training fc6 and fc7 have one value per image and channel, so small batches say little about their statistics;
the release takes eight.

Initialisation: the release copies conv1_1 to fc7 from VGG-16 and draws the rest from N(0, 0.01^2) with biases 0.
Without VGG's weights the encoder starts from N(0, 0.01^2) too, which is ours: its definitions have no filler there.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.layers.fully_connected import FullyConnected2d, FullyConnectedTranspose2d
from pixelwise.layers.unpooling import MaxPool2x2, MaxUnpool2x2
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = 'Noh, Hong, Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015'
SIDE = 224  # pixels of the input; fc6 covers the SIDE / 32 that are left of it after five pools
EPS = 1e-9
SHIFT = 0.001


def normalisation_name(layer: str) -> str:
    """Return the release's name of a layer's batch normalisation.

    >>> [normalisation_name(layer) for layer in ("conv1_1", "fc6", "fc6_deconv", "deconv5_1")]
    ['bn1_1', 'bnfc6', 'fc6_deconv_bn', 'debn5_1']
    """
    if layer == "fc6_deconv":
        return "fc6_deconv_bn"
    return f"bn{layer}" if layer.startswith("fc") else layer.replace("conv", "bn")


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.01^2); biases are 0 and normalisations shift a little."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.01)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, SHIFT)


def layers(in_channels: int, b: int, f: int) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d]]:
    """Yield the layers that are normalised, from the image on."""
    widths, depths = (b, 2 * b, 4 * b, 8 * b, 8 * b), (2, 2, 3, 3, 3)
    for block in range(5):
        for layer in range(depths[block]):
            source = widths[block] if layer else (widths[block - 1] if block else in_channels)
            yield f"conv{block + 1}_{layer + 1}", nn.Conv2d(source, widths[block], 3, padding=1)
    yield "fc6", FullyConnected2d(8 * b, f, SIDE // 32)
    yield "fc7", FullyConnected2d(f, f, 1)
    yield "fc6_deconv", FullyConnectedTranspose2d(f, 8 * b, SIDE // 32)
    for block in reversed(range(5)):
        for layer in range(depths[block]):
            out = widths[max(block - 1, 0)] if layer == depths[block] - 1 else widths[block]
            yield f"deconv{block + 1}_{layer + 1}", nn.ConvTranspose2d(widths[block], out, 3, padding=1)


class DeconvNet(nn.Module):
    """VGG-16 with its fully connected layers as convolutions, their mirror image, and five sets of switches between.

    Args:
        in_channels: C.
        num_classes: K.
        base_channels: b; blocks have b, 2b, 4b, 8b and 8b channels.
        fc_channels: f.
        eps: of batch normalisation.
    """

    size_rule = SizeRule(minimum=SIDE, maximum=SIDE, period=32)
    instance_wise = True  # the paper shows it proposals, not whole images (section 4.4)

    def __init__(self, *, in_channels: int, num_classes: int, base_channels: int, fc_channels: int, eps: float) -> None:
        super().__init__()
        if base_channels < 1 or fc_channels < 1:
            raise RequestError(
                f"base_channels={base_channels}, fc_channels={fc_channels}; accepted: whole numbers from 1 "
                "(the paper's are 64 and 4096)."
            )
        if not 0 < eps < 1:
            raise RequestError(f"eps={eps}; accepted: above 0 and below 1 (the release's is 1e-9, PyTorch's 1e-5).")
        self.in_channels = in_channels
        self.num_classes = num_classes
        for name, layer in layers(in_channels, base_channels, fc_channels):
            self.add_module(name, layer)
            self.add_module(normalisation_name(name), nn.BatchNorm2d(layer.out_channels, eps=eps))
        self.pool1, self.pool2, self.pool3, self.pool4, self.pool5 = (MaxPool2x2() for _ in range(5))
        self.unpool1, self.unpool2, self.unpool3, self.unpool4, self.unpool5 = (MaxUnpool2x2() for _ in range(5))
        self.seg_score_voc = nn.Conv2d(base_channels, num_classes, 1)
        self.apply(initialise)

    def apply_layers(self, x: Tensor, *names: str) -> Tensor:
        """Apply layers one after the other: (transposed) convolution, normalisation, ReLU."""
        for name in names:
            x = self.get_submodule(normalisation_name(name))(self.get_submodule(name)(x))
            x = functional.relu(x, inplace=True)
        return x

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, 224, 224) into logits (N, K, 224, 224).

        Raises:
            RequestError: if the images have another size.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        run = self.apply_layers
        x, switches1 = self.pool1(run(images, "conv1_1", "conv1_2"))  # (N, b, 112, 112)
        x, switches2 = self.pool2(run(x, "conv2_1", "conv2_2"))  # (N, 2b, 56, 56)
        x, switches3 = self.pool3(run(x, "conv3_1", "conv3_2", "conv3_3"))  # (N, 4b, 28, 28)
        x, switches4 = self.pool4(run(x, "conv4_1", "conv4_2", "conv4_3"))  # (N, 8b, 14, 14)
        x, switches5 = self.pool5(run(x, "conv5_1", "conv5_2", "conv5_3"))  # (N, 8b, 7, 7)
        x = run(x, "fc6", "fc7")  # (N, f, 1, 1)
        x = run(x, "fc6_deconv")  # (N, 8b, 7, 7)
        x = run(self.unpool5(x, switches5), "deconv5_1", "deconv5_2", "deconv5_3")  # (N, 8b, 14, 14)
        x = run(self.unpool4(x, switches4), "deconv4_1", "deconv4_2", "deconv4_3")  # (N, 4b, 28, 28)
        x = run(self.unpool3(x, switches3), "deconv3_1", "deconv3_2", "deconv3_3")  # (N, 2b, 56, 56)
        x = run(self.unpool2(x, switches2), "deconv2_1", "deconv2_2")  # (N, b, 112, 112)
        x = run(self.unpool1(x, switches1), "deconv1_1", "deconv1_2")  # (N, b, 224, 224)
        return SegmentationOutput(self.seg_score_voc(x))


@register(
    family="DeconvNet",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source="the release's stage_2_train.prototxt, whose network is the paper's; without VGG-16's weights the encoder "
    "starts as the decoder does",
    input_size=(SIDE, SIDE),
    debug={"base_channels": 2, "fc_channels": 16},
    aliases=("deconvnet", "DeconvNet"),
)
def deconvnet_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    fc_channels: int = 4096,
    eps: float = EPS,
) -> DeconvNet:
    """Build DeconvNet: 251,805,653 parameters for VOC's 21 classes, 251,772,245 of them outside of normalisations."""
    return DeconvNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        fc_channels=fc_channels,
        eps=eps,
    )
