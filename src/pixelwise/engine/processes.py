"""Training in several processes that `torchrun` started, each on its share of every batch.

Every process runs the same program on the same plan: the batches are those of one process, and each takes its part of
them. Sums that decide the loss and the statistics go over all of them, so that the result is that of one process up to
the order of sums, and validation images are dealt out as well. The first process alone writes and speaks; what it
decides from the clock, the machine or the disk is handed to the others, so that all take the same way.

Without `torchrun` every function here does what one process needs: nothing.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pixelwise.errors import RequestError, WorkError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of torchrun
LONGEST_WAIT = timedelta(days=1)  # for the first process, which may write a report or prepare data for hours

Result = TypeVar("Result")

_SHARED: list[DistributedDataParallel] = []  # networks whose gradients the processes of the group share
_GROUPS = itertools.count()  # that this process has joined; all processes join the same ones

# The option that hands buffers round got another name in PyTorch 2.15.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


@contextmanager
def joined() -> Iterator[None]:
    """Let the processes that torchrun started find each other, while the block runs; alone, nothing happens."""
    if count() > 1 or not all(name in os.environ for name in VARIABLES) or os.environ["WORLD_SIZE"] == "1":
        yield
        return
    place = int(os.environ["LOCAL_RANK"])
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place < gpus:
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if gpus and distributed.is_nccl_available() else "gloo"
    store, own, number = next(rendezvous("env://", timeout=LONGEST_WAIT))
    # torchrun's store outlives a group: under the same names a second one could find the addresses of the first.
    store = distributed.PrefixStore(f"pixelwise {next(_GROUPS)}", store)  # type: ignore[attr-defined]
    distributed.init_process_group(backend, store=store, rank=own, world_size=number, timeout=LONGEST_WAIT)
    yield
    # Networks that share gradients hold the group: without them its threads end here, and not beside Python's own end.
    _SHARED.clear()
    gc.collect()
    distributed.destroy_process_group()  # after an error the others may not answer any more: the process just ends


def count() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if count() > 1 else 0


def share() -> tuple[int, int]:
    """Return which part of every batch is this process's, and how many there are."""
    return rank(), count()


def draw_apart(seed: int) -> None:
    """Let every process but the first draw random numbers of its own: equal dropout in all would be no dropout."""
    if rank():
        torch.manual_seed(int(np.random.SeedSequence([seed, rank()]).generate_state(1)[0]))


def local_count() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if count() > 1 else 1


def check_device(device: str) -> None:
    """Refuse a device that not every process can have.

    Raises:
        RequestError: if there are more processes than GPUs, or one GPU is named for all of them.
    """
    if count() == 1 or not device.startswith("cuda"):
        return
    gpus = torch.cuda.device_count()
    if device != "cuda":
        raise RequestError(
            f"device={device!r} for {count()} processes, which each take a GPU of their own; accepted: cuda, or cpu."
        )
    if local_count() > gpus:
        raise RequestError(
            f"{local_count()} processes on a machine of {gpus} GPUs; accepted: --nproc_per_node {gpus}, or device=cpu."
        )


@dataclass(frozen=True)
class _Failed:
    error: Exception


def first(function: Callable[[], Result]) -> Result:
    """Let the first process do something while the others wait, and give all of them the result, or its error.

    The result must be something that can be pickled.
    """
    if count() == 1:
        return function()
    outcome: Any = None
    if rank() == 0:
        try:
            outcome = function()
        except (RequestError, WorkError, OSError) as error:
            outcome = _Failed(error)
    outcome = agreed(outcome)
    if isinstance(outcome, _Failed):
        raise outcome.error
    result: Result = outcome
    return result


def agreed(value: Result) -> Result:
    """Return the first process's value in all of them."""
    if count() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gathered(value: Result) -> list[Result]:
    """Return the values of all processes, in their order."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def check_agreement(plan: str) -> None:
    """Stop where a process has come to another plan than the first.

    Raises:
        WorkError: if so; what was found out about data or machine differs.
    """
    if any(plan != other for other in gathered(plan)):
        raise WorkError(
            "the processes have planned differently, so their data or machines differ; accepted: the same data for "
            "all. Check the folder on every machine, or give what is planned with --set."
        )


def total(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, in all of them; gradients are those of the sum of all losses.

    Together with the mean of the gradients over the processes that `parallel` takes, a loss that is made of such sums,
    and so the same in every process, has the gradient that it has in one process.
    """
    if count() == 1:
        return tensor
    summed: Tensor = _Total.apply(tensor)
    return summed


class _Total(torch.autograd.Function):
    """The sum over the processes, forwards and backwards."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(tensor: Tensor) -> Tensor:
    copy = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(copy)
    return copy


def any_of(flag: bool) -> bool:
    """Say whether a flag is set in any process."""
    return flag if count() == 1 else any(gathered(flag))


class _Call(nn.Module):
    """A network as a function of its images."""

    def __init__(self, model: nn.Module, run: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.model = model
        self.run = run

    def forward(self, images: Tensor) -> Any:
        return self.run(self.model, images)


class _Shared:
    """A network whose gradients all processes share, for as long as they are joined."""

    def __init__(self, network: DistributedDataParallel) -> None:
        self._network = weakref.ref(network)

    @property
    def network(self) -> DistributedDataParallel:
        """The network itself."""
        network = self._network()
        assert network is not None, "the processes are not joined any more"
        return network

    def __call__(self, images: Tensor) -> Any:
        """Run it."""
        return self.network(images)


def parallel(model: nn.Module, run: Callable[[nn.Module, Tensor], Result]) -> Callable[[Tensor], Result]:
    """Return `run` of a model and images (N, C, H, W), whose backward pass averages the gradients of all processes.

    Buffers are not handed round: synchronised statistics are the same in all processes, others are each process's own.
    """
    on_gpu = next(model.parameters()).is_cuda
    options: dict[str, Any] = {_BUFFERS: False, "device_ids": [torch.cuda.current_device()] if on_gpu else None}
    network = DistributedDataParallel(_Call(model, run), **options)
    _SHARED.append(network)
    return _Shared(network)


def gradients_wait(run: Callable[[Tensor], Any], wait: bool) -> AbstractContextManager[None]:
    """Leave the gradients of a backward pass in their process, if `wait`; a later one averages all that was added."""
    return run.network.no_sync() if wait and isinstance(run, _Shared) else nullcontext()
