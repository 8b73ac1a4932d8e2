"""Unknown names and impossible values. `refused` checks exit code, length and that no file changed."""

from __future__ import annotations

import pytest
import torch


def test_unknown_model(refused, data, quick, tmp_path) -> None:
    message = refused("train", data, "--model", "unet-smal", "--out", tmp_path / "run", *quick).err
    assert "unknown model 'unet-smal'; closest names: unet_small" in message
    assert "`pixelwise models` lists them" in message
    assert "closest names: unet" in refused("describe", "UNet").err


def test_unknown_task(refused) -> None:
    assert (
        "unknown task 'semantics'; accepted: classical, classification, semantic."
        in refused("models", "--task", "semantics").err
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("optimizer.lrr=1", "unknown key 'optimizer.lrr'; closest: optimizer.lr"),
        ("lr=1", "unknown key 'lr'; closest: optimizer.lr"),
        ("croop=1", "closest: data.crop"),
        ("optimizer=1", "unknown key 'optimizer'"),
        ("optimizer.lr", "has no '='; accepted: key=value"),
        ("optimizer.lr=-1", "optimizer.lr is -1; accepted: greater than 0"),
        ("optimizer.lr=fast", "optimizer.lr is 'fast'; accepted: a valid number."),
        ("optimizer.name=adam", "optimizer.name is 'adam'; accepted: 'adamw', 'sgd' or 'sgd_caffe'"),
        ("data.crop=100", "data.crop is 100; accepted: a list, such as [256,256]"),
        ("data.crop=[", "is not readable as a YAML value"),
        ("data.batch_size=0", "data.batch_size is 0; accepted: greater than or equal to 1"),
        ("augment.rotation=999", "augment.rotation: rotation=999: accepted are"),
        ("options.widht=3", "model 'unet_small' has no option 'widht'"),
        (
            "options.base_channels=wide",
            "option base_channels of model 'unet_small' is 'wide'; accepted: a whole number",
        ),
        ("options.depth=true", "option depth of model 'unet_small' is True; accepted: a whole number, such as 4"),
        ("options.dropout=2", "dropout=2; accepted: 0 up to, not including, 1"),
        ("budget.minutes=3", "minutes and iterations are given; accepted: one of"),
        ("iterations=3", "iterations=3 is set beside a budget (iterations=2)"),
        ("device=abacus", "device='abacus' is not usable"),
        ("seed=-1", "seed is -1; accepted: greater than or equal to 0"),
    ],
)
def test_wrong_setting(refused, data, quick, tmp_path, setting, words) -> None:
    assert words in refused("train", data, "--out", tmp_path / "run", *quick, "--set", setting).err


def test_precision_that_a_cpu_only_emulates(refused, data, quick, tmp_path) -> None:
    words = ("--set", "precision=bfloat16", "--set", "device=cpu")
    message = refused("train", data, "--out", tmp_path / "run", *quick, *words).err
    assert "precision='bfloat16' on cpu" in message
    assert "Accepted: float32 on a CPU" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "budget.minutes is 0.0; accepted: greater than 0"),
        (["--minutes", "nan"], "budget.minutes is nan; accepted: a finite number"),
        (["--epochs", "inf"], "budget.epochs is inf; accepted: a finite number"),
        (["--cpu-minutes", "-2"], "budget.cpu_minutes is -2.0; accepted: greater than 0"),
        (["--iterations", "-3"], "budget.iterations is -3; accepted: greater than or equal to 1"),
        (["--minutes", "1", "--epochs", "2"], "minutes and epochs are given; accepted: one of minutes, cpu_minutes"),
        (["--seed", "-1"], "seed is -1; accepted: greater than or equal to 0"),
        (["--iterations", "many"], "Invalid value for '--iterations': 'many' is not a valid integer"),
    ],
)
def test_wrong_budget_or_seed(refused, data, tmp_path, words, message) -> None:
    assert message in refused("train", data, "--out", tmp_path / "run", *words).err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_where_there_is_none(refused, data, quick, tmp_path) -> None:
    message = refused("train", data, "--out", tmp_path / "run", *quick, "--set", "device=cuda").err
    assert "device='cuda' is not usable" in message
    assert "accepted: cpu (no GPU was found), or auto" in message


@pytest.mark.parametrize("setting", ["base_channels=[", "base_channels", "base_channels=[one]"])
def test_unreadable_option(refused, setting) -> None:
    message = refused("describe", "unet_small", "--set", setting).err
    assert f"--set {setting!r}; accepted: option=value, such as base_channels=32" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "x"], "Unknown command 'trian'. Closest: train"),
        (["train"], "Missing argument 'DATA'"),
        (["train", "x"], "Missing option '--out'"),
        (["train", "x", "--modle", "unet"], "No such option '--modle'. Did you mean '--model'?"),
        (["predict", "run", "--out", "x"], "Missing argument 'INPUTS...'"),
        (["--jsn"], "No such option '--jsn'"),
    ],
)
def test_wrong_words(refused, words, message) -> None:
    error = refused(*words).err
    assert message in error
    assert "Accepted: pixelwise" in error
    assert "--help)." in error
