from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.errors import RequestError
from pixelwise.structures import SizeRule

rules = st.builds(
    lambda step, offset, first, span, margin: SizeRule(
        step=step,
        offset=offset % step,
        minimum=first * step + offset % step + (step if first == 0 and offset % step == 0 else 0),
        maximum=None if span is None else (first + span + 1) * step + offset % step,
        margin=margin,
    ),
    st.integers(1, 40),
    st.integers(0, 39),
    st.integers(0, 9),
    st.one_of(st.none(), st.integers(0, 9)),
    st.integers(0, 100),
)


@given(rules, st.integers(1, 1000))
def test_nearest_sides_are_legal_and_nearest(rule: SizeRule, side: int) -> None:
    legal = [n for n in range(1, 1400) if rule.is_legal(n)]
    above = [n for n in legal if n >= side]
    below = [n for n in legal if n <= side]
    if above:
        assert rule.at_least(side) == above[0]
    if below:
        assert rule.at_most(side) == below[-1]


@given(rules.filter(lambda rule: rule.maximum is None), st.integers(1, 1000))
def test_covering_is_the_smallest_input_that_covers(rule: SizeRule, output: int) -> None:
    side = rule.covering(output)
    assert rule.is_legal(side)
    assert rule.output(side) >= output
    assert side == rule.minimum or rule.output(side - rule.step) < output


def test_fixed_size() -> None:
    rule = SizeRule(step=224, minimum=224, maximum=224)
    assert [n for n in range(1, 700) if rule.is_legal(n)] == [224]
    assert (rule.at_least(500), rule.at_most(10)) == (224, 224)
    with pytest.raises(RequestError, match=r"height 500 \(nearest legal: 224\)"):
        rule.check(500, 224)
