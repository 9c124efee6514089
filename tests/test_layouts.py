"""Checkpoints as they lie on the Hub: which are read, and which are refused in one line.

The layouts of the chapter's families are also those of test_families.py.
"""

import json
import shutil

import pytest
import torch
import transformers
from conftest import copy_data, read_json, run
from datasets import Dataset, concatenate_datasets, load_from_disk
from test_exact import SCRIPTS, error_line
from tiny_checkpoints import BART, BART_IDS, FAMILIES, T5
from tokenizers import BertWordPieceTokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    ByT5Tokenizer,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    MBartTokenizer,
    T5GemmaConfig,
    T5GemmaModuleConfig,
)
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

import common


@pytest.mark.parametrize("family", FAMILIES)
def test_published_files_hold_the_model_that_todays_hold(checkpoints, family):
    auto_class = AutoModelForCausalLM if family == "gpt2" else AutoModelForSeq2SeqLM
    today = checkpoints[family].parent.parent / "today" / family
    expected = auto_class.from_pretrained(today).state_dict()
    weights = auto_class.from_pretrained(checkpoints[family]).state_dict()
    assert not (checkpoints[family] / "model.safetensors").exists()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


# ---- Other families ------------------------------------------------------------------------------

BERT = {
    **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.3},
}
LED = {
    **{name: value for name, value in BART.items() if name != "max_position_embeddings"},
    **{"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 40},
    "attention_window": 16,
}
GEMMA = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16},
    **{"num_attention_heads": 2, "num_key_value_heads": 1},
}


def bert_tokenizer(data):
    """Return a tokenizer without an end token, as BERT's, whose texts end with [SEP]."""
    learned = BertWordPieceTokenizer()
    rows = load_from_disk(data)["train"]
    learned.train_from_iterator(rows["review_body"][:], vocab_size=300, show_progress=False)
    return transformers.BertTokenizer(vocab=learned.get_vocab())


def two_berts(tokenizer):
    """Return two BERTs joined to an encoder-decoder; the outer configuration has no vocab_size."""
    config = transformers.BertConfig(vocab_size=len(tokenizer), **BERT)
    joined = EncoderDecoderConfig.from_encoder_decoder_configs(config, config)
    joined.decoder_start_token_id = tokenizer.cls_token_id
    joined.eos_token_id, joined.pad_token_id = tokenizer.sep_token_id, tokenizer.pad_token_id
    return EncoderDecoderModel(config=joined)


def mbart_cc25_tokenizer(mbart_50):
    """Return a tokenizer that puts the language code at the end of a text."""
    vocabulary = json.loads(mbart_50.backend_tokenizer.to_str())["model"]["vocab"]
    special = {*mbart_50.lang_code_to_id, "<mask>"}
    pieces = [tuple(piece) for piece in vocabulary if piece[0] not in special]
    pieces += [(code, 0.0) for code in FAIRSEQ_LANGUAGE_CODES] + [("<mask>", 0.0)]
    return MBartTokenizer(vocab=pieces)


def t5gemma(tokenizer):
    part = T5GemmaModuleConfig(vocab_size=len(tokenizer), **GEMMA)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = T5GemmaConfig(encoder=part, decoder=part, vocab_size=len(tokenizer), **ids)
    return transformers.T5GemmaForConditionalGeneration(config)


def tiny(name, tokenizer, **config):
    """Return a model of the class ``name`` of transformers."""
    model_class = getattr(transformers, name)
    return model_class(model_class.config_class(vocab_size=len(tokenizer), **config))


@pytest.fixture(scope="module")
def data(prepared, tmp_path_factory):
    """Prepared data of a few rows."""
    folder = tmp_path_factory.mktemp("layouts") / "data"
    return copy_data(prepared[0], folder, train=8, validation=4, test=2)


@pytest.fixture(scope="module")
def others(checkpoints, data, tmp_path_factory):
    """{name: folder of a tiny checkpoint}."""
    names = ("t5", "bart", "mbart")
    t5, bart, mbart = (AutoTokenizer.from_pretrained(checkpoints[name]) for name in names)
    bert, byt5, cc25 = bert_tokenizer(data), ByT5Tokenizer(), mbart_cc25_tokenizer(mbart)
    broken = {
        value: tiny("BartForConditionalGeneration", bart, **BART, **BART_IDS)
        for value in ("nan", "inf")
    }
    for value, model in broken.items():
        model.model.encoder.layers[0].fc1.weight.data[3, 5] = float(value)
    models = {
        "byt5": (tiny("T5ForConditionalGeneration", byt5, **T5), byt5),
        "two berts": (two_berts(bert), bert),
        "led": (tiny("LEDForConditionalGeneration", bart, **LED, **BART_IDS), bart),
        "mvp": (tiny("MvpForConditionalGeneration", bart, **BART, **BART_IDS), bart),
        "umt5": (tiny("UMT5ForConditionalGeneration", t5, **T5), t5),
        "t5gemma": (t5gemma(t5), t5),
        "mbart-large-cc25": (tiny("MBartForConditionalGeneration", cc25, **BART, **BART_IDS), cc25),
        "blenderbot": (tiny("BlenderbotForConditionalGeneration", bart, **BART, **BART_IDS), bart),
        "bert": (tiny("BertForMaskedLM", bert, **BERT), bert),
        "llama": (tiny("LlamaForCausalLM", t5, **GEMMA), t5),
        "bart with the tokenizer of t5": (
            tiny("BartForConditionalGeneration", t5, **BART, **BART_IDS),
            t5,
        ),
        "large t5": (tiny("T5ForConditionalGeneration", range(2000), **T5), t5),
        "small t5": (tiny("T5ForConditionalGeneration", range(200), **T5), t5),
        **{value: (model, bart) for value, model in broken.items()},
    }
    parent = tmp_path_factory.mktemp("others")
    for name, (model, tokenizer) in models.items():
        model.save_pretrained(parent / name)
        tokenizer.save_pretrained(parent / name)
    # google/byt5-small has a configuration of its tokenizer, and no vocabulary.
    (parent / "byt5/added_tokens.json").unlink()
    settings = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}
    (parent / "byt5/tokenizer_config.json").write_text(json.dumps(settings))
    shutil.copytree(checkpoints["bart"], parent / "diverse bart")
    config = read_json(parent / "diverse bart/config.json") | {"num_beam_groups": 2}
    config |= {"diversity_penalty": 1.0}  # such a search is not part of transformers any more
    (parent / "diverse bart/config.json").write_text(json.dumps(config))
    return {path.name: path for path in parent.iterdir()}


def train_and_predict(script, model, data, folder):
    """Train two epochs; the saved model has the scores that the training printed."""
    flags = ["--data", data, "--max-input-length", 64]
    options = ["--epochs", 2, "--batch-size", 4, "--learning-rate", 0.01, "--output-dir", folder]
    run(f"train_{script}.py", "--model", model, *flags, *options)
    scores = read_json(folder / "results.json")["scores"]
    printed = run("predict.py", "--model", folder, *flags, "--split", "validation").stdout
    assert common.format_scores(scores, "validation") in printed


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["byt5", "two berts", "led"])
def test_other_families_are_trained_and_read_again(others, data, tmp_path, name, script):
    train_and_predict(script, others[name], data, tmp_path / "model")


@pytest.mark.parametrize("name", ["mvp", "umt5", "t5gemma"])
def test_families_beyond_the_table_that_work_are_accepted(others, data, tmp_path, name):
    train_and_predict("trainer", others[name], data, tmp_path / "model")


def test_what_byt5_reads(others):
    tokenizer = AutoTokenizer.from_pretrained(others["byt5"])
    assert tokenizer("é")["input_ids"] == [0xC3 + 3, 0xA9 + 3, 1]  # bytes; 0 to 2 are special


# ---- Refused in one line -------------------------------------------------------------------------

STOP = "does not stop at the token with which its tokenizer ends a text; copy the tokenizer's files"
REFUSED = [
    # (name, flags, words of the line, whether predict.py refuses it too)
    ("mbart-large-cc25", [], STOP),
    ("bart with the tokenizer of t5", [], STOP),
    ("large t5", [], "writes 2000 tokens, but its tokenizer has 402; copy the tokenizer's files"),
    ("small t5", [], "writes 200 tokens, but its tokenizer has 402; copy the tokenizer's files"),
    ("blenderbot", [], "is a blenderbot, which is not supported"),
    ("nan", [], "has weights that are not finite numbers"),
    ("inf", [], "has weights that are not finite numbers"),
    ("diverse bart", [], "Group Beam Search"),
    ("led", ["--max-input-length", 65], "give --max-input-length 64"),
    ("led", ["--max-target-length", 41], "give --max-target-length 40"),
    ("mvp", ["--max-target-length", 65], "give --max-target-length 64"),
    ("two berts", ["--max-input-length", 65], "give --max-input-length 64"),
    ("two berts", ["--max-target-length", 65], "give --max-target-length 64"),
]


def check_refusal(script, others, name, flags, words, *more):
    """Check that the script ends with one line that names the checkpoint and has the ``words``."""
    line = error_line(
        run(script, "--model", others[name], "--max-input-length", 64, *flags, *more, check=False)
    )
    assert f"--model {others[name]}" in line and words in line


@pytest.mark.parametrize(("name", "flags", "words"), REFUSED)
def test_a_training_refuses(others, data, tmp_path, name, flags, words):
    for script in SCRIPTS:
        more = ["--data", data, "--output-dir", tmp_path / "model"]
        check_refusal(f"train_{script}.py", others, name, flags, words, *more)
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_language_that_the_tokenizer_does_not_know_is_refused(
    checkpoints, data, tmp_path, script
):
    books = load_from_disk(data)
    row = {"review_body": "Очень хорошая книга.", "review_title": "Хорошо", "language": "ru"}
    row |= dict.fromkeys(set(books["train"].column_names) - row.keys(), "book")
    russian = Dataset.from_list([row], features=books["train"].features)
    books["train"] = concatenate_datasets([books["train"], russian])  # one row in many others
    books.save_to_disk(tmp_path / "data")
    shutil.copy(data / "arguments.json", tmp_path / "data")
    more = ["--data", tmp_path / "data", "--output-dir", tmp_path / "model"]
    words = "knows hardly a letter of the texts in ru"
    check_refusal(f"train_{script}.py", checkpoints, "t5", [], words, *more)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        *REFUSED,
        ("bert", [], "is a bert, which is not supported"),
        ("llama", [], "is a llama, which is not supported"),
    ],
)
def test_predict_refuses(others, name, flags, words):
    check_refusal("predict.py", others, name, flags, words, "A good book")
