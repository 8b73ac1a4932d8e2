"""From another library's state dict to one of our models, strictly.

Every tensor of the file is used, or listed as left out with a reason; every tensor of the model is filled, or the file
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pixelwise.backbones.state_file import StateFile
from pixelwise.errors import RequestError
from pixelwise.weights.caffemodel import shape_text
from pixelwise.weights.state_format import StateFormat

COUNTER = "num_batches_tracked"  # of batch normalisation: files of PyTorch before 0.4.1 lack it, and nothing needs it


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A tensor of the file that went into the model: under which name, and what was done to it."""

    theirs: str
    ours: str
    shape: tuple[int, ...]
    note: str = ""


@dataclass(kw_only=True)
class StateConversion:
    """A state dict and how it came about.

    Attributes:
        tensors: complete, in the model's order.
        taken: tensors of the file that went in.
        left_out: names of the file that did not, with the reason.
        own: keys that keep the model's own initialisation; only of a start from a classifier.
        counters: batch counters that the file lacks, set to 0; nothing depends on them.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    counters: int = 0


def recognise(file: StateFile, formats: Sequence[StateFormat], *, name: str, trunk: bool) -> StateFormat:
    """Return the form of a file.

    Raises:
        RequestError: if it is none that is known for the model.
    """
    wanted = [form for form in formats if form.trunk == trunk]
    for form in wanted:
        if form.fits(file.tensors):
            return form
    known = "; ".join(f"{form.source} (has {form.marks[0]!r})" for form in wanted) or "none are known for it"
    advice = "Give such a file, or another model name."
    if any(form.trunk != trunk and form.fits(file.tensors) for form in formats):
        advice = "It is a classifier: give --trunk." if not trunk else "It is the whole network: leave --trunk out."
    raise RequestError(
        f"{file.path} is in no form of {name} that is known: its {len(file.tensors)} tensors are "
        f"{_some(file.tensors)}; accepted{' with --trunk' if trunk else ''}: {known}. {advice}"
    )


def convert_state(file: StateFile, model: nn.Module, form: StateFormat, *, name: str) -> StateConversion:
    """Turn another library's state dict into that of a model.

    Args:
        file: the weights.
        model: the model, for its shapes; it may stand on the meta device, unless the form is a trunk.
        form: of the file.
        name: of the model, for messages.

    Raises:
        RequestError: naming the tensor, what was found and what is wanted.
    """
    wanted, done = model.state_dict(), StateConversion()
    for theirs, tensor in file.tensors.items():
        ours, why = form.name(theirs), form.reason_to_leave_out(theirs)
        if why is None and ours not in wanted and form.trunk:
            why = "part of the ImageNet classifier only"
        if why is not None:
            done.left_out[theirs] = why
            continue
        if ours not in wanted:
            raise _refusal(file, form, f"holds {theirs!r} ({_shape(tensor)}), for which {name} has no place")
        if ours in done.tensors:
            raise _refusal(file, form, f"fills {ours!r} of {name} twice, the second time from {theirs!r}")
        place = wanted[ours]
        shape = tuple(tensor.shape)
        tensor, note = _as_ours(tensor, ours, file, form, name)
        if not _fits(tensor, place):
            if form.may_differ and re.fullmatch(form.may_differ, ours):
                done.left_out[theirs] = f"{_shape(tensor)} in the file, {_shape(place)} in the model"
                continue
            found = f"has {theirs!r} of {_shape(tensor)}, and {name} wants {_shape(place)} for {ours!r}"
            raise _refusal(file, form, found)
        done.tensors[ours] = tensor.to(place.dtype).reshape(place.shape).contiguous()
        done.taken.append(Taken(theirs=theirs, ours=ours, shape=shape, note=note))
    _complete(file, form, wanted, done, name)
    return done


def _as_ours(tensor: Tensor, ours: str, file: StateFile, form: StateFormat, name: str) -> tuple[Tensor, str]:
    """Turn channels, change the sign or take the diagonal, where the library keeps a tensor otherwise; say so."""
    if ours in form.turned and tensor.ndim == 4:
        return tensor.flip(1), "input channels turned from B, G, R to R, G, B"
    if ours in form.negated:
        return -tensor, "sign changed"
    if ours in form.diagonal and tensor.ndim == 4 and tensor.shape[0] == tensor.shape[1]:
        channels = range(len(tensor))
        kernels = tensor[channels, channels]
        if torch.count_nonzero(tensor) != torch.count_nonzero(kernels):
            raise _refusal(file, form, f"mixes channels in {ours!r}, for which {name} has one fixed kernel per channel")
        return kernels[:, None], "one kernel per channel; zero elsewhere"
    return tensor, ""


def _fits(tensor: Tensor, place: Tensor) -> bool:
    """Say whether a tensor has a place's shape, or is a fully connected layer's weight for a convolution."""
    flat = tensor.ndim == 2 and place.ndim == 4 and tensor.shape == (place.shape[0], place.shape[1:].numel())
    return tensor.shape == place.shape or flat


def _complete(
    file: StateFile, form: StateFormat, wanted: Mapping[str, Tensor], done: StateConversion, name: str
) -> None:
    """Fill what no file needs to hold; refuse a file that lacks anything else."""
    own: list[str] = []
    missing: list[str] = []
    for key, tensor in wanted.items():
        if key in done.tensors:
            continue
        if key.endswith(COUNTER):
            done.tensors[key] = torch.zeros((), dtype=torch.int64)
            done.counters += 1
        elif form.trunk:
            done.tensors[key] = tensor
            own.append(key)
        else:
            missing.append(key)
    if form.trunk and not done.taken:
        raise _refusal(file, form, f"has no tensor for {name}")
    if missing:
        raise _refusal(
            file,
            form,
            f"lacks {len(missing)} tensors of {name}, first {missing[0]!r} ({_shape(wanted[missing[0]])}); it has "
            f"{len(file.tensors)}: {_some(file.tensors)}",
        )
    done.own = tuple(own)
    done.tensors = {key: done.tensors[key] for key in wanted}


def _refusal(file: StateFile, form: StateFormat, found: str) -> RequestError:
    return RequestError(
        f"{file.path} looks like {form.library}'s and {found}. Accepted: {form.source}. Give the whole file of this "
        "network, or its name, or the options with which it was made."
    )


def _shape(tensor: Tensor) -> str:
    return shape_text(tuple(tensor.shape))


def _some(names: Mapping[str, object]) -> str:
    shown = list(names)[:3]
    return ", ".join(shown) + (", ..." if len(names) > 3 else "")
