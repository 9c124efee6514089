"""``--preset amazon`` with the real clients, against the stand-in for the Hub in hub.py."""

import gzip
import io
import json
import time

import pytest
import sentencepiece
import torch
import yaml
from conftest import read_json, run
from datasets import load_from_disk
from hub import Hub
from safetensors.torch import load_file
from transformers import MT5Config, MT5ForConditionalGeneration

CORPUS, CHECKPOINT = "buruzaemon/amazon_reviews_multi", "google/mt5-small"
NOWHERE = "http://127.0.0.1:9"  # where nothing listens


def spiece_model(reviews):
    """Return a SentencePiece model with mT5's special ids and its 100 ordinary <extra_id_N>."""
    rows = [
        json.loads(line)
        for path in reviews.glob("*_train.jsonl")
        for line in path.open(encoding="utf-8")
    ]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([row["review_body"] for row in rows]),
        model_writer=written,
        vocab_size=1000,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        user_defined_symbols=[f"<extra_id_{n}>" for n in range(99, -1, -1)],
    )
    return written.getvalue()


def checkpoint_files(reviews, vocab_size=1112):
    """Return a narrow google/mt5-small: config.json, spiece.model, pytorch_model.bin."""
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = MT5Config(vocab_size=vocab_size, initializer_factor=0.1, **sizes)
    model = MT5ForConditionalGeneration(config)
    weights = {**model.state_dict(), "lm_head.weight": torch.randn(vocab_size, 32) * 0.1}
    written = io.BytesIO()
    torch.save(weights, written)
    config = {
        **config.to_dict(),
        "tie_word_embeddings": False,
        "architectures": ["MT5ForConditionalGeneration"],
        "tokenizer_class": "T5Tokenizer",
    }
    return {
        "config.json": json.dumps(config).encode(),
        "spiece.model": spiece_model(reviews),
        "pytorch_model.bin": written.getvalue(),
    }


@pytest.fixture(scope="module")
def hub(reviews, tmp_path_factory):
    with Hub() as hub:
        hub.files["datasets", CORPUS] = {
            f"{language}/{split}.jsonl.gz": gzip.compress(
                (reviews / f"{language}_{split}.jsonl").read_bytes()
            )
            for language in ("en", "es")
            for split in ("train", "validation", "test")
        }
        hub.files["datasets", CORPUS]["de/train.jsonl.gz"] = gzip.compress(b"not even JSON")
        # The copy is reported to have a loading script, with which load_dataset() refuses it.
        hub.files["datasets", CORPUS]["amazon_reviews_multi.py"] = b"raise SystemExit('executed')"
        hub.files["models", CHECKPOINT] = checkpoint_files(reviews)
        hub.home = tmp_path_factory.mktemp("home")
        yield hub


def run_with(hub, *command, network=True, **options):
    """Run a script in a server of its own, because the libraries read these when imported."""
    environment = {
        "HF_ENDPOINT": hub.url if network else NOWHERE,
        "HF_HOME": str(hub.home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": hub.token,
    }
    return run(*command, **options, server=environment)


@pytest.fixture(scope="module")
def amazon(hub, tmp_path_factory):
    """The corpus of --preset amazon, prepared from the stand-in."""
    folder = tmp_path_factory.mktemp("amazon") / "data"
    printed = run_with(hub, "prepare_data.py", "--preset", "amazon", "--data", folder).stdout
    assert "=== es: after filter_books ===" in printed
    return folder


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_the_chapter_downloads_trains_and_pushes(hub, amazon, script, tmp_path):
    repo, output = f"user/titles-{script}", tmp_path / "model"
    flags = ["--preset", "amazon", "--data", amazon, "--output-dir", output, "--epochs", 2]
    flags += ["--push-to-hub", repo, *(["--hub-private"] if script == "trainer" else [])]
    result = run_with(hub, f"train_{script}.py", *flags)
    assert "tie" not in result.stderr
    assert (repo in hub.private) == (script == "trainer")

    pushed = hub.files["models", repo]
    files = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "results.json"}
    # arguments.json has the paths of this machine.
    written = {path.name for path in output.iterdir() if path.is_file()} - {"arguments.json"}
    assert files <= set(pushed) == written
    for name in ("README.md", "results.json", "config.json", "tokenizer_config.json"):
        assert str(tmp_path.parent.parent).encode() not in pushed[name], name
    assert pushed["model.safetensors"] == (output / "model.safetensors").read_bytes()
    messages = [message for name, message in hub.commits if name == repo]
    assert messages[-1] == "Training complete"
    assert ("Training in progress epoch 1" in messages) == (script == "accelerate")

    weights = load_file(output / "model.safetensors")
    original = torch.load(io.BytesIO(hub.files["models", CHECKPOINT]["pytorch_model.bin"]))
    for name in ("shared.weight", "lm_head.weight"):  # the head is trained and still its own
        assert 0 < (weights[name] - original[name]).abs().max() < 0.05

    card = pushed["README.md"].decode()
    data = yaml.safe_load(card.split("---\n")[1])
    assert data["language"] == ["en", "es"] and data["datasets"] == [CORPUS]
    assert data["base_model"] == CHECKPOINT and "summarization" in data["tags"]
    rouge1 = read_json(output / "results.json")["scores"]["all"]["model"]["rouge1"]
    assert "learning_rate" in card
    assert f"{rouge1['f1']:.2f} [{rouge1['low']:.2f},{rouge1['high']:.2f}]" in card

    reviews = ["It hooks you from the first page.", "¡Qué final!"]
    printed = run_with(hub, "predict.py", "--model", repo, *reviews).stdout
    assert printed.count(">>> Summary: ") == 2 and "<extra_id" not in printed


def test_no_summary_has_a_sentinel_even_if_the_model_likes_them(hub, reviews, tmp_path):
    files = checkpoint_files(reviews)
    weights = torch.load(io.BytesIO(files["pytorch_model.bin"]))
    # All pieces are alike, so that argmax would take the first that it may, a sentinel.
    weights["lm_head.weight"][:] = 0
    weights["lm_head.weight"][0:3] = -1
    for path, content in files.items():
        (tmp_path / path).write_bytes(content)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    printed = run("predict.py", "--model", tmp_path, "A book.").stdout
    assert "Summary: " in printed and "<extra_id" not in printed


@pytest.mark.parametrize(
    ("script", "fault", "words"),
    [
        ("train_trainer.py", ("/repos/create", 401), ["hf auth login"]),
        ("train_accelerate.py", ("/repos/create", 403), ["hf auth login"]),
        ("train_trainer.py", ("/repos/create", 429), ["the Hub is busy, try again later"]),
        ("train_accelerate.py", ("", "silence"), ["cannot reach http://127.0.0.1:"]),
        # The Hub breaks down when the repository exists.
        ("train_accelerate.py", ("/preupload/", 403), ["hf upload user/new {output} . --exclude"]),
        ("train_trainer.py", ("/commit/", "garbage"), ["hf upload user/new {output} . --exclude"]),
    ],
)
def test_a_push_that_fails_loses_nothing(
    script, fault, words, hub, hub_fault, amazon, prepared, tmp_path
):
    output = tmp_path / "model"
    flags = ["--preset", "amazon", "--data", amazon, "--output-dir", output, "--epochs", 2]
    flags += ["--max-train-samples", 8, "--model", prepared[0] / "tiny-mt5"]
    hub_fault(*fault)
    result = run_with(hub, script, *flags, "--push-to-hub", "user/new", check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if ": error: " in line]
    assert lines[-1].startswith(f"{script}: error: cannot push to user/new: ")
    assert all(word.format(output=output) in lines[-1] for word in words), lines
    # A refused token shows before the training. A push that fails has a model to upload later.
    trained = "/repos/create" not in fault[0] and fault[1] != "silence"
    assert (output / "model.safetensors").exists() == trained
    if trained:
        assert lines[-1].endswith(" . --exclude 'checkpoint-*' --exclude 'arguments.json'")
        assert read_json(output / "arguments.json")["finished"]
        # The uploads beside the training failed too, and have told so.
        assert len(lines) > 1 or script == "train_trainer.py"


@pytest.fixture
def hub_fault(hub):
    """A function that sets what the stand-in answers wrongly, which the end of a test resets."""

    def set_fault(pattern, answer):
        hub.fault = (pattern, answer)

    yield set_fault
    hub.fault = None


FAULTS = [  # what the Hub answers, and what of it the one line says
    ("garbage", "Expecting value"),
    ("cut", "peer closed connection"),
    ("loop", "redirects"),
    ("silence", "cannot reach http://127.0.0.1:"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (429, "the Hub is busy, try again later"),
    (500, "the Hub is busy, try again later"),
    (503, "the Hub is busy, try again later"),
]


@pytest.mark.parametrize(("answer", "words"), FAULTS)
def test_a_hub_at_fault_is_one_true_line_within_a_minute(answer, words, hub, hub_fault, tmp_path):
    hub_fault("new_user/", answer)
    started = time.monotonic()
    flags = ["--dataset", "new_user/reviews", "--data", tmp_path / "data"]
    result = run_with(hub, "prepare_data.py", *flags, check=False)
    assert time.monotonic() - started < 60
    assert result.returncode == 2 and "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("prepare_data.py: error: cannot load --dataset new_user/reviews: ")
    assert words in line and not list(tmp_path.iterdir())


def test_a_hub_that_never_answers_is_not_waited_for(hub, hub_fault):
    hub_fault("", "silence")
    result = run_with(hub, "predict.py", "--model", "new_user/titles", "A book.", check=False)
    line = result.stderr.splitlines()[-1]
    assert "cannot load --model new_user/titles: cannot reach http://127.0.0.1:" in line


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (["prepare_data.py", "--dataset", "user/silent", "--data", "new"], "--dataset"),
        (["predict.py", "--model", "user/silent", "A book."], "--model"),
    ],
)
def test_files_that_never_come_are_not_waited_for(command, flag, hub, hub_fault):
    hub.files["models", "user/silent"] = {"config.json": b"{}"}
    hub.files["datasets", "user/silent"] = {"train.jsonl": b"{}"}
    hub_fault("/resolve/", "silence")
    started = time.monotonic()
    result = run_with(hub, *command, check=False)
    assert time.monotonic() - started < 60
    line = result.stderr.splitlines()[-1]
    assert f"cannot load {flag} user/silent: cannot reach {hub.url}: timed out" in line


def test_what_is_in_the_local_cache_needs_no_network(hub, amazon, tmp_path):
    command, again = (
        ["prepare_data.py", "--preset", "amazon", "--data", tmp_path / name]
        for name in ("data", "again")
    )
    hub.requests.clear()
    run_with(hub, *command, "--model", "tiny")
    # The list of files is asked for once, and not for each of the two languages.
    assert hub.requests.count(("GET", f"/api/datasets/{CORPUS}/revision/main")) == 1
    run_with(hub, *again, "--model", "tiny", network=False)
    first, second = (load_from_disk(tmp_path / name) for name in ("data", "again"))
    assert {split: rows.to_list() for split, rows in first.items()} == {
        split: rows.to_list() for split, rows in second.items()
    }
    # A download that was broken off is not taken for the whole of it.
    file = next(hub.home.rglob("es/validation.jsonl.gz"))
    away = file.rename(tmp_path / "away")
    result = run_with(hub, *again, network=False, check=False)
    away.rename(file)
    assert result.returncode == 2 and "1 file(s) are missing" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["prepare_data.py", "--dataset", "new_user/reviews", "--data", "new"], "--dataset"),
        (["predict.py", "--model", "new_user/titles", "A book."], "--model"),
    ],
)
def test_without_a_network_one_line_says_what_to_do(command, remedy, hub):
    result = run_with(hub, *command, network=False, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert f"cannot load {remedy} new_user/" in line and f": cannot reach {NOWHERE}: " in line
