"""--trim-vocab on a tokenizer of mT5's size."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from benchmark import save_full_size_model, save_full_size_tokenizer
from conftest import ROOT, run
from datasets import load_from_disk
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from common import load_checkpoint


@pytest.fixture(scope="module")
def narrow(prepared, tmp_path_factory):
    """A checkpoint with mT5's 250,112 rows, narrow elsewhere, whose head is not its embeddings."""
    folder = tmp_path_factory.mktemp("narrow")
    save_full_size_tokenizer(prepared[0] / "tiny-mt5", folder)
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(MT5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(prepared):
    return load_from_disk(prepared[0])["train"].select(range(150))


@pytest.fixture(scope="module")
def trimmed(narrow, rows, tmp_path_factory):
    """(tokenizer, model) of the whole checkpoint, and of the trimmed one saved and opened again."""
    folder = tmp_path_factory.mktemp("trimmed")
    flags = {"model": str(narrow), "data": "", "num_beams": None, "max_target_length": 30, "bf16": False}
    args = SimpleNamespace(**flags, trim_vocab=True)
    tokenizer, model = load_checkpoint(args, rows)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return load_checkpoint(args), (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSeq2SeqLM.from_pretrained(folder),
    )


def test_training_texts_get_the_same_pieces(trimmed, rows):
    (whole, _), (kept, model) = trimmed
    assert len(whole) == 250_100 and len(kept) < 4_000
    assert model.config.vocab_size == model.shared.num_embeddings == len(kept)
    for row in rows:
        for text in (row["review_body"], row["review_title"]):
            assert kept.convert_ids_to_tokens(kept(text).input_ids) == whole.convert_ids_to_tokens(
                whole(text).input_ids
            )


def test_encoder_states_and_kept_logits_are_the_same(trimmed, rows):
    (whole, whole_model), (kept, kept_model) = trimmed
    numbers = whole.convert_tokens_to_ids(kept.convert_ids_to_tokens(range(len(kept))))  # new id: old id
    inputs = [tokenizer(rows["review_body"][:8], return_tensors="pt", padding=True) for tokenizer in (whole, kept)]
    labels = kept(rows["review_title"][:8], return_tensors="pt", padding=True).input_ids
    with torch.no_grad():
        whole_outputs = whole_model.eval()(**inputs[0], labels=torch.tensor(numbers)[labels])
        kept_outputs = kept_model.eval()(**inputs[1], labels=labels)
    assert torch.equal(whole_outputs.encoder_last_hidden_state, kept_outputs.encoder_last_hidden_state)
    torch.testing.assert_close(whole_outputs.logits[..., numbers], kept_outputs.logits, rtol=0, atol=1e-6)
    assert not torch.equal(kept_model.shared.weight, kept_model.lm_head.weight)  # the head is still its own


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog, 1234567890 times!",
        "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia; ¿añoraba? ¡Sí!",
        "Q. W. Xylophone & Zürich: 5/5 (50%)",
        "“It’s 5 € — or less”",
    ],
)
def test_other_texts_are_still_written(trimmed, text):
    _, (kept, _) = trimmed
    ids = kept(text).input_ids
    assert kept.unk_token_id not in ids
    assert kept.decode(ids, skip_special_tokens=True) == text


def test_only_the_training_split_is_looked_at(trimmed, prepared, rows):
    (whole, _), (kept, _) = trimmed
    books = load_from_disk(prepared[0])
    used = {piece for text in rows["review_body"] for piece in whole.tokenize(text)}
    used |= {piece for text in rows["review_title"] for piece in whole.tokenize(text)}
    for split in ("validation", "test"):
        others = {piece for text in books[split]["review_body"] for piece in whole.tokenize(text)} - used
        others = {piece for piece in others if len(piece.strip("▁")) > 1}
        assert others and not others & set(kept.get_vocab())


def test_pad_end_and_unknown_keep_their_meaning(trimmed):
    (whole, _), (kept, model) = trimmed
    assert kept.all_special_tokens == whole.all_special_tokens
    assert (model.config.pad_token_id, model.config.eos_token_id) == (kept.pad_token_id, kept.eos_token_id)
    assert kept("字", add_special_tokens=False).input_ids[-1] == kept.unk_token_id


def test_a_trimmed_run_is_an_ordinary_checkpoint(narrow, prepared, tmp_path):
    flags = ["--data", prepared[0], "--output-dir", tmp_path / "model", "--max-steps", 2]
    printed = run("train_accelerate.py", "--model", narrow, "--trim-vocab", *flags).stderr
    assert "of 250,100 pieces" in printed
    assert "Summary: " in run("predict.py", "--model", tmp_path / "model", "I loved it!").stdout
    assert (tmp_path / "model/model.safetensors").stat().st_size < 2_000_000  # 250,112 rows would take 32 MB


def test_other_tokenizers_are_refused(prepared, tmp_path):
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        ["some words to learn from"], vocab_size=300, special_tokens=["<s>", "<pad>", "</s>"]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(tmp_path / "bart")
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = BartConfig(vocab_size=300, d_model=16, encoder_attention_heads=2, decoder_attention_heads=2, **layers)
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "bart")
    result = run("train_trainer.py", "--model", tmp_path / "bart", "--data", prepared[0], "--output-dir",
                 tmp_path / "model", "--trim-vocab", check=False)  # fmt: skip
    assert result.returncode == 2
    assert "error: --trim-vocab is for T5 and mT5, not for bart" in result.stderr.splitlines()[-1]


TRIM = """
import sys
from types import SimpleNamespace
from datasets import load_from_disk
from common import load_checkpoint
args = SimpleNamespace(model=sys.argv[1], data="", num_beams=None, max_target_length=30, bf16=False, trim_vocab=True)
load_checkpoint(args, load_from_disk(sys.argv[2])["train"])
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024)
"""


@pytest.mark.slow
def test_full_size_takes_a_minute_and_4_gib_over_the_model_at_most(prepared, tmp_path):
    save_full_size_tokenizer(prepared[0] / "tiny-mt5", tmp_path)
    save_full_size_model(tmp_path)
    started = time.monotonic()
    printed = subprocess.check_output([sys.executable, "-c", TRIM, tmp_path, prepared[0]], cwd=ROOT, text=True)
    assert time.monotonic() - started < 60
    assert int(printed) < (tmp_path / "model.safetensors").stat().st_size + 4 * 2**30
