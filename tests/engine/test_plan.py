"""Planning: each decision from the data and the machine, without training anything."""

from __future__ import annotations

import pytest

from pixelwise.data.encoding import MaskEncoding
from pixelwise.data.normalise import Normalisation
from pixelwise.data.scan import DataCard
from pixelwise.engine import plan as planning
from pixelwise.engine.config import TrainConfig, build_config
from pixelwise.engine.plan import Clock, Costs, Plan, plan_length, plan_machine, plan_scale, plan_windows
from pixelwise.errors import RequestError
from pixelwise.models.unet import size_rule


def config(*settings: str, **budget: float) -> TrainConfig:
    return build_config({"data": {"path": "x"}, "budget": budget}, settings)


def card(*sizes: tuple[int, int, int], classes: int = 2) -> DataCard:
    return DataCard(
        name="x",
        root="x",
        layout="",
        mask_encoding=MaskEncoding(kind="index", ignore_index=None, words=""),
        classes=tuple(f"c{index}" for index in range(classes)),
        palette=None,
        ignore_index=None,
        licence=None,
        num_images={"train": sum(size[2] for size in sizes), "val": 10},
        split_source="",
        pixel_counts={},
        image_sizes=list(sizes),
        channels=3,
        dtype="uint8",
        normalisation=Normalisation(intensity_range=(0, 255), mean=(0, 0, 0), std=(1, 1, 1)),
        decisions=(),
    )


def test_machine_on_a_cpu() -> None:
    plan = plan_machine(config("device=cpu", minutes=1))
    assert plan.config.precision == "float32"
    assert plan.config.data.num_workers == 0
    assert (plan.config.threads or 0) >= 1
    assert plan_machine(config("device=cpu", cpu_minutes=1)).config.threads == 1
    assert plan_machine(config("device=cpu", "threads=3", cpu_minutes=1)).config.threads == 3


def test_half_precision_on_a_cpu_is_refused_with_a_word() -> None:
    with pytest.raises(RequestError, match=r"precision='bfloat16' on cpu: most processors emulate it"):
        plan_machine(config("device=cpu", "precision=bfloat16"))


def test_device_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"device='cuda:99' is not usable"):
        plan_machine(config("device=cuda:99"))


@pytest.mark.parametrize(
    ("model", "size", "crop", "batch"),
    [
        ("unet_small", (512, 512), (128, 128), 8),
        ("unet_small", (360, 480), (128, 128), 8),
        ("unet_small", (100, 40), (96, 32), 16),
        ("unet_small", (10, 2000), (32, 128), 16),
        ("unet", (512, 512), (380, 380), 3),
        ("unet", (64, 64), (252, 252), 16),
    ],
)
def test_windows_are_legal_and_inside_the_images(
    model: str, size: tuple[int, int], crop: tuple[int, int], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda: 64 * 10**9)
    plan = Plan(config(f"model={model}", "device=cpu"))
    rule = size_rule(4, 0 if model == "unet" else 1)
    plan_windows(plan, card((*size, 5)), rule)
    assert (plan.config.data.crop, plan.config.data.batch_size) == (crop, batch)
    assert all(rule.is_legal(side) for side in crop)


def test_batch_shrinks_to_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda: 5 * 10**8)
    plan = Plan(config("device=cpu"))
    plan_windows(plan, card((512, 512, 5)), size_rule(4, 1))
    assert plan.config.data.batch_size in range(1, 8)
    assert "as many as fit into memory" in plan.lines[-1]
    monkeypatch.setattr(planning, "free_memory", lambda: 10**7)
    with pytest.raises(RequestError, match="a window of 128 x 128 does not fit into the memory of cpu"):
        plan_windows(Plan(config("device=cpu")), card((512, 512, 5)), size_rule(4, 1))


def test_illegal_crop_names_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"height 100 \(nearest legal: 96 or 112\)"):
        plan_windows(Plan(config("data.crop=[100,96]")), card((512, 512, 5)), size_rule(4, 1))


def test_scale_is_halved_only_when_the_budget_is_too_short() -> None:
    def decide(passes: float, *sizes: tuple[int, int, int]) -> float | None:
        plan = Plan(config("data.crop=[256,256]", "data.batch_size=4", minutes=10))
        pixels = sum(h * w * n for h, w, n in sizes)
        step = 100.0 / (passes * pixels / (4 * 256 * 256))
        halved = plan_scale(plan, card(*sizes), Costs(step=step, image=1), 100.0)
        assert halved == (plan.config.data.scale == 0.5)
        return plan.config.data.scale

    assert decide(7.0, (512, 512, 100)) == 1.0
    assert decide(3.0, (512, 512, 100)) == 0.5
    assert decide(0.5, (200, 200, 9000)) == 1.0  # small images are never halved


def test_length_of_a_time_budget() -> None:
    plan = Plan(config("data.batch_size=4", cpu_minutes=10))
    plan_length(plan, num_train=100, num_val=20, costs=Costs(step=1.0, image=0.1), left=580.0)
    assert plan.config.iterations == int(580 * 0.97 - 20 * 2)  # 20 validations of 20 images at 0.1 s
    assert plan.config.val_every == 27
    slow = Plan(config("data.batch_size=4", minutes=10))
    plan_length(slow, num_train=100, num_val=100, costs=Costs(step=1.0, image=1.0), left=580.0)
    assert slow.config.iterations == int(580 * 0.97 - 2 * 100)  # two validations, though they take a third
    assert slow.config.val_every == 181


def test_length_of_epochs_and_iterations() -> None:
    plan = Plan(config("data.batch_size=4", epochs=2.5))
    plan_length(plan, 10, 5, None, None)
    assert plan.config.iterations == 7  # 25 images
    plan = Plan(config("data.batch_size=4", iterations=50))
    plan_length(plan, 10, 5, None, None)
    assert (plan.config.iterations, plan.config.val_every) == (50, 3)


def test_clock_of_each_budget() -> None:
    assert Clock.of(config(epochs=1), 0.0) is None
    wall, cpu = Clock.of(config(minutes=2), 0.0), Clock.of(config(cpu_minutes=3), 0.0)
    assert wall is not None
    assert cpu is not None
    assert (wall.limit, cpu.limit) == (120, 180)
    assert wall.now() > cpu.now() > 0
