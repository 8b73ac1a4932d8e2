"""The systems, one file each; importing this package fills the catalogue."""

from pixelwise.models import unet  # noqa: I001  (the catalogue lists families in this order, the default's first)
from pixelwise.models import unet_encoder, deeplabv3_efficientnet_lite, efficientnet_lite
from pixelwise.models import fcn, fcn_alexnet, fcn_googlenet
from pixelwise.models import crfrnn
from pixelwise.models import deconvnet, edeconvnet
from pixelwise.models import segnet, bayesian_segnet
from pixelwise.models import dilation
from pixelwise.models import deeplabv1, deeplabv2_vgg, deeplabv2_resnet, deeplabv3, deeplabv3_cascade
from pixelwise.models import drn, drnseg
from pixelwise.models import hypercolumn, textonboost
from pixelwise.models import fcn_resnet
from pixelwise.models import pspnet, gcn, fusionnet
from pixelwise.models import classifiers
from pixelwise.registry import create_model, known_names, list_models, model_info, model_options

__all__ = [
    "bayesian_segnet",
    "classifiers",
    "create_model",
    "crfrnn",
    "deconvnet",
    "deeplabv1",
    "deeplabv2_resnet",
    "deeplabv2_vgg",
    "deeplabv3",
    "deeplabv3_cascade",
    "deeplabv3_efficientnet_lite",
    "dilation",
    "drn",
    "drnseg",
    "edeconvnet",
    "efficientnet_lite",
    "fcn",
    "fcn_alexnet",
    "fcn_googlenet",
    "fcn_resnet",
    "fusionnet",
    "gcn",
    "hypercolumn",
    "known_names",
    "list_models",
    "model_info",
    "model_options",
    "pspnet",
    "segnet",
    "textonboost",
    "unet",
    "unet_encoder",
]
