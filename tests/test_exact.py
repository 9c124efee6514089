"""One computation has one result: however it is batched, spread over processes, interrupted and resumed."""

import csv
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, read_json, run
from safetensors.torch import load_file

SCRIPTS = ["trainer", "accelerate"]


def read_log(folder):
    """Return {column: its values as floats} of log.csv."""
    with open(folder / "log.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {column: [float(row[column]) for row in rows] for column in rows[0]}


# ---- one effective batch, one curve ------------------------------------------------------------

CUTS = [(8, 1, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (1, 4, 2)]  # batch size, batches a step, processes: 8 rows a step


@pytest.fixture(scope="module")
def curve(prepared, tmp_path_factory):
    """The log of 20 steps of 8 rows in one batch, by the Trainer."""
    folder = tmp_path_factory.mktemp("curve")
    run("train_trainer.py", "--data", prepared[0], "--output-dir", folder, "--max-steps", 20, "--batch-size", 8)
    return read_log(folder)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("batch_size", "accumulation", "processes"), CUTS)
def test_however_a_step_is_cut_its_loss_and_gradients_are_the_same(
    curve, prepared, tmp_path, script, batch_size, accumulation, processes
):
    run(f"train_{script}.py", "--data", prepared[0], "--output-dir", tmp_path, "--max-steps", 20,
        "--batch-size", batch_size, "--gradient-accumulation-steps", accumulation, processes=processes)  # fmt: skip
    assert read_json(tmp_path / "results.json")["processes"] == processes
    log = read_log(tmp_path)
    assert log["step"] == list(range(1, 21))
    assert log["loss"] == pytest.approx(curve["loss"], rel=1e-4)
    assert log["grad_norm"] == pytest.approx(curve["grad_norm"], rel=1e-4)
    assert curve["loss"][0] > 1.2 * curve["loss"][-1]  # it learns


def test_both_scripts_write_the_same_model(trained, prepared, tmp_path):
    for script in SCRIPTS:
        run(f"train_{script}.py", "--data", prepared[0], "--output-dir", tmp_path / script, "--epochs", 2)
    assert (tmp_path / "trainer/log.csv").read_bytes() == (tmp_path / "accelerate/log.csv").read_bytes()
    assert weights(tmp_path / "trainer") == weights(tmp_path / "accelerate")


# ---- resuming ----------------------------------------------------------------------------------


def weights(folder):
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}


@pytest.fixture(scope="module")
def with_dropout(prepared, tmp_path_factory):
    """The tiny mT5 with dropout, so that a run needs its random states."""
    folder = tmp_path_factory.mktemp("dropout") / "tiny-mt5"
    shutil.copytree(prepared[0] / "tiny-mt5", folder)
    config = read_json(folder / "config.json") | {"dropout_rate": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def start(script, *flags, processes=1, stderr=subprocess.DEVNULL):
    """Start a training script on one or two processes, without a launcher that would tend them; return them."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    if processes > 1:
        environment |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    started = []
    for rank in range(processes):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        started.append(
            subprocess.Popen(
                [sys.executable, f"train_{script}.py", *map(str, flags)],
                cwd=ROOT,
                env=environment | ranks,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        )
    return started


def wait_for_step(processes, folder, step):
    """Wait until a checkpoint of ``step`` or later is there, if only in part."""
    while max([int(path.name.split("-")[1]) for path in folder.glob("checkpoints/checkpoint-*")], default=0) < step:
        assert processes[0].poll() is None, "it ended before that step"
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_killed_ten_times_ends_as_an_unbroken_one(script, processes, prepared, with_dropout, tmp_path):
    flags = ["--data", prepared[0], "--model", with_dropout, "--epochs", 2, "--batch-size", 16 // processes]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run(f"train_{script}.py", *flags, "--output-dir", unbroken, processes=processes)
    steps = len(read_log(unbroken)["step"])
    rng = random.Random(f"{script} {processes}")
    torn = 0
    for step in sorted(rng.sample(range(1, steps + 1), 10)):
        started = start(script, *flags, "--output-dir", broken, "--resume", "--save-steps", 1, processes=processes)
        wait_for_step(started, broken, step)
        time.sleep(rng.uniform(0, 0.02))  # a checkpoint takes about so long to write
        for process in started:
            process.send_signal(signal.SIGKILL)
        for process in started:
            process.wait()
        torn += any(not (path / "run.json").exists() for path in (broken / "checkpoints").glob("checkpoint-*"))
    print(f"{torn} of 10 kills left a torn checkpoint")
    run(f"train_{script}.py", *flags, "--output-dir", broken, "--resume", processes=processes)
    if processes == 1:
        assert (broken / "log.csv").read_bytes() == (unbroken / "log.csv").read_bytes()
        assert weights(broken) == weights(unbroken)
    else:
        expected, resumed = (load_file(folder / "model.safetensors") for folder in (unbroken, broken))
        for name, tensor in expected.items():
            assert (resumed[name] - tensor).abs().max() <= 1e-6 * tensor.abs().max(), name
    assert read_json(broken / "results.json")["scores"] == read_json(unbroken / "results.json")["scores"]
