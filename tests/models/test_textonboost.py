"""What an estimator owes in place of a module: `Estimator`, options, seed, state, and what `describe` says of it."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.engine.describe import describe
from pixelwise.engine.model_file import build_model
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models, model_info, model_options

NAMES = list_models("classical")
every_estimator = pytest.mark.parametrize("name", NAMES)


def scene(seed: int = 0, *, size: tuple[int, int] = (34, 41)) -> tuple[np.ndarray, np.ndarray]:
    """A picture of two textures, side by side, and which is where."""
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)
    labels = np.zeros(size, np.uint8)
    labels[:, size[1] // 2 :] = 1
    return np.where(labels[..., None] == 1, noise, noise // 4), labels


@every_estimator
def test_an_estimator_learns_and_gives_probabilities_at_any_size(name: str) -> None:
    pairs = [scene(seed) for seed in range(2)]
    estimator = create_model(name, num_classes=2, **model_info(name).debug)
    assert estimator.num_classes == 2
    images, labels = zip(*pairs, strict=True)
    assert estimator.fit(images, labels, num_rounds=3) is estimator
    for size in ((1, 1), (7, 50), (34, 41)):
        found = estimator.predict_probabilities(scene(5, size=size)[0])
        assert found.shape == (2, *size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    twin = create_model(name, num_classes=2, **model_info(name).debug).fit(images, labels, num_rounds=3)
    np.testing.assert_array_equal(*(one.predict_probabilities(images[0]) for one in (estimator, twin)))


@every_estimator
def test_an_estimator_is_told_from_networks(name: str) -> None:
    with pytest.raises(RequestError, match=rf"{name} is an estimator, which starts from no weights; accepted: none"):
        create_model(name, num_classes=2, weights="pretrained")
    with pytest.raises(RequestError, match=rf"in_channels is 4; accepted by {name}: 3"):
        create_model(name, num_classes=2, in_channels=4)
    with pytest.raises(RequestError, match=rf"{name} is a classical pipeline, no network with weights and layers"):
        build_model(name, num_classes=2, in_channels=3, options={})


def test_the_catalogue_has_the_estimators_own_defaults() -> None:
    estimator = create_model("textonboost", num_classes=2)
    known = {key: parameter.default for key, parameter in model_options("textonboost").items()}
    assert known == estimator.options  # type: ignore[attr-defined]
    assert (known["num_textons"], known["num_rectangles"], known["grid_step"]) == (400, 100, 5)
    assert known["feature_share"] == 0.003


def test_description() -> None:
    facts = describe("textonboost", num_classes=11)
    assert (facts.task, facts.fidelity, facts.family) == ("classical", "reconstructed", "Classical")
    assert (facts.parameters, facts.flops, facts.layers, facts.output_stride) == (None, None, [], 1)
    assert facts.input_size == facts.output_size == [213, 320]
    texts = {stage.name: stage.text for stage in facts.stages}
    assert texts["filter bank"].startswith(
        "textonboost17, 17 filters on CIELab (11 of L, 3 of a, 3 of b), 17 responses"
    )
    assert "box of 200 x 200 pixels" in texts["texture-layout features"]
    assert "40,000 candidate features" in texts["texture-layout features"]
    assert "120 features (0.30% of the candidates)" in texts["joint boosting"]
    with pytest.raises(RequestError, match="model 'textonboost' has no option 'texton'; closest: num_textons"):
        describe("textonboost", texton=3)


def test_the_receptive_field_is_as_wide_as_described() -> None:
    """A pixel outside it says nothing; some pixel near its border does."""
    options = {**model_info("textonboost").debug, "kappa": 0.25}
    (field, _) = describe("textonboost", num_classes=2, **options).receptive_field or (0, 0)
    size = (2 * field + 1, 2 * field + 1)
    image, labels = scene(1, size=size)
    estimator = create_model("textonboost", num_classes=2, **options).fit([image], [labels], num_rounds=12)
    before = estimator.predict_probabilities(image)
    changed = image.copy()
    changed[field, field] = 255 - changed[field, field]
    rows, columns = np.nonzero((estimator.predict_probabilities(changed) != before).any(axis=0))
    reach = max(np.abs(rows - field).max(), np.abs(columns - field).max())
    assert 1 < reach <= field // 2
