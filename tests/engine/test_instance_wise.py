"""Joining the scores of boxes, on maps small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.instance_wise import (
    PUBLISHED,
    InstanceWise,
    aggregate_scores,
    enlarge,
    instance_wise_probabilities,
    windows_of,
)
from pixelwise.engine.proposals import Boxes
from pixelwise.errors import RequestError
from pixelwise.structures import SegmentationOutput, SizeRule

SIDE = 8
UNIT = Normalisation(intensity_range=(0, 1), mean=(0.0,), std=(1.0,))


class Toy(nn.Module):
    """Scores from an input of 8 x 8 by a rule, and a note of what was seen."""

    size_rule = SizeRule(minimum=SIDE, maximum=SIDE)

    def __init__(self, rule: Callable[[Tensor], Tensor], num_classes: int = 2) -> None:
        super().__init__()
        self.rule, self.num_classes = rule, num_classes
        self.anchor = nn.Parameter(torch.zeros(1))  # says the device
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> SegmentationOutput:
        assert images.shape[2:] == (SIDE, SIDE)
        self.seen += list(images)
        return SegmentationOutput(torch.stack([self.rule(image) for image in images]))


def mean_colour(image: Tensor) -> Tensor:
    """Class 0 scores the mean of what is seen, class 1 its negative."""
    return torch.stack([image.mean(), -image.mean()])[:, None, None].expand(2, SIDE, SIDE)


def join(how: InstanceWise, *windows: list[int], image: Tensor | None = None) -> Tensor:
    """Scores of a 4 x 12 image: left half 1, right half 3 unless another is given."""
    if image is None:
        image = torch.cat([torch.full((1, 4, 6), 1.0), torch.full((1, 4, 6), 3.0)], dim=2)
    return aggregate_scores(Toy(mean_colour), image, np.array(windows).reshape(-1, 4), fill=torch.zeros(1), how=how)


LEFT, RIGHT, BOTH, OUTSIDE = [0, 0, 6, 4], [6, 0, 12, 4], [0, 0, 12, 4], [20, 20, 30, 30]


def test_maximum_of_two_boxes_that_overlap() -> None:
    scores = join(InstanceWise(clamp=False), BOTH, LEFT)
    assert scores[0].eq(2).all()  # the mean of the whole is 2, of the left half 1
    assert scores[1, :, :6].eq(-1).all()  # max(-2, -1), and both boxes cover the pixel
    assert scores[1, :, 6:].eq(0).all()  # the left box's map is zero outside of it: max(-2, 0)


def test_the_releases_maximum_is_never_below_zero() -> None:
    scores = join(PUBLISHED, BOTH, LEFT)
    assert scores[0].eq(2).all()
    assert scores[1].eq(0).all()


def test_mean_counts_the_boxes_that_cover_a_pixel() -> None:
    scores = join(InstanceWise(aggregate="mean"), BOTH, LEFT)
    assert scores[0, :, :6].eq(1.5).all()
    assert scores[1, :, :6].eq(-1.5).all()
    assert scores[0, :, 6:].eq(2).all()
    assert scores[1, :, 6:].eq(-2).all()


@pytest.mark.parametrize("how", [PUBLISHED, InstanceWise(clamp=False), InstanceWise(aggregate="mean")])
def test_outside_of_all_boxes_every_class_is_equally_likely(how: InstanceWise) -> None:
    scores = join(how, RIGHT, OUTSIDE)
    assert scores[:, :, :6].eq(0).all()
    assert scores[:, :, :6].softmax(dim=0).eq(0.5).all()
    assert join(how).shape == (2, 4, 12)
    assert join(how).eq(0).all()
    assert int(join(how).argmax(dim=0).max()) == 0


def test_a_window_beyond_the_image_sees_the_fill_there() -> None:
    toy = Toy(mean_colour)
    image = torch.full((1, 8, 8), 5.0)
    scores = aggregate_scores(toy, image, np.array([[-4, 0, 4, 8]]), fill=torch.tensor([-1.0]))
    assert toy.seen[0][0, :, :4].eq(-1).all()
    assert toy.seen[0][0, :, 4:].eq(5).all()
    assert scores[0, :, :4].eq(2).all()  # mean of -1 and 5
    assert scores[0, :, 4:].eq(0).all()


def test_scores_come_back_to_where_they_were_seen() -> None:
    """A network that returns its input gives the image back, whatever the box: no shift by a pixel."""
    toy = Toy(lambda image: torch.cat([image, -image]))
    image = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0)) + 1
    exact = aggregate_scores(toy, image, np.array([[3, 5, 11, 13], [15, 2, 23, 10]]), fill=torch.zeros(1))
    assert torch.equal(exact[0, 5:13, 3:11], image[0, 5:13, 3:11])
    assert torch.equal(exact[0, 2:10, 15:23], image[0, 2:10, 15:23])
    ramp = torch.arange(1.0, 31)[None, None].expand(1, 20, 30)
    resized = aggregate_scores(toy, ramp, np.array([[4, 2, 20, 18]]), fill=torch.zeros(1))
    torch.testing.assert_close(resized[0, 2:18, 7:17], ramp[0, 2:18, 7:17])  # the border's mean is of fewer pixels


@pytest.mark.parametrize("window", [[2, 1, 22, 17], [0, 0, 5, 3]])
def test_boxes_are_resized_as_pillow_resizes(window: list[int]) -> None:
    image = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0))
    toy = Toy(mean_colour)
    aggregate_scores(toy, image, np.array([window]), fill=torch.zeros(1))
    crop = Image.fromarray(image[0, window[1] : window[3], window[0] : window[2]].numpy())
    expected = np.array(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(toy.seen[0][0].numpy(), expected, atol=1e-6)


def test_batches_do_not_mix_boxes() -> None:
    image = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0))
    windows = [[3 * k, 2 * k, 3 * k + 9, 2 * k + 11] for k in range(8)]
    for how in (PUBLISHED, InstanceWise(clamp=False)):
        together = join(how, *windows, image=image)
        alone = torch.stack([join(how, window, image=image) for window in windows])
        torch.testing.assert_close(together, alone.amax(dim=0).where(alone.ne(0).any(dim=0), together))
        assert torch.equal(together, join(how, *reversed(windows), image=image))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-6, 14)] * 2, *[st.integers(1, 12)] * 2), max_size=7))
def test_maximum_against_a_literal_reading_of_the_paper(corners: list[tuple[int, int, int, int]]) -> None:
    image = torch.linspace(0.5, 2, 120).reshape(1, 10, 12)
    windows = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], np.int64).reshape(-1, 4)
    found = aggregate_scores(Toy(mean_colour), image, windows, fill=torch.zeros(1), how=InstanceWise(clamp=False))
    maps = []
    for x1, y1, x2, y2 in windows.tolist():
        own = torch.zeros(2, 10, 12)
        one = aggregate_scores(
            Toy(mean_colour),
            image,
            np.array([[x1, y1, x2, y2]]),
            fill=torch.zeros(1),
            how=InstanceWise(aggregate="mean"),
        )
        rows, columns = slice(max(y1, 0), max(y2, 0)), slice(max(x1, 0), max(x2, 0))
        own[:, rows, columns] = one[:, rows, columns]
        maps.append(own)
    expected = torch.stack(maps).amax(dim=0) if maps else torch.zeros(2, 10, 12)
    torch.testing.assert_close(found, expected)


def test_enlarged_windows_the_small_ones_left_out_and_the_best_kept() -> None:
    assert enlarge(np.array([[10, 20, 20, 40]]), 1.2).tolist() == [[9, 18, 21, 42]]  # 10 x 20 becomes 12 x 24
    assert enlarge(np.array([[0, 0, 100, 50]]), 1.2).tolist() == [[-10, -5, 110, 55]]
    corners = np.array([[0, 0, 93, 400], [0, 0, 94, 400], [5, 5, 205, 205], [1, 1, 301, 301]], np.float64)
    windows = windows_of(Boxes(corners=corners), InstanceWise(num_proposals=2))
    # 93 becomes 111.6, rounded to 112; with a factor of 1 it is left out
    assert (windows[:, 2:] - windows[:, :2]).tolist() == [[112, 480], [113, 480]]
    assert len(windows_of(Boxes(corners=corners), InstanceWise(context=1.0))) == 2
    assert windows_of(Boxes(corners=np.empty((0, 4)))).shape == (0, 4)


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(RequestError, match=r"aggregate is 'sum'; accepted: 'max' or 'mean'"):
        InstanceWise(aggregate="sum")  # type: ignore[arg-type]
    with pytest.raises(
        RequestError, match=r"num_proposals=0, min_box=112, context=1.2; accepted: whole numbers from 1"
    ):
        InstanceWise(num_proposals=0)
    with pytest.raises(RequestError, match=r"context=-1; accepted.*The release's are 50, 112 and 1.2"):
        InstanceWise(context=-1)


def test_probabilities_are_the_softmax_of_joined_scores_of_normalised_values() -> None:
    image = np.full((4, 12, 1), 8, np.uint8)
    image[:, 6:] = 4
    normalisation = Normalisation(intensity_range=(0, 8), mean=(0.5,), std=(0.5,))
    how = InstanceWise(min_box=1, context=1.0, aggregate="mean")
    toy = Toy(mean_colour)
    boxes = Boxes(corners=np.array([[0.0, 0, 6, 4], [10, 0, 14, 4]]))
    chances = instance_wise_probabilities(toy, image, boxes, normalisation=normalisation, how=how)
    # 8 becomes 1, 4 becomes 0, and 0, outside of the image, -1: the second box sees 0 and -1.
    assert toy.seen[1].mean() == -0.5
    expected = torch.tensor([1.0, 0, -0.5])[:, None] * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(chances[:, 0, [0, 8, 11]], expected.softmax(dim=1).T)
    torch.testing.assert_close(chances.sum(dim=0), torch.ones(4, 12))


def test_a_mirror_image_with_its_boxes_mirrored_is_averaged() -> None:
    image = np.random.default_rng(0).random((9, 13, 1), dtype=np.float32)
    boxes = Boxes(corners=np.array([[0.0, 1, 8, 9], [4, 0, 12, 8]]))
    how = InstanceWise(min_box=1, context=1.0)
    lopsided = Toy(lambda view: torch.cat([view * torch.arange(SIDE), view]))
    plain, both = (
        instance_wise_probabilities(lopsided, image, boxes, normalisation=UNIT, how=how, flip=flip)
        for flip in (False, True)
    )
    mirrored = Boxes(corners=np.array([[5.0, 1, 13, 9], [1, 0, 9, 8]]))
    other = instance_wise_probabilities(lopsided, image[:, ::-1], mirrored, normalisation=UNIT, how=how).flip(2)
    torch.testing.assert_close(both, (plain + other) / 2)
    assert not torch.allclose(plain, other)
