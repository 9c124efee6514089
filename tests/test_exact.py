"""One computation has one result: however it is batched, spread over processes, interrupted and resumed."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ENVIRONMENT, ROOT, read_json, run, start, wait
from datasets import load_from_disk
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
    assert curve["loss"][0] - curve["loss"][-1] > 1  # it learns


def test_both_scripts_write_the_same_model(trained, prepared, tmp_path):
    for script in SCRIPTS:
        run(f"train_{script}.py", "--data", prepared[0], "--output-dir", tmp_path / script, "--epochs", 2)
    for name in ("log.csv", "epochs.csv"):
        assert (tmp_path / "trainer" / name).read_bytes() == (tmp_path / "accelerate" / name).read_bytes()
    assert weights(tmp_path / "trainer") == weights(tmp_path / "accelerate")


def error_lines(result):
    return [line for line in result.stderr.splitlines() if ": error: " in line]


def error_line(result):
    """Return the one line of a run that ended as a bad input should."""
    lines = error_lines(result)
    assert result.returncode == 2 and len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    return lines[0]


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


def wait_for_step(folder, step):
    """Wait until a checkpoint of ``step`` or later is there, if only in part."""
    for _ in range(60_000):
        if max([int(path.name.split("-")[1]) for path in folder.glob("checkpoints/checkpoint-*")], default=0) >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"step {step} did not come")


def stop(processes, number):
    """Send a signal to processes and return the exit code of the first that ends."""
    for process in processes:
        os.kill(process, number)
    return wait(processes)


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
        command = [f"train_{script}.py", *flags, "--output-dir", broken, "--resume", "--save-steps", 1]
        started = start(*command, processes=processes)
        wait_for_step(broken, step)
        time.sleep(rng.uniform(0, 0.02))  # a checkpoint takes about so long to write
        assert stop(started, signal.SIGKILL) == -signal.SIGKILL
        torn += any((broken / "checkpoints").glob(".new/*"))
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_says_how_to_resume(script, prepared, tmp_path):
    flags = ["--data", prepared[0], "--output-dir", tmp_path / "model", "--epochs", 2]
    (tmp_path / "printed").touch()
    files = ["/dev/null", "/dev/null", tmp_path / "printed"]
    started = start(f"train_{script}.py", *flags, "--save-steps", 3, files=files)
    wait_for_step(tmp_path / "model", 3)
    assert stop(started, signal.SIGINT) == 130
    printed = (tmp_path / "printed").read_text()
    (line,) = [line for line in printed.splitlines() if ": stopped" in line]
    assert "--resume" in line and "Traceback" not in printed
    newest = max(
        (tmp_path / "model/checkpoints").glob("*/run.json"), key=lambda path: read_json(path)["state"]["step"]
    )
    again = run(f"train_{script}.py", *flags, check=False)  # without --resume nothing is lost
    assert "--resume" in error_line(again) and newest.exists()
    resuming = f"Resuming from {newest.parent}, step {read_json(newest)['state']['step']} of 52"
    assert resuming in run(f"train_{script}.py", *flags, "--resume").stderr
    assert read_log(tmp_path / "model")["step"] == list(range(1, 53))


@pytest.fixture(scope="module")
def stopped(prepared, tmp_path_factory):
    """Folders of runs, one a script, that were stopped after step 3, and flags that resume them."""
    folders = {}
    for script in SCRIPTS:
        folders[script] = tmp_path_factory.mktemp("stopped") / script
        flags = ["--data", prepared[0], "--output-dir", folders[script]]
        started = start(f"train_{script}.py", *flags, "--save-steps", 3)
        wait_for_step(folders[script], 3)
        assert stop(started, signal.SIGTERM) == 130
    return folders


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("what", ["preset", "model", "corpus", "vocabulary", "batch_size"])
def test_resume_refuses_another_run(what, script, stopped, prepared, with_dropout, tmp_path):
    data = prepared[0]
    flags = {"preset": ["--preset", "amazon"], "model": ["--model", with_dropout], "batch_size": ["--batch-size", 4]}
    if what in ("corpus", "vocabulary"):
        data = tmp_path / "data"
        shutil.copytree(prepared[0], data)
    if what == "corpus":
        books = load_from_disk(prepared[0])
        books["train"] = books["train"].select(range(100))
        shutil.rmtree(data / "train")
        books["train"].save_to_disk(data / "train")
    elif what == "vocabulary":
        tokenizer = (data / "tiny-mt5/tokenizer.json").read_text(encoding="utf-8")
        (data / "tiny-mt5/tokenizer.json").write_text(tokenizer.replace('"▁book"', '"▁kook"'), encoding="utf-8")
    preset = [] if what != "preset" else ["--model", data / "tiny-mt5", "--epochs", 10, "--batch-size", 16]
    result = run(f"train_{script}.py", "--resume", "--output-dir", stopped[script], "--data", data, *preset,
                 *flags.get(what, []), check=False)  # fmt: skip
    line = error_line(result)
    assert "error: --resume: " in line and f" was written with {what} " in line
    assert len(list((stopped[script] / "checkpoints").glob("*/run.json"))) >= 1


# ---- what ends a run ---------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_loss_that_is_not_finite_ends_the_run(script, prepared, tmp_path):
    result = run(f"train_{script}.py", "--data", prepared[0], "--output-dir", tmp_path, "--learning-rate", 1e30,
                 check=False)  # fmt: skip
    line = error_line(result)
    assert "at step 2; " in line and "--learning-rate" in line
    assert not list(tmp_path.glob("checkpoints/*/run.json"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_fp16_is_refused(script, prepared, tmp_path):
    command = ["-m", "accelerate.commands.launch", "--mixed_precision", "fp16", f"train_{script}.py"]
    result = run(*command, "--data", prepared[0], "--output-dir", tmp_path, check=False)
    assert result.returncode == 1 and "fp16: mT5 overflows" in error_lines(result)[0]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB; a checkpoint takes about 12."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_full_disk_leaves_the_earlier_checkpoints_whole(script, prepared, small_disk):
    flags = ["--data", prepared[0], "--output-dir", small_disk / "model", "--epochs", 1]
    result = run(f"train_{script}.py", *flags, "--save-steps", 3, check=False)
    line = error_line(result)
    assert "cannot write" in line and "free space" in line
    whole = {path.parent.name for path in small_disk.glob("model/checkpoints/*/run.json")}
    assert whole == {"checkpoint-3", "checkpoint-6"} == set(os.listdir(small_disk / "model/checkpoints")) - {".new"}
    subprocess.run(["mount", "-o", "remount,size=128m", small_disk], check=True)
    run(f"train_{script}.py", *flags, "--resume")
    assert len(read_log(small_disk / "model")["step"]) == 26


# ---- launching ---------------------------------------------------------------------------------

LAUNCH = ROOT / "tests/launch"


@pytest.mark.parametrize("config", ["one_gpu", "several_gpus", "several_nodes", "fsdp"])
def test_each_launch_configuration_gives_the_same_curve(config, curve, prepared, tmp_path):
    processes = 1 if config == "one_gpu" else 2
    command = [sys.executable, *(["-m", "accelerate.commands.launch"] if processes == 1 else [LAUNCH / "on_cpu.py"])]
    command += ["--config_file", LAUNCH / f"{config}.yaml"]
    flags = ["train_accelerate.py", "--data", prepared[0], "--output-dir", tmp_path / "model",
             "--max-steps", "20", "--batch-size", str(8 // processes), "--no-bf16"]  # fmt: skip
    nodes = [["--machine_rank", "0"], ["--machine_rank", "1"]] if config == "several_nodes" else [[]]
    with open(tmp_path / "printed", "w") as printed:
        started = [subprocess.Popen(list(map(str, [*command, *node, *flags])), cwd=ROOT, env=ENVIRONMENT,
                                    stdout=printed, stderr=printed) for node in nodes]  # fmt: skip
        codes = [process.wait() for process in started]
    printed = (tmp_path / "printed").read_text()
    assert codes == [0] * len(nodes), printed
    assert f"{processes} process(es) on cpu" in printed
    log = read_log(tmp_path / "model")
    assert log["loss"] == pytest.approx(curve["loss"], rel=1e-4)
    assert read_json(tmp_path / "model/results.json")["processes"] == processes
    saved = load_file(tmp_path / "model/model.safetensors")
    assert (saved["lm_head.weight"] - saved["shared.weight"]).abs().max() > 0.1  # the head is still its own


def test_accelerate_launch_computes_as_python_does(prepared, tmp_path):
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_NUM_THREADS"}
    for name, launcher in (("python", []), ("launch", ["-m", "accelerate.commands.launch"])):
        command = [sys.executable, *launcher, "train_accelerate.py", "--data", prepared[0], "--output-dir",
                   tmp_path / name, "--max-steps", "5"]  # fmt: skip
        subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, capture_output=True)
    assert (tmp_path / "python/log.csv").read_bytes() == (tmp_path / "launch/log.csv").read_bytes()
    assert weights(tmp_path / "python") == weights(tmp_path / "launch")
