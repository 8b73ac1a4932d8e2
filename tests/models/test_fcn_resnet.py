"""torchvision's FCN on ResNet is torchvision's: counts, names, logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.models.fcn_resnet import fcn_resnet50, fcn_resnet101


@pytest.mark.parametrize(("build", "parameters"), [(fcn_resnet50, 35_322_218), (fcn_resnet101, 54_314_346)])
def test_names_and_published_counts(build: type, parameters: int) -> None:
    """The counts are `num_params` of torchvision's published weights, whose files hold the auxiliary classifier."""
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    with torch.device("meta"):
        ours = build(num_classes=21)
        theirs = getattr(segmentation, build.__name__)(weights=None, weights_backbone=None, aux_loss=True)
    assert sum(parameter.numel() for parameter in ours.parameters()) == parameters
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    with torch.device("meta"):
        without = build(num_classes=21, aux=False)
    assert not [key for key in without.state_dict() if key.startswith("aux")]
    assert without.aux_weights == ()


def test_logits_are_torchvisions() -> None:
    fcn, resnet = (pytest.importorskip(f"torchvision.models.{name}") for name in ("segmentation.fcn", "resnet"))
    torch.manual_seed(0)
    blocks = (1, 1, 2, 2)
    trunk = resnet.ResNet(resnet.Bottleneck, list(blocks), replace_stride_with_dilation=[False, True, True])
    backbone = fcn.IntermediateLayerGetter(trunk, return_layers={"layer4": "out", "layer3": "aux"})
    theirs = fcn.FCN(backbone, fcn.FCNHead(2048, 5), fcn.FCNHead(1024, 5)).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.3)
    with torch.device("meta"):
        ours = fcn_resnet50(num_classes=5, blocks=blocks)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    image = torch.randn(1, 3, 60, 75)
    with torch.no_grad():
        wanted = theirs(image)
        assert ours.eval()(image).aux == ()
        ours.training = True  # its layers stay in evaluation
        found = ours(image)
    assert (found.logits - wanted["out"]).abs().max() < 1e-5 * wanted["out"].abs().max()
    assert (found.aux[0] - wanted["aux"]).abs().max() < 1e-5 * wanted["aux"].abs().max()
