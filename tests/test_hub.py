"""``--preset amazon`` with the real clients, against the stand-in for the Hub in hub.py."""

import gzip
import io
import json

import pytest
import sentencepiece
import torch
import yaml
from conftest import read_json, run
from hub import Hub
from safetensors.torch import load_file
from transformers import MT5Config, MT5ForConditionalGeneration

CORPUS, CHECKPOINT = "buruzaemon/amazon_reviews_multi", "google/mt5-small"


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
        hub.files["models", CHECKPOINT] = checkpoint_files(reviews)
        hub.home = tmp_path_factory.mktemp("home")
        yield hub


def run_with(hub, *command, token=Hub.token, **options):
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(hub.home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
    }
    return run(*command, **options, **environment)


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
    result = run_with(hub, f"train_{script}.py", *flags, "--push-to-hub", repo)
    assert "tie" not in result.stderr

    pushed = hub.files["models", repo]
    files = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "results.json"}
    assert files <= set(pushed) == {path.name for path in output.iterdir() if path.is_file()}
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
    ("script", "token", "broken", "words"),
    [
        ("train_trainer.py", "hf_refused", False, ["cannot push to user/new", "hf auth login"]),
        ("train_accelerate.py", "", False, ["cannot push to user/new", "hf auth login"]),
        ("train_accelerate.py", Hub.token, True, ["cannot push to", "hf upload user/new "]),
        ("train_trainer.py", Hub.token, True, ["cannot push to", "hf upload user/new "]),
    ],
)
def test_a_push_that_fails_loses_nothing(hub, amazon, script, token, broken, words, tmp_path):
    output = tmp_path / "model"
    flags = ["--preset", "amazon", "--data", amazon, "--output-dir", output, "--epochs", 2]
    flags += ["--max-train-samples", 48, "--push-to-hub", "user/new"]
    hub.broken = broken
    result = run_with(hub, script, *flags, token=token, check=False)
    hub.broken = False
    assert result.returncode == 2 and "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"{script}: error: ") and all(word in line for word in words)
    # A refused token shows before the training. A push that fails has a model to upload later.
    assert (output / "model.safetensors").exists() == broken
    if broken:
        assert read_json(output / "arguments.json")["finished"]
    failed = "An upload to user/new failed" in result.stderr  # one that ran beside the training
    assert failed == (broken and script == "train_accelerate.py")


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["prepare_data.py", "--preset", "amazon"], "--dataset"),
        (["predict.py", "--model", "google/mt5-small", "A book."], "--model"),
    ],
)
def test_without_a_network_one_line_says_what_to_do(command, remedy, tmp_path):
    endpoint = "http://127.0.0.1:9"  # where nothing listens
    environment = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    result = run(*command, check=False, **environment)
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert f"cannot reach {endpoint}" in line and remedy in line
