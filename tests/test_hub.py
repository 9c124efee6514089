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
    """Return a SentencePiece model with the special ids of mT5 and its 100 ordinary <extra_id_N> pieces."""
    rows = [json.loads(line) for path in reviews.glob("*_train.jsonl") for line in path.open(encoding="utf-8")]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([row["review_body"] for row in rows]), model_writer=written, vocab_size=1000,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        user_defined_symbols=[f"<extra_id_{n}>" for n in range(99, -1, -1)],
    )  # fmt: skip
    return written.getvalue()


def checkpoint_files(reviews, vocab_size=1112):
    """Return what google/mt5-small consists of, narrow: config.json, spiece.model, pytorch_model.bin."""
    torch.manual_seed(0)
    config = MT5Config(vocab_size=vocab_size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=2,
                       num_heads=4, initializer_factor=0.1)  # fmt: skip
    model = MT5ForConditionalGeneration(config)
    weights = {**model.state_dict(), "lm_head.weight": torch.randn(vocab_size, 32) * 0.1}
    written = io.BytesIO()
    torch.save(weights, written)
    config = {**config.to_dict(), "tie_word_embeddings": False, "architectures": ["MT5ForConditionalGeneration"],
              "tokenizer_class": "T5Tokenizer"}  # fmt: skip
    return {"config.json": json.dumps(config).encode(), "spiece.model": spiece_model(reviews),
            "pytorch_model.bin": written.getvalue()}  # fmt: skip


@pytest.fixture(scope="module")
def hub(reviews, tmp_path_factory):
    with Hub() as hub:
        hub.files["datasets", CORPUS] = {
            f"{language}/{split}.jsonl.gz": gzip.compress((reviews / f"{language}_{split}.jsonl").read_bytes())
            for language in ("en", "es")
            for split in ("train", "validation", "test")
        }
        hub.files["datasets", CORPUS]["de/train.jsonl.gz"] = gzip.compress(b"not even JSON")
        hub.files["models", CHECKPOINT] = checkpoint_files(reviews)
        hub.home = tmp_path_factory.mktemp("home")
        yield hub


def run_with(hub, *command, token=Hub.token, **options):
    return run(*command, **options, HF_ENDPOINT=hub.url, HF_HOME=str(hub.home), HF_HUB_OFFLINE="0",
               HF_HUB_DISABLE_XET="1", HF_TOKEN=token)  # fmt: skip


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
    assert f"Pushed to {hub.url}/{repo}" in result.stdout

    pushed = hub.files["models", repo]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "results.json"} <= set(pushed)
    assert not any("checkpoint" in path for path in pushed)
    assert pushed["model.safetensors"] == (output / "model.safetensors").read_bytes()
    messages = [message for name, message in hub.commits if name == repo]
    assert messages[-1] == "Training complete"
    assert ("Training in progress epoch 0" in messages) == (script == "accelerate")

    weights = load_file(output / "model.safetensors")
    original = torch.load(io.BytesIO(hub.files["models", CHECKPOINT]["pytorch_model.bin"]))
    for name in ("shared.weight", "lm_head.weight"):  # the head is trained and still its own
        assert 0 < (weights[name] - original[name]).abs().max() < 0.05

    card = pushed["README.md"].decode()
    data = yaml.safe_load(card.split("---\n")[1])
    assert data["language"] == ["en", "es"] and data["base_model"] == CHECKPOINT and data["datasets"] == [CORPUS]
    assert "summarization" in data["tags"] and len(data["widget"]) == 2
    scores = read_json(output / "results.json")["scores"]["all"]["model"]
    assert "learning_rate" in card and f"{scores['rouge1']['f1']:.2f} [{scores['rouge1']['low']:.2f}, " in card

    printed = run_with(hub, "predict.py", "--model", repo, "It hooks you from the first page.", "¡Qué final!").stdout
    assert printed.count(">>> Summary: ") == 2 and "<extra_id" not in printed


def test_no_summary_has_a_sentinel_even_if_the_model_likes_them(hub, reviews, tmp_path):
    files = checkpoint_files(reviews)
    weights = torch.load(io.BytesIO(files["pytorch_model.bin"]))
    weights["lm_head.weight"][:] = 0  # all pieces alike, so that argmax would take the first it may: a sentinel
    weights["lm_head.weight"][0:3] = -1
    for path, content in files.items():
        (tmp_path / path).write_bytes(content)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    printed = run("predict.py", "--model", tmp_path, "A book.").stdout
    assert "Summary: " in printed and "<extra_id" not in printed


@pytest.mark.parametrize(("token", "broken", "words"), [
    ("hf_refused", False, ["cannot push to user/refused", "hf auth login"]),
    ("", False, ["cannot push to user/refused", "hf auth login"]),
    (Hub.token, True, ["is safe in", "hf upload user/broken"]),
])  # fmt: skip
def test_a_push_that_fails_loses_nothing(hub, amazon, token, broken, words, tmp_path):
    repo = "user/broken" if broken else "user/refused"
    hub.broken = broken
    flags = ["--preset", "amazon", "--data", amazon, "--output-dir", tmp_path / "model", "--max-steps", 2]
    result = run_with(hub, "train_accelerate.py", *flags, "--push-to-hub", repo, token=token, check=False)
    hub.broken = False
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("train_accelerate.py: error: ") and all(word in line for word in words)
    assert "Traceback" not in result.stderr
    assert (tmp_path / "model/model.safetensors").exists() == broken  # a refused token shows before the training


def test_without_a_network_one_line_says_what_to_do(tmp_path):
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    for script, remedy in (("prepare_data.py", "--model"), ("predict.py", "--model")):
        flags = ["--model", "google/mt5-small", "A book."] if script == "predict.py" else ["--preset", "amazon"]
        result = run(script, *flags, check=False, **environment)
        assert result.returncode == 2
        assert "cannot reach http://127.0.0.1:9" in result.stderr.splitlines()[-1]
        assert remedy in result.stderr.splitlines()[-1]
