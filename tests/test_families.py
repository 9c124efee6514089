"""The six families of the chapter's table: T5, mT5, BART, PEGASUS, mBART-50 and GPT-2.

Each of them is tiny here, with random weights, and its files are laid out as those on the Hub.
"""

import functools
import importlib
import shutil
import sys
from argparse import Namespace

import pytest
import torch
from accelerate import Accelerator
from conftest import copy_data, read_json, run, sample
from datasets import Dataset, load_from_disk
from test_exact import SCRIPTS, error_line, loss_by_hand, read_log
from tiny_checkpoints import FAMILIES
from torch.utils.data import DataLoader
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import common
import predict
import train_accelerate
from data import trim_vocab

TRAINED = [family for family in FAMILIES if family != "gpt2"]
# The longest reviews that a model of each family can read. GPT-2 has its title after the review.
LONGEST = {"t5": 512, "mt5": 512, "bart": 64, "pegasus": 64, "mbart": 64, "gpt2": 64 - 30}


def arguments(folder, **flags):
    """Return the flags with which predict.py opens the checkpoint of a folder and writes titles."""
    length = LONGEST.get(folder.name, 512)
    return Namespace(
        **{"model": str(folder), "bf16": False, "batch_size": 8, "max_input_length": length}
        | {"max_target_length": 30, "num_beams": None}
        | flags
    )


def opened(folder, **flags):
    """Return tokenizer and model of a folder, as predict.py has them."""
    return predict.load_model(arguments(folder, **flags))


class Stop(Exception):
    """Ends a training script before it trains."""


@pytest.fixture
def batches(checkpoints, data, monkeypatch, tmp_path_factory):
    """A function that returns the tokenized rows of a split and the collator of a training script.

    The script runs up to the place where it hands them to the library.
    """

    output = tmp_path_factory.mktemp("output")

    def tokenized(script, family, split="train", data=data):
        given = {}

        def trainer(*_, train_dataset, eval_dataset, data_collator, **__):
            given.update(train=train_dataset, validation=eval_dataset, collator=data_collator)
            raise Stop

        def loader(dataset, collate_fn, sampler=None, **_):
            given.update({"train" if sampler else "validation": dataset, "collator": collate_fn})
            if "train" in given and "validation" in given:
                raise Stop

        module = importlib.import_module(f"train_{script}")
        name, stand_in = {
            "trainer": ("Seq2SeqTrainer", trainer),
            "accelerate": ("DataLoader", loader),
        }[script]
        monkeypatch.setattr(module, name, stand_in)
        flags = ["--model", checkpoints[family], "--data", data]
        flags += ["--max-input-length", LONGEST[family], "--output-dir", output]
        monkeypatch.setattr(sys, "argv", [f"train_{script}.py", *map(str, flags)])
        with pytest.raises(Stop):
            module.main()
        return given[split], given["collator"]

    return tokenized


# ---- The rows that a model gets ------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(prepared, tmp_path_factory):
    """Prepared data of a few rows."""
    folder = tmp_path_factory.mktemp("families") / "data"
    return copy_data(prepared[0], folder, train=8, validation=13, test=5)


@pytest.fixture(scope="module")
def rows():
    """Eight English and eight Spanish reviews, one of them longer than most models can read."""
    rows = [row for language in ("en", "es") for row in sample(language, "test")[:8]]
    rows[3]["review_body"] *= 12
    return Dataset.from_list(rows).select_columns(["review_body", "review_title", "language"])


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def given_to_generate(reviews, languages, tokenizer, model, args):
    """Return the input_ids and the attention_mask with which predict.py calls model.generate."""
    given = {}

    def generate(input_ids, attention_mask, max_new_tokens):
        given.update(input_ids=input_ids, attention_mask=attention_mask)
        raise Stop

    model.generate = generate
    dataset = Dataset.from_dict({"review_body": reviews, "language": languages})
    with pytest.raises(Stop):
        predict.summarize(dataset, tokenizer, model, args)
    return given


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("family", "language", "review", "title"),
    [
        ("t5", "es", "summarize: Buen libro.</s>", "Bueno</s>"),
        ("mt5", "es", "Buen libro.</s>", "Bueno</s>"),
        ("bart", "es", "<s>Buen libro.</s>", "<s>Bueno</s>"),
        ("pegasus", "es", "Buen libro.</s>", "Bueno</s>"),
        ("mbart", "es", "es_XX Buen libro.</s>", "es_XX Bueno</s>"),
        ("mbart", "en", "en_XX Buen libro.</s>", "en_XX Bueno</s>"),
        ("mbart", "ja", "ja_XX Buen libro.</s>", "ja_XX Bueno</s>"),
    ],
)
def test_what_a_model_reads_and_writes(
    checkpoints, batches, script, family, language, review, title, data, tmp_path
):
    book = {"review_body": "Buen libro.", "review_title": "Bueno", "language": language}
    books = load_from_disk(data)
    books["train"] = Dataset.from_list([book])
    books.save_to_disk(tmp_path)
    shutil.copy(data / "arguments.json", tmp_path)
    tokenized, _ = batches(script, family, data=tmp_path)
    tokenizer, model = opened(checkpoints[family])
    assert set(tokenized.column_names) == {"input_ids", "attention_mask", "labels"}
    assert tokenizer.decode(tokenized[0]["input_ids"]) == review
    assert tokenizer.decode(tokenized[0]["labels"]) == title
    # predict.py gives the model the same.
    args = arguments(checkpoints[family])
    inputs = given_to_generate(["Buen libro."], [language], tokenizer, model, args)
    assert inputs["input_ids"].tolist() == [tokenized[0]["input_ids"]]


def test_what_gpt2_reads(checkpoints):
    tokenizer, model = opened(checkpoints["gpt2"])
    reviews = ["A long book. " * 500, "A good book.", "Good."]  # the longest comes first
    args = arguments(checkpoints["gpt2"])
    inputs = given_to_generate(reviews, ["en"] * 3, tokenizer, model, args)
    texts = tokenizer.batch_decode(inputs["input_ids"])
    padding = ["<|endoftext|>" * mask.tolist().count(0) for mask in inputs["attention_mask"]]
    assert texts[1:] == [padding[1] + "A good book.\nTL;DR:", padding[2] + "Good.\nTL;DR:"]
    assert padding[2] > padding[1] > padding[0] == ""
    assert inputs["input_ids"].shape == (3, 34) and texts[0].endswith("\nTL;DR:")


@pytest.mark.parametrize(
    ("family", "longest"), [("bart", 64), ("pegasus", 64), ("mbart", 64), ("gpt2", 34)]
)
def test_reviews_longer_than_the_positions_are_refused(checkpoints, capsys, family, longest):
    with pytest.raises(SystemExit, match="2"):
        opened(checkpoints[family], max_input_length=longest + 1)
    assert f"give --max-input-length {longest}" in capsys.readouterr().err


def summarize(tokenizer, model, rows, folder):
    """Return the titles that predict.py writes, eight reviews per batch."""
    return predict.summarize(rows, tokenizer, model, arguments(folder))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("family", TRAINED)
def test_the_collator_pads_labels_and_shifts_them(checkpoints, batches, data, script, family):
    tokenizer, model = opened(checkpoints[family])
    tokenized, collator = batches(script, family)
    batch = collator([tokenized[i] for i in range(8)])
    start = model.config.decoder_start_token_id
    for labels, decoder_inputs, row in zip(
        *(batch["labels"].tolist(), batch["decoder_input_ids"].tolist()),
        load_from_disk(data)["train"],
        strict=True,
    ):
        ids = tokenizer(row["review_title"], max_length=30, truncation=True)["input_ids"]
        if family == "mbart":
            ids[0] = tokenizer.convert_tokens_to_ids(
                {"en": "en_XX", "es": "es_XX"}[row["language"]]
            )
        assert labels == ids + [-100] * (len(labels) - len(ids))
        shifted = [start, *ids, *[tokenizer.pad_token_id] * len(labels)]
        assert decoder_inputs == shifted[: len(labels)]
    assert (batch["labels"] == -100).any()
    assert batch["input_ids"].shape[1] <= LONGEST[family]


# ---- Titles --------------------------------------------------------------------------------------


def test_titles_in_a_batch_are_those_one_by_one(checkpoints, rows, family):
    tokenizer, model = opened(checkpoints[family])
    titles = summarize(tokenizer, model, rows, checkpoints[family])
    alone = [
        summarize(tokenizer, model, rows.select([i]), checkpoints[family])[0]
        for i in range(len(rows))
    ]
    assert titles == alone
    assert len(set(titles)) > 4  # they go by the review


@pytest.mark.parametrize("family", TRAINED)
def test_titles_and_loss_of_the_evaluation_are_those_of_the_model(
    checkpoints, batches, data, family
):
    tokenizer, model = opened(checkpoints[family])
    model.generation_config.max_new_tokens = 30  # as the training scripts set it
    tokenized, collator = batches("accelerate", family, "validation")
    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(DataLoader(tokenized, collate_fn=collator, batch_size=5))
    titles, eval_loss = train_accelerate.evaluate(accelerator, model, loader, tokenizer)
    rows = load_from_disk(data)["validation"]
    assert [title.strip() for title in titles] == summarize(
        tokenizer, model, rows, checkpoints[family]
    )
    with torch.no_grad():
        assert eval_loss == pytest.approx(
            loss_by_hand(model, collator(list(tokenized))).item(), rel=1e-5
        )


def test_mbart_is_not_forced_to_write_in_one_language(checkpoints):
    # A checkpoint from the Hub names one language for all rows. Ours leaves it to the model.
    assert read_json(checkpoints["mbart"] / "config.json")["forced_bos_token_id"] == 4
    assert opened(checkpoints["mbart"])[1].generation_config.forced_bos_token_id is None


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        ("t5", {"num_beams": None}),
        ("mt5", {"num_beams": None}),
        ("bart", {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3}),
        ("bart", {"forced_bos_token_id": 0}),
        ("pegasus", {"num_beams": 8, "length_penalty": 0.6}),
        ("mbart", {"num_beams": 5, "forced_eos_token_id": 2}),
        ("gpt2", {"num_beams": None}),
    ],
)
def test_generation_settings_of_a_checkpoint(checkpoints, family, kept):
    for beams in (None, 2):
        settings = opened(checkpoints[family], num_beams=beams)[1].generation_config.to_dict()
        expected = {**kept, "max_length": None, "min_length": 0}
        expected |= {"num_beams": 2} if beams else {}
        assert {name: settings[name] for name in expected} == expected


def test_beams_given_up_leave_settings_that_can_be_saved(checkpoints, tmp_path):
    settings = opened(checkpoints["bart"], num_beams=1)[1].generation_config
    settings.save_pretrained(tmp_path)
    assert read_json(tmp_path / "generation_config.json")["num_beams"] == 1


# ---- The scripts ---------------------------------------------------------------------------------

CUTS = [("trainer", 1), ("accelerate", 1), ("trainer", 2), ("accelerate", 2)]  # script, processes


@pytest.fixture(scope="module")
def trained(checkpoints, data, tmp_path_factory):
    """A function that returns the folder of a model after four large steps of a script."""

    @functools.cache
    def train(family, script, processes):
        folder = tmp_path_factory.mktemp(family) / f"{script}-{processes}"
        run(
            f"train_{script}.py",
            *["--model", checkpoints[family], "--data", data, "--output-dir", folder],
            *["--max-input-length", LONGEST[family], "--num-beams", 2, "--epochs", 4],
            *["--batch-size", 8 // processes, "--learning-rate", 0.01, "--weight-decay", 0],
            processes=processes,
        )
        assert read_json(folder / "results.json")["arguments"]["processes"] == processes
        return folder

    return train


# mT5, and PEGASUS, whose constants two processes would wait for; the others before a release
CURVES = [
    family if family in ("mt5", "pegasus") else pytest.param(family, marks=pytest.mark.full)
    for family in TRAINED
]


@pytest.mark.parametrize("family", CURVES)
def test_both_scripts_on_one_and_two_processes_have_one_curve(
    trained, checkpoints, batches, family
):
    folders = [trained(family, *cut) for cut in CUTS]
    tokenized, collator = batches("trainer", family)
    with torch.no_grad():
        first = loss_by_hand(opened(checkpoints[family])[1], collator(list(tokenized))).item()
    curve = read_log(folders[0], "loss")
    assert curve[0] == pytest.approx(first, rel=1e-5)
    assert curve[0] > curve[-1] + 0.05  # it learns
    for folder in folders:
        assert read_log(folder, "loss") == pytest.approx(curve, rel=1e-4)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("family", TRAINED)
def test_a_saved_model_is_that_of_the_best_epoch(
    trained, checkpoints, batches, data, family, script
):
    folder = trained(family, script, 1)
    rouge, eval_losses = read_log(folder, "eval_rougeL"), read_log(folder, "eval_loss")
    expected = eval_losses[rouge.index(max(rouge))]
    tokenized, collator = batches(script, family, "validation")
    batch = collator(list(tokenized))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    with torch.no_grad():
        assert loss_by_hand(model, batch).item() == pytest.approx(expected, rel=1e-5)
        before = loss_by_hand(opened(checkpoints[family])[1], batch).item()
    assert abs(before - expected) > 0.05
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(checkpoints[family]).get_vocab()
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == (family != "mt5")
    # predict.py has the same scores.
    flags = ["--model", folder, "--data", data, "--max-input-length", LONGEST[family]]
    printed = run("predict.py", *flags, "--split", "validation").stdout
    scores = read_json(folder / "results.json")["scores"]
    assert common.format_scores(scores, "validation") in printed
    settings = read_json(folder / "generation_config.json")
    assert settings["num_beams"] == 2 and settings["max_new_tokens"] == 30
    assert settings.get("max_length") is None  # the Trainer writes 20 into it


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_a_trimmed_head_stays_tied_or_separate(checkpoints, data, tmp_path, family):
    run("data/trim_vocab.py", checkpoints[family], data, tmp_path / "trimmed")
    flags = ["--model", tmp_path / "trimmed", "--data", data, "--output-dir", tmp_path / "model"]
    run("train_accelerate.py", *flags, "--epochs", 1, "--learning-rate", 0.01)
    for folder in (tmp_path / "trimmed", tmp_path / "model"):
        tokenizer, model = opened(folder)
        assert len(tokenizer) == model.config.vocab_size < 402
        head, embeddings = model.lm_head.weight, model.get_input_embeddings().weight
        assert (head is embeddings) == torch.equal(head, embeddings) == (family == "t5")


def test_trimming_keeps_the_pieces_of_the_prefix(checkpoints):
    tokenizer, model = opened(checkpoints["t5"])
    rows = Dataset.from_dict({"review_body": ["ok"], "review_title": ["ok"]})
    kept = trim_vocab.find_used_pieces(tokenizer, model, rows)
    trimmed = trim_vocab.trim_tokenizer(tokenizer, kept)
    assert len(trimmed) < len(tokenizer)
    assert trimmed.tokenize("summarize: ok") == tokenizer.tokenize("summarize: ok")


def test_predict_writes_titles_and_scores_of_gpt2(checkpoints, data):
    flags = ["--model", checkpoints["gpt2"], "--data", data, "--max-input-length", 34]
    printed = run("predict.py", *flags, "I loved it! " * 100).stdout
    summary = printed.split("'>>> Summary: ")[1]
    assert len(summary) > 10 and "TL;DR" not in printed and "loved" not in summary
    printed = run("predict.py", *flags, "--split", "test").stdout
    assert "test split: ROUGE F1" in printed and "all, 5 rows" in printed and "lead-3" in printed


@pytest.mark.parametrize("script", SCRIPTS)
def test_gpt2_is_not_trained(checkpoints, data, tmp_path, script):
    flags = ["--model", checkpoints["gpt2"], "--data", data, "--output-dir", tmp_path / "model"]
    line = error_line(run(f"train_{script}.py", *flags, check=False))
    assert "cannot load --model" in line and "GPT2" in line
    assert not (tmp_path / "model").exists()


def test_mbart_needs_the_language_of_a_text(checkpoints):
    flags = ["--model", checkpoints["mbart"], "--max-input-length", 64, "Me gustó mucho."]
    for language in ([], ["--language", "eo"]):
        line = error_line(run("predict.py", *language, *flags, check=False))
        assert "af, ar, " in line and " es, " in line and "--language" in line
    assert "Summary: " in run("predict.py", "--language", "es", *flags).stdout
    tokenizer, _ = opened(checkpoints["mbart"])
    spanish, english = common.language_ids(["es", "en"], tokenizer)
    assert tokenizer.convert_ids_to_tokens([spanish, english]) == ["es_XX", "en_XX"]
    with pytest.raises(SystemExit):  # before the first batch, and not when eo comes
        common.language_ids(["es", "eo"], tokenizer)
