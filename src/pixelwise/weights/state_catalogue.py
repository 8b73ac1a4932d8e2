"""Which of our models other PyTorch libraries have published, and in which forms, by public name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pixelwise.errors import RequestError, closest
from pixelwise.weights import crfrnn, drn, pspnet, smp, torchvision
from pixelwise.weights.state_format import StateFormat

SOURCES: Sequence[Mapping[str, Sequence[StateFormat]]] = (
    torchvision.FORMATS,
    crfrnn.FORMATS,
    drn.FORMATS,
    pspnet.FORMATS,
    smp.FORMATS,
)


def state_formats(name: str) -> tuple[StateFormat, ...]:
    """Return the forms in which a model's weights are known.

    Raises:
        RequestError: if none are; the closest names that have some are listed.
    """
    found = tuple(form for source in SOURCES for form in source.get(name, ()))
    if not found:
        known = dict.fromkeys(name for source in SOURCES for name in source)
        raise RequestError(
            f"no PyTorch weights of {name!r} are known; accepted: models that were published so, such as "
            f"{closest(name, known)}. Give one of them; a model file of pixelwise is given to `train --weights`."
        )
    return found
