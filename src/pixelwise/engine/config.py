"""The configuration of a training run: every choice in one place, printed, saved and editable.

A value of None means "plan it": `plan.py` replaces it by a number before training, so that the saved
`config.yaml` holds no None that matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pixelwise.data.augment_config import AugmentConfig
from pixelwise.data.resized_crop import ResizedCropConfig
from pixelwise.engine.base_config import RunConfig, SourceConfig
from pixelwise.engine.classical_config import ClassicalConfig
from pixelwise.engine.schedule import OptimizerConfig
from pixelwise.errors import RequestError, closest
from pixelwise.losses.classification import ClassLossConfig
from pixelwise.losses.segmentation import LossConfig
from pixelwise.models import known_names, model_info
from pixelwise.registry import PRETRAINED

Precision = Literal["auto", "float32", "bfloat16", "float16"]
BatchNorm = Literal["auto", "batch", "sync", "renorm", "frozen"]
TrainOn = Literal["logits", "scores"]
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, several times as fast, where it is built in
RANDOM = "random"  # for `weights`: the model's own initialisation
START_WORDS = (PRETRAINED, RANDOM)  # for `weights`, besides files


class NetworkSourceConfig(SourceConfig):
    """What a network is trained on, whatever the task.

    Attributes:
        batch_size: windows per batch, of all processes together.
        replacement: draw every image independently, instead of shuffling once an epoch.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        normalise_per_image: take mean and deviation of each image, not of the whole training set.
        mean: per channel (red, green, blue), subtracted from values of 0..255, as published weights want it; None
            brings images to mean 0 and deviation 1.
        std: per channel, by which values of 0..255 less `mean` are divided; None divides by nothing, as networks of
            the Caffe age want it.
    """

    batch_size: int | None = Field(None, ge=1)
    replacement: bool = False
    num_workers: int | None = Field(None, ge=0)
    normalise_per_image: bool | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _one_normalisation(self) -> Self:
        if self.mean is not None and self.normalise_per_image:
            raise ValueError("mean and normalise_per_image exclude each other; accepted: one of them. Leave one out")
        if self.std is not None and (self.mean is None or len(self.std) != len(self.mean) or min(self.std) <= 0):
            raise ValueError(
                f"std={list(self.std)} beside mean={self.mean and list(self.mean)}; accepted: a number above 0 for "
                "each of mean. Give both, or neither"
            )
        return self


class DataConfig(NetworkSourceConfig):
    """What a semantic model is trained on, and in which windows.

    Attributes:
        scale: factor by which images are resized before the network; scores are taken at the labels' own size.
        crop: input (height, width) of a training window, after scaling.
        whole_images: train on whole images of their own size, not on windows.
        beyond: pixels by which a window may reach over each border of the image, which is mirrored there; for networks
            that lose so many, so that they are also trained on what lies at the border.
        ignore_beyond: what a window shows beyond the image, mirrored, does not count in the loss.
        foreground_crops: share of the windows that are laid over a pixel of a class other than the most frequent one.
    """

    scale: float | None = Field(None, gt=0, le=4)
    crop: tuple[int, int] | None = None
    whole_images: bool = False
    beyond: int = Field(0, ge=0)
    ignore_beyond: bool = False
    foreground_crops: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.whole_images and (self.crop or self.foreground_crops or self.beyond):
            given = next(key for key in ("crop", "foreground_crops", "beyond") if getattr(self, key))
            raise ValueError(f"{given} has no effect on whole_images; accepted: one of them. Leave one out")
        return self


class NetworkConfig(RunConfig):
    """What decides the training of a network by gradient steps, whatever the task.

    Attributes:
        weights: file or run folder to start from: of the same model, taken strictly, or of the classifier that is its
            trunk, see `start`; "pretrained" takes what an installed package brings for the model's
            encoder, "random" the model's initialisation; None takes "pretrained" where a model has it, else "random".
        replace_classifier: take all of `weights` but the layers that depend on the number of classes, which begin anew:
            for weights of other classes.
        transplant: file of another model, of which every layer with a name of this one is taken.
        batch_norm: "batch" (as the model has it, in each process by itself), "sync" (by the statistics of all
            processes' windows, which is "batch" in one process), "renorm" (corrected towards the running statistics,
            right for batches down to one window), "frozen" (statistics, scale and shift stay as they are in
            `weights`), or "auto" ("renorm" for batches of less than four, else "sync" in several processes).
        precise_batch_norm: training batches over which the statistics of batch normalisation are measured before a
            validation, as SegNet and DeconvNet measured them once; 0 takes the running ones.
        deterministic: on one machine, equal configurations give equal bits; slower on a GPU.
        ema: validate and keep the moving average of the weights over the last tenth of the iterations.
        precision: "auto" takes bfloat16 or float16 where the device computes it fast, else float32.
        device: "auto", "cpu", "cuda", ...
    """

    weights: str | None = None
    replace_classifier: bool = False
    transplant: str | None = None
    data: NetworkSourceConfig
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    batch_norm: BatchNorm = "auto"
    precise_batch_norm: int = Field(0, ge=0)
    deterministic: bool = False
    ema: bool = True
    precision: Precision = "auto"
    device: str = "auto"

    @model_validator(mode="after")
    def _check_run(self) -> Self:
        if self.weights not in (None, RANDOM) and self.transplant:
            raise ValueError("weights and transplant are both given; accepted: one of them. Leave one out")
        if self.replace_classifier and (self.weights is None or self.weights in START_WORDS):
            raise ValueError("replace_classifier has no effect without a file of weights; leave it out, or give one")
        if self.precise_batch_norm and self.batch_norm in ("renorm", "frozen"):
            verb = "corrects" if self.batch_norm == "renorm" else "keeps"
            raise ValueError(f"precise_batch_norm measures what batch_norm={self.batch_norm} {verb}; leave one out")
        return self


class TrainConfig(NetworkConfig):
    """Everything that decides the training of a semantic model.

    Attributes:
        train_on: "logits", at every pixel; or "scores", the network's own ones at every eighth pixel, on which DeepLab
            and the dilated networks were trained.
    """

    train_on: TrainOn = "logits"
    data: DataConfig
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    loss: LossConfig = Field(default_factory=LossConfig)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train_on == "scores" and self.loss.separation:
            raise ValueError("loss.separation weights all pixels and train_on=scores sees every eighth; leave one out")
        return self


class ClassDataConfig(NetworkSourceConfig):
    """What an image classifier is trained on.

    Attributes:
        crop: side of the square that the network sees.
    """

    crop: int | None = Field(None, ge=1)


class ClassifierConfig(NetworkConfig):
    """Everything that decides the training of an image classifier."""

    data: ClassDataConfig
    augment: ResizedCropConfig = Field(default_factory=ResizedCropConfig)
    loss: ClassLossConfig = Field(default_factory=ClassLossConfig)


CONFIGS: Mapping[str, type[RunConfig]] = MappingProxyType(
    {"semantic": TrainConfig, "classification": ClassifierConfig, "classical": ClassicalConfig}
)


def config_type(model: object) -> type[RunConfig]:
    """Return what describes the training of a model of this name; a semantic one's where there is no such model."""
    known = isinstance(model, str) and model in known_names()
    return CONFIGS.get(model_info(str(model)).task, TrainConfig) if known else TrainConfig


def build_config(values: Mapping[str, Any], settings: Sequence[str] = ()) -> RunConfig:
    """Build a configuration from nested values and `key=value` settings.

    Args:
        values: nested mapping of keys, as in config.yaml.
        settings: texts such as "optimizer.lr=0.001"; values are read as YAML and beat `values`.

    Returns:
        The configuration of the model's task: `TrainConfig`, `ClassifierConfig` or `ClassicalConfig`.

    Raises:
        RequestError: for an unknown key (with the closest ones) or a value that is not accepted.
    """
    merged: dict[str, Any] = dict(values)
    named = [text for key, _, text in (setting.partition("=") for setting in settings) if key.strip() == "model"]
    kind = config_type(named[-1].strip() if named else values.get("model"))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RequestError(f"--set {setting!r} has no '='; accepted: key=value, such as optimizer.lr=0.001.")
        _check_key(key.strip(), kind)
        try:
            _put(merged, key.strip().split("."), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise RequestError(f"--set {setting!r}: {text!r} is not readable as a YAML value.") from error
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, kind) from error


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, last = path
    for parent in parents:
        existing = target.get(parent)
        target[parent] = dict(existing) if isinstance(existing, Mapping) else {}
        target = target[parent]
    target[last] = value


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield all keys of the configuration, dotted, such as "optimizer.lr"."""
    for name, entry in model.model_fields.items():
        kind = entry.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from known_keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _check_key(key: str, kind: type[RunConfig]) -> None:
    keys = list(known_keys(kind))
    if key not in keys and not key.startswith("options."):
        _refuse_foreign(key, kind)
        tails = {known.rpartition(".")[2]: known for known in keys}
        guess = tails.get(key) or closest(key, keys)
        raise RequestError(
            f"unknown key {key!r}; closest: {guess}. Accepted: the keys of config.yaml, which every run folder holds."
        )


def _refuse_foreign(key: str, kind: type[RunConfig]) -> None:
    """Say of a key of another task that it is one."""
    for task, other in CONFIGS.items():
        if key in known_keys(other):
            raise RequestError(
                f"key {key!r} has no effect here: it is for the training of {task} models; accepted: the keys of this "
                f"model's config.yaml, the closest of which are {closest(key, known_keys(kind))}. Leave it out."
            )


def _explain(error: ValidationError, kind: type[RunConfig]) -> RequestError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "config"
    if first["type"] == "extra_forbidden":
        _refuse_foreign(key, kind)
        return RequestError(f"unknown key {key!r}; closest: {closest(key, known_keys(kind))}. Correct or remove it.")
    if first["type"] == "missing":
        return RequestError(f"{key} is missing; accepted: a value for every key. Add it.")
    if first["type"] == "value_error":  # a check of ours, in our words
        return RequestError(f"{key}: {first['ctx']['error']}.")
    accepted = first["msg"].removeprefix("Input should be ").partition(", unable")[0]
    if first["type"] == "tuple_type":
        accepted = "a list, such as [256,256]"
    return RequestError(f"{key} is {first['input']!r}; accepted: {accepted}. Give another value.")


def dump_config(config: RunConfig) -> str:
    """Return the configuration as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None)


def read_config(path: Path) -> RunConfig:
    """Read a run's config.yaml."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=FAST_LOADER)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist; a run folder holds its config.yaml there.") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read ({str(error).splitlines()[0]}). Restore the file.") from error
    if not isinstance(values, dict):
        raise RequestError(f"{path} holds no mapping of keys; accepted: a config.yaml as a run writes it.")
    try:
        return build_config(values)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
