"""Which of our models have published Caffe weights, by public name."""

from __future__ import annotations

from pixelwise.errors import RequestError, closest
from pixelwise.weights import crfrnn, deconvnet, deeplab, dilation, fcn, hypercolumn, pspnet_caffe, segnet
from pixelwise.weights.published import Published

PUBLISHED: dict[str, Published] = {
    **fcn.PUBLISHED,
    **crfrnn.PUBLISHED,
    **segnet.PUBLISHED,
    **deconvnet.PUBLISHED,
    **dilation.PUBLISHED,
    **deeplab.PUBLISHED,
    **hypercolumn.PUBLISHED,
    **pspnet_caffe.PUBLISHED,
}


def published_weights(name: str) -> Published:
    """Return what is known of a model's published weights.

    Raises:
        RequestError: if none are known; the closest names that have some are listed.
    """
    if name not in PUBLISHED:
        raise RequestError(
            f"no Caffe weights of {name!r} are known; accepted: models that were published so, such as "
            f"{closest(name, PUBLISHED)}. Give one of them, or load a .safetensors file with `train --weights`."
        )
    return PUBLISHED[name]
