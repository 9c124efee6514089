"""Run the scripts as a user does, on a slice of the sample."""

import functools
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

# One thread per process: two that share a core with another program wait for each other, and a
# test then takes ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoTokenizer, MT5Config, MT5ForConditionalGeneration

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SLICE = {"train": 300, "validation": 40, "test": 40}  # rows per language, before the filters
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}
# A shell's background job ignores Ctrl-C, and its children would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
LIMIT = 400  # seconds for one command; the longest takes a quarter


def sample(language, split):
    """Return the rows of a file of the sample."""
    text = (ROOT / f"data/sample/{language}_{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


SERVER = """
import faulthandler, gc, json, os, runpy, sys
import accelerate, datasets, evaluate, matplotlib.figure, nltk, pandas, rouge_score.rouge_scorer
from transformers import DataCollatorForSeq2Seq, MT5ForConditionalGeneration
from transformers import Seq2SeqTrainer, T5Tokenizer
gc.freeze()
limit = int(sys.argv[1])
for line in sys.stdin:
    command, environments, files, children = json.loads(line)
    for environment in environments:
        children.append(os.fork())
        if not children[-1]:
            os.environ.update(environment)
            for stream, file in enumerate(files):
                os.dup2(os.open(file, os.O_RDWR | os.O_APPEND), stream)
            sys.stdin = open(0, encoding="utf-8", closefd=False)
            faulthandler.dump_traceback_later(limit, exit=True)  # a hang says where
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
            sys.exit()
    if command:
        print(children, flush=True)
        continue
    codes = []
    while children:
        child, status = os.wait()
        children.remove(child)
        codes.append(os.waitstatus_to_exitcode(status))
        for other in children if status else []:
            os.kill(other, 9)
    print(next((code for code in codes if code), 0), flush=True)
"""


@functools.cache
def server(**environment):
    """Start a process that imports the libraries once and forks for each run of a script.

    The imports take longer than most runs of the tests. Each ``environment`` has its own server.
    """
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, str(LIMIT - 20)],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a group of processes, which can be killed together
    )


def ranks(processes):
    """Return what torchrun adds to the environment of each process; nothing for one."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    shared = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def ask(*request, **environment):
    process = server(**environment)
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    if not select.select([process.stdout], [], [], LIMIT)[0]:
        os.killpg(process.pid, signal.SIGKILL)
        server.cache_clear()  # the next test has a server of its own
        pytest.fail(f"no answer after {LIMIT} s: {request}")
    return json.loads(process.stdout.readline())


def start(*command, processes=1, files=("/dev/null",) * 3, **environment):
    """Start ``python script.py ...`` on CPU processes and return their numbers.

    The ``files`` are their standard streams: input, output, errors.
    """
    request = list(map(str, command)), ranks(processes), list(map(str, files)), []
    return ask(*request, **environment)


def wait(processes, **environment):
    """Wait until all that ``start`` began has ended; return the first exit code that is not 0."""
    return ask([], [], [], processes, **environment)


def run(*command, processes=1, check=True, stdin="", server=None, **environment):
    """Run ``python script.py ...``, on several CPU processes if asked to; return what it printed.

    With an ``environment``, or as a module (-m), it is a command of its own, else one of the server
    that has the environment ``server``.
    """
    server = server or {}
    command = list(map(str, command))
    if environment or command[0] == "-m":
        result = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**ENVIRONMENT, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
            for file, text in zip(files, (stdin, "", ""), strict=True):
                file.write_text(text, encoding="utf-8")
            started = start(*command, processes=processes, files=files, **server)
            code = wait(started, **server)
            printed = [file.read_text("utf-8") for file in files[1:]]
            result = subprocess.CompletedProcess(command, code, *printed)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def copy_data(source, folder, **rows):
    """Copy prepared data with the first rows of some splits: ``copy_data(a, b, validation=32)``.

    The tiny model is copied too. Evaluation takes most of the time of a short training.
    """
    books = load_from_disk(source)
    for split, number in rows.items():
        books[split] = books[split].select(range(number))
    books.save_to_disk(folder)
    shutil.copy(Path(source, "arguments.json"), folder)
    shutil.copytree(Path(source, "tiny-mt5"), Path(folder, "tiny-mt5"))
    return folder


def save_full_size_tokenizer(tiny, folder, pieces=250_100):
    """Save the tokenizer ``tiny``, filled up to mt5-small's size with letters and Chinese words."""
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    specification = read_json(folder / "tokenizer.json")
    vocabulary, rng = specification["model"]["vocab"], random.Random(0)
    known = {piece for piece, _ in vocabulary}
    single = [*map(chr, range(0x21, 0x180)), *"“”’—€"]  # as mT5 has
    vocabulary += [[character, -14.0] for character in single if character not in known]
    chinese = [chr(number) for number in range(0x4E00, 0x9FA0)]
    words = list(dict.fromkeys("▁" + "".join(rng.choices(chinese, k=3)) for _ in range(pieces)))
    words = words[: pieces - len(vocabulary)]
    vocabulary += [[word, rng.uniform(-20, -15)] for word in words]
    (folder / "tokenizer.json").write_text(json.dumps(specification), encoding="utf-8")


def save_mt5(folder, **config):
    """Save and return an mT5 with random weights and a head of its own; by default mt5-small's."""
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(MT5Config(initializer_factor=0.05, **config))
    model.config.tie_word_embeddings = False
    head = torch.empty_like(model.shared.weight).normal_(std=0.05)
    model.lm_head.weight = torch.nn.Parameter(head)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """{family: folder of its tiny checkpoint}."""
    from tiny_checkpoints import save_checkpoints  # which imports this file

    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """A folder with the first rows of each file of the sample."""
    folder = tmp_path_factory.mktemp("reviews")
    for path in (ROOT / "data/sample").glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = lines[: SLICE[path.stem.split("_")[1]]]
        (folder / path.name).write_text("".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def prepared(reviews, tmp_path_factory):
    """The prepared slice, and what prepare_data.py printed."""
    folder = tmp_path_factory.mktemp("prepared") / "slice"
    result = run("prepare_data.py", "--dataset", reviews, "--data", folder)
    return folder, result.stdout


@pytest.fixture(scope="session")
def trained(prepared, tmp_path_factory):
    """Folders of a model that each training script trained on the slice."""
    folders = {}
    for script, epochs in (("trainer", 8), ("accelerate", 2)):
        folders[script] = tmp_path_factory.mktemp(script) / "model"
        flags = ["--data", prepared[0], "--output-dir", folders[script], "--epochs", epochs]
        run(f"train_{script}.py", *flags)
    return folders
