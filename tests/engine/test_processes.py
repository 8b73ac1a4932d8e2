"""Training in several processes equals training in one, is interrupted and resumed exactly, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pixelwise.data.loader import batches
from pixelwise.engine import processes
from pixelwise.engine.config import build_config, read_config
from pixelwise.engine.plan import Plan
from pixelwise.engine.plan_data import plan_batch_norm
from pixelwise.engine.sync_batch_norm import SyncBatchNorm2d, synchronise
from pixelwise.engine.train import train
from pixelwise.errors import RequestError
from pixelwise.losses.segmentation import LossConfig, SegmentationLoss

TINY = ("options.base_channels=4", "options.depth=2", "data.crop=[32,48]", "data.batch_size=4", "threads=1")
PLAIN = ("optimizer.name=sgd", "optimizer.lr=0.01", "optimizer.accumulate=2", "val_every=2", "options.dropout=0")

# Compares batch normalisation of halves in two processes with that of the whole: outputs, gradients, statistics.
HALVES = """
import sys
import torch
from torch import nn
from pixelwise.engine import processes
from pixelwise.engine.batch_norm import BatchRenorm2d, set_batch_norm

def network(kind):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False))
    set_batch_norm(model, kind)
    for module in model.modules():
        if isinstance(module, BatchRenorm2d):
            module.r_max, module.d_max = 1.5, 0.5
    return model.train()

torch.manual_seed(0)
torch.set_num_threads(1)
images, wanted = torch.randn(4, 3, 5, 6) * 3 + 2, torch.randn(4, 4, 3, 4)
for kind in ("sync", "renorm"):
    whole, half = network(kind), network(kind)
    for _ in range(3):
        whole.zero_grad()
        outputs = whole(images)
        (outputs - wanted).square().mean().backward()
    with processes.joined():
        part, parts = processes.share()
        assert parts == 2
        here = slice(2 * part, 2 * part + 2)
        run = processes.parallel(half, lambda model, given: model(given))
        for _ in range(3):
            half.zero_grad()
            found = run(images[here])
            (processes.total((found - wanted[here]).square().sum()) / wanted.numel()).backward()
        close = dict(atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found, outputs[here], **close)
        for one, other in zip(half.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, **close)
        for one, other in zip(half.buffers(), whole.buffers(), strict=True):
            torch.testing.assert_close(one, other, **close)
        assert processes.gathered(part) == [0, 1]
        assert processes.agreed(part) == 0
        assert processes.first(lambda: part + 10) == 10
        assert processes.any_of(part == 1) and not processes.any_of(False)
print("equal")
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def started(*words: object, num_processes: int = 2) -> subprocess.Popen[str]:
    """Start a program in several processes, in a group of its own, as from a terminal."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", num_processes]
    command += ["--master_port", free_port(), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )


def done(*words: object) -> tuple[int, str, str]:
    """Run a program in two processes and return exit code and both streams."""
    with started(*words) as process:
        out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def sets(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_halves_are_normalised_as_the_whole(tmp_path: Path) -> None:
    program = tmp_path / "halves.py"
    program.write_text(HALVES)
    code, out, err = done(program)
    assert code == 0, err
    assert out.split() == ["equal", "equal"]


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "kind"), [(4, "sync"), (2, "renorm")])
def test_two_processes_train_as_one(cells: Path, tmp_path: Path, batch: int, kind: str) -> None:
    settings = (*TINY, *PLAIN, f"data.batch_size={batch}", "loss.class_weights=median_frequency")
    values = {"data": {"path": str(cells)}, "budget": {"iterations": 6}}
    train(build_config(values, settings), tmp_path / "one")
    words = ("-m", "pixelwise", "train", cells, "--iterations", 6, "--out", tmp_path / "two", *sets(*settings))
    code, out, err = done(*words)
    assert code == 0, err
    assert "planned: processes = 2 (from torchrun)" in out
    assert out.count("iteration 6: mean IoU") == 1
    assert read_config(tmp_path / "two/config.yaml").batch_norm == kind
    one, two = events(tmp_path / "one"), events(tmp_path / "two")
    assert [event["iteration"] for event in one] == [event["iteration"] for event in two]
    assert [event["loss"] for event in one] == pytest.approx([event["loss"] for event in two], rel=2e-5)
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-4, rtol=1e-4)
    told = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert [score["name"] for score in told[0]["per_image"]] == [score["name"] for score in told[1]["per_image"]]
    counts = [np.array(scores["confusion_matrix"]) for scores in told]
    assert counts[0].sum() == counts[1].sum()
    assert np.abs(counts[0] - counts[1]).sum() < 1e-3 * counts[0].sum()  # pixels on the edge between two classes
    names = {path.name for path in (tmp_path / "one").iterdir()} | {"report.html"}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names


@pytest.mark.slow
def test_two_interrupted_processes_go_on_as_if_nothing_had_happened(cells: Path, tmp_path: Path) -> None:
    settings = sets(*TINY, "val_every=15", "options.dropout=0.3")
    words = ("-m", "pixelwise", "train", cells, "--out")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert done(*words, whole, "--iterations", 40, *settings)[0] == 0
    with started(*words, cut, "--iterations", 40, *settings) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("training 1/40"):
            assert line, "the run ended before it was interrupted"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=600)
    assert "stopped.\n" in err
    again = f"torchrun --nproc_per_node 2 -m pixelwise train {cells} --out {cut} --resume\n"
    assert out.count(f"stopped; go on with: {again}") == 1
    code, out, err = done(*words, cut, "--resume")
    assert code == 0, err
    assert "resuming after iteration" in out
    for name in ("best.safetensors", "last/checkpoint.safetensors"):
        first, second = load_file(whole / name), load_file(cut / name)
        assert first.keys() == second.keys()
        assert all(value.equal(second[key]) for key, value in first.items()), name
    states = load_file(whole / "last/checkpoint.safetensors")
    assert not states["random.cpu"].equal(states["random.cpu.1"])


@pytest.mark.slow
def test_a_time_budget_is_the_same_for_all(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = done("-m", "pixelwise", "train", cells, "--out", run, "--cpu-minutes", 0.2, *sets(*TINY))
    assert code == 0, err
    assert out.count("measuring the speed of training") == 1
    assert events(run)[-1]["iteration"] == read_config(run / "config.yaml").iterations


@pytest.mark.slow
def test_requests_that_several_processes_cannot_fulfil(cells: Path, tmp_path: Path) -> None:
    words = ("-m", "pixelwise", "train", cells, "--out", tmp_path / "run", "--iterations", 2)
    code, _, err = done(*words, *sets(*TINY, "data.batch_size=3"))
    assert code == 1  # torchrun's own
    message = (
        "error: data.batch_size=3 for 2 processes, which take equal shares of every batch; accepted: multiples of 2"
    )
    assert err.count(message) == 1
    assert not (tmp_path / "run").exists()
    _, _, err = done("-m", "pixelwise", "evaluate", tmp_path, cells)
    assert err.count("error: torchrun started 2 processes of `pixelwise evaluate`") == 1


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for two processes, in one."""
    monkeypatch.setattr(processes, "count", lambda: 2)


def planned(*settings: str) -> Plan[Any]:
    plan = Plan(build_config({"data": {"path": "x"}}, settings))
    plan_batch_norm(plan, torch.nn.BatchNorm2d(1))
    return plan


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (("data.batch_size=8",), "batch_norm = sync (over the 8 windows of 2 processes, 4 in each)"),
        (("data.batch_size=2",), "batch_norm = renorm (batches of 2 say too little by themselves"),
        (("data.batch_size=4", "batch_norm=batch"), "batch_norm = batch: each process by its own 2 of 4 windows; sync"),
    ],
)
def test_batch_normalisation_of_two_processes(settings: tuple[str, ...], line: str) -> None:
    assert planned(*settings).lines[0].startswith(line)


@pytest.mark.usefixtures("two")
def test_batches_that_cannot_be_shared() -> None:
    with pytest.raises(RequestError, match=r"data\.batch_size=7 for 2 processes.*data\.batch_size=8"):
        planned("data.batch_size=7")


@pytest.mark.usefixtures("two")
def test_devices_of_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    processes.check_device("cpu")
    with pytest.raises(RequestError, match="2 processes on a machine of 1 GPUs; accepted: --nproc_per_node 1"):
        processes.check_device("cuda")
    with pytest.raises(RequestError, match=r"device='cuda:0' for 2 processes, which each take a GPU of their own"):
        processes.check_device("cuda:0")


def test_alone_nothing_is_shared() -> None:
    tensor = torch.ones(2)
    with processes.joined():
        assert processes.share() == (0, 1)
    assert processes.total(tensor) is tensor
    assert processes.first(lambda: 3) == processes.agreed(3) == 3
    assert processes.gathered(3) == [3]
    assert processes.any_of(True)


def test_synchronised_layers_alone_are_plain_ones() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 4, 5)
    plain, layer = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    synchronise(torch.nn.Sequential(layer))
    assert type(layer) is SyncBatchNorm2d
    assert torch.equal(layer(images), plain(images))
    assert torch.equal(layer.running_var, plain.running_var)
    assert torch.equal(layer.eval()(images), plain.eval()(images))


def test_shares_make_up_the_batches() -> None:
    class Numbers:
        items = ()

        def __getitem__(self, sample: int) -> Any:
            return _sample(sample)

    def _sample(number: int) -> Any:
        from pixelwise.data.loader import Sample

        return Sample(torch.full((1, 1, 1), float(number)), torch.zeros(1, 1, dtype=torch.int64), None, str(number))

    streams = [
        batches(Numbers(), batch_size=6, first=1, last=4, num_workers=0, share=share)  # type: ignore[arg-type]
        for share in ((0, 1), (0, 3), (1, 3), (2, 3))
    ]
    for whole, *parts in zip(*streams, strict=True):
        assert [name for part in parts for name in part.names] == whole.names
    assert whole.names == [str(number) for number in range(18, 24)]


@pytest.mark.parametrize("normalise", ["weights", "pixels", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_over_all_parts_give_the_loss_of_the_whole(normalise: str, weighted: bool) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3, 5, 6), torch.randint(0, 4, (4, 5, 6))
    labels[0] = 3  # parts differ in how many pixels count
    pixels = torch.rand(4, 5, 6) if weighted else None
    config = LossConfig(dice=0.5, normalise=normalise)  # type: ignore[arg-type]
    weights = torch.tensor([1.0, 2.0, 0.5]) if weighted else None
    sums: list[list[Tensor]] = [[], []]
    for part in (0, 1):
        loss = SegmentationLoss(
            config, ignore_index=3, weights=weights, total_of=lambda own, part=part: (sums[part].append(own), own)[1]
        )
        here = slice(2 * part, 2 * part + 2)
        loss(logits[here], labels[here], None if pixels is None else pixels[here])
    totals = iter([one + other for one, other in zip(*sums, strict=True)])
    loss = SegmentationLoss(config, ignore_index=3, weights=weights, total_of=lambda _: next(totals))
    shared = loss(logits[:2], labels[:2], None if pixels is None else pixels[:2])
    whole = SegmentationLoss(config, ignore_index=3, weights=weights)(logits, labels, pixels)
    torch.testing.assert_close(shared, whole)
