"""Deciding what the user left open - device, threads, crop, batch, length - from the data and the machine.

Each decision is an ordinary value of the configuration, and a line for people that says why.
"""

from __future__ import annotations

import copy
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import nn

from pixelwise.data.card import ImagesCard
from pixelwise.data.loader import AnyItem, Batch, Samples, batches
from pixelwise.data.normalise import scaled_size
from pixelwise.data.scan import DataCard
from pixelwise.engine import processes
from pixelwise.engine.base_config import RunConfig
from pixelwise.engine.config import NetworkConfig, Precision, TrainConfig
from pixelwise.engine.layer_table import layer_table
from pixelwise.engine.model_file import build_twin
from pixelwise.engine.predict import default_device
from pixelwise.errors import RequestError
from pixelwise.models import model_info
from pixelwise.registry import PRETRAINED
from pixelwise.structures import SizeRule

DEFAULT_MINUTES = 10.0
CROP = 128  # pixels a side; eight such windows tell batch normalisation more than two large ones
VALID_CROP = 196  # predicted pixels a side where borders are lost: smaller ones would waste most of the work
WINDOW_PIXELS = 8 * CROP * CROP  # per iteration; smaller steps learn more from a short training
SMALLEST_HALVED = 256  # pixels; images with a shorter side are never halved
MAX_BATCH = 16
MEMORY_SHARE = 0.4  # of the memory that is free, for activations
FEWEST_PASSES = 4  # over the data; fewer, and half the resolution teaches more
FEWEST_FROM_PRETRAINED = 12  # the same from pretrained weights, which half the resolution suits for longer
VALIDATION_SHARE = 0.1  # of the time
MOST_VALIDATIONS = 20
BUDGET_SHARE = 0.97  # the rest is for the report


AnyRun = TypeVar("AnyRun", bound=RunConfig)
AnyConfig = TypeVar("AnyConfig", bound=NetworkConfig)


@dataclass
class Plan(Generic[AnyRun]):
    """A configuration that is being completed, with the reasons.

    Attributes:
        config: the configuration so far.
        lines: decisions for people, in order.
    """

    config: AnyRun
    lines: list[str] = field(default_factory=list)

    def decide(self, reason: str, **values: object) -> None:
        """Set values of the configuration (those of `data` by their plain name) and note the reason."""
        data = {key: value for key, value in values.items() if key in type(self.config.data).model_fields}
        rest = {key: value for key, value in values.items() if key not in data}
        self.config = self.config.model_copy(
            update={**rest, "data": self.config.data.model_copy(update=data)} if data else rest
        )
        said = ", ".join(f"{'data.' if key in data else ''}{key} = {_shown(value)}" for key, value in values.items())
        self.lines.append(f"{said} ({reason})")

    def note(self, line: str) -> None:
        """Note what was done, once."""
        if line not in self.lines:
            self.lines.append(line)


def _shown(value: object) -> str:
    """Write a value for people: sizes as 32 x 48, numbers of each channel as [117.54, 82.57].

    >>> _shown((32, 48)), _shown((117.540402, 82.0)), _shown(0.5)
    ('32 x 48', '[117.54, 82]', '0.5')
    """
    if not isinstance(value, tuple):
        return str(value)
    if any(isinstance(number, float) for number in value):
        return f"[{', '.join(f'{number:.5g}' for number in value)}]"
    return " x ".join(map(str, value))


def plan_machine(config: AnyConfig) -> Plan[AnyConfig]:
    """Settle the model's name, device, precision, threads and workers."""
    plan = Plan(config)
    plan_name(plan)
    if config.device == "auto":
        device = default_device()
        plan.decide("a usable GPU was found" if device == "cuda" else "no usable GPU was found", device=device)
    device = plan.config.device
    _check_device(device)
    processes.check_device(device)
    if processes.count() > 1:
        plan.note(f"processes = {processes.count()} (from torchrun)")
    if config.precision == "auto":
        precision, reason = _best_precision(device)
        plan.decide(reason, precision=precision)
    elif config.precision != "float32" and not device.startswith("cuda"):
        raise RequestError(
            f"precision={config.precision!r} on {device}: most processors emulate it, ten times slower. Accepted: "
            "float32 on a CPU; use a GPU for the others."
        )
    plan_threads(plan)
    if config.data.num_workers is None:
        # torchrun sets OMP_NUM_THREADS to 1, which is no word about the processes that read images.
        readers = usable_cores() if processes.count() == 1 else _own_cores()
        workers = min(8, processes.agreed(readers) - 1) if device.startswith("cuda") else 0
        reason = "to keep the GPU busy" if workers else "windows cost little beside the network on a CPU"
        plan.decide(reason, num_workers=workers)
    plan_cache(plan)
    return plan


def plan_name(plan: Plan[AnyRun]) -> None:
    """Put the public name of the model in the place of an alias."""
    given = plan.config.model
    if model_info(given).name != given:
        plan.decide(f"{given} is an alias of it", model=model_info(given).name)


def plan_threads(plan: Plan[AnyRun]) -> None:
    """Settle the threads that compute on the CPU."""
    if plan.config.threads is not None:
        return
    if plan.config.budget.cpu_minutes is not None:
        plan.decide("a CPU budget counts all threads, and one wastes nothing on waiting", threads=1)
    else:
        cores = processes.agreed(usable_cores())
        plan.decide(f"{cores} cores{_each()}", threads=cores)


def plan_cache(plan: Plan[AnyRun]) -> None:
    """Settle the memory for decoded images."""
    if plan.config.data.cache_gb is None:
        cache = round(min(8.0, processes.agreed(free_memory()) / 4 / 1e9), 1)
        plan.decide(f"a quarter of the free memory, at most 8{_each()}", cache_gb=cache)


def _each() -> str:
    return " for each process" if processes.count() > 1 else ""


def _own_cores() -> int:
    """Return this process's part of the machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes.local_count())


def usable_cores() -> int:
    """Return the cores that this process may use; OMP_NUM_THREADS, where it is set, is a limit."""
    cores = _own_cores()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(
            f"device={device!r} is not usable ({str(error).splitlines()[0]}); accepted: cpu"
            + (", cuda" if torch.cuda.is_available() else " (no GPU was found)")
            + ", or auto."
        ) from error


def _best_precision(device: str) -> tuple[Precision, str]:
    if not device.startswith("cuda"):
        return "float32", "half precision is emulated on most processors"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "the GPU computes it natively"
    return "float16", "the GPU has no native bfloat16"


def free_memory() -> int:
    """Return the bytes of memory that are available here to this process, 4 GB if that is not known."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024 // processes.local_count()
    except (OSError, StopIteration):
        return 4 * 10**9


def plan_windows(plan: Plan[TrainConfig], card: DataCard, rule: SizeRule) -> None:
    """Settle crop and batch size for the images at `data.scale`."""
    data = plan.config.data
    scale = data.scale or 1.0
    if data.whole_images:
        _plan_whole_images(plan, card, rule)
        return
    if data.crop is None:
        height, width = scaled_size(card.image_sizes[0][:2], scale)
        planned = (_crop_side(height, rule), _crop_side(width, rule))
        plan.decide(f"images are mostly {height} x {width} at scale {scale:g}", crop=planned)
    else:
        _check_crop(data.crop, rule)
    crop = plan.config.data.crop
    assert crop is not None
    if data.batch_size is None:
        wanted = round(WINDOW_PIXELS / (rule.output(crop[0]) * rule.output(crop[1])))
        plan_batch(plan, card, crop, min(wanted, MAX_BATCH))


def plan_batch(plan: Plan[AnyConfig], card: ImagesCard, crop: tuple[int, int], wanted: int) -> None:
    """Settle the batch size: as many windows as are wanted, or as fit into memory, in equal parts for all processes."""
    parts = processes.count()
    fits = int(_memory(plan.config.device) * MEMORY_SHARE / _activation_bytes(plan.config, card, crop))
    if fits < 1:
        raise RequestError(
            f"a window of {crop[0]} x {crop[1]} does not fit into the memory of {plan.config.device}; accepted: "
            "smaller ones. Give --set data.crop=..., or a smaller model."
        )
    share = math.ceil(wanted / parts)
    reason = "as many as fit into memory" if fits < share else "steps of moderate size"
    plan.decide(reason, batch_size=parts * max(1, min(share, fits)))


def _plan_whole_images(plan: Plan[TrainConfig], card: DataCard, rule: SizeRule) -> None:
    """Settle the batch size for whole images: one in each process, unless all have the same size."""
    data, parts = plan.config.data, processes.count()
    sizes = {(height, width) for height, width, _ in card.image_sizes}
    batch = data.batch_size
    if len(sizes) > 1 and batch not in (None, parts):
        raise RequestError(
            f"data.whole_images with batches of {batch}: the images have {len(sizes)} sizes, which do not fit into one "
            f"batch; accepted: data.batch_size={parts}. Give optimizer.accumulate={batch} for steps over more images."
        )
    height, width = (rule.covering(side) for side in scaled_size(card.image_sizes[0][:2], data.scale or 1.0))
    if batch is None and len(sizes) == 1:
        share = math.ceil(min(MAX_BATCH, round(WINDOW_PIXELS / (height * width))) / parts)
        plan.decide("steps of moderate size", batch_size=parts * max(1, share))
    elif batch is None:
        plan.decide("images of several sizes", batch_size=parts)


def _check_crop(crop: tuple[int, int], rule: SizeRule) -> None:
    try:
        rule.check(*crop)
    except RequestError as error:
        said = str(error).partition(" Pad or crop")[0]
        raise RequestError(f"data.crop: {said} Give --set data.crop=[height,width] with legal sides.") from error


def _crop_side(side: int, rule: SizeRule) -> int:
    """Return the input side of a window; not above the image's, where the network loses no borders."""
    if rule.margin:
        return rule.covering(min(side, VALID_CROP))
    # Two steps at least: at one step the deepest map is a single pixel, which batch normalisation cannot use.
    return max(rule.at_most(min(side, CROP)), rule.at_least(2 * rule.step))


def _memory(device: str) -> int:
    return min(processes.gathered(torch.cuda.mem_get_info()[0] if device.startswith("cuda") else free_memory()))


def _activation_bytes(config: NetworkConfig, card: ImagesCard, crop: tuple[int, int]) -> int:
    """Estimate the bytes that training keeps for one window: every layer's output and its gradient."""
    model = build_twin(config.model, num_classes=len(card.classes), in_channels=card.channels, options=config.options)
    layers = layer_table(model, in_channels=card.channels, input_size=crop)
    return 2 * 4 * sum(math.prod(layer.shape) for layer in layers)


@dataclass(frozen=True)
class Clock:
    """The clock of a time budget: seconds since the run began, the same in all processes."""

    limit: float
    now: Callable[[], float]

    @staticmethod
    def of(config: RunConfig, started: float) -> Clock | None:
        """Return the clock of the configuration's budget; None for epochs or iterations."""
        budget = config.budget
        if budget.cpu_minutes is not None:
            return Clock(60 * budget.cpu_minutes, lambda: sum(processes.gathered(time.process_time())))
        if budget.minutes is not None:
            return Clock(60 * budget.minutes, lambda: processes.agreed(time.perf_counter() - started))
        return None


@dataclass(frozen=True)
class Costs:
    """Measured seconds of the budget's clock: one iteration, and the validation of one image."""

    step: float
    image: float


def measure(
    clock: Callable[[], float],
    step: Callable[[nn.Module, Batch], None],
    model: nn.Module,
    crops: Samples,
    batch_size: int,
    validate: Callable[[nn.Module, Sequence[AnyItem]], None],
    items: Sequence[AnyItem],
    *,
    seconds: float,
) -> Costs:
    """Time iterations and validations on a copy of the model, so that training itself is not touched.

    Iterations are repeated until the time is used up, four at least, and the median is taken: the first ones, and
    those that another process disturbs, say nothing about the rest.
    """
    twin = copy.deepcopy(model)
    times: list[float] = []
    with torch.random.fork_rng(devices=[]):
        stream = batches(crops, batch_size=batch_size, first=0, last=1000, num_workers=0, share=processes.share())
        while len(times) < 4 or (sum(times) < seconds and len(times) < 1000):
            start = clock()
            step(twin, next(stream))
            times.append(clock() - start)
        some = [items[i] for i in range(0, len(items), max(1, len(items) // 3))][:3]
        validate(twin, some[:1])
        start = clock()
        validate(twin, some)
        image = (clock() - start) / len(some)
    return Costs(statistics.median(times), image)


def plan_scale(plan: Plan[TrainConfig], card: DataCard, costs: Costs, seconds: float) -> bool:
    """Choose half the resolution where a time budget allows too few passes over the data; say whether it did."""
    data = plan.config.data
    crop = data.crop or card.image_sizes[0][:2]
    assert data.batch_size is not None
    pixels = sum(height * width * count for height, width, count in card.image_sizes)
    per_step = data.batch_size * plan.config.optimizer.accumulate * crop[0] * crop[1]
    passes = seconds / costs.step * per_step / pixels
    smallest = min(min(height, width) for height, width, _ in card.image_sizes)
    fewest = FEWEST_FROM_PRETRAINED if plan.config.weights == PRETRAINED else FEWEST_PASSES
    if passes >= fewest or smallest < SMALLEST_HALVED:
        plan.decide("the images' own size", scale=1.0)
        return False
    plan.decide(f"at full size the budget would allow {passes:.1f} passes over the data", scale=0.5)
    return True


def plan_length(plan: Plan[AnyConfig], num_train: int, num_val: int, costs: Costs | None, left: float | None) -> None:
    """Settle the number of iterations and how often to validate.

    Args:
        plan: with the batch size settled.
        num_train: training images.
        num_val: validation images.
        costs: measured times, None for a budget in epochs or iterations.
        left: seconds of the budget that are left, None likewise.
    """
    config = plan.config
    assert config.data.batch_size is not None
    per_epoch = num_train / (config.data.batch_size * config.optimizer.accumulate)
    validations = MOST_VALIDATIONS
    if costs is not None and left is not None:
        once = costs.image * num_val
        validations = int(min(MOST_VALIDATIONS, max(2, left * VALIDATION_SHARE / once)))
        iterations = max(1, int((left * BUDGET_SHARE - validations * once) / costs.step))
        limit = config.budget.cpu_minutes or config.budget.minutes
        kind = "CPU minutes" if config.budget.cpu_minutes else "minutes"
        reason = f"{limit:g} {kind} at {costs.step:.3g} s an iteration, {iterations / per_epoch:.3g} epochs"
        if config.iterations is None:
            plan.decide(reason, iterations=iterations)
    elif config.iterations is None and config.budget.epochs is not None:
        plan.decide(f"{config.budget.epochs:g} epochs", iterations=max(1, math.ceil(config.budget.epochs * per_epoch)))
    elif config.iterations is None:
        plan.decide("as asked", iterations=config.budget.iterations)
    assert plan.config.iterations is not None
    if config.val_every is None:
        every = max(1, math.ceil(plan.config.iterations / validations))
        plan.decide(f"{math.ceil(plan.config.iterations / every)} validations", val_every=every)
