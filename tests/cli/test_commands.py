"""The commands as users and scripts call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import registry

RUN_FILES = {
    "config.yaml",
    "environment.json",
    "data_card.json",
    "log.jsonl",
    "metrics.json",
    "best.safetensors",
    "last/checkpoint.safetensors",
    "report.html",
}
COMMANDS = (
    "demo",
    "check",
    "train",
    "evaluate",
    "score",
    "predict",
    "refine",
    "tune-crf",
    "report",
    "look",
    "import-weights",
    "models",
    "describe",
)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def test_a_folder_becomes_a_run_scores_masks_and_a_report(pixelwise, data, quick, tmp_path) -> None:
    run, out = tmp_path / "runs/discs", tmp_path / "out"

    trained = pixelwise("train", data, "--out", run, *quick)
    assert trained.code == 0
    assert files(run) == RUN_FILES
    assert "masks: binary 0/255 masks: 0 is background, 255 is foreground" in trained.out
    assert "planned: data.num_workers = 0" in trained.out
    assert f"report:     {run / 'report.html'}" in trained.out
    assert "training 2/2" in trained.err

    evaluated = pixelwise("evaluate", run, data)
    assert evaluated.code == 0
    assert "mean IoU" in evaluated.out
    assert "on 2 images of 'val' at the labels' own size" in evaluated.out
    assert "foreground" in evaluated.out

    predicted = pixelwise("predict", run, data / "images/val", "--out", out, "--overlay", "--probabilities")
    assert predicted.code == 0
    assert predicted.out.startswith(f"6 files in {out}")
    assert files(out) == {f"disc{i}{ending}" for i in (4, 5) for ending in (".png", "_overlay.png", ".npy")}
    mask = picture(out / "disc4.png")
    assert mask.mode == "P"
    assert mask.size == (64, 64)
    assert set(np.unique(np.asarray(mask))) <= {0, 1}
    assert np.load(out / "disc4.npy").shape == (2, 64, 64)
    assert picture(out / "disc4_overlay.png").mode == "RGB"

    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    reported = pixelwise("report", run)
    assert reported.out == f"report: {run / 'report.html'}\n"
    assert (run / "report.html").read_text() == before


def test_scores_of_evaluate_are_those_of_training(pixelwise, trained) -> None:
    stored = json.loads((trained / "metrics.json").read_text())
    scores = json.loads(pixelwise("evaluate", trained, trained.parent / "data", "--json").out)
    assert scores["metrics"] == stored["metrics"]
    assert scores["per_class"] == stored["per_class"]


def test_models_as_json(pixelwise) -> None:
    outcome = pixelwise("models", "--json")
    rows = json.loads(outcome.out)
    assert outcome.err == ""
    assert {"unet", "unet_padded", "unet_small"} <= {row["name"] for row in rows}
    assert {"name", "family", "task", "year", "paper"} <= rows[0].keys()


def test_models_list_their_aliases(pixelwise) -> None:
    rows = {row["name"]: row for row in json.loads(pixelwise("models", "--json").out)}
    assert rows["deeplabv1_vgg16_largefov"]["aliases"] == ["deeplab_largefov"]
    assert rows["unet"]["aliases"] == []
    assert "deeplab_largefov" not in rows


def test_describe_by_an_alias_says_the_name(pixelwise) -> None:
    asked = ("describe", "segnet", "--input-size", "32", "32", "--set", "base_channels=2")
    described = pixelwise(*asked)
    assert described.out.startswith("segnet_vgg16\nalso called     segnet\n")
    assert json.loads(pixelwise(*asked, "--json").out)["name"] == "segnet_vgg16"


def test_describe_states_the_cost_of_the_largest_layer(pixelwise) -> None:
    """fc6 of FCN-8s: 512 x 4096 windows of 7 x 7 and 4096 biases, at 12 x 16 positions of a 500 x 375 image."""
    asked = ("describe", "fcn8s_vgg16", "--num-classes", "21", "--input-size", "375", "500")
    cost = "fc6 (7 x 7): 102,764,544 parameters (76.5 %), 39.5 G FLOPs (13.5 %)"
    assert f"largest layer   {cost}\n" in pixelwise(*asked).out
    described = json.loads(pixelwise(*asked, "--json").out)
    (fc6,) = (row for row in described["layers"] if row["name"] == "fc6")
    assert fc6["flops"] == 2 * 512 * 4096 * 7 * 7 * 12 * 16
    assert fc6["parameters_share"] == 102_764_544 / 134_362_751
    assert fc6["flops_share"] == fc6["flops"] / described["flops"]
    assert sum(row["flops_share"] for row in described["layers"]) == pytest.approx(1)


def test_train_by_an_alias_notes_the_name(pixelwise, data, quick, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(registry._ALIASES, "little_unet", "unet_small")
    call = ("train", data, "--out", tmp_path / "run", *quick, "--model")
    assert "planned: model = unet_small (little_unet is an alias of it)\n" in pixelwise(*call, "little_unet").out
    assert (tmp_path / "run/config.yaml").read_text().startswith("model: unet_small\n")
    assert pixelwise(*call, "little_unet", "--resume").code == 0
    refused = pixelwise(*call, "unet", "--resume")
    assert "differs in model: 'unet_small' in the run, 'unet' asked for" in refused.err


def test_models_as_a_table(pixelwise) -> None:
    outcome = pixelwise("models", "--task", "semantic")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0].split() == ["name", "family", "task", "year", "fidelity", "paper"]


def test_describe_as_json(pixelwise) -> None:
    outcome = pixelwise("describe", "unet", "--json")
    description = json.loads(outcome.out)
    assert outcome.err == ""
    wanted = "name parameters receptive_field output_stride input_size output_size flops fidelity layers"
    assert set(wanted.split()) <= description.keys()
    assert description["input_size"] == [572, 572]
    assert description["output_size"] == [388, 388]
    assert description["layers"][0]["output"] == [64, 570, 570]


def test_describe_a_classifier_with_a_list_among_its_options(pixelwise) -> None:
    described = pixelwise("describe", "drn_a_18", "--num-classes", "7", "--set", "blocks=[1,2,1,1]")
    assert "output          7 classes\n" in described.out
    assert "options         base_channels=64, blocks=[1,2,1,1], first_dilation=code\n" in described.out


def test_describe_as_text_says_what_was_asked(pixelwise) -> None:
    asked = pixelwise("describe", "unet_small", "--input-size", "64", "96", "--num-classes", "5", "--set", "depth=2")
    assert asked.code == 0
    assert "input           64 x 96, 3 channels" in asked.out
    assert "output          64 x 96, 5 classes" in asked.out
    assert "depth=2" in asked.out
    assert "alias" not in asked.out


def test_describe_shows_the_decks_tables(pixelwise) -> None:
    deeplab = pixelwise("describe", "deeplabv1_vgg16_4x4_r8", "--num-classes", "21").out
    assert "\nparameters      65,140,565 (65.1 M)\n" in deeplab
    assert "\nfield of view   224 x 224 pixels at fc6, 4 x 4 at rate 8\n" in deeplab
    (fc6,) = (line.split() for line in deeplab.splitlines() if line.startswith("fc6 "))
    assert " ".join(fc6) == "fc6 convolution 4 x 4 8 1 x 1 4096 x 67 x 67 404 x 404 33,558,528 301.25"
    context = pixelwise("describe", "context_large", "--num-classes", "21").out
    assert "\nreceptive field 67 x 67 cells\n" in context
    rows = [" ".join(line.split()) for line in context.splitlines() if " convolution " in line]
    assert rows[5] == "ctx_conv5_1 convolution 3 x 3 16 1 x 1 672 x 68 x 68 65 x 65 2,032,800 18.79"
    described = json.loads(pixelwise("describe", "context_basic", "--json").out)
    assert described["layers"][4].items() >= {"dilation": [2, 2], "receptive_field": [9, 9]}.items()


def test_train_as_json(pixelwise, data, quick, tmp_path) -> None:
    outcome = pixelwise("train", data, "--out", tmp_path / "run", "--json", *quick)
    result = json.loads(outcome.out)
    assert {"run", "iterations", "seconds", "best"} <= result.keys()
    assert result["run"] == str(tmp_path / "run")
    assert result["iterations"] == 2
    assert 0 <= result["best"]["miou"] <= 1
    assert "planned: " in outcome.err


def test_evaluate_as_json(pixelwise, trained) -> None:
    outcome = pixelwise("evaluate", trained, trained.parent / "data", "--split", "train", "--flip", "--json")
    result = json.loads(outcome.out)
    assert {"metrics", "per_class", "protocol", "num_images"} <= result.keys()
    assert {"miou", "pixel_accuracy", "mean_accuracy", "fwiou"} <= result["metrics"].keys()
    assert {"iou", "accuracy"} <= result["per_class"]["foreground"].keys()
    assert result["num_images"] == 4
    assert result["protocol"]["flip"] is True
    assert "scoring 4/4" in outcome.err


def test_another_option_than_in_training(pixelwise, trained, tmp_path) -> None:
    outcome = pixelwise("evaluate", trained, trained.parent / "data", "--set", "options.dropout=0.5", "--json")
    assert json.loads(outcome.out)["protocol"]["options"] == "dropout=0.5"
    data = trained.parent / "data"
    for words in (("evaluate", trained, data), ("predict", trained, data / "images/val", "--out", tmp_path)):
        refused = pixelwise(*words, "--set", "depth=3")
        assert refused.code == 2
        assert "with depth=3, unet_small wants other weights than" in refused.err


def test_predict_as_json(pixelwise, trained, data, tmp_path) -> None:
    outcome = pixelwise("predict", trained, data / "images/val/*4.png", "--out", tmp_path / "out", "--json")
    result = json.loads(outcome.out)
    assert result["outputs"] == [str(tmp_path / "out/disc4.png")]
    assert result["seconds"] > 0
    assert result["peak_memory_mb"] > 10
    assert "predicting 1/1" in outcome.err


def test_report_as_json(pixelwise, trained) -> None:
    assert json.loads(pixelwise("report", trained, "--json").out) == {"report": str(trained / "report.html")}


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (130, 67)])
def test_predict_takes_any_size(pixelwise, trained, tmp_path, size) -> None:
    Image.fromarray(np.full(size, 90, np.uint8)).save(tmp_path / "odd.png")
    assert pixelwise("predict", trained, tmp_path / "odd.png", "--out", tmp_path / "out").code == 0
    assert picture(tmp_path / "out/odd.png").size == size[::-1]


@pytest.mark.parametrize("model", ["unet_small", "unet"])
def test_train_takes_images_below_the_smallest_legal_input(pixelwise, data, tmp_path, model) -> None:
    for path in [*data.glob("images/*/*.png"), *data.glob("masks/*/*.png")]:
        picture(path).crop((20, 20, 33, 30)).save(path)
    small = ("--set", "options.base_channels=1", "--set", "data.batch_size=2", "--set", "threads=1")
    run = tmp_path / "run"
    outcome = pixelwise("train", data, "--model", model, "--iterations", "1", "--out", run, *small)
    assert outcome.code == 0, outcome.err
    assert files(run) == RUN_FILES


def test_validation_items_can_be_named(pixelwise, data, quick, tmp_path) -> None:
    for kind in ("images", "masks"):
        for path in sorted((data / kind).glob("*/*.png")):
            path.rename(data / kind / path.name)
        (data / kind / "train").rmdir()
        (data / kind / "val").rmdir()
    (tmp_path / "val.txt").write_text("disc1\ndisc3\n")
    run = tmp_path / "run"
    trained = pixelwise("train", data, "--val-list", tmp_path / "val.txt", "--out", run, *quick)
    assert f"validation items from {tmp_path / 'val.txt'}" in trained.out
    names = [row["name"] for row in json.loads((run / "metrics.json").read_text())["per_image"]]
    assert names == ["disc1", "disc3"]
    scored = json.loads(pixelwise("evaluate", run, data, "--json").out)  # the run knows its list
    assert [row["name"] for row in scored["per_image"]] == names
    listed = json.loads(pixelwise("evaluate", run, data, "--list", tmp_path / "val.txt", "--json").out)
    assert listed["metrics"] == scored["metrics"]
    assert listed["protocol"]["split"] == "list val.txt"


def test_a_run_can_be_resumed_from_another_folder(pixelwise, data, quick, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pixelwise("train", "data", "--out", "run", *quick).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = pixelwise("train", "../data", "--out", "../run", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming after iteration 2" in resumed.out


def test_a_report_is_written_where_the_data_has_gone(pixelwise, data, quick, tmp_path) -> None:
    run = tmp_path / "run"
    pixelwise("train", data, "--out", run, *quick)
    data.rename(tmp_path / "moved")
    assert pixelwise("report", run).code == 0
    (data / "images").mkdir(parents=True)  # and where something else took its place
    (data / "masks").mkdir()
    assert pixelwise("report", run).code == 0


def test_no_command_prints_the_help(pixelwise) -> None:
    assert pixelwise().out == pixelwise("--help").out


def in_a_process(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pixelwise.cli import main; main()", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def test_help_of_all_commands_needs_no_torch() -> None:
    """One process for all of them: torch would stay in sys.modules once it was there."""
    script = f"""
import sys
from pixelwise.cli import run
codes = [run([*words, "--help"]) for words in ([], *([name] for name in {COMMANDS!r}))]
print("loaded:", sorted({{"torch", "numpy", "pydantic", "cv2", "rich"}} & set(sys.modules)), "codes:", set(codes))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: [] codes: {0}"
    for name in COMMANDS:
        assert f"Usage: pixelwise {name} [OPTIONS]" in done.stdout
    assert done.stdout.count("--json") == len(COMMANDS)


def test_importing_the_package_imports_no_torch() -> None:
    script = "import pixelwise, sys; print(pixelwise.__all__, sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.endswith("[]\n")
    assert "create_model" in done.stdout


def test_a_process_ends_with_the_exit_code_and_the_message() -> None:
    done = in_a_process("trian")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: Unknown command 'trian'")


@pytest.mark.slow
def test_a_refused_training_leaves_nothing_behind(tmp_path) -> None:
    done = in_a_process("train", "nowhere", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: data folder ")
    assert not list(tmp_path.iterdir())


def installed_command() -> Path:
    command = Path(sys.executable).with_name("pixelwise")
    if not command.exists():
        pytest.skip("pixelwise is not installed as a command beside this Python")
    return command


def test_the_installed_command_answers() -> None:
    done = subprocess.run([installed_command(), "--help"], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.startswith("Usage: pixelwise ")
    assert done.stderr == ""


@pytest.mark.slow
def test_the_installed_command_prints_json() -> None:
    command = [installed_command(), "models", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert json.loads(done.stdout)[0]["family"] == "U-Net"
    assert done.stderr == ""


@pytest.mark.parametrize("word", ["--help", pytest.param("models", marks=pytest.mark.slow)])
def test_a_reader_that_goes_away_is_no_error(word: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from pixelwise.cli import main; main()", word]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr
