"""What is refused, with which line, and that nothing that was there before is lost."""

import importlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ENVIRONMENT, ROOT, read_json, run
from datasets import Dataset, DatasetDict, load_from_disk
from hub import Hub
from safetensors.torch import load_file, save_file

import common

HEAD = "review_body,review_title,language,product_category\n"
FILES = {  # what the rows below may find in their folder
    "good.csv": HEAD + "I liked it,A good little book,en,book\nI hated it,A bad little book,en,book\n",
    "one.csv": HEAD + "I liked it,A good little book,en,book\n",
    "short.csv": HEAD + "I liked it,Good book,en,book\n",
    "hole.csv": HEAD + 'ok,A good little book,en,book\n"",A bad little book,en,book\n',
    "latin1.csv": (HEAD + "un café,Un buen café solo,es,book\n").encode("latin-1"),
    "numbers.csv": HEAD + "12,A good little book,en,book\n",
    "titles.csv": HEAD + "I liked it,5,en,book\n",
    "categories.csv": HEAD + "I liked it,A good little book,en,7\n",
    "codes.csv": HEAD + "I liked it,A good little book,1,book\n",
    "plain.csv": "review_body,review_title\nI liked it,A good little book\n",
    "summary.csv": "review_body,summary\nI liked it,Mine\n",
    "lists.jsonl": '{"review_body": ["I", "liked"], "review_title": "A good little book", "language": "en"}\n',
    "nulls.jsonl": '{"review_body": null, "review_title": "A good little book", "language": "en"}\n',
    "broken.jsonl": '{"review_body": "ok", "review_title": \n',
    "nothing.txt": "",
    "raw/train/a.csv": "somebody's reviews",
    "raw/test/a.csv": "somebody's reviews",
    "notes/README.md": "somebody's notes",
    "other/results.json": '{"accuracy": 1}',
    "ours/config.json": "{}",
    f"ours/{common.LOCK}": "",  # what marks a folder as written by us
    "torn/arguments.json": "{",
    "a_file": "somebody's file",
    "bad/config.json": "{",
    "remote/config.json": '{"model_type": "mine", "auto_map": {"AutoConfig": "code.C"}, "architectures": ["C"]}',
    "remote/code.py": "open(r'{here}/executed', 'w').close()",
}
BOOKS = "--data {here}/ours_data"
PREPARE = f"{BOOKS} --categories"
TRAIN = "--data {data} --output-dir {here}/model"
REFUSED = [  # script, flags, words of the one line
    # flags
    ("prepare_data", "--frobnicate 1", ["--frobnicate", "--help"]),
    ("train_trainer", "--epochs many", ["--epochs", "many"]),
    ("train_accelerate", "--preset books", ["--preset", "sample", "amazon"]),
    *[(script, f"{flag} {value}", [flag, f"{value} is not from"])
      for script, flag, values in [
          ("train_trainer", "--epochs", ["0", "-1"]), ("train_accelerate", "--batch-size", ["0", "-8"]),
          ("train_trainer", "--learning-rate", ["nan", "0", "inf", "-1"]),
          ("train_accelerate", "--weight-decay", ["-1", "nan"]), ("train_trainer", "--max-steps", ["0", "-1"]),
          ("train_accelerate", "--save-steps", ["-5", "0"]), ("train_trainer", "--seed", ["-1", "1099511627776"]),
          ("train_accelerate", "--gradient-accumulation-steps", ["0"]), ("predict", "--num-beams", ["0"]),
          ("train_trainer", "--max-input-length", ["0"]), ("predict", "--examples", ["-1"]),
          ("prepare_data", "--validation-share", ["-0.1", "1", "40", "nan"]),
      ] for value in values],
    ("prepare_data", "--dataset ''", ["--dataset", "empty"]),
    ("train_trainer", "--output-dir ''", ["--output-dir", "empty"]),
    ("train_accelerate", "--push-to-hub ''", ["--push-to-hub", "empty"]),
    ("baseline", "--rouge stemmed", ["--rouge", "rouge_score_stemmer"]),
    ("predict", "hello --input {here}/good.csv", ["one of", "--input"]),
    ("predict", "--split test --input {here}/good.csv", ["one of", "--split"]),
    ("predict", "--examples 1 --split test", ["one of", "--examples"]),
    ("predict", "--input {here}/good.csv --output {here}/good.csv", ["good.csv is --input", "another file"]),
    ("predict", "--input {here}/good.csv --output {here}/empty/../good.csv", ["good.csv is --input", "another file"]),
    ("predict", "--input {here}/good.csv --output {here}/link.csv", ["link.csv is --input", "another file"]),
    ("predict", "--input {here}/link.csv --scores {here}/good.csv", ["--scores", "--split"]),
    ("predict", "hello --scores {here}/out.json", ["--scores", "--split"]),
    ("predict", "--split test --output {here}/out.json --scores {here}/empty/../out.json", ["out.json is --input or --output"]),
    *[("predict", f"hello --output {{here}}/{name}", [f"{name} is in the way: it is a link, a folder or a device", "another file"])
      for name in ("raw", "link.csv", "pipe")],
    ("predict", "--input {here}/good.csv --output {here}/a_file/out.csv", ["a_file", "File exists"]),
    # reviews
    ("prepare_data", f"--dataset {{here}}/none.csv {PREPARE}", ["none.csv", "does not exist"]),
    ("prepare_data", f"--dataset {{here}}/empty {PREPARE}", ["empty", "CSV, JSON, JSONL or Parquet"]),
    ("prepare_data", f"--dataset {{here}}/short.csv {PREPARE}", ["no review is left", "--languages"]),
    ("prepare_data", f"--dataset {{here}}/good.csv {PREPARE} --languages de", ["no review is left", "--languages"]),
    ("prepare_data", f"--dataset {{here}}/one.csv {PREPARE} --validation-share 0.1", ["--validation-share", "n_samples=1"]),
    ("prepare_data", f"--dataset {{here}}/good.csv {PREPARE} --text-column body", ["good.csv", "body", "--text-column"]),
    ("prepare_data", f"--dataset {{here}}/plain.csv {BOOKS} --languages en", ["'product_category'", "--categories"]),
    ("prepare_data", f"--dataset {{here}}/plain.csv {PREPARE}", ["no column 'language'", "--languages"]),
    ("prepare_data", f"--dataset {{here}}/hole.csv {PREPARE}", ["hole.csv", "1 empty reviews", "remove"]),
    ("prepare_data", f"--dataset {{here}}/latin1.csv {PREPARE}", ["latin1.csv", "UTF-8"]),
    ("prepare_data", f"--dataset {{here}}/broken.jsonl {PREPARE}", ["broken.jsonl", "JSON"]),
    ("prepare_data", f"--dataset {{here}}/numbers.csv {PREPARE}", ["numbers.csv", "int", "texts in --text-column and --title-column"]),
    ("prepare_data", f"--dataset {{here}}/titles.csv {PREPARE}", ["titles.csv", "int", "texts in --text-column and --title-column"]),
    ("prepare_data", f"--dataset {{here}}/categories.csv {BOOKS}", ["no review is left", "--categories"]),
    ("prepare_data", f"--dataset {{here}}/codes.csv {PREPARE}", ["no review is left", "--languages"]),
    ("prepare_data", f"--dataset {{here}}/lists.jsonl {PREPARE}", ["lists.jsonl", "list", "texts in --text-column"]),
    ("prepare_data", f"--dataset {{here}}/nulls.jsonl {PREPARE}", ["nulls.jsonl", "1 empty reviews"]),
    ("prepare_data", f"--dataset {{here}}/good.csv {PREPARE} --text-column language", ["no column 'language'"]),
    ("predict", "--model {model} --input {here}/none.txt", ["none.txt", "--input"]),
    ("predict", "--model {model} --input {here}/latin1.csv", ["latin1.csv", "UTF-8"]),
    ("predict", "--model {model} --input {here}/good.csv --text-column body", ["good.csv", "body", "--text-column"]),
    ("predict", "--model {model} --input {here}/numbers.csv", ["numbers.csv", "int", "--text-column"]),
    ("predict", "--model {model} --input {here}/nothing.txt", ["nothing.txt", "TXT"]),
    ("predict", "--model {model} --input {here}/summary.csv", ["'summary'", "rename"]),
    # prepared data
    ("predict", "--model {model} --data {data} --examples 9999", ["--examples", "rows 0 to"]),
    ("train_trainer", "--data {here}/no_validation --output-dir {here}/model", ["no split validation", "--validation-share"]),
    ("predict", "--model {model} --data {here}/no_validation --split test", ["no split test", "only train"]),
    ("train_accelerate", "--data {here}/broken_arguments --output-dir {here}/model", ["arguments.json", "delete"]),
    ("train_trainer", "--data {here}/no_arguments --output-dir {here}/model", ["arguments.json", "delete"]),
    *[(script, "--data {here}/empty --output-dir {here}/model", ["empty holds no prepared data", "prepare_data.py"])
      for script in ("baseline", "train_trainer", "train_accelerate")],
    # checkpoints
    ("train_trainer", f"{TRAIN} --model {{here}}/bad", ["bad", "--model"]),
    ("train_accelerate", f"{TRAIN} --model {{here}}/empty", ["empty", "--model"]),
    ("predict", "--model {here}/bad hello", ["bad", "--model"]),
    ("predict", "--model {here}/remote hello", ["remote", "--model"]),
    ("train_trainer", f"{TRAIN} --model {{here}}/no_decoder", ["decoder", "missing", "random"]),
    ("predict", "--model {here}/no_decoder hello", ["decoder", "missing", "random"]),
    ("train_accelerate", f"{TRAIN} --model {{here}}/no_tokenizer", ["no_tokenizer", "tokenizer"]),
    ("predict", "--model {here}/no_tokenizer hello", ["no_tokenizer", "tokenizer"]),
    ("predict", "--model user/nowhere hello", ["user/nowhere", "--model"]),
    *[(script, f"{TRAIN} --report-to {name}", [f"--report-to {name} is not installed", "pip install"])
      for script in ("train_trainer", "train_accelerate") for name in ("clearml", "json")],
    # folders that are not ours
    ("prepare_data", "--data {here}/raw", ["raw", "not written by this program", "another"]),
    ("prepare_data", "--dataset {here}/raw --data {here}/raw", ["raw would overwrite", "name a folder"]),
    ("prepare_data", "--dataset {here}/raw --data {here}/raw/prepared", ["prepared would overwrite", "name a folder"]),
    ("prepare_data", "--dataset {here}/good.csv --data {here}", ["would overwrite", "good.csv"]),
    ("prepare_data", "--data {here}/torn", ["torn", "not written by this program"]),
    ("train_trainer", "--data {data} --output-dir {here}/notes", ["notes", "README.md", "another"]),
    ("train_accelerate", "--data {data} --output-dir {here}/notes", ["notes", "README.md", "another"]),
    ("train_trainer", "--data {data} --output-dir {here}/other", ["results.json", "not written by this program"]),
    ("baseline", "--data {data} --output-dir {here}/notes", ["notes", "README.md", "another"]),
    ("train_accelerate", "--data {data} --output-dir .", ["not written by this program", "another"]),
    ("train_trainer", "--data {data} --output-dir {here}/a_file", ["a_file", "File exists"]),
    ("train_accelerate", "--data {data} --output-dir {here}/a_file/model", ["a_file", "Not a directory"]),
    ("train_trainer", f"--data {{data}} --output-dir {{here}}/{'long' * 80}", ["File name too long"]),
    ("train_accelerate", "--data {data} --model {here}/ours --output-dir {here}/ours", ["ours would overwrite"]),
    ("train_trainer", "--data {data} --model {here}/ours/old --output-dir {here}/ours", ["ours would overwrite", "ours/old"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory, prepared):
    """A folder with FILES, an empty folder, checkpoints that lack something and prepared data that does."""
    here = tmp_path_factory.mktemp("here")
    (here / "empty").mkdir()
    for name, content in FILES.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        content = content.replace("{here}", str(here)) if name.endswith(".py") else content
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (here / "link.csv").symlink_to(here / "good.csv")
    os.mkfifo(here / "pipe")
    (here / "ours/old").mkdir(parents=True, exist_ok=True)
    tiny = prepared[0] / "tiny-mt5"
    for name in ("no_decoder", "no_tokenizer"):
        shutil.copytree(tiny, here / name)
    weights = load_file(tiny / "model.safetensors")
    save_file({key: value for key, value in weights.items() if "decoder" not in key}, here / "no_decoder/model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    for file in ("tokenizer.json", "spiece.model", "tokenizer_config.json"):
        (here / "no_tokenizer" / file).unlink(missing_ok=True)
    train = load_from_disk(prepared[0])["train"].select(range(20))
    DatasetDict({"train": train}).save_to_disk(here / "no_validation")
    shutil.copy(prepared[0] / "arguments.json", here / "no_validation")
    for name in ("broken_arguments", "no_arguments"):
        DatasetDict({"train": train, "validation": train}).save_to_disk(here / name)
    (here / "broken_arguments/arguments.json").write_text('{"preset": ')
    return here


def snapshot(folder):
    """Return {path: bytes} of all files below a folder; empty folders and locks do not count."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != common.LOCK}


def refusal(script, flags, monkeypatch, capsys):
    """Call the script's ``main()`` with ``flags``; return its one line."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(script).main()
    assert exit_.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{script}.py: error: ")]
    return line


@pytest.mark.parametrize(("script", "flags", "words"), REFUSED, ids=[f"{row[0]} {row[1]}"[:90] for row in REFUSED])
def test_one_line_says_what_is_wrong_and_nothing_is_lost(
    script, flags, words, here, prepared, trained, monkeypatch, capsys
):
    monkeypatch.chdir(here)
    before = snapshot(here)
    flags = flags.format(here=here, data=prepared[0], model=trained["trainer"])
    line = refusal(script, [flag.strip("'") for flag in flags.split(" ")], monkeypatch, capsys)
    assert all(word in line for word in words), line
    assert snapshot(here) == before


def test_titles_that_cannot_be_written_whole_leave_the_old_ones(here, trained, tmp_path, monkeypatch, capsys):
    def write_half(rows, path, **options):
        path.write_text("half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dataset, "to_json", write_half)
    (tmp_path / "titles.jsonl").write_text("old titles")
    flags = ["--model", str(trained["trainer"]), "--input", str(here / "good.csv"), "--output"]
    assert "No space left" in refusal("predict", [*flags, str(tmp_path / "titles.jsonl")], monkeypatch, capsys)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old titles"]


@pytest.mark.parametrize("obstacle", ["a link", "a folder"])
def test_what_is_in_the_way_of_a_new_file_leaves_the_old_ones(obstacle, tmp_path, capsys):
    key, other = tmp_path / "config.json", tmp_path / "log.csv"
    key.write_text("old")
    other.symlink_to(key) if obstacle == "a link" else other.mkdir()
    with pytest.raises(SystemExit), common.new_files(key) as folder:
        for name in ("config.json", "log.csv"):
            (folder / name).write_text("new")
    assert f"{other} is in the way" in capsys.readouterr().err
    assert key.read_text() == "old" and set(tmp_path.iterdir()) == {key, other}


COMMANDS = [  # the same through the real command, from the root of the project
    ("predict.py", "--modle x", "predict.py: error: unrecognized arguments: --modle (see --help)"),
    ("prepare_data.py", "--validation-share nan", "nan is not from 0 to 0.9"),
    ("prepare_data.py", "--data data", "data would overwrite data/sample"),
    ("baseline.py", "--output-dir tests", "tests holds "),
    ("baseline.py", "--data data --output-dir {new}", "data holds "),
    ("train_trainer.py", "--seed -1", "-1 is not from 0 to 4294967295"),
    ("train_trainer.py", "--output-dir .", "was not written by this program"),
    ("train_accelerate.py", "--output-dir README.md", "File exists"),
    ("train_accelerate.py", "--max-steps 0", "0 is not from 1"),
    ("predict.py", "hello", "run: python train_trainer.py --preset sample"),
    ("predict.py", "--preset amazon hello", "run: python train_trainer.py --preset amazon"),
]


@pytest.mark.parametrize(("script", "flags", "words"), COMMANDS)
def test_the_command_ends_with_one_line_and_code_2(script, flags, words, tmp_path):
    if "hello" in flags and (ROOT / "results").exists():
        pytest.skip("a model was trained in this folder")
    result = run(script, *flags.format(new=tmp_path / "new").split(), check=False)
    assert result.returncode == 2 and result.stdout == "" and "Traceback" not in result.stderr
    assert words in [line for line in result.stderr.splitlines() if ": error: " in line][0]


# ---- what data may not do ----------------------------------------------------------------------


class Executes:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_is_executed(prepared, tmp_path, monkeypatch, capsys):
    mark, model, output = tmp_path / "executed", tmp_path / "model", tmp_path / "output"
    code = pickle.dumps(Executes(mark))
    shutil.copytree(prepared[0] / "tiny-mt5", model)
    (model / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training_args.bin", "tokenizer.pkl"):
        (model / name).write_bytes(code)
    assert "--model" in refusal("predict", ["--model", str(model), "hello"], monkeypatch, capsys)
    for script in ("trainer", "accelerate"):
        flags = ["--data", prepared[0], "--output-dir", output / script, "--max-steps", 2, "--save-steps", 1]
        run(f"train_{script}.py", *flags)
        for file in (output / script / "checkpoints/checkpoint-2").iterdir():
            if file.suffix not in (".json", ".safetensors"):
                file.write_bytes(code.ljust(file.stat().st_size, b"\0"))  # another size would be seen before
        (output / script / "checkpoints/checkpoint-2/custom_checkpoint_0.pkl").write_bytes(code)
        result = run(f"train_{script}.py", *flags, "--resume", check=False)
        assert result.returncode != 0 or script == "trainer", "it must not go on with what it cannot read"
    assert not mark.exists()


def test_a_password_in_an_address_is_not_shown(tmp_path):
    environment = {"HF_ENDPOINT": "http://user:secret@127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    result = run("predict.py", "--model", "google/mt5-small", "A book.", check=False, **environment)
    assert result.returncode == 2 and "127.0.0.1:9" in result.stderr and "secret" not in result.stderr + result.stdout


@pytest.mark.parametrize(("text", "shown"), [
    ("plain ñ 本 😀\nnew line", "plain ñ 本 😀\nnew line"), ("\x1b[31mred", "\\u001b[31mred"),
    ("abc\u202edef", "abc\\u202edef"), ("bell\x07", "bell\\u0007"),
])  # fmt: skip
def test_text_cannot_steer_the_terminal(text, shown):
    assert common.printable(text) == shown


def test_reviews_are_printed_escaped(trained):
    printed = run("predict.py", "--model", trained["trainer"], "good\x1b[2J book \u202e").stdout
    assert "\\u001b[2J" in printed and "\x1b" not in printed and "\u202e" not in printed


# ---- runs that meet ----------------------------------------------------------------------------


def start(*command):
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=ENVIRONMENT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def wait_for(path):
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not come")


def test_two_runs_in_one_folder_and_two_preparations(reviews, prepared, tmp_path):
    first = start("train_accelerate.py", "--data", prepared[0], "--output-dir", tmp_path / "model", "--epochs", 50)
    wait_for(tmp_path / "model" / common.LOCK)
    second = run("train_trainer.py", "--data", prepared[0], "--output-dir", tmp_path / "model", check=False)
    assert second.returncode == 2 and "another run writes to" in second.stderr
    first.send_signal(signal.SIGINT)
    assert first.wait() == 130
    preparations = [start("prepare_data.py", "--dataset", reviews, "--data", tmp_path / "data") for _ in range(2)]
    printed = [process.communicate()[0] for process in preparations]
    assert sorted(process.returncode for process in preparations) == [0, 2]
    assert sorted("another run writes to" in text for text in printed) == [False, True]


def test_checkpoints_of_others_stay(prepared, tmp_path):
    flags = ["--data", prepared[0], "--output-dir", tmp_path / "model", "--max-steps", 3, "--save-steps", 1]
    for script in ("trainer", "accelerate"):
        run(f"train_{script}.py", *flags)
        notes = [
            tmp_path / "model/checkpoints/checkpoint-notes/a.txt",
            tmp_path / "model/checkpoints/checkpoint-500/b.bin",
            tmp_path / "model/checkpoints/checkpoint-500/run.json",
        ]
        for note in notes:
            note.parent.mkdir(exist_ok=True)
            note.write_text('{"note": "somebody\'s"}')
        run(f"train_{script}.py", *flags)
        assert all("somebody's" in note.read_text() for note in notes)


SCRIPTS = [("trainer", "accelerate", "optimizer.pt"), ("accelerate", "trainer", "random_states_0.pkl")]


@pytest.mark.parametrize(("script", "other", "file"), SCRIPTS)
def test_only_a_whole_checkpoint_of_the_same_script_is_resumed(prepared, tmp_path, script, other, file):
    flags = ["--data", prepared[0], "--output-dir", tmp_path, "--max-steps", 2]
    run(f"train_{script}.py", *flags)
    newest, copy = tmp_path / "checkpoints/checkpoint-2", tmp_path / "checkpoints/checkpoint-copy"
    shutil.copytree(newest, copy)
    result = run(f"train_{other}.py", *flags, "--resume", check=False)
    assert result.returncode == 2 and f"{newest} was written with script train_{script}.py" in result.stderr
    for damage in (lambda path: os.truncate(path, 10), os.unlink):
        damage(newest / file)
        result = run(f"train_{script}.py", *flags, "--resume", check=False)
        assert result.returncode == 2 and f"{newest} lacks {file}" in result.stderr
    assert (copy / file).exists()


# ---- killed while files are replaced -----------------------------------------------------------


def kill_at(moment, script, *flags):
    """Run a script that is killed at the n-th replacement or removal below its folder; return its exit code."""
    return run(ROOT / "tests/kill_at.py", script, moment, *flags, check=False).returncode


def restore(folder, earlier):
    shutil.rmtree(folder)
    shutil.copytree(earlier, folder)


@pytest.mark.slow
def test_a_killed_preparation_leaves_no_mixture(tmp_path):
    rows = [
        {"review_body": f"Book {n} was good", "review_title": f"A good book {n}", "language": "en"} for n in range(60)
    ]
    for name, count in (("old", 40), ("new", 60)):
        Dataset.from_list(rows[:count]).to_csv(tmp_path / f"{name}.csv")
    flags = ["--languages", "en", "--categories", "--data", tmp_path / "data", "--dataset"]
    run("prepare_data.py", *flags, tmp_path / "old.csv")
    shutil.copytree(tmp_path / "data", tmp_path / "earlier")
    moment, torn = 1, 0
    while (code := kill_at(moment, "prepare_data", *flags, tmp_path / "new.csv")) == 9:
        assert (tmp_path / "data" / common.LOCK).exists()  # the same command may write to it again
        if (tmp_path / "data/dataset_dict.json").exists():
            rows = len(load_from_disk(tmp_path / "data")["train"])
            corpus = str(tmp_path / f"{'old' if rows == 40 else 'new'}.csv")
            assert read_json(tmp_path / "data/arguments.json")["dataset"] == corpus
        else:
            torn += 1
        if torn == 3:
            run("prepare_data.py", *flags, tmp_path / "old.csv")
        restore(tmp_path / "data", tmp_path / "earlier")
        moment += 1
    assert code == 0 and moment > 7 and torn > 3
    assert len(load_from_disk(tmp_path / "data")["train"]) == 60


@pytest.mark.slow
def test_a_killed_final_save_leaves_a_run_to_resume(prepared, tmp_path):
    flags = ["--data", prepared[0], "--max-steps", 2, "--output-dir", tmp_path / "model"]
    run("train_accelerate.py", *flags, "--seed", 1)
    shutil.copytree(tmp_path / "model", tmp_path / "earlier")
    old, moment, resumed = (tmp_path / "model/model.safetensors").read_bytes(), 0, 0
    while True:
        moment += 1
        restore(tmp_path / "model", tmp_path / "earlier")
        if kill_at(moment, "train_accelerate", *flags, "--seed", 2) == 0:
            break
        if (tmp_path / "model/config.json").exists():
            same = (tmp_path / "model/model.safetensors").read_bytes() == old
            assert same == (read_json(tmp_path / "model/results.json")["arguments"]["seed"] == 1)
        if list((tmp_path / "model/checkpoints").glob("checkpoint-2/run.json")) and moment % 4 == 0:
            run("train_accelerate.py", *flags, "--seed", read_json(
                tmp_path / "model/checkpoints/checkpoint-2/run.json")["run"]["seed"], "--resume")  # fmt: skip
            assert [path.name for path in (tmp_path / "model").glob(".*")] == [
                common.LOCK
            ]  # nothing of the killed one
            resumed += 1
    assert moment > 10 and resumed
    assert (tmp_path / "model/model.safetensors").read_bytes() != old


@pytest.mark.parametrize("script", ["train_trainer", "train_accelerate"])
def test_a_resumed_run_that_is_killed_is_not_taken_for_the_finished_one_before(prepared, tmp_path, script):
    flags = ["--data", prepared[0], "--output-dir", tmp_path, "--max-steps", 3, "--save-steps", 1]
    run(f"{script}.py", *flags)
    shutil.rmtree(tmp_path / "checkpoints/checkpoint-3")
    assert kill_at(3, script, *flags, "--resume") == 9
    result = run(f"{script}.py", *flags, check=False)
    assert result.returncode == 2 and "is of a run that stopped" in result.stderr


# ---- terminals, pipes, signals, the Hub --------------------------------------------------------


def test_head_an_ascii_terminal_and_a_closed_standard_input(trained, prepared):
    command = f"{sys.executable} predict.py --model {trained['trainer']} --data {prepared[0]}"
    shell = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True, "shell": True}
    result = subprocess.run(f"{command} --examples $(seq 0 60) | head -1", **shell)
    assert result.returncode == 0 and "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr
    ascii_ = {**shell, "env": {**ENVIRONMENT, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}}
    result = subprocess.run(f"{command} '¿Qué tal?'", **ascii_)
    assert result.returncode == 0 and "\\xbfQu\\xe9 tal?" in result.stdout
    result = subprocess.run(f"{command} - <&-", **shell)
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_ctrl_c_is_one_line(reviews, tmp_path):
    process = start("prepare_data.py", "--dataset", reviews, "--data", tmp_path / "data")
    wait_for(tmp_path / "data")
    process.send_signal(signal.SIGINT)
    printed = process.communicate()[0]
    assert process.returncode == 130 and "prepare_data.py: stopped" in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("status", "words"), [(401, "hf auth login"), (429, "try again later"), (500, "try again later")]
)
def test_a_busy_hub_is_not_a_bad_token(status, words, prepared, tmp_path):
    with Hub() as hub:
        hub.status = status
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_TOKEN": hub.token}
        result = run("train_trainer.py", "--data", prepared[0], "--output-dir", tmp_path / "model",
                     "--push-to-hub", "user/titles", check=False, **environment)  # fmt: skip
    assert result.returncode == 2 and words in result.stderr and ("hf auth login" in result.stderr) == (status == 401)


def test_a_hub_that_says_nothing_is_not_waited_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        started = time.monotonic()
        result = run("predict.py", "--model", "google/mt5-small", "A book.", check=False, **environment)
    assert result.returncode == 2 and f"cannot reach {endpoint}" in result.stderr
    assert time.monotonic() - started < 30 + 15  # seconds, and what the imports take on a busy machine


def test_shell_patterns_in_a_path_mean_nothing(tmp_path):
    source = tmp_path / "of[mine]" / "a[1]*.csv"
    source.parent.mkdir()
    source.write_text(FILES["good.csv"])
    source.with_name("a1b.csv").write_text(FILES["hole.csv"])
    run("prepare_data.py", "--dataset", source, "--data", tmp_path / "data", "--languages", "en")
    assert len(load_from_disk(tmp_path / "data")["train"]) == 2


def test_new_content_under_the_same_name_and_time_is_read(tmp_path):
    source = tmp_path / "own.csv"
    for title in ("A good little book", "A fair little book"):
        source.write_text(HEAD + f"I liked it,{title},en,book\n")
        os.utime(source, (1e9, 1e9))
        run("prepare_data.py", "--dataset", source, "--data", tmp_path / "data", "--languages", "en")
        assert load_from_disk(tmp_path / "data")["train"]["review_title"][:] == [title]


def test_a_field_of_any_length_is_read(trained, tmp_path):
    (tmp_path / "long.csv").write_text(f'review_body\n"{"word " * 40_000}"\n')
    run(
        "predict.py",
        "--model",
        trained["trainer"],
        "--input",
        tmp_path / "long.csv",
        "--output",
        tmp_path / "out.jsonl",
    )
    assert len(json.loads((tmp_path / "out.jsonl").read_text())["review_body"]) == 200_000
