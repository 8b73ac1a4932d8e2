"""TextonBoost: J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost: Joint Appearance, Shape and Context Modeling
for Multi-class Object Recognition and Segmentation", ECCV 2006; "TextonBoost for Image Understanding: Multi-Class
Object Recognition and Segmentation by Jointly Modeling Texture, Layout, and Context", IJCV 81(1), 2009.

The classifier, the paper's texture-layout potentials. Map from the paper (IJCV) to this package:

- section 4.1, 17 filters and textons             -> `filter_bank.py`, `textons.py`
- section 4.2, texture-layout filters             -> `texture_layout.py`
- section 4.3, joint boosting, random features    -> `joint_boost.py`
- P(c | x, i), the softmax of the boosted scores  -> `TextonBoost.predict_probabilities`

The defaults are the papers' as later work cites them: 400 textons, 100 rectangles in a box of 200 pixels, of whose
features each round tries 0.3 %, on every 5th pixel of images of about 320x213. What we could not hold to a text is
ours: rectangles have two random corners in the box, thresholds follow a square law, and `class_balance` is halfway
between counting pixels and counting classes alike, best on CamVid for pixel accuracy and mean IoU.

Axes: H, W image; K classes; N images; S sampled pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pixelwise.classical.boosting import Boosting
from pixelwise.classical.filter_bank import filter_bank
from pixelwise.classical.joint_boost import MOST_CLASSES, Stumps
from pixelwise.classical.textons import TextonDictionary
from pixelwise.classical.texture_layout import TextureLayoutFeatures
from pixelwise.crf.mean_field import usable_cores
from pixelwise.errors import RequestError

Progress = Callable[[str, int, int], None]
Result = TypeVar("Result")

K_MEANS_PIXELS = 200_000  # sampled over all images
K_MEANS_IMAGES = 200  # from which they come, evenly spread over the list
MOST_THRESHOLDS = 255
# Option: smallest and largest value, and one to suggest.
RANGES: dict[str, tuple[float, float, float]] = {
    "num_classes": (2, MOST_CLASSES, 21),
    "num_textons": (2, 65535, 400),
    "num_rectangles": (1, 65535, 100),
    "box": (2, 4096, 200),
    "grid_step": (1, 1024, 5),
    "feature_share": (1e-9, 1, 0.003),
    "num_thresholds": (1, MOST_THRESHOLDS, 32),
    "seed": (0, 2**31 - 1, 0),
    "kappa": (1e-3, 1e3, 1.0),
    "class_balance": (0, 1, 0.5),
}


class TextonBoost:
    """Textons, texture-layout features and joint boosting: what each pixel is, from the texture around it.

    Args:
        num_classes: K, from 2.
        num_textons: clusters of filter responses.
        num_rectangles: shapes of which the count of a texton is a feature.
        box: side of the square around a pixel in which the rectangles lie, in pixels.
        grid_step: every which pixel, in both directions, is trained on.
        feature_share: share of all features (rectangles times textons) that a round tries, in (0, 1].
        num_thresholds: of a feature, from a fixed set.
        seed: of k-means, of the rectangles and of what a round tries.
        bank: filter bank, "textonboost17", "mr8", "lm" or "schmid".
        kappa: factor of all standard deviations of the filters; smaller images want a smaller one (CamVid at 240x180:
            0.5).
        class_balance: power of a class's inverse frequency that its pixels start with as weight: 0, all pixels count
            alike, to 1, all classes do.

    Attributes:
        dictionary: the textons; None before the training began.
        stumps: the rounds so far.

    Raises:
        RequestError: if an option is out of range or the bank is unknown.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        num_textons: int = 400,
        num_rectangles: int = 100,
        box: int = 200,
        grid_step: int = 5,
        feature_share: float = 0.003,
        num_thresholds: int = 32,
        seed: int = 0,
        bank: str = "textonboost17",
        kappa: float = 1.0,
        class_balance: float = 0.5,
    ) -> None:
        self.num_classes = num_classes
        self._options: dict[str, int | float | str] = {
            "num_textons": num_textons,
            "num_rectangles": num_rectangles,
            "box": box,
            "grid_step": grid_step,
            "feature_share": feature_share,
            "num_thresholds": num_thresholds,
            "seed": seed,
            "bank": bank,
            "kappa": kappa,
            "class_balance": class_balance,
        }
        _check_ranges({"num_classes": num_classes, **self._options})
        self._bank = filter_bank(bank, kappa=kappa)
        self._features = TextureLayoutFeatures.random(
            num_textons, num_rectangles=num_rectangles, box=box, num_thresholds=num_thresholds, seed=seed
        )
        self.dictionary: TextonDictionary | None = None
        self.stumps = Stumps.none(num_classes)

    @property
    def options(self) -> dict[str, int | float | str]:
        """The keyword arguments of the constructor, for a run's config."""
        return dict(self._options)

    @property
    def num_rounds(self) -> int:
        """Stumps so far."""
        return len(self.stumps)

    def begin(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[NDArray[np.integer]],
        *,
        ignore_index: int = 255,
        on_progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> Boosting:
        """Learn the textons, or keep those that were loaded, and prepare the rounds.

        Stumps that the estimator has (`from_state`) are replayed, so that training goes on as if it had not stopped.

        Args:
            images: N images, uint8 (H, W, 3), of any sizes; may be lazy: only indexing and len are used, from several
                threads, and each image is read twice at most.
            labels: N label maps (H, W), the same; -1 and `ignore_index` are not counted.
            ignore_index: label of pixels that are not counted.
            on_progress: called with the name of the stage ("responses", "k-means", "textons", "replay"), how much of it
                is done and how much there is.
            num_threads: None takes all cores that the process may use; the result is the same.

        Raises:
            RequestError: if there are no images, sizes differ, labels are out of range, or no pixel on the grid counts.
        """
        if len(images) != len(labels) or not len(images):
            raise RequestError(
                f"there are {len(images)} images and {len(labels)} label maps; accepted: as many of both, from one. "
                "Give each image its label map."
            )
        report = on_progress or (lambda stage, done, total: None)
        threads = num_threads or usable_cores()
        # One thread inside each of ours: k-means sums in one order, and so finds the same, everywhere.
        with threadpool_limits(limits=1):
            if self.dictionary is None:
                self.dictionary = self._learn_textons(images, report, threads)
            maps, classes = self._read(images, labels, ignore_index, report, threads)
        boosting = Boosting(self, self._features, maps, classes, num_threads=threads)
        for m in range(len(self.stumps)):
            boosting.boosting.replay(self.stumps[m])
            report("replay", m + 1, len(self.stumps))
        return boosting

    def _learn_textons(self, images: Sequence[NDArray[np.uint8]], report: Progress, threads: int) -> TextonDictionary:
        """Cluster the responses of random pixels of images spread over the list."""
        chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), K_MEANS_IMAGES)).round().astype(int))
        share = math.ceil(K_MEANS_PIXELS / len(chosen))

        def sample(index: int) -> NDArray[np.float32]:
            responses = self._bank.responses(images[index]).reshape(self._bank.num_responses, -1)
            count = responses.shape[1]
            rng = np.random.default_rng((int(self._options["seed"]), index))
            return responses[:, np.sort(rng.choice(count, min(count, share), replace=False))].T

        samples = _in_order(sample, chosen.tolist(), lambda done: report("responses", done, len(chosen)), threads)
        report("k-means", 0, 1)
        dictionary = TextonDictionary.fit(
            np.concatenate(samples), num_textons=self._features.num_textons, seed=int(self._options["seed"])
        )
        report("k-means", 1, 1)
        return dictionary

    def _read(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[NDArray[np.integer]],
        ignore_index: int,
        report: Progress,
        threads: int,
    ) -> tuple[list[NDArray[np.uint16]], list[NDArray[np.int16]]]:
        """Return the texton maps, and the label maps with -1 where they are not counted."""

        def read(index: int) -> tuple[NDArray[np.uint16], NDArray[np.int16]]:
            image, truth = images[index], np.asarray(labels[index])
            if truth.shape != image.shape[:2]:
                raise RequestError(
                    f"label map {index} has shape {truth.shape} and its image {image.shape}; accepted: (H, W) and "
                    "(H, W, 3). Bring both to one size."
                )
            counted = (truth != ignore_index) & (truth != -1)
            if not np.issubdtype(truth.dtype, np.integer) or ((truth < 0) | (truth >= self.num_classes))[counted].any():
                raise RequestError(
                    f"label map {index} has {truth.dtype} labels from {truth.min()} to {truth.max()}; accepted: "
                    f"whole numbers from 0 to {self.num_classes - 1}, and -1 or {ignore_index} for pixels that don't "
                    "count. Map other labels to these."
                )
            return self._textons(image), np.where(counted, truth.astype(np.int16), np.int16(-1))

        count = len(images)
        pairs = _in_order(read, range(count), lambda done: report("textons", done, count), threads)
        return [textons for textons, _ in pairs], [truth for _, truth in pairs]

    def fit(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[NDArray[np.integer]],
        *,
        num_rounds: int = 500,
        ignore_index: int = 255,
        on_progress: Progress | None = None,
        num_threads: int | None = None,
    ) -> Self:
        """Learn the textons and boost until there are so many rounds; see `begin`; the last stage is "rounds"."""
        boosting = self.begin(
            images, labels, ignore_index=ignore_index, on_progress=on_progress, num_threads=num_threads
        )
        while self.num_rounds < num_rounds:
            boosting.round()
            if on_progress:
                on_progress("rounds", self.num_rounds, num_rounds)
        return self

    def predict_probabilities(self, image: NDArray[np.uint8], *, num_threads: int | None = None) -> NDArray[np.float32]:
        """Return the classes' probabilities at each pixel, the softmax of the boosted scores.

        Args:
            image: uint8 (H, W, 3).
            num_threads: None takes all cores that the process may use; the result is the same.

        Returns:
            float32 (K, H, W), summing to 1 over K; uniform before the first round.

        Raises:
            RequestError: if the image has another form, or there are no textons yet.
        """
        textons = self._textons(image)
        scores = self._features.scores(textons, self.stumps, num_threads=num_threads or usable_cores())
        scores -= scores.max(axis=0)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=0)
        return scores

    def _textons(self, image: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """Return the texton map of an image, uint16 (H, W)."""
        if self.dictionary is None:
            raise RequestError(
                "there are no textons yet; accepted: an estimator after `begin`, `fit` or `from_state`. Train it."
            )
        return self.dictionary.assign(self._bank.responses(image))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return everything that prediction and resuming need, as arrays (for a safetensors file).

        Raises:
            RequestError: if there are no textons yet.
        """
        if self.dictionary is None:
            raise RequestError("there are no textons to save; accepted: an estimator after `begin`. Train it.")
        options = {name: value for name, value in self._options.items() if name != "bank"}
        return {
            "num_classes": np.array([self.num_classes], np.int64),
            "options.bank": np.frombuffer(str(self._options["bank"]).encode(), np.uint8).copy(),
            **{f"options.{name}": np.array([value]) for name, value in options.items()},
            **{f"textons.{name}": getattr(self.dictionary, name) for name in ("mean", "whitening", "centres")},
            "features.rectangles": self._features.rectangles,
            "features.thresholds": self._features.thresholds,
            **{f"stumps.{name}": getattr(self.stumps, name) for name in Stumps.names()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild an estimator from `state_dict`, to the bit.

        Raises:
            RequestError: if arrays are missing or do not fit each other.
        """
        try:
            given = {name.removeprefix("options."): state[name] for name in state if name.startswith("options.")}
            bank = given.pop("bank").tobytes().decode()
            options: dict[str, Any] = {name: value[0].item() for name, value in given.items()}
            estimator = cls(int(state["num_classes"][0]), bank=bank, **options)
            estimator._features = TextureLayoutFeatures(
                num_textons=estimator._features.num_textons,
                rectangles=state["features.rectangles"],
                thresholds=state["features.thresholds"],
            )
            estimator.dictionary = TextonDictionary(
                **{name: state[f"textons.{name}"] for name in ("mean", "whitening", "centres")}
            )
            estimator.stumps = Stumps(**{name: state[f"stumps.{name}"] for name in Stumps.names()})
        except (KeyError, TypeError) as error:
            raise RequestError(
                f"the state doesn't fit: {error}; accepted: what `state_dict` returned, complete. Save the model again."
            ) from error
        estimator.check_stumps(estimator.stumps)
        return estimator

    def check_stumps(self, stumps: Stumps) -> None:
        """Raise unless stumps fit this estimator's classes and features."""
        features, thresholds = self._features.num_features, len(self._features.thresholds)
        if (
            stumps.shared.shape != (len(stumps), self.num_classes)
            or stumps.constants.shape != stumps.shared.shape
            or (stumps.features >= features).any()
            or (stumps.thresholds >= thresholds).any()
        ):
            raise RequestError(
                f"stumps have sharing sets of shape {stumps.shared.shape}; accepted: {self.num_classes} classes, "
                f"features below {features} and thresholds below {thresholds}. Give stumps of equal options."
            )


def _check_ranges(options: Mapping[str, int | float | str]) -> None:
    for name, (least, most, example) in RANGES.items():
        value = options[name]
        whole = isinstance(example, int)
        if isinstance(value, bool | str) or (whole and not isinstance(value, int)) or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            raise RequestError(f"{name} is {value!r}; accepted: {kind} from {least:g} to {most:g}. "
                               f"Give for example {example:g}.")  # fmt: skip


def _in_order(
    work: Callable[[int], Result], indices: Iterable[int], on_done: Callable[[int], None], threads: int
) -> list[Result]:
    """Do the work for each index in some threads and return the results in order."""
    results = []
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(work, indices):
            results.append(result)
            on_done(len(results))
    return results
