"""The classical pipeline behind the same commands as the networks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from pixelwise.cli import run as run_command

COMMAND = (sys.executable, "-c", "from pixelwise.cli import main; main()")
QUICK = (
    *("--model", "textonboost"),
    *("--set", "options.num_textons=6"),
    *("--set", "options.num_rectangles=8"),
    *("--set", "options.box=24"),
    *("--set", "options.feature_share=0.3"),
    *("--set", "options.num_thresholds=4"),
    *("--set", "threads=1"),
)


@pytest.fixture(scope="session")
def classical(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the classical pipeline, not to be changed; its data is `trained`'s."""
    run = tmp_path_factory.mktemp("classical") / "run"
    assert run_command(["train", str(trained.parent / "data"), "--out", str(run), "--iterations", "4", *QUICK]) == 0
    return run


@pytest.fixture
def discs(trained: Path) -> Path:
    return trained.parent / "data"


def test_train_leaves_a_run_folder_as_networks_do(classical, trained) -> None:
    names, of_network = ({str(path.relative_to(run)) for path in run.rglob("*")} for run in (classical, trained))
    assert names == of_network
    page = (classical / "report.html").read_text()
    assert "Weighted error of the rounds" in page
    assert "Pixel accuracy, %" in page
    assert "Learning rate" not in page
    assert "are missing or not finite" not in page
    assert "Best images" in page
    assert "CRFs side by side" in page
    assert page.count("Without a CRF: classes of") == 2  # of the best image and the worst one


def test_what_train_says(pixelwise, discs, tmp_path) -> None:
    outcome = pixelwise("train", discs, "--out", tmp_path / "run", "--iterations", "2", "--json", *QUICK)
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["iterations"], result["best"]["iteration"]) == (2, result["best"]["iteration"])
    assert "planned: data.scale = 1.0 (the images' own size)" in outcome.err
    assert "planned: iterations = 2 (rounds of boosting, as asked)" in outcome.err
    for stage in ("filter responses", "k-means of textons", "texton maps", "training 2/2"):
        assert stage in outcome.err


def test_evaluate_and_predict(pixelwise, classical, discs, tmp_path) -> None:
    scores = json.loads(pixelwise("evaluate", classical, discs, "--json").out)
    assert scores["metrics"] == json.loads((classical / "metrics.json").read_text())["metrics"]
    assert set(scores["per_class"]) == {"background", "foreground"}
    options = ("--overlay", "--probabilities", "--flip", "--scales", "0.5,1")
    outcome = pixelwise("predict", classical, discs / "images/val", "--out", tmp_path / "out", "--json", *options)
    assert outcome.code == 0, outcome.err
    assert len(json.loads(outcome.out)["outputs"]) == 6
    mask, chances = (tmp_path / f"out/disc4{ending}" for ending in (".png", ".npy"))
    with Image.open(mask) as image:
        assert image.mode == "P"
        assert image.size == (64, 64)
        labels = np.asarray(image)
    probabilities = np.load(chances)
    assert probabilities.shape == (2, 64, 64)
    assert (probabilities.argmax(0) == labels).mean() > 0.99  # float16 makes ties


@pytest.mark.parametrize("crf", [None, "texton", "crfrnn"])
def test_crfs_side_by_side(pixelwise, classical, discs, crf) -> None:
    given = () if crf is None else ("--crf", crf)
    scores = json.loads(pixelwise("evaluate", classical, discs, "--json", *given).out)
    compared = scores["crf_comparison"]
    assert compared["num_images"] == 2
    rows = {row["crf"]: row for row in compared["rows"]}
    assert list(rows)[:5] == ["none", "grid4", "grid8", "texton", "pydensecrf_default"]
    assert list(rows)[5:] == (["crfrnn"] if crf == "crfrnn" else [])
    assert all(row["seconds"] > 0 for row in rows.values())
    chosen = rows[crf or "none"]
    assert all(chosen[key] == scores["metrics"][key] for key in ("miou", "pixel_accuracy", "mean_accuracy"))
    assert scores["protocol"].get("crf") == chosen.get("protocol", {}).get("crf")
    stored = json.loads((classical / "metrics.json").read_text())["crf_comparison"]
    assert [row["miou"] for row in stored["rows"]] == [row["miou"] for row in rows.values()][:5]
    text = pixelwise("evaluate", classical, discs).out
    assert "CRFs side by side, on 2 images:" in text
    assert "s an image" in text


def test_report_is_written_again_as_it_was(pixelwise, classical) -> None:
    before = (classical / "report.html").read_bytes()
    assert pixelwise("report", classical).code == 0
    assert (classical / "report.html").read_bytes() == before


def test_models_and_describe(pixelwise) -> None:
    rows = json.loads(pixelwise("models", "--task", "classical", "--json").out)
    assert [(row["name"], row["family"], row["task"]) for row in rows] == [("textonboost", "Classical", "classical")]
    text = pixelwise("describe", "textonboost").out
    assert "17 filters on CIELab" in text
    assert "parameters      as many as are learnt" in text
    facts = json.loads(pixelwise("describe", "textonboost", "--json").out)
    assert (facts["parameters"], facts["flops"], facts["layers"]) == (None, None, [])
    assert (
        facts["receptive_field"][0] == facts["receptive_field"][1] > 200
    )  # the box, and what the filters see beyond it


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "RUN", "DATA", "--tile", "64"), "tile 64: textonboost sees an image of any size whole"),
        (("evaluate", "RUN", "DATA", "--window", "64"), "window 64: textonboost sees an image of any size whole"),
        (("evaluate", "RUN", "DATA", "--set", "output_stride=8"), "output_stride=8: no option of textonboost leaves"),
        (("evaluate", "RUN", "DATA", "--flip", "--fusion", "logit_mean"), "gives probabilities and no logits"),
        (("evaluate", "RUN", "DATA", "--crops", "10"), "has no effect on a segmentation model"),
        (("predict", "RUN", "IMAGE", "--whole-image"), "--whole-image has no effect on textonboost"),
        (
            ("evaluate", "NET", "DATA", "--crf", "texton"),
            "accepted: runs of textonboost. Give another CRF, such as grid8",
        ),
        (("look", "textonboost", "IMAGE"), "textonboost is a model for classical output; accepted: semantic models"),
        (("look", "RUN", "IMAGE"), "textonboost is a model for classical output; accepted: semantic models"),
        (("train", "DATA", "--model", "textonboost", "--weights", "RUN"), "key 'weights' has no effect here"),
        (("train", "DATA", "--model", "textonboost", "--epochs", "2"), "epochs=2 has no effect on textonboost"),
        (("train", "DATA", "--weights", "RUN", "--iterations", "1"), "do not fit this model"),
    ],
)
def test_what_makes_no_sense_is_refused(refused, trained, classical, discs, tmp_path, words, message) -> None:
    places = {"NET": trained, "RUN": classical, "DATA": discs, "IMAGE": discs / "images/val/disc4.png"}
    out = () if words[0] == "evaluate" else ("--out", tmp_path / "out.png")
    assert message in refused(*(places.get(word, word) for word in words), *out).err


@pytest.mark.slow
def test_interrupted_training_goes_on_and_ends_as_if_nothing_had_happened(pixelwise, discs, tmp_path) -> None:
    words = [*QUICK, "--iterations", "400", "--set", "val_every=200"]
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [*COMMAND, "train", str(discs), "--out", str(run), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(600, process.kill)
        watch.start()
        assert process.stderr is not None
        first = next(line for line in process.stderr if line.startswith("training"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        watch.cancel()
    assert first.startswith("training 1/400")
    assert process.returncode == 1
    assert err.endswith("stopped.\n")
    assert "Traceback" not in err
    assert f"stopped; go on with: pixelwise train {discs} --out {run} --resume\n" in out
    resumed = pixelwise("train", discs, "--out", run, "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming after iteration " in resumed.out
    assert pixelwise("train", discs, "--out", whole, *words).code == 0
    ours, theirs = (load_file(folder / "best.safetensors") for folder in (run, whole))
    assert all(ours[key].equal(value) for key, value in theirs.items())
