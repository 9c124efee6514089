"""One computation has one result: however it is batched, spread out, interrupted and resumed."""

import csv
import functools
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ENVIRONMENT, LIMIT, ROOT, copy_data, ranks, read_json, run, start, wait
from datasets import Dataset, DatasetDict, load_from_disk
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler

SCRIPTS = ["trainer", "accelerate"]
SAMPLE_DATA = "data/prepared/sample"


def read_log(folder, column):
    """Return the values of a column of log.csv, without the empty ones, as floats."""
    with open(folder / "log.csv", newline="") as lines:
        return [float(row[column]) for row in csv.DictReader(lines) if row[column]]


def weights(folder):
    """Return {name: its bytes} of the weights in a folder."""
    tensors = load_file(folder / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def error_line(result):
    """Return the one line of a run that ended as one with bad input should."""
    lines = [line for line in result.stderr.splitlines() if ": error: " in line]
    assert result.returncode == 2 and len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


# ---- One effective batch, one curve --------------------------------------------------------------


def tokenize(folder, rows):
    """Return what the model is called with: the ids of reviews and titles, padded."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    reviews, titles = (
        tokenizer(rows[name][:], max_length=length, truncation=True, padding=True)
        for name, length in (("review_body", 512), ("review_title", 30))
    )
    labels = torch.tensor(titles["input_ids"])
    labels[labels == tokenizer.pad_token_id] = -100
    return {**reviews.convert_to_tensors("pt"), "labels": labels}


def loss_by_hand(model, batch):
    """Return the sum of the cross entropies of the label tokens, divided by their number."""
    logits, labels = model(**batch).logits, batch["labels"]
    total = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return total / (labels != -100).sum()


STEPS = 12


@pytest.fixture(scope="module")
def eight_rows(prepared, tmp_path_factory):
    """Prepared data whose training split is one step of eight rows."""
    data = copy_data(prepared[0], tmp_path_factory.mktemp("eight") / "data", train=8, validation=2)
    batch = tokenize(data / "tiny-mt5", load_from_disk(data)["train"])
    # Two halves of an odd number of label tokens have unequal numbers, so that the mean of the
    # means of two batches is not the mean of the step.
    assert (batch["labels"] != -100).sum() % 2 == 1
    return data


@pytest.fixture(scope="module")
def by_hand(eight_rows):
    """The loss and the gradient norm of each step, in plain PyTorch."""
    model = AutoModelForSeq2SeqLM.from_pretrained(eight_rows / "tiny-mt5")
    batch = tokenize(eight_rows / "tiny-mt5", load_from_disk(eight_rows)["train"])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    curve = {"loss": [], "grad_norm": []}
    for step in range(STEPS):
        loss = loss_by_hand(model, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 0.005 * (1 - step / STEPS)  # falls to 0 linearly
        optimizer.step()
        optimizer.zero_grad()
        curve["loss"].append(loss.item())
        curve["grad_norm"].append(norm.item())
    # It learns, and the last steps are not clipped, so that the size of a gradient matters.
    assert curve["loss"][-1] < curve["loss"][0] / 10 and curve["grad_norm"][-1] < 0.9
    return curve


@pytest.mark.parametrize(
    ("script", "batch_size", "accumulation", "processes"),
    [
        ("trainer", 8, 1, 1),
        ("trainer", 2, 4, 1),
        ("trainer", 1, 8, 1),
        ("trainer", 4, 1, 2),
        ("trainer", 2, 2, 2),
        ("accelerate", 8, 1, 1),
        ("accelerate", 4, 1, 2),
    ],
)
def test_however_a_step_is_cut_its_loss_and_gradient_are_those_by_hand(
    script, batch_size, accumulation, processes, eight_rows, by_hand, tmp_path
):
    flags = ["--epochs", STEPS, "--learning-rate", 0.005, "--weight-decay", 0]
    if accumulation > 1:
        flags += ["--gradient-accumulation-steps", accumulation]
    run(
        f"train_{script}.py",
        *["--data", eight_rows, "--output-dir", tmp_path, "--batch-size", batch_size, *flags],
        processes=processes,
    )
    assert read_json(tmp_path / "results.json")["arguments"]["processes"] == processes
    loss = read_log(tmp_path, "loss")
    assert loss[0] == pytest.approx(by_hand["loss"][0], abs=1e-5)
    assert loss == pytest.approx(by_hand["loss"], rel=1e-4)
    if script == "trainer":  # train_accelerate.py does not log it
        assert read_log(tmp_path, "grad_norm") == pytest.approx(by_hand["grad_norm"], rel=1e-3)


# ---- An epoch of several steps, and an evaluation ------------------------------------------------


@pytest.fixture(scope="module")
def counted(prepared, tmp_path_factory):
    """32 rows to train on, and 97 to evaluate, of which the first 49 have ROUGE 100, the others 0.

    The titles of the 49 are the summaries that the tiny mT5 writes as it is. The others are digits.
    """
    folder = tmp_path_factory.mktemp("counted")
    rows = load_from_disk(prepared[0])["train"]
    books = DatasetDict(train=rows.select(range(32)), validation=rows.select(range(100, 197)))
    books["validation"].to_json(folder / "reviews.jsonl")
    flags = ["--model", prepared[0] / "tiny-mt5", "--input", folder / "reviews.jsonl"]
    run("predict.py", *flags, "--output", folder / "titles.jsonl")
    summaries = Dataset.from_json(str(folder / "titles.jsonl"))["summary"][:]
    assert len(set(summaries)) == 97  # each row has its own
    titles = [*summaries[:49], *(97 - 49) * ["1 2 3"]]
    books["validation"] = books["validation"].remove_columns("review_title")
    books["validation"] = books["validation"].add_column("review_title", titles)
    books.save_to_disk(folder / "data")
    shutil.copy(prepared[0] / "arguments.json", folder / "data")
    shutil.copytree(prepared[0] / "tiny-mt5", folder / "data/tiny-mt5")
    return folder / "data"


@pytest.fixture(scope="module")
def one_epoch(counted, tmp_path_factory):
    """A function that returns the folder of an epoch in which the model stays as it is."""

    @functools.cache
    def train(script, processes):
        folder = tmp_path_factory.mktemp(f"{script}-{processes}")
        run(
            f"train_{script}.py",
            *["--data", counted, "--output-dir", folder, "--epochs", 1],
            *["--batch-size", 8 // processes, "--learning-rate", 1e-12],
            processes=processes,
        )
        assert read_json(folder / "results.json")["arguments"]["processes"] == processes
        return folder

    return train


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.full), 3])
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_evaluated_row_counts_once(script, processes, one_epoch, counted):
    # On 2 and 3 processes the last batches are filled up with the first rows, whose ROUGE is 100.
    folder = one_epoch(script, processes)
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        assert read_log(folder, f"eval_{name}") == [pytest.approx(100 * 49 / 97, abs=1e-4)]
    scores = read_json(folder / "results.json")["scores"]["all"]
    assert scores["rows"] == 97
    assert scores["model"]["rouge1"]["f1"] == pytest.approx(100 * 49 / 97, abs=1e-4)
    if script == "accelerate":  # the Trainer's eval_loss is a mean of the means of batches
        model = AutoModelForSeq2SeqLM.from_pretrained(counted / "tiny-mt5")
        batch = tokenize(counted / "tiny-mt5", load_from_disk(counted)["validation"])
        with torch.no_grad():
            expected = loss_by_hand(model, batch).item()
        assert read_log(folder, "eval_loss") == [pytest.approx(expected, abs=1e-5)]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(processes, one_epoch, counted):
    folder = one_epoch("accelerate", processes)
    rows = load_from_disk(counted)["train"]
    lengths = tokenize(counted / "tiny-mt5", rows)["attention_mask"].sum(dim=1).tolist()
    generator = torch.Generator().manual_seed(42)  # --seed 42, epoch 0
    order = list(LengthGroupedSampler(8, lengths=lengths, generator=generator))
    model = AutoModelForSeq2SeqLM.from_pretrained(counted / "tiny-mt5")
    with torch.no_grad():
        losses = [
            loss_by_hand(
                model, tokenize(counted / "tiny-mt5", rows.select(order[i : i + 8]))
            ).item()
            for i in (0, 8, 16, 24)
        ]
    assert read_log(folder, "loss") == [pytest.approx(sum(losses) / 4, abs=1e-5)]


def test_the_trainers_epoch_on_two_processes_has_the_loss_of_one(one_epoch):
    one, two = (read_log(one_epoch("trainer", processes), "loss") for processes in (1, 2))
    assert two == [pytest.approx(one[0], abs=1e-5)]


# ---- Resuming ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_dropout(prepared, tmp_path_factory):
    """Five steps of 16 rows, and a tiny mT5 with dropout, so that a run needs its random states."""
    data = tmp_path_factory.mktemp("dropout") / "data"
    copy_data(prepared[0], data, train=80, validation=4)
    config = read_json(data / "tiny-mt5/config.json") | {"dropout_rate": 0.1}
    (data / "tiny-mt5/config.json").write_text(json.dumps(config))
    return data


@pytest.fixture(scope="module")
def unbroken(with_dropout, tmp_path_factory):
    """A function that returns the folder of a training that was not interrupted."""

    @functools.cache
    def train(script, *flags, processes=1):
        folder = tmp_path_factory.mktemp("unbroken") / "model"
        flags = ["--data", with_dropout, "--output-dir", folder, *flags]
        run(f"train_{script}.py", *flags, processes=processes)
        return folder

    return train


def wait_for(path):
    """Wait until a file or folder is there."""
    for _ in range(60_000):
        if path.exists():
            return
        time.sleep(0.002)
    raise AssertionError(f"{path} did not come")


def wait_for_checkpoint(folder, number):
    """Wait until a checkpoint of ``number`` or later is there, if only in part."""
    numbers = [0]
    while max(numbers) < number:
        time.sleep(0.002)
        names = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")]
        numbers = [0, *(int(name) for name in names if name.isdigit())]


def stop(processes, number):
    """Send a signal to processes and return the exit code of the first that ends."""
    for process in processes:
        os.kill(process, number)
    return wait(processes)


LAST_FILE = {"trainer": "trainer_state.json", "accelerate": "progress.json"}  # of a checkpoint


def logged(folder):
    """Return the rows of log.csv without those of times, which differ from run to run."""
    with open(folder / "log.csv", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["loss"] or row["eval_loss"]]
    timed = ("runtime", "per_second", "train_", "total_flos")
    return [
        {name: value for name, value in row.items() if not any(word in name for word in timed)}
        for row in rows
    ]


def assert_same_bits(resumed, unbroken):
    assert logged(resumed) == logged(unbroken)
    assert weights(resumed) == weights(unbroken)
    results = [read_json(folder / "results.json")["scores"] for folder in (resumed, unbroken)]
    assert results[0] == results[1]
    assert read_json(resumed / "arguments.json")["finished"]


@pytest.mark.parametrize(
    ("script", "flags", "number"),
    [
        ("trainer", ["--epochs", "4"], 10),  # the end of an epoch of 5 steps
        ("trainer", ["--epochs", "3", "--save-steps", "3"], 9),  # inside an epoch
        ("accelerate", ["--epochs", "4"], 2),  # the end of an epoch
    ],
)
def test_a_run_after_kill_9_ends_as_an_unbroken_one(
    script, flags, number, with_dropout, unbroken, tmp_path
):
    folder = tmp_path / "model"
    command = [f"train_{script}.py", "--data", with_dropout, "--output-dir", folder, *flags]
    started = start(*command)
    wait_for(folder / f"checkpoint-{number}" / LAST_FILE[script])
    assert stop(started, signal.SIGKILL) == -signal.SIGKILL
    assert not read_json(folder / "arguments.json")["finished"]
    printed = run(*command, "--resume").stdout
    assert f"Going on from {folder}/checkpoint-" in printed
    assert_same_bits(folder, unbroken(script, *flags))


@pytest.mark.parametrize(
    ("script", "moment", "last"),
    [
        ("trainer", "config.json", 20),  # the model of the best epoch is saved
        ("accelerate", "checkpoint-3", 4),  # the checkpoint of the last epoch replaces it
    ],
)
def test_a_run_killed_after_its_last_step_ends_as_an_unbroken_one(
    script, moment, last, with_dropout, unbroken, tmp_path
):
    flags = ["--data", with_dropout, "--output-dir", tmp_path / "model", "--epochs", "4"]
    killed = run(ROOT / "tests/kill_at.py", f"train_{script}", moment, *flags, check=False)
    assert killed.returncode == 9
    printed = run(f"train_{script}.py", *flags, "--resume").stdout
    assert f"Going on from {tmp_path}/model/checkpoint-{last}\n" in printed
    assert_same_bits(tmp_path / "model", unbroken(script, "--epochs", "4"))
    # Once more, it only prints the scores.
    saved = {path: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.is_file()}
    again = run(f"train_{script}.py", *flags, "--resume").stdout
    assert "holds a finished run" in again and "validation split: ROUGE F1" in again
    assert saved == {path: path.read_bytes() for path in saved}


def test_a_torn_checkpoint_is_not_resumed(with_dropout, unbroken, tmp_path):
    flags = ["--data", with_dropout, "--output-dir", tmp_path / "model", "--epochs", "4"]
    run(ROOT / "tests/kill_at.py", "train_trainer", "config.json", *flags, check=False)
    # As if the process had been killed while it wrote the last file of the last checkpoint.
    torn = tmp_path / "model/checkpoint-20/trainer_state.json"
    torn.write_text(torn.read_text()[:100])
    printed = run("train_trainer.py", *flags, "--resume").stdout
    assert f"Going on from {tmp_path}/model/checkpoint-15\n" in printed
    assert_same_bits(tmp_path / "model", unbroken("trainer", "--epochs", "4"))


def test_an_unfinished_checkpoint_is_not_resumed(with_dropout, unbroken, tmp_path):
    flags = ["--data", with_dropout, "--output-dir", tmp_path / "model", "--epochs", "4"]
    moment = "checkpoint-unfinished"  # would be renamed now to checkpoint-1
    run(ROOT / "tests/kill_at.py", "train_accelerate", moment, *flags, check=False)
    assert (tmp_path / "model" / moment / "progress.json").exists()
    printed = run("train_accelerate.py", *flags, "--resume").stdout
    assert "Going on" not in printed and "Epoch 1 of 4: " in printed
    assert_same_bits(tmp_path / "model", unbroken("accelerate", "--epochs", "4"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.full)])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_killed_four_times_ends_as_an_unbroken_one(
    script, processes, with_dropout, unbroken, tmp_path
):
    flags = ["--epochs", "10", "--batch-size", str(16 // processes)]
    if script == "trainer":
        flags = [*flags, "--epochs", "2", "--save-steps", "1"]
    folder = tmp_path / "model"
    command = [f"train_{script}.py", "--data", with_dropout, "--output-dir", folder, *flags]
    rng = random.Random(f"{script} {processes}")
    numbers = []
    for number in sorted(rng.sample(range(1, 9), 4)):  # of the 10 checkpoints
        started = start(*command, "--resume", processes=processes)
        wait_for_checkpoint(folder, number)
        time.sleep(rng.uniform(0, 0.1))
        assert stop(started, signal.SIGKILL) == -signal.SIGKILL
        numbers.append([path.name for path in folder.glob("*checkpoint*")])
    print("what each kill left:", *numbers)
    run(*command, "--resume", processes=processes)
    expected = unbroken(script, *flags, processes=processes)
    if processes == 1:
        assert_same_bits(folder, expected)
        return
    # Several processes add their gradients up in an order that may differ from run to run.
    for name in ("loss", "eval_loss"):
        assert read_log(folder, name) == pytest.approx(read_log(expected, name), rel=1e-5)
    unbroken_weights = load_file(expected / "model.safetensors")
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert (unbroken_weights[name] - tensor).abs().max() <= 1e-6 * tensor.abs().max(), name


@pytest.mark.parametrize(
    ("script", "ending"), [("trainer", signal.SIGINT), ("accelerate", signal.SIGTERM)]
)
def test_a_stopped_run_is_neither_lost_nor_mixed_up_with_another(
    script, ending, with_dropout, prepared, tmp_path
):
    folder = tmp_path / "model"
    # So many epochs that the run cannot end before it is stopped.
    command = [f"train_{script}.py", "--data", with_dropout, "--output-dir", folder]
    command += ["--epochs", 300]
    (tmp_path / "printed").touch()
    started = start(*command, files=["/dev/null", "/dev/null", tmp_path / "printed"])
    # The Trainer may be stopped while it writes this file. Then its checkpoint before is whole.
    wait_for(folder / f"checkpoint-{10 if script == 'trainer' else 1}" / LAST_FILE[script])
    assert stop(started, ending) == 130
    printed = (tmp_path / "printed").read_text()
    assert f"train_{script}.py: stopped" in printed and "Traceback" not in printed

    def content():
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = content()
    line = error_line(run(*command, check=False))
    assert f"{folder} holds a run that has not ended; use --resume, or delete it" in line
    other = {"trainer": "accelerate", "accelerate": "trainer"}[script]
    for flags, words in [
        (["--batch-size", 4], "batch_size 16, not 4"),
        (["--epochs", 3], "epochs 300, not 3"),
        (["--seed", 1], "seed 42, not 1"),
        (["--max-train-samples", 8], "max_train_samples None, not 8"),
        (["--data", prepared[0]], f"data {with_dropout}, not {prepared[0]}"),
        (["--model", prepared[0] / "tiny-mt5"], f"tiny-mt5, not {prepared[0]}/tiny-mt5"),
    ]:
        line = error_line(run(*command, "--resume", *flags, check=False))
        assert "error: --resume: the run was started with " in line and words in line
    line = error_line(run(f"train_{other}.py", *command[1:], "--resume", check=False))
    assert f"script train_{script}.py, not train_{other}.py" in line
    result = run(*command, "--resume", processes=2, check=False)
    assert "the run was started with processes 1, not 2" in result.stderr
    assert content() == before


# ---- What ends a run -----------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_loss_that_is_not_finite_ends_the_run(script, with_dropout, tmp_path):
    flags = ["--data", with_dropout, "--output-dir", tmp_path / "model"]
    # The loss of the only step is finite. The weights that it leaves are not.
    flags += ["--max-train-samples", 16, "--epochs", 1, "--learning-rate", 1e39]
    result = run(f"train_{script}.py", *flags, check=False)
    words = "a loss is not finite; delete the output and lower --learning-rate"
    assert words in error_line(result)
    assert not (tmp_path / "model/model.safetensors").exists()
    assert not read_json(tmp_path / "model/arguments.json")["finished"]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ACCELERATE_MIXED_PRECISION", "fp16", "fp16 is not supported, as mT5 overflows in it"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "fp8 is not supported, as mT5 overflows in it"),
        *[
            (f"ACCELERATE_{name}", value, f"ACCELERATE_{name}, which is not supported; launch wit")
            for name, value in [
                ("USE_FSDP", "true"),
                ("USE_DEEPSPEED", "true"),
                ("USE_MEGATRON_LM", "true"),
                ("USE_PARALLELISM_CONFIG", "true"),
                ("USE_SAGEMAKER", "true"),
                ("DYNAMO_BACKEND", "INDUCTOR"),
            ]
        ],
    ],
)
def test_what_a_launcher_may_not_choose(
    script, variable, value, words, monkeypatch, tmp_path, capsys
):
    # `accelerate launch --mixed_precision fp16` and the like set these variables.
    monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"train_{script}.py"])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"train_{script}").main()
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB; a checkpoint takes about 12."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_full_disk_leaves_the_earlier_checkpoints_whole(
    script, with_dropout, unbroken, small_disk
):
    flags = ["--data", with_dropout, "--output-dir", small_disk / "model", "--epochs", "4"]
    line = error_line(run(f"train_{script}.py", *flags, check=False))
    assert "space on the disk" in line
    subprocess.run(["mount", "-o", "remount,size=128m", small_disk], check=True)
    printed = run(f"train_{script}.py", *flags, "--resume").stdout
    assert f"Going on from {small_disk}/model/checkpoint-" in printed
    assert_same_bits(small_disk / "model", unbroken(script, "--epochs", "4"))


# ---- Launching -----------------------------------------------------------------------------------


def popen(*command, cwd=ROOT, without=(), **environment):
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), **environment}
    environment = {name: value for name, value in environment.items() if name not in without}
    command = [sys.executable, *map(str, command)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment, **pipe)


def launch(*command, **options):
    """Start ``accelerate launch ...`` as a user does, but without a number of threads."""
    return popen(
        "-m", "accelerate.commands.launch", *command, without=["OMP_NUM_THREADS"], **options
    )


IMPATIENT = """
import runpy, sys
from datetime import timedelta
import torch.distributed.distributed_c10d as c10d
c10d.default_pg_timeout = timedelta(seconds=2)  # instead of half an hour
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def copy_scripts(folder, prepare):
    """Copy what trains to ``folder``, beside a prepare_data.py with the code ``prepare``."""
    for name in ("common.py", "train_accelerate.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "prepare_data.py").write_text(f"import shutil, sys, time\n{prepare}\n")
    (folder / "impatient.py").write_text(IMPATIENT)


@pytest.mark.parametrize(
    ("config", "processes", "nodes"),
    [
        pytest.param("one_gpu", 1, [[]], marks=pytest.mark.full),
        ("several_gpus", 2, [[]]),
        pytest.param(
            "several_nodes",
            2,
            [["--machine_rank", 0], ["--machine_rank", 1]],
            marks=pytest.mark.full,
        ),
    ],
)
def test_each_launch_configuration_gives_the_loss_by_hand(
    config, processes, nodes, eight_rows, by_hand, tmp_path
):
    # The data is prepared first, which takes longer than processes wait for each other by default.
    copy_scripts(tmp_path, f"time.sleep(6); shutil.copytree({str(eight_rows)!r}, {SAMPLE_DATA!r})")
    command = ["--config_file", ROOT / f"tests/launch/{config}.yaml"]
    script = ["impatient.py", "train_accelerate.py", "--output-dir", "model", "--no-bf16"]
    script += ["--batch-size", 8 // processes, "--epochs", 1]
    # The CPU takes the place of the GPUs.
    options = {"cwd": tmp_path, "ACCELERATE_USE_CPU": "true"}
    started = [launch(*command, *node, *script, **options) for node in nodes]
    printed = [process.communicate(timeout=LIMIT)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(nodes), printed
    first = by_hand["loss"][0]
    assert read_log(tmp_path / "model", "loss") == [pytest.approx(first, abs=1e-5)]
    assert read_json(tmp_path / "model/results.json")["arguments"]["processes"] == processes


def test_a_preparation_that_fails_ends_the_processes_that_wait_for_it(tmp_path):
    copy_scripts(tmp_path, "time.sleep(3); sys.exit(2)")
    started = [popen("train_accelerate.py", cwd=tmp_path, **rank) for rank in ranks(2)]
    printed = [process.communicate(timeout=90)[0] for process in started]  # they wait for a day
    assert [process.returncode for process in started] == [2, 2], printed
    assert "error on process 1: another process has ended; see what it printed" in printed[1]
    assert f"{SAMPLE_DATA} is missing" in printed[0]


@pytest.mark.parametrize(("script", "precision"), [("accelerate", "no"), ("trainer", "fp16")])
def test_accelerate_launch_uses_all_cores_but_not_fp16(script, precision, eight_rows, tmp_path):
    main = tmp_path / "main.py"
    main.write_text(
        "import runpy, sys, torch\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "print('threads:', torch.get_num_threads())\n"
    )
    flags = ["--data", eight_rows, "--output-dir", tmp_path / "model", "--epochs", 1]
    started = launch("--mixed_precision", precision, main, f"train_{script}.py", *flags)
    printed = started.communicate(timeout=LIMIT)[0]
    if precision == "fp16":
        assert "--mixed_precision fp16 is not supported" in printed
        assert started.returncode == 1 and not (tmp_path / "model").exists()
    else:
        assert f"threads: {os.cpu_count()}\n" in printed  # the launcher sets one
