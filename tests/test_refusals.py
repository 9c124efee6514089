"""What is refused, with which line, and that nothing that was there before is lost."""

import importlib
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, copy_data, ranks, read_json, run
from datasets import Dataset, DatasetDict, load_from_disk
from hub import Hub
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import common

HEAD = "review_body,review_title,language,product_category\n"
GOOD = "I liked it,A good little book,en,book\n"
REMOTE = {"model_type": "mine", "auto_map": {"AutoConfig": "code.C"}, "architectures": ["C"]}
FILES = {  # what the rows below may find in their folder
    "good.csv": HEAD + GOOD + "I hated it,A bad little book,en,book\n",
    "one.csv": HEAD + GOOD,
    "short.csv": HEAD + "I liked it,Good book,en,book\n",
    "hole.csv": HEAD + 'ok,A good little book,en,book\n"",A bad little book,en,book\n',
    "latin1.csv": (HEAD + "un café,Un buen café solo,es,book\n").encode("latin-1"),
    "titles.csv": HEAD + "I liked it,5,en,book\n",
    "categories.csv": HEAD + "I liked it,A good little book,en,7\n",
    "codes.csv": HEAD + "I liked it,A good little book,1,book\n",
    "plain.csv": "review_body,review_title\nI liked it,A good little book\n",
    "summary.csv": "review_body,summary\nI liked it,Mine\n",
    "ragged.csv": HEAD + "I liked it,A good little book,en\n",
    "twice.csv": "review_body,review_body\nI liked it,I hated it\n",
    "lists.jsonl": '{"review_body": ["I"], "review_title": "A little book", "language": "en"}\n',
    "nulls.jsonl": '{"review_body": null, "review_title": "A little book", "language": "en"}\n',
    "broken.jsonl": '{"review_body": "ok", "review_title": \n',
    "raw/train/a.csv": "somebody's reviews",
    "raw/test/a.csv": "somebody's reviews",
    "notes/README.md": "somebody's notes",
    "other/results.json": '{"accuracy": 1}',
    "theirs/arguments.json": '{"learning_rate": 1}',  # of another program
    "ours/arguments.json": '{"preset": "sample"}',
    "ours/config.json": "{}",
    "ours/old/config.json": "{}",
    "torn/arguments.json": "{",
    "a_file": "somebody's file",
    "bad/config.json": "{",
    "remote/config.json": json.dumps(REMOTE),
    "remote/code.py": "open(r'{here}/executed', 'w').close()",
}
PREPARE = "--data {here}/ours_data --categories"
TRAIN = "--data {data} --output-dir {here}/model"
NEW_DATA = "--output-dir {here}/model --data {here}"
OURS = "was not written by this program"
REFUSED = [  # script, flags, words of the one line
    # flags
    ("prepare_data", "--frobnicate 1", ["--frobnicate"]),
    ("train_trainer", "--epochs many", ["--epochs", "many"]),
    ("train_accelerate", "--preset books", ["--preset", "sample", "amazon"]),
    ("train_trainer", "--epochs 0", ["--epochs 0 is less than 1"]),
    ("train_trainer", "--epochs -1", ["--epochs -1 is less than 1"]),
    ("train_accelerate", "--batch-size 0", ["--batch-size 0 is less than 1"]),
    ("train_accelerate", "--max-train-samples 0", ["--max-train-samples 0 is less than 1"]),
    ("train_trainer", "--save-steps -5", ["--save-steps -5 is less than 1"]),
    ("train_trainer", "--gradient-accumulation-steps 0", ["steps 0 is less than 1"]),
    (
        "train_trainer",
        f"--save-steps 9999 --epochs 2 {TRAIN}",
        ["--save-steps 9999 is more than all", "steps"],
    ),
    ("train_trainer", "--max-input-length 0", ["--max-input-length 0 is less than 1"]),
    ("predict", "--num-beams 0", ["--num-beams 0 is less than 1"]),
    ("train_trainer", "--learning-rate nan", ["--learning-rate nan is not a number from 0 up"]),
    ("train_trainer", "--learning-rate inf", ["--learning-rate inf is not a number from 0 up"]),
    ("train_accelerate", "--weight-decay -1", ["--weight-decay -1.0 is not a number from 0 up"]),
    ("train_trainer", "--seed -1", ["--seed -1 is not from 0 to 4294967295"]),
    ("prepare_data", "--seed 4294967296", ["--seed 4294967296 is not from 0 to 4294967295"]),
    ("prepare_data", "--validation-share -0.1", ["--validation-share -0.1 is not a number from 0"]),
    ("prepare_data", "--dataset ''", ["--dataset", "empty"]),
    ("train_trainer", "--output-dir ''", ["--output-dir", "empty"]),
    ("train_accelerate", "--push-to-hub ''", ["--push-to-hub", "empty"]),
    ("baseline", "--rouge stemmed", ["--rouge", "rouge_score_stemmer"]),
    ("train_trainer", "--report-to clearml", ["--report-to", "clearml", "none"]),
    ("train_accelerate", "--report-to none", ["unrecognized", "--report-to"]),
    ("predict", "hello --input {here}/good.csv", ["--input", "not allowed with", "text"]),
    ("predict", "--split test --input {here}/good.csv", ["not allowed with", "--split"]),
    ("predict", "--examples 1 --split test", ["not allowed with", "--examples"]),
    # where predict.py may write
    *[
        ("predict", f"--input {{here}}/{read} --output {{here}}/{written}", ["overwrite the input"])
        for read, written in [
            ("good.csv", "good.csv"),
            ("good.csv", "empty/../good.csv"),
            ("good.csv", "link.csv"),
            ("link.csv", "good.csv"),
        ]
    ],
    *[
        ("predict", f"hello --output {{here}}/{name}", [name, "is a link, a folder or a device"])
        for name in ("folder.csv", "link.csv", "pipe.csv")
    ],
    ("predict", "hello --output {here}/a_file/out.csv", ["there is no folder", "a_file"]),
    ("predict", "hello --output {here}/none/out.csv", ["there is no folder", "none"]),
    ("predict", "hello --output {here}/a_file", ["a_file must end in .csv or .jsonl"]),
    # reviews
    ("prepare_data", f"--dataset {{here}}/none.csv {PREPARE}", ["none.csv", "does not exist"]),
    (
        "prepare_data",
        f"--dataset {{here}}/empty {PREPARE}",
        ["empty has no files of the types .csv"],
    ),
    (
        "prepare_data",
        f"--dataset {{here}}/short.csv {PREPARE}",
        ["no review", "fewer than 3 words"],
    ),
    ("prepare_data", f"--dataset {{here}}/codes.csv {PREPARE}", ["no review", "--languages"]),
    *[
        (
            "prepare_data",
            f"--dataset {{here}}/{name}.csv {PREPARE} --validation-share {share}",
            ["--validation-share", reason],
        )
        for name, share, reason in [
            ("one", "0.1", "n_samples=1"),
            ("good", "1", "should be either"),
            ("good", "40", "should be either"),
        ]
    ],
    (
        "prepare_data",
        "--dataset {here}/good.csv --data {here}/ours_data --languages de",
        ["no review", "--languages"],
    ),
    ("prepare_data", "--dataset {here}/good.csv", ["--dataset needs --data"]),
    (
        "prepare_data",
        "--dataset {here}/good.csv --data ./data/prepared/sample/",
        ["--dataset needs --data"],
    ),
    (
        "prepare_data",
        f"--dataset {{here}}/good.csv {PREPARE} --text-column body",
        ["has the columns review_body"],
    ),
    (
        "prepare_data",
        "--dataset {here}/plain.csv --data {here}/ours_data --languages en",
        ["no review", "1 not of --categories"],
    ),
    ("prepare_data", f"--dataset {{here}}/plain.csv {PREPARE}", ["no column 'language'"]),
    ("prepare_data", f"--dataset {{here}}/ragged.csv {PREPARE}", ["line 2: 3 values for 4 col"]),
    ("prepare_data", f"--dataset {{here}}/twice.csv {PREPARE}", ["two columns 'review_body'"]),
    ("prepare_data", f"--dataset {{here}}/latin1.csv {PREPARE}", ["latin1.csv", "UTF-8"]),
    ("prepare_data", f"--dataset {{here}}/broken.jsonl {PREPARE}", ["broken.jsonl", "JSON"]),
    ("prepare_data", f"--dataset {{here}}/titles.csv {PREPARE}", ["fewer than 3 words"]),
    ("prepare_data", f"--dataset {{here}}/lists.jsonl {PREPARE}", ["'review_body' holds a list"]),
    ("prepare_data", f"--dataset {{here}}/nulls.jsonl {PREPARE}", ["1 without a review"]),
    (
        "prepare_data",
        "--dataset {here}/categories.csv --data {here}/ours_data",
        ["no review", "1 not of --categories"],
    ),
    ("predict", "--model {model} --input {here}/none.txt", ["none.txt", "--input"]),
    ("predict", "--model {model} --input {here}/latin1.csv", ["latin1.csv", "UTF-8"]),
    ("predict", "--model {model} --input {here}/good.csv --text-column body", ["body", "--text-c"]),
    ("predict", "--model {model} --input {here}/raw", ["cannot read --input", "raw"]),
    ("predict", "--model {model} --input {here}/broken.jsonl", ["broken.jsonl, line 1 is not"]),
    ("predict", "--model {model} --input {here}/summary.csv", ["'summary'", "rename"]),
    # prepared data
    ("predict", "--model {model} Good --language spanish", ["not the code of a language; give es"]),
    ("predict", "--model {model} --data {data} --examples 9999", ["--examples", "rows 0 to"]),
    ("predict", "--model {model} --data {data} --examples -1", ["--examples", "rows 0 to"]),
    ("predict", "--model {model} --data {here}/no_validation --split test", ["no split test"]),
    ("train_trainer", f"{NEW_DATA}/no_validation", ["no split validation, only train"]),
    ("train_accelerate", f"{NEW_DATA}/torn_arguments", ["torn_arguments/arguments.json", "delete"]),
    ("train_trainer", f"{NEW_DATA}/no_arguments", ["no_arguments was not made by prepare_data.py"]),
    ("train_trainer", f"{NEW_DATA}/no_dataset", ["no_dataset was not made by prepare_data.py"]),
    *[
        (script, f"{NEW_DATA}/{name}", [f"{name}: {words}"])
        for script in ("train_trainer", "train_accelerate")
        for name, words in [
            ("other_columns", "train has no column 'review_title' of texts"),
            ("null_title", "1 rows of validation have no 'review_title'"),
            ("empty_split", "list index out of range; make it again with prepare_data.py"),
        ]
    ],
    *[
        (script, f"{NEW_DATA}/empty", ["empty holds no prepared data", "prepare_data.py"])
        for script in ("baseline", "train_trainer", "train_accelerate")
    ],
    # checkpoints
    ("train_trainer", f"{TRAIN} --model {{here}}/bad", ["bad", "--model"]),
    ("train_accelerate", f"{TRAIN} --model {{here}}/empty", ["empty", "--model"]),
    ("predict", "--model {here}/bad hello", ["bad", "--model"]),
    ("train_trainer", f"{TRAIN} --model {{here}}/no_decoder", ["decoder", "lacks", "random"]),
    ("predict", "--model {here}/no_decoder hello", ["decoder", "lacks", "random"]),
    ("train_accelerate", f"{TRAIN} --model {{here}}/no_tokenizer", ["no_tokenizer", "tokenizer"]),
    ("predict", "--model {here}/no_tokenizer hello", ["no_tokenizer", "tokenizer"]),
    ("predict", "--model user/nowhere hello", ["user/nowhere", "--model"]),
    # folders that are not ours
    ("prepare_data", "--data {here}/raw", ["raw", OURS, "another folder"]),
    ("prepare_data", "--dataset {here}/raw --data {here}/raw", ["overlaps", "raw"]),
    ("prepare_data", "--dataset {here}/raw --data {here}/raw/new", ["overlaps", "raw"]),
    ("prepare_data", "--dataset {here}/good.csv --data {here}", ["overlaps", "good.csv"]),
    ("prepare_data", "--data {here}/torn", ["cannot read", "torn/arguments.json"]),
    ("prepare_data", "--data {here}/theirs", ["theirs", OURS]),
    ("train_trainer", "--data {data} --output-dir {here}/notes", ["notes", OURS]),
    ("train_accelerate", "--data {data} --output-dir {here}/notes", ["notes", OURS]),
    ("train_trainer", "--data {data} --output-dir {here}/other", ["other", OURS]),
    ("baseline", "--data {data} --output-dir {here}/notes", ["notes", OURS]),
    ("baseline", "--data {data} --output-dir {data}", ["overlaps", "which is read"]),
    ("train_accelerate", "--data {data} --output-dir .", [OURS, "another folder"]),
    (
        "train_trainer",
        "--data {data} --output-dir {here}/a_file",
        ["a_file is a file", "name a folder"],
    ),
    ("train_accelerate", "--data {data} --output-dir {here}/a_file/model", ["a_file/model"]),
    ("train_trainer", f"--data {{data}} --output-dir {{here}}/{'long' * 80}", ["name too long"]),
    ("train_accelerate", "--data {data} --output-dir {data}/model", ["overlaps"]),
    ("train_accelerate", "--data {data} --model {model} --output-dir {model}", ["overlaps"]),
    (
        "train_trainer",
        "--data {data} --model {model} --output-dir {here}/link_to_model",
        ["link_to_model overlaps"],
    ),
]


@pytest.fixture(scope="module")
def small(prepared, tmp_path_factory):
    """Prepared data of a few rows, and in it tiny-mt5, on which a training takes seconds."""
    return copy_data(prepared[0], tmp_path_factory.mktemp("small") / "data", train=48, validation=8)


@pytest.fixture(scope="module")
def here(tmp_path_factory, small):
    """A folder with FILES, an empty folder, and checkpoints and prepared data that lack a part."""
    here = tmp_path_factory.mktemp("here")
    (here / "empty").mkdir()
    for name, content in FILES.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.replace("{here}", str(here)).encode()
        (here / name).write_bytes(content)
    (here / "link.csv").symlink_to(here / "good.csv")
    (here / "link_to_model").symlink_to(small / "tiny-mt5")
    (here / "folder.csv").mkdir()
    os.mkfifo(here / "pipe.csv")
    for name in ("no_decoder", "no_tokenizer", "remote_tokenizer"):
        shutil.copytree(small / "tiny-mt5", here / name)
    weights = load_file(small / "tiny-mt5/model.safetensors")
    kept = {key: value for key, value in weights.items() if "decoder" not in key}
    save_file(kept, here / "no_decoder/model.safetensors", metadata={"format": "pt"})
    for file in ("tokenizer.json", "spiece.model", "tokenizer_config.json"):
        (here / "no_tokenizer" / file).unlink(missing_ok=True)
    shutil.copy(here / "remote/code.py", here / "remote_tokenizer")
    settings = read_json(here / "remote_tokenizer/tokenizer_config.json")
    settings |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["code.C", None]}}
    common.write_json(here / "remote_tokenizer/tokenizer_config.json", settings)
    train = load_from_disk(small)["train"].select(range(20))
    DatasetDict({"train": train}).save_to_disk(here / "no_validation")
    shutil.copy(small / "arguments.json", here / "no_validation")
    for name in ("torn_arguments", "no_arguments", "no_dataset"):
        DatasetDict({"train": train, "validation": train}).save_to_disk(here / name)
    books = {
        "other_columns": [train.rename_column("review_title", "title"), train],
        "null_title": [
            train,
            train.map(
                lambda row, i: row | {"review_title": None if i == 7 else "A"}, with_indices=True
            ),
        ],
        "empty_split": [train, train.select([])],
    }
    for name, (first, second) in books.items():
        DatasetDict({"train": first, "validation": second}).save_to_disk(here / name)
        shutil.copy(small / "arguments.json", here / name)
    (here / "torn_arguments/arguments.json").write_text('{"preset": ')
    (here / "no_dataset/arguments.json").write_text('{"preset": "sample"}')
    return here


def snapshot(folder):
    """Return {path: bytes} of all files below a folder; empty folders do not count."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(script, flags, monkeypatch, capsys):
    """Run the script's ``main()`` with ``flags``; return its one line."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags])
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    handler = signal.getsignal(signal.SIGTERM)
    module = importlib.import_module(script)
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as exit_, common.command_line():
            module.main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{script}.py: error: ")]
    return line


@pytest.mark.parametrize(
    ("script", "flags", "words"), REFUSED, ids=[f"{row[0]} {row[1]}"[:90] for row in REFUSED]
)
def test_one_line_says_what_is_wrong_and_nothing_is_lost(
    script, flags, words, here, small, monkeypatch, capsys
):
    monkeypatch.chdir(here)
    before = snapshot(here)
    flags = flags.format(here=here, data=small, model=small / "tiny-mt5")
    line = refusal(script, [flag.strip("'") for flag in flags.split(" ")], monkeypatch, capsys)
    assert all(word in line for word in words), line
    assert snapshot(here) == before


def test_titles_that_cannot_be_written_whole_leave_the_old_ones(
    here, small, tmp_path, monkeypatch, capsys
):
    dumps = json.dumps

    def fail_at_the_second(content, **options):
        if isinstance(content, dict) and content.get("review_body") == "I hated it":
            raise OSError(28, "No space left on device")
        return dumps(content, **options)

    monkeypatch.setattr(json, "dumps", fail_at_the_second)
    titles = tmp_path / "titles.jsonl"
    titles.write_text("old titles")
    flags = ["--model", small / "tiny-mt5", "--input", here / "good.csv", "--output", titles]
    assert "No space left" in refusal("predict", list(map(str, flags)), monkeypatch, capsys)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old titles"]


@pytest.mark.parametrize("obstacle", ["a link", "a folder"])
def test_what_is_in_the_way_of_a_new_file_leaves_the_old_ones(obstacle, tmp_path, capsys):
    key, other = tmp_path / "config.json", tmp_path / "log.csv"
    key.write_text("old")
    other.symlink_to(key) if obstacle == "a link" else other.mkdir()
    with pytest.raises(SystemExit), common.new_files(tmp_path) as folder:
        for name in ("config.json", "log.csv"):
            (folder / name).write_text("new")
    assert f"{other} is in the way" in capsys.readouterr().err
    assert key.read_text() == "old" and set(tmp_path.iterdir()) == {key, other}


COMMANDS = [  # the same through the real command, from the root of the project
    ("predict.py", "--modle x", "predict.py: error: unrecognized arguments: --modle"),
    ("prepare_data.py", "--validation-share nan", "nan is not a number from 0 up"),
    ("prepare_data.py", "--data data", "data overlaps data/sample"),
    ("baseline.py", "--output-dir tests", f"tests {OURS}"),
    ("baseline.py", "--data data --output-dir {new}", "data holds no prepared data"),
    ("train_trainer.py", "--seed -1", "-1 is not from 0 to 4294967295"),
    ("train_trainer.py", "--data {data} --output-dir .", OURS),
    ("train_accelerate.py", "--data {data} --output-dir README.md", "README.md is a file"),
    ("train_accelerate.py", "--epochs 0", "--epochs 0 is less than 1"),
    ("predict.py", "hello", "run train_trainer.py --preset sample"),
    ("predict.py", "--preset amazon hello", "run train_trainer.py --preset amazon"),
]


@pytest.mark.parametrize(("script", "flags", "words"), COMMANDS)
def test_the_command_ends_with_one_line_and_code_2(script, flags, words, small, tmp_path):
    if "hello" in flags and (ROOT / "results").exists():
        pytest.skip("a model was trained in this folder")
    flags = flags.format(new=tmp_path / "new", data=small).split()
    result = run(script, *flags, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert words in [line for line in result.stderr.splitlines() if ": error: " in line][0]


ALLOCATE = "you tried to allocate 4000000 bytes. Error code 12"
ENDINGS = [  # an error, and how the one line that says it ends; None if it keeps its traceback
    (OSError(28, "No space left on device"), "device; check the path, its permissions and the"),
    (
        PermissionError(13, "Permission denied", "a"),
        "check the path, its permissions and the space",
    ),
    (RuntimeError("PytorchStreamWriter failed writing file"), "and the space on the disk"),
    (SafetensorError("I/O error: No space left (os error 28)"), "and the space on the disk"),
    (SafetensorError("I/O error: Cannot allocate memory (os error 12)"), "a smaller --batch-size"),
    (OSError(12, "Cannot allocate memory"), "out of memory: [Errno 12] Cannot allocate memory; "),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "out of memory: CUDA"),
    (RuntimeError(f"DefaultCPUAllocator: can't allocate memory: {ALLOCATE}"), "out of memory: D"),
    (MemoryError(), "out of memory: MemoryError; give less data, or a smaller --batch-size"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    (ValueError("a bug"), None),
]


@pytest.mark.parametrize(("error", "words"), ENDINGS, ids=[str(row[0])[:40] for row in ENDINGS])
def test_the_one_line_is_true_of_the_error(error, words, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)  # the handler of pytest stays
    with pytest.raises(SystemExit if words else type(error)), common.command_line():
        raise error
    assert (words or "") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "out of memory: "),
        (RuntimeError("PytorchStreamReader failed"), "cannot load a: PytorchStreamReader failed; "),
        (FileNotFoundError(2, "No such file", "allocated.csv"), "cannot load a: [Errno 2] No such"),
        (KeyError("weights"), "cannot load a: 'weights'; name b"),
    ],
)
def test_a_lack_of_memory_is_not_a_bad_file(error, words, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    with (
        pytest.raises(SystemExit, match="2"),
        common.command_line(),
        common.explain_errors("cannot load a", "name b"),
    ):
        raise error
    assert words in capsys.readouterr().err


def start(*command, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell lets what it starts in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("train_accelerate.py", "--data {data} --output-dir {here}/notes", OURS),
        (
            "train_accelerate.py",
            "--data {data} --learning-rate 1e30 --batch-size 4",
            "lower --learning-rate",
        ),
        pytest.param(
            "train_trainer.py",
            "--data {data} --learning-rate 1e30 --batch-size 4",
            "lower --learning-rate",
            marks=pytest.mark.full,
        ),
    ],
)
def test_each_of_two_processes_ends_with_its_own_line(script, flags, words, here, small, tmp_path):
    flags = f"--output-dir {tmp_path}/model --epochs 1 {flags}".format(here=here, data=small)
    processes = [start(script, *flags.split(), **rank) for rank in ranks(2)]
    for rank, process in enumerate(processes):
        printed = process.communicate(timeout=120)[0]
        assert process.returncode == 2 and "Traceback" not in printed
        (line,) = [line for line in printed.splitlines() if ": error" in line]
        assert line.startswith(f"{script}: error on process {rank}: ") and words in line


def test_torn_data_of_ones_own_are_not_filled_with_the_sample(monkeypatch, capsys, tmp_path):
    torn = tmp_path / "data/prepared/sample/arguments.json"  # as a killed prepare_data.py leaves it
    torn.parent.mkdir(parents=True)
    torn.write_text('{"preset": "sample", "dataset": "my.csv"}')
    monkeypatch.chdir(tmp_path)
    line = refusal("baseline", [], monkeypatch, capsys)
    assert "data/prepared/sample holds no prepared data" in line
    assert snapshot(tmp_path) == {torn: b'{"preset": "sample", "dataset": "my.csv"}'}


# ---- what data may not do ----------------------------------------------------------------------


class Executes:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def mark_unfinished(output):
    """Make a finished run look as if it had been killed after its last checkpoint."""
    arguments = read_json(output / "arguments.json")
    common.write_json(output / "arguments.json", {**arguments, "finished": False})


def test_no_pickle_of_a_model_is_executed(small, tmp_path, monkeypatch, capsys):
    mark, model = tmp_path / "executed", tmp_path / "model"
    shutil.copytree(small / "tiny-mt5", model)
    (model / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training_args.bin", "tokenizer.pkl"):
        (model / name).write_bytes(pickle.dumps(Executes(mark)))
    assert "--model" in refusal("predict", ["--model", str(model), "hello"], monkeypatch, capsys)
    flags = ["--data", str(small), "--model", str(model), "--output-dir", str(tmp_path / "out")]
    assert "--model" in refusal("train_accelerate", flags, monkeypatch, capsys)
    assert not mark.exists()


@pytest.mark.parametrize("script", ["train_trainer.py", "train_accelerate.py"])
def test_no_pickle_of_a_checkpoint_is_executed(script, small, tmp_path):
    executed, output = tmp_path / "executed", tmp_path / "output"
    flags = ["--data", small, "--output-dir", output, "--epochs", 1]
    run(script, *flags)
    (checkpoint,) = common.find_checkpoints(output)
    whole = tmp_path / "whole"
    shutil.copytree(checkpoint, whole)
    pickles = [
        path.name for path in whole.iterdir() if path.suffix not in (".json", ".safetensors")
    ]
    assert len(pickles) > 2
    for name in [*pickles, "custom_checkpoint_0.pkl"]:
        shutil.rmtree(checkpoint)
        shutil.copytree(whole, checkpoint)
        mark_unfinished(output)
        torch.save(Executes(executed), checkpoint / name)
        result = run(script, *flags, "--resume", check=False)
        assert not executed.exists() and "Traceback" not in result.stderr, name
        if name == "training_args.bin":  # which is not read
            assert "Going on from" in result.stdout
        elif name == "custom_checkpoint_0.pkl":
            assert f"no script here wrote {checkpoint / name}; delete it" in result.stderr
        else:
            assert f"cannot read {checkpoint / name}: it would run " in result.stderr


@pytest.mark.parametrize("checkpoint", ["remote", "remote_tokenizer"])
@pytest.mark.parametrize(
    "script", ["predict.py", "train_trainer.py", "train_accelerate.py", "prepare_data.py"]
)
def test_no_code_of_a_checkpoint_is_executed_even_if_standard_input_says_y(
    script, checkpoint, here, small, tmp_path
):
    flags = {
        "predict.py": ["-"],
        "prepare_data.py": ["--dataset", here / "good.csv", "--languages", "en"],
    }
    flags = flags.get(script, ["--output-dir", tmp_path / "model", "--epochs", 1])
    data = tmp_path / "data" if script == "prepare_data.py" else small
    flags = [*flags, "--data", data, "--model", here / checkpoint]
    result = run(script, *flags, stdin="y\ny\ny\n", check=False)
    assert not (here / "executed").exists()
    assert result.returncode == 0 or "cannot load --model" in result.stderr
    if checkpoint == "remote":
        assert result.returncode == 2


def test_a_password_in_an_address_is_not_shown(tmp_path):
    endpoint = "http://user:secret@127.0.0.1:9"
    environment = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    flags = ["--model", "google/mt5-small", "A book."]
    result = run("predict.py", *flags, check=False, **environment)
    assert result.returncode == 2 and "127.0.0.1:9" in result.stderr
    assert "secret" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ñ 本 😀\nnew line", "plain ñ 本 😀\nnew line"),
        ("\x1b[31mred", "\\u001b[31mred"),
        ("abc\u202edef", "abc\\u202edef"),
        ("bell\x07", "bell\\u0007"),
    ],
)
def test_text_cannot_steer_the_terminal(text, shown):
    assert common.printable(text) == shown


def test_reviews_are_printed_escaped(small):
    printed = run("predict.py", "--model", small / "tiny-mt5", "good\x1b[2J book \u202e").stdout
    assert "\\u001b[2J" in printed and "\x1b" not in printed and "\u202e" not in printed


# ---- runs that meet in one folder --------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """{script: folder of a run of one epoch that has finished}; its tests work on a copy."""
    folders = {}
    for script in ("train_trainer.py", "train_accelerate.py"):
        folders[script] = tmp_path_factory.mktemp("finished") / "model"
        run(script, "--data", small, "--output-dir", folders[script], "--epochs", 1)
    return folders


@pytest.mark.parametrize("script", ["train_trainer.py", "train_accelerate.py"])
def test_a_finished_run_is_replaced_and_what_is_not_of_it_stays(script, small, finished, tmp_path):
    output = tmp_path / "model"
    shutil.copytree(finished[script], output)
    scores = read_json(output / "results.json")["scores"]["all"]["model"]["rouge1"]["f1"]
    before = snapshot(output)
    flags = ["--data", small, "--output-dir", output, "--epochs", 1]
    for processes in (1, 2):  # --resume only prints the scores, on one of the processes
        printed = run(script, *flags, "--seed", 1, "--resume", processes=processes).stdout
        assert f"{scores:.2f} [" in printed and printed.count("holds a finished run") == 1
        assert snapshot(output) == before
    mine = [output / name for name in ("notes.txt", "checkpoint-notes/a.json", "runs/b.txt")]
    if script == "train_accelerate.py":  # the Trainer itself counts each checkpoint-<number>
        mine.append(output / "checkpoint-500/c.bin")
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("somebody's")
    (output / f"{common.TEMPORARY}of-a-killed-run").mkdir()
    run(script, *flags, "--seed", 1)
    assert all(path.read_text() == "somebody's" for path in mine)
    assert read_json(output / "results.json")["arguments"]["seed"] == 1
    assert (output / "model.safetensors").read_bytes() != before[output / "model.safetensors"]
    assert not list(output.glob(f"{common.TEMPORARY}*"))


DAMAGES = [
    ("train_trainer", "model.safetensors", "half", "cannot read {checkpoint}/model.safetensors: "),
    ("train_trainer", "optimizer.pt", "half", "cannot read {checkpoint}/optimizer.pt: "),
    ("train_trainer", "scheduler.pt", "a pickle", "cannot read {checkpoint}/scheduler.pt: "),
    ("train_trainer", "rng_state.pth", "half", "cannot read {checkpoint}/rng_state.pth: "),
    ("train_trainer", "config.json", "no JSON", "cannot read {checkpoint}/config.json: "),
    ("train_trainer", "optimizer.pt", "gone", "{checkpoint} has no file optimizer.*; "),
    ("train_accelerate", "model.safetensors", "a pickle", "cannot read {checkpoint}/model.safe"),
    ("train_accelerate", "optimizer.bin", "a pickle", "cannot read {checkpoint}/optimizer.bin: "),
    ("train_accelerate", "scheduler.bin", "half", "cannot read {checkpoint}/scheduler.bin: "),
    ("train_accelerate", "random_states_0.pkl", "half", "cannot read {checkpoint}/random_states_0"),
    ("train_accelerate", "model.safetensors", "gone", "{checkpoint} has no file *.safetensors; "),
    ("train_accelerate", "random_states_0.pkl", "gone", "{checkpoint} has no file r*_state*; "),
]


@pytest.mark.parametrize(("script", "file", "how", "words"), DAMAGES)
def test_a_damaged_checkpoint_is_named_before_the_training(
    script, file, how, words, small, finished, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "model"
    shutil.copytree(finished[f"{script}.py"], output)
    mark_unfinished(output)
    (checkpoint,) = common.find_checkpoints(output)
    if how == "half":
        os.truncate(checkpoint / file, (checkpoint / file).stat().st_size // 2)
    elif how == "no JSON":
        (checkpoint / file).write_text("{")
    elif how == "a pickle":
        (checkpoint / file).write_bytes(pickle.dumps(Executes(tmp_path / "executed")))
    else:
        (checkpoint / file).unlink()
    before = snapshot(tmp_path)
    flags = ["--data", small, "--output-dir", output, "--epochs", 1, "--resume"]
    line = refusal(script, list(map(str, flags)), monkeypatch, capsys)
    assert words.format(checkpoint=checkpoint) in line
    assert line.endswith(f"; delete {checkpoint} and use --resume again")
    assert snapshot(tmp_path) == before


def test_data_that_was_changed_in_place_is_not_trained_on(
    small, finished, tmp_path, monkeypatch, capsys
):
    output, data = tmp_path / "model", tmp_path / "data"
    shutil.copytree(finished["train_trainer.py"], output)
    books = load_from_disk(small)
    books["train"] = books["train"].map(lambda row: {"review_title": row["review_title"].upper()})
    books.save_to_disk(data)
    shutil.copy(small / "arguments.json", data)
    earlier = read_json(output / "arguments.json") | {"data": str(data), "finished": False}
    common.write_json(output / "arguments.json", earlier)
    flags = ["--data", data, "--output-dir", output, "--epochs", 1, "--resume"]
    flags += ["--model", earlier["model"]]
    line = refusal("train_trainer", list(map(str, flags)), monkeypatch, capsys)
    assert f"the run was started with data_checksum {earlier['data_checksum']}, not " in line


# ---- killed while files are replaced -----------------------------------------------------------


def kill_at(moment, script, *flags):
    """Run a script that is killed at the n-th change below its folder; return its exit code."""
    return run(ROOT / "tests/kill_at.py", script, moment, *flags, check=False).returncode


def restore(folder, earlier):
    shutil.rmtree(folder, ignore_errors=True)
    if earlier.exists():
        shutil.copytree(earlier, folder)


@pytest.mark.slow
@pytest.mark.parametrize("earlier_run", [True, False])
def test_a_killed_preparation_leaves_no_mixture(earlier_run, tmp_path):
    for name, count in (("old", 40), ("new", 60)):
        rows = [
            {"review_body": f"Book {n} was good", "review_title": f"A good book {n}"}
            for n in range(count)
        ]
        Dataset.from_list(rows).to_csv(tmp_path / f"{name}.csv")
    flags = ["--languages", "en", "--categories", "--data", tmp_path / "data", "--dataset"]
    if earlier_run:
        run("prepare_data.py", *flags, tmp_path / "old.csv")
        shutil.copytree(tmp_path / "data", tmp_path / "earlier")
    moment, torn = 1, 0
    while (code := kill_at(moment, "prepare_data", *flags, tmp_path / "new.csv")) == 9:
        if (tmp_path / "data/dataset_dict.json").exists():
            rows = len(load_from_disk(tmp_path / "data")["train"])
            corpus = str(tmp_path / f"{'old' if rows == 40 else 'new'}.csv")
            assert read_json(tmp_path / "data/arguments.json")["dataset"] == corpus
        else:
            torn += 1
            common.check_folder(tmp_path / "data")  # the same command may write to it again
            assert not list((tmp_path / "data").glob(f"{common.TEMPORARY}*"))
        if torn == 3:
            run("prepare_data.py", *flags, tmp_path / "old.csv")
            assert len(load_from_disk(tmp_path / "data")["train"]) == 40
        restore(tmp_path / "data", tmp_path / "earlier")
        moment += 1
    assert code == 0 and torn > 3
    assert len(load_from_disk(tmp_path / "data")["train"]) == 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [pytest.param("train_trainer", marks=pytest.mark.full), "train_accelerate"]
)
def test_a_run_that_is_killed_while_it_saves_ends_the_same_when_it_is_resumed(
    script, small, finished, tmp_path
):
    output, reference = tmp_path / "model", tmp_path / "reference/model"
    flags = ["--data", small, "--epochs", 1, "--seed", 2, "--output-dir"]
    run(f"{script}.py", *flags, reference)
    weights = (reference / "model.safetensors").read_bytes()
    moment, resumed, over = 1, 0, False
    while not over:
        restore(output, finished[f"{script}.py"])  # the run before, with seed 42
        over = kill_at(moment, script, *flags, output) == 0
        if (output / "config.json").exists():  # no mixture of the two runs can be loaded
            new = (output / "model.safetensors").read_bytes() == weights
            results = output / "results.json"
            assert not results.exists() or read_json(results)["arguments"]["seed"] == (
                2 if new else 42
            )
        if read_json(output / "arguments.json")["seed"] == 2:
            run(f"{script}.py", *flags, output, "--resume")
            assert read_json(output / "arguments.json")["finished"]
            same = ["model.safetensors", "config.json", "generation_config.json", "results.json"]
            if script == "train_accelerate":  # the Trainer's log has times
                same.append("log.csv")
            for file in same:
                written = (output / file).read_text("latin-1").replace(str(output), str(reference))
                if file == "results.json":
                    written = written.replace('"resume": true', '"resume": false')
                assert written == (reference / file).read_text("latin-1"), file
            assert not list(output.glob(f"{common.TEMPORARY}*"))
            resumed += 1
        moment += 3
    assert moment > 15 and resumed > 4


# ---- full disks, terminals, pipes, signals -----------------------------------------------------


@pytest.mark.parametrize(
    ("script", "megabytes"),  # of the largest file: weights take 5, the optimizer's moments 10
    [pytest.param("train_trainer.py", 6, marks=pytest.mark.full), ("train_accelerate.py", 2)],
)
def test_a_full_disk_is_one_line_and_loses_nothing(script, megabytes, small, finished, tmp_path):
    output = tmp_path / "model"
    shutil.copytree(finished[script], output)
    before = snapshot(output)
    flags = ["--data", small, "--output-dir", output, "--epochs", 1, "--seed", 1]
    result = subprocess.run(
        [sys.executable, script, *map(str, flags)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes << 20,) * 2),
    )
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "the space on the disk" in result.stderr.splitlines()[-1]
    for name in ("model.safetensors", "config.json", "results.json"):  # the finished run before
        assert (output / name).read_bytes() == before[output / name]
    run(script, *flags, "--resume")
    assert read_json(output / "arguments.json")["finished"]


def test_head_an_ascii_terminal_and_closed_streams(small):
    command = f"{sys.executable} predict.py --model {small / 'tiny-mt5'} --data {small}"
    shell = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True, "shell": True}
    shell["env"] = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(f"{command} --examples $(seq 0 40) | head -2", **shell)
    assert result.returncode == 0 and "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr and "'>>> Review: " in result.stdout
    assert "\\x" in subprocess.run(f"{command} '¿Qué tal?'", **shell).stdout
    result = subprocess.run(f"{command} - <&-", **shell)
    assert result.returncode == 2 and "standard input is closed" in result.stderr
    result = subprocess.run(f"{command} 'A book.' >&-", **shell)
    assert result.returncode == 0 and "Traceback" not in result.stderr


def wait_for(path):
    for _ in range(30_000):
        if path.exists():
            return
        time.sleep(0.002)
    raise AssertionError(f"{path} did not come")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)]
)
def test_ctrl_c_is_one_line(number, reviews, tmp_path):
    process = start("prepare_data.py", "--dataset", reviews, "--data", tmp_path / "data")
    wait_for(tmp_path / "data")
    for _ in range(400):  # Python drops a Ctrl-C that comes in a destructor, so try again
        if process.poll() is not None:
            break
        process.send_signal(number)
        time.sleep(0.3)
    printed = process.communicate(timeout=1)[0]
    assert process.returncode == 130 and "Traceback" not in printed
    assert printed.splitlines()[-1] == "prepare_data.py: stopped"


@pytest.mark.parametrize(
    "script", [pytest.param("train_trainer.py", marks=pytest.mark.full), "train_accelerate.py"]
)
def test_ctrl_c_ends_both_processes_and_the_run_can_be_resumed(script, small, tmp_path):
    flags = ["--data", small, "--output-dir", tmp_path / "model"]
    processes = [start(script, *flags, "--epochs", 500, **rank) for rank in ranks(2)]
    name = "trainer_state.json" if script == "train_trainer.py" else "progress.json"
    wait_for(tmp_path / "model" / f"checkpoint-{2 if script == 'train_trainer.py' else 1}" / name)
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        printed = process.communicate(timeout=60)[0]
        assert process.returncode == 130 and f"{script}: stopped" in printed
        assert "Traceback" not in printed
    assert common.find_checkpoints(tmp_path / "model")


# ---- the Hub -----------------------------------------------------------------------------------


def test_an_error_of_one_process_ends_both(small, tmp_path):
    """Only the first process speaks to the Hub, which refuses its token."""
    flags = ["--data", small, "--output-dir", tmp_path / "model", "--push-to-hub", "user/titles"]
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", 2]
    with Hub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        environment |= {"HF_TOKEN": "hf_refused", "ACCELERATE_USE_CPU": "true"}
        result = run(*torchrun, "train_accelerate.py", *flags, check=False, **environment)
    assert result.returncode != 0
    lines = re.findall(r"^train_accelerate.py: error on process .*", result.stderr, re.MULTILINE)
    # torchrun may end the other process before it can say anything.
    said = {line.split(": ")[1]: line.split(": ")[2] for line in lines}
    assert said.pop("error on process 0") == "cannot push to user/titles"
    assert said in ({}, {"error on process 1": "another process has ended; see what it printed"})


# ---- input that must be read as it is ----------------------------------------------------------


def test_shell_patterns_in_a_path_mean_nothing(tmp_path):
    source = tmp_path / "of[mine]" / "a[1]*.csv"
    source.parent.mkdir()
    source.write_text(FILES["good.csv"])
    source.with_name("a1b.csv").write_text(FILES["hole.csv"])
    run("prepare_data.py", "--dataset", source, "--data", tmp_path / "data", "--languages", "en")
    assert len(load_from_disk(tmp_path / "data")["train"]) == 2


def test_new_content_under_the_same_name_and_time_is_read(tmp_path):
    source, data = tmp_path / "own.csv", tmp_path / "data"
    for title in ("A good little book", "A fair little book"):
        source.write_text(HEAD + f"I liked it,{title},en,book\n")
        os.utime(source, (1e9, 1e9))
        run("prepare_data.py", "--dataset", source, "--data", data, "--languages", "en")
        assert load_from_disk(data)["train"]["review_title"][:] == [title]


def test_a_field_of_any_length_is_read(small, tmp_path):
    source, output = tmp_path / "long.csv", tmp_path / "out.jsonl"
    source.write_text(f'review_body\n"{"word " * 40_000}"\n')
    run("predict.py", "--model", small / "tiny-mt5", "--input", source, "--output", output)
    assert len(json.loads(output.read_text())["review_body"]) == len("word " * 40_000)
