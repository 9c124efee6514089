"""data/trim_vocab.py on a tokenizer of mT5's size, and on a trained checkpoint."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import (
    ENVIRONMENT,
    ROOT,
    copy_data,
    read_json,
    run,
    save_full_size_tokenizer,
    save_mt5,
)
from datasets import load_from_disk
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

NARROW = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
PREFIX = "summarize the opinion: "


def load(folder):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder), model.eval()


@pytest.fixture(scope="module")
def data(prepared, tmp_path_factory):
    """The first 150 rows of the training split, beside the whole validation and test splits."""
    return copy_data(prepared[0], tmp_path_factory.mktemp("data") / "data", train=150)


@pytest.fixture(scope="module")
def rows(data):
    return load_from_disk(data)["train"]


@pytest.fixture(scope="module")
def narrow(prepared, tmp_path_factory):
    """A checkpoint with mT5's 250,112 rows, narrow elsewhere, whose head is not its embeddings."""
    folder = tmp_path_factory.mktemp("narrow")
    save_full_size_tokenizer(prepared[0] / "tiny-mt5", folder)
    save_mt5(folder, **NARROW)
    return folder


@pytest.fixture(scope="module")
def narrow_t5(narrow, tmp_path_factory):
    """A T5 of the same size, whose head is its embeddings, with a prefix before each review."""
    folder = tmp_path_factory.mktemp("narrow-t5")
    AutoTokenizer.from_pretrained(narrow).save_pretrained(folder)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=250_112, decoder_start_token_id=0, **NARROW)
    )
    model.config.task_specific_params = {"summarization": {"prefix": PREFIX}}
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trimmed(narrow, data, tmp_path_factory):
    """(tokenizer, model) of the whole checkpoint, and of the trimmed one."""
    folder = tmp_path_factory.mktemp("trimmed") / "new/trimmed"
    printed = run("data/trim_vocab.py", narrow, data, folder).stdout
    assert "of 250,100 pieces" in printed and f"Saved in {folder}" in printed
    assert (folder / "model.safetensors").stat().st_size < 1_000_000  # 250,112 rows take 32 MB
    assert [path.name for path in folder.parent.iterdir()] == ["trimmed"]
    return load(narrow), load(folder)


def test_training_texts_get_the_same_pieces(trimmed, rows):
    (whole, _), (kept, model) = trimmed
    assert len(whole) == 250_100 and len(kept) < 4_000
    assert model.config.vocab_size == model.shared.num_embeddings == len(kept)
    assert model.lm_head.out_features == len(kept)
    for row in rows:
        for text in (row["review_body"], row["review_title"]):
            pieces = [names.convert_ids_to_tokens(names(text).input_ids) for names in (whole, kept)]
            assert pieces[0] == pieces[1]


def compare_outputs(whole, whole_model, kept, kept_model, reviews, titles):
    """Check that the encoder states and the logits of the kept pieces are the same."""
    # numbers[new id] is the old id.
    numbers = whole.convert_tokens_to_ids(kept.convert_ids_to_tokens(range(len(kept))))
    labels = kept(titles, return_tensors="pt", padding=True).input_ids
    with torch.no_grad():
        inputs = whole(reviews, return_tensors="pt", padding=True)
        whole_outputs = whole_model(**inputs, labels=torch.tensor(numbers)[labels])
        inputs = kept(reviews, return_tensors="pt", padding=True)
        kept_outputs = kept_model(**inputs, labels=labels)
    states = whole_outputs.encoder_last_hidden_state, kept_outputs.encoder_last_hidden_state
    assert torch.equal(*states)
    logits = whole_outputs.logits[..., numbers], kept_outputs.logits
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-6)
    assert logits[0].std() > 0


def test_encoder_states_and_kept_logits_are_the_same(trimmed, rows):
    compare_outputs(*trimmed[0], *trimmed[1], rows["review_body"][:8], rows["review_title"][:8])


def test_the_head_of_mt5_stays_its_own(trimmed):
    (_, whole_model), (_, model) = trimmed
    assert model.lm_head.weight is not model.shared.weight
    assert torch.equal(whole_model.shared.weight[:3], model.shared.weight[:3])
    assert torch.equal(whole_model.lm_head.weight[:3], model.lm_head.weight[:3])
    assert not torch.equal(model.shared.weight, model.lm_head.weight)


def test_the_head_of_t5_stays_tied(narrow_t5, data, rows, tmp_path):
    run("data/trim_vocab.py", narrow_t5, data, tmp_path / "trimmed")
    kept, model = load(tmp_path / "trimmed")
    assert model.lm_head.weight is model.shared.weight is model.encoder.embed_tokens.weight
    assert model.config.tie_word_embeddings is True
    assert (tmp_path / "trimmed/model.safetensors").stat().st_size < 1_000_000
    # The prefix stands before each review, so its pieces are kept too.
    reviews = [PREFIX + review for review in rows["review_body"][:8]]
    compare_outputs(*load(narrow_t5), kept, model, reviews, rows["review_title"][:8])


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog, 1234567890 times!",
        "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia; ¿añoraba? ¡Sí!",
        "Q. W. Xylophone & Zürich: 5/5 (50%)",
        "“It’s 5 € — or less”",
    ],
)
def test_other_texts_can_still_be_written(trimmed, text):
    _, (kept, _) = trimmed
    ids = kept(text).input_ids
    assert kept.unk_token_id not in ids
    assert kept.decode(ids, skip_special_tokens=True) == text


def test_only_the_training_split_is_looked_at(trimmed, data):
    (whole, _), (kept, _) = trimmed
    books = load_from_disk(data)

    def pieces(split):
        texts = books[split]["review_body"][:] + books[split]["review_title"][:]
        return {piece for text in texts for piece in whole.tokenize(text)}

    for split in ("validation", "test"):
        others = pieces(split) - pieces("train")
        others = {piece for piece in others if len(piece.strip("▁")) > 1}
        assert others and not others & set(kept.get_vocab())


def test_pad_end_and_unknown_keep_their_meaning(trimmed):
    (whole, _), (kept, model) = trimmed
    assert kept.all_special_tokens == whole.all_special_tokens
    assert model.config.pad_token_id == model.config.decoder_start_token_id == kept.pad_token_id
    assert model.config.eos_token_id == kept.eos_token_id
    assert kept("字", add_special_tokens=False).input_ids[-1] == kept.unk_token_id


@pytest.fixture(scope="module")
def trained_and_trimmed(trained, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "trimmed"
    run("data/trim_vocab.py", trained["trainer"], data, folder)
    return folder


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_a_trained_and_trimmed_checkpoint_is_an_ordinary_one(
    trained_and_trimmed, trained, prepared, script, tmp_path
):
    whole, pieces = (
        read_json(folder / "config.json")["vocab_size"]
        for folder in (trained["trainer"], trained_and_trimmed)
    )
    assert 500 < pieces < 0.8 * whole
    data = copy_data(prepared[0], tmp_path / "data", validation=24)
    flags = ["--model", trained_and_trimmed, "--data", data, "--output-dir", tmp_path / "model"]
    flags += ["--max-train-samples", 48, "--epochs", 1, "--learning-rate", 1e-4]
    run(f"train_{script}.py", *flags)
    loss = pd.read_csv(tmp_path / "model/log.csv")["loss"].dropna()
    assert loss.iloc[0] < 2  # random weights have ln(pieces), which is above 6
    assert read_json(tmp_path / "model/config.json")["vocab_size"] == pieces
    assert "Summary: " in run("predict.py", "--model", tmp_path / "model", "I loved it!").stdout


# ---- what is refused ---------------------------------------------------------------------------


def save_byte_level_tokenizer(folder):
    tokenizer = ByteLevelBPETokenizer()
    special_tokens = ["<s>", "<pad>", "</s>", "<unk>"]
    texts = ["some words to learn from"]
    tokenizer.train_from_iterator(texts, vocab_size=300, special_tokens=special_tokens)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = '"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"'
    text = '{"tokenizer_class": "PreTrainedTokenizerFast", ' + names + "}"
    (folder / "tokenizer_config.json").write_text(text)


def a_bart(folder, tiny):
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    layers |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    BartForConditionalGeneration(BartConfig(vocab_size=300, d_model=16, **layers)).save_pretrained(
        folder
    )
    save_byte_level_tokenizer(folder)


def a_t5_with_another_kind_of_tokenizer(folder, tiny):  # as CodeT5
    T5ForConditionalGeneration(T5Config(vocab_size=300, **NARROW)).save_pretrained(folder)
    save_byte_level_tokenizer(folder)


def nothing(folder, tiny):
    pass


def half_of_the_weights(folder, tiny):
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size // 2)


def no_tokenizer(folder, tiny):
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "spiece.model").unlink(missing_ok=True)


def a_missing_weight(folder, tiny):
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


REFUSED_MODELS = [
    (a_bart, "is a bart; name a T5 or an mT5"),
    (a_t5_with_another_kind_of_tokenizer, "has a BPE tokenizer; T5 and mT5 have Unigram"),
    (nothing, "cannot load {model}"),
    (half_of_the_weights, "incomplete metadata"),
    (no_tokenizer, "holds no tokenizer"),
    (a_missing_weight, "lacks weights, such as decoder.final_layer_norm.weight"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED_MODELS)
def test_other_models_are_refused(make, words, prepared, tmp_path):
    (tmp_path / "model").mkdir()
    make(tmp_path / "model", prepared[0] / "tiny-mt5")
    arguments = [tmp_path / "model", prepared[0], tmp_path / "trimmed"]
    result = run("data/trim_vocab.py", *arguments, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "trim_vocab.py: error: " in result.stderr.splitlines()[-1]
    assert words.format(model=tmp_path / "model") in result.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["trimmed", "trimmed.unfinished"])
def test_a_folder_that_exists_is_refused_and_stays(prepared, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    arguments = [prepared[0] / "tiny-mt5", prepared[0], tmp_path / "trimmed"]
    result = run("data/trim_vocab.py", *arguments, check=False)
    assert result.returncode == 2
    assert f"{tmp_path / name} exists; name a new folder" in result.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == [name, "mine.txt"]


def test_data_without_a_training_split_is_refused(prepared, tmp_path):
    books = load_from_disk(prepared[0])
    del books["train"]
    books.save_to_disk(tmp_path / "data")
    for data, words in ((tmp_path / "data", "train"), (tmp_path / "absent", "absent")):
        arguments = [prepared[0] / "tiny-mt5", data, tmp_path / "trimmed"]
        result = run("data/trim_vocab.py", *arguments, check=False)
        assert result.returncode == 2 and "Traceback" not in result.stderr
        assert words in result.stderr.splitlines()[-1]
        assert not (tmp_path / "trimmed").exists()


# ---- full size ---------------------------------------------------------------------------------


@pytest.mark.full
def test_full_size_takes_a_minute_and_4_gib_over_the_model_at_most(prepared, tmp_path):
    whole = tmp_path / "whole"
    save_mt5(whole)
    save_full_size_tokenizer(prepared[0] / "tiny-mt5", whole)
    command = [sys.executable, "data/trim_vocab.py", whole, prepared[0], tmp_path / "trimmed"]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=ENVIRONMENT)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    assert used.ru_utime + used.ru_stime < 60  # seconds of a core, also on a busy machine
    size = (whole / "model.safetensors").stat().st_size
    assert used.ru_maxrss * 1024 < size + 4 * 2**30
    assert (tmp_path / "trimmed/model.safetensors").stat().st_size < 0.2 * size
