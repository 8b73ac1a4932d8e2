"""The training of today for the networks of 2014 to 2016, from random weights.

Command: pixelwise train DATA --recipe modern --model fcn8s_vgg16 --minutes 30 --out RUN
Hardware and hours: yours; the budget says how long.
Expected score: none is published. Measured: not measured; at a small width each system memorises eight CamVid pictures
with it (tests/recipes/test_memorise.py).

Most of it is what the tool plans anyway: AdamW with warm-up and a polynomial, clipped gradients, cross entropy and
Dice, random windows, the average of the last weights. What the older networks need besides:

- a learning rate of 2e-4 for their full width of 64 and without batch normalisation: after 25 steps on eight pictures
  DeepLab-LargeFOV had 82 % of the pixels right, and 41 % with 1e-3. What a step of AdamW changes in the output grows
  with the width, so nets of a 16th of it take 1e-3 and more (--set optimizer.lr);
- images at their own size: the coarse scores have an eighth to a 32nd of it already.

Their own initialisation is kept: N(0, 2 / fan_in), and scores that start at or near zero, which AdamW leaves at once.
"""

from __future__ import annotations

from pixelwise.recipes.recipe import Recipe, Stage


def modern() -> Recipe:
    """Train any model from random weights; `--model` chooses it, a budget says how long. Measured: not measured."""
    settings = {"weights": "random", "optimizer.lr": 2e-4, "data.scale": 1.0}
    return Recipe(
        summary="any model of --model, from random weights", stages=(Stage(name="modern", settings=settings),)
    )
