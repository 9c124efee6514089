"""Every script through its real command, on a slice of the sample."""

import csv
import gzip
import importlib
import json
import os
import shutil
import sys
from collections import Counter
from itertools import product

import pandas as pd
import pytest
from conftest import ROOT, read_json, run, sample
from datasets import Dataset, DatasetDict, load_from_disk
from rouge_score.rouge_scorer import RougeScorer

from common import FLAGS, ROUGE_TYPES, TRAINING_FLAGS, parse_args, rouge_rows, sent_tokenize, three_sentence_summary

SPLITS = ("train", "validation", "test")
BOOKS = ("book", "digital_ebook_purchase")
COLUMNS = ["review_id", "product_id", "reviewer_id", "stars", "review_body", "review_title", "language",
           "product_category"]  # fmt: skip

# ---- data/sample -------------------------------------------------------------------------------


def test_the_sample_is_what_its_program_writes(tmp_path):
    run("data/compose_sample.py", "--output-dir", tmp_path)
    written = sorted(tmp_path.iterdir())
    assert len(written) == 6
    for path in written:
        assert path.read_bytes() == (ROOT / "data/sample" / path.name).read_bytes(), path.name


def test_the_sample_has_enough_rows_and_no_body_twice():
    bodies = []
    for language in ("en", "es"):
        for split, least in (("train", 2000), ("validation", 250), ("test", 250)):
            rows = sample(language, split)
            books = [row for row in rows if row["product_category"] in BOOKS]
            short = [row for row in books if len(row["review_title"].split()) <= 2]
            assert least <= len(books) < 0.9 * len(rows)
            assert len(short) > 0.1 * len(books)
            assert all(list(row) == COLUMNS and row["language"] == language for row in rows)
            assert {row["stars"] for row in rows} == {1, 2, 3, 4, 5}
            bodies += [row["review_body"] for row in rows]
    assert len(bodies) == len(set(bodies))
    assert sum(path.stat().st_size for path in (ROOT / "data/sample").iterdir()) < 4_000_000


# ---- prepare_data.py ---------------------------------------------------------------------------


def test_prepare_data_keeps_the_books_with_long_titles(prepared, reviews):
    folder, printed = prepared
    books = load_from_disk(folder)
    for split in SPLITS:
        rows = [json.loads(line) for language in ("en", "es")
                for line in (reviews / f"{language}_{split}.jsonl").read_text(encoding="utf-8").splitlines()]  # fmt: skip
        expected = Counter(row["review_body"] for row in rows
                           if row["product_category"] in BOOKS and len(row["review_title"].split()) > 2)  # fmt: skip
        assert Counter(books[split]["review_body"]) == expected
        assert books[split]["language"][:20].count("en") not in (0, 20)  # shuffled
    categories = [
        line.split()[0] for line in printed.splitlines() if line[-1:].isdigit() and line[24:].strip().isdigit()
    ]
    assert categories.count("book") == 2 and "kitchen" in categories
    assert "'>> Title: " in printed and "'input_ids'" in printed and "▁I" in printed
    assert "-100" in printed and "decoder_input_ids" in printed


def test_prepare_data_twice_gives_the_same_bytes(prepared, reviews, tmp_path):
    run("prepare_data.py", "--dataset", reviews, "--data", tmp_path / "again")
    for folder in ("train", "tiny-mt5"):
        for path in (tmp_path / "again" / folder).iterdir():  # `prepared` may hold the caches of a training by now
            if path.name != "state.json":  # holds datasets' fingerprint
                assert path.read_bytes() == (prepared[0] / folder / path.name).read_bytes(), path


def test_the_tiny_model_is_what_its_program_writes(prepared, tmp_path):
    shutil.copytree(prepared[0] / "train", tmp_path / "train")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    run("data/tiny_mt5.py", tmp_path)
    for path in (tmp_path / "tiny-mt5").iterdir():
        assert path.read_bytes() == (prepared[0] / "tiny-mt5" / path.name).read_bytes(), path


# ---- baseline.py -------------------------------------------------------------------------------


def test_baseline(prepared, tmp_path):
    printed = run("baseline.py", "--data", prepared[0], "--output-dir", tmp_path).stdout
    for fraction in ("recall 6/6", "precision 6/7", "precision 6/10", "recall 4/5, precision 4/6"):
        assert fraction in printed
    scores = read_json(tmp_path / "results.json")["scores"]
    assert list(scores) == ["en", "es", "all"]
    assert (
        scores["all"]["rows"]
        == scores["en"]["rows"] + scores["es"]["rows"]
        == load_from_disk(prepared[0])["validation"].num_rows
    )
    for row in scores.values():
        assert (
            5 < row["lead-3"]["rouge1"]["low"] < row["lead-3"]["rouge1"]["f1"] < row["lead-3"]["rouge1"]["high"] < 40
        )


def test_the_baseline_of_a_split_needs_no_other(prepared, tmp_path):
    books = load_from_disk(prepared[0])
    DatasetDict({"test": books["test"]}).save_to_disk(tmp_path / "data")
    shutil.copy(prepared[0] / "arguments.json", tmp_path / "data")
    run("baseline.py", "--data", tmp_path / "data", "--output-dir", tmp_path / "baseline", "--split", "test")
    assert read_json(tmp_path / "baseline/results.json")["scores"]["all"]["rows"] == len(books["test"])


def test_the_three_parts_of_rouge_by_hand(prepared, tmp_path):
    printed = run("baseline.py", "--data", prepared[0], "--output-dir", tmp_path).stdout
    f1, f2 = round(2 * 6 / (7 + 6), 4), round(2 * 4 / (6 + 5), 4)  # shared words and pairs of words, of how many
    pair = {"rouge1": f1, "rouge2": f2, "rougeL": f1, "rougeLsum": f1}
    swapped = {"rouge1": 1.0, "rouge2": round(2 * 2 / (3 + 3), 4), "rougeL": 2 * 2 / (4 + 4), "rougeLsum": 1.0}
    for scores in (pair, swapped):
        assert str(scores) in printed


# ---- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_training_writes_an_ordinary_checkpoint_and_its_results(trained, script):
    folder = trained[script]
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "results.json"}
    assert 1 <= len(list((folder / "checkpoints").glob("checkpoint-*"))) <= 3
    results = read_json(folder / "results.json")
    assert results["arguments"]["seed"] == 42 and results["versions"]["torch"] and results["processes"] == 1
    assert results["train_seconds"] > 0 and results["arguments"]["dataset"]
    for language in ("en", "es", "all"):
        assert set(results["scores"][language]) == {"rows", "model", "lead-3", "difference"}
        assert list(results["scores"][language]["difference"]["rouge1"]) == ["f1", "low", "high", "p"]


def test_every_script_scores_the_same_model_alike(trained, prepared, tmp_path):
    data, scored = tmp_path / "data", tmp_path / "scores.json"
    books = load_from_disk(prepared[0])
    books["validation"] = books["validation"].select(range(97))  # which neither 2 nor 3 divides
    books.save_to_disk(data)
    shutil.copy(prepared[0] / "arguments.json", data)
    flags = ["--model", trained["trainer"], "--data", data]
    run("predict.py", *flags, "--split", "validation", "--scores", scored)
    expected, eval_loss = read_json(scored), None
    assert expected["all"]["rows"] == 97
    assert expected["all"]["model"]["rouge1"]["f1"] > 5  # it has learned something to score
    flags += ["--learning-rate", 1e-30, "--weight-decay", 0, "--max-steps", 1]  # too small to change a weight
    for script, processes in product(("trainer", "accelerate"), (1, 2, 3)):
        output = tmp_path / f"{script}-{processes}"
        run(f"train_{script}.py", *flags, "--output-dir", output, processes=processes)
        results = read_json(output / "results.json")
        assert results["processes"] == processes
        assert results["scores"] == expected  # to the last digit, intervals and p included
        eval_loss = eval_loss or results["eval_loss"]
        assert results["eval_loss"] == pytest.approx(eval_loss, rel=1e-6)
    assert 0.1 < eval_loss < 10


@pytest.mark.parametrize(("rouge", "use_stemmer"), [("rouge_score", False), ("rouge_score_stemmer", True)])
def test_rouge_score_is_the_package_with_its_own_words(prepared, tmp_path, rouge, use_stemmer):
    run("baseline.py", "--data", prepared[0], "--output-dir", tmp_path, "--rouge", rouge)
    rows = load_from_disk(prepared[0])["validation"]
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer)
    expected = [scorer.score("\n".join(sent_tokenize(row["review_title"], "en")),
                             "\n".join(sent_tokenize(row["review_body"], "en")[:3])) for row in rows]  # fmt: skip
    scores = read_json(tmp_path / "results.json")["scores"]
    for name in ROUGE_TYPES:
        f1 = 100 * sum(row[name].fmeasure for row in expected) / len(expected)
        assert scores["all"]["lead-3"][name]["f1"] == pytest.approx(f1, abs=1e-9)


# ---- predict.py --------------------------------------------------------------------------------


def predict(trained, *arguments, **options):
    return run("predict.py", "--model", trained["trainer"], *arguments, **options).stdout


def test_predict_shows_an_english_and_a_spanish_example(trained, prepared):
    printed = predict(trained, "--data", prepared[0])
    test = load_from_disk(prepared[0])["test"]
    for language in ("en", "es"):
        row = next(row for row in test if row["language"] == language)
        assert f"'>>> Review: {row['review_body']}'\n'>>> Title: {row['review_title']}'\n'>>> Summary: " in printed


def test_predict_reads_standard_input(trained):
    assert "'>>> Review: Loved it, truly.'" in predict(trained, "-", stdin="Loved it, truly.")


TEXTS = ["Short.", "A much longer review, with a comma and a second half that goes on.", "¿Qué tal, señora?", "Fin."]


def write_reviews(path, texts):
    """Write the texts in the format that the suffix of ``path`` names, with their numbers as stars."""
    rows = Dataset.from_dict({"review_body": texts, "stars": list(range(len(texts)))})
    if path.suffix == ".txt":
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        rows.to_csv(path)
    elif path.suffix == ".parquet":
        rows.to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows.to_list()), encoding="utf-8")
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


@pytest.fixture(scope="module")
def titles(trained):
    """The titles that predict.py prints for TEXTS, {text: title}."""
    printed = predict(trained, *TEXTS).splitlines()
    summaries = [line[len("'>>> Summary: ") : -1] for line in printed if line.startswith("'>>> Summary: ")]
    return dict(zip(TEXTS, summaries, strict=True))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "jsonl.gz", "parquet", "txt"])
def test_predict_reads_a_file_and_keeps_its_order(trained, titles, tmp_path, suffix):
    source, output = tmp_path / f"in.{suffix}", tmp_path / "out.jsonl"
    write_reviews(source, TEXTS * 9)
    predict(trained, "--input", source, "--output", output, "--batch-size", 5)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["review_body"] for row in rows] == TEXTS * 9
    assert [row["summary"] for row in rows] == [titles[text] for text in TEXTS * 9]
    if suffix != "txt":
        assert [row["stars"] for row in rows] == list(range(36))


def test_a_blank_line_gets_an_empty_summary(trained, titles, tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out.csv"
    write_reviews(source, ["Short.", "", "Fin."])
    result = run("predict.py", "--model", trained["trainer"], "--input", source, "--output", output)
    assert "1 empty reviews get an empty summary" in result.stderr
    with open(output, encoding="utf-8", newline="") as lines:
        assert [row["summary"] for row in csv.DictReader(lines)] == [titles["Short."], "", titles["Fin."]]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_the_summaries_of_a_split_in_a_file(trained, prepared, tmp_path, suffix):
    output, scores = tmp_path / f"titles.{suffix}", tmp_path / "scores.json"
    flags = ["--output", output, "--scores", scores, "--text-column", "comment"]  # the last is for --input alone
    printed = predict(trained, "--data", prepared[0], "--split", "test", *flags)
    rows = pd.read_csv(output) if suffix == "csv" else pd.read_json(output, lines=True)
    test = load_from_disk(prepared[0])["test"]
    assert sorted(rows.review_body) == sorted(test["review_body"])
    assert rows.lead_3[0] == three_sentence_summary(rows.review_body[0], rows.language[0])
    f1 = rouge_rows(rows.summary.fillna("").tolist(), rows, "language").rouge1.mean()
    assert read_json(scores)["all"]["model"]["rouge1"]["f1"] == pytest.approx(f1)
    assert f"{f1:.2f} [" in printed


# ---- flags -------------------------------------------------------------------------------------

SCRIPT_NAMES = ["prepare_data", "baseline", "train_trainer", "train_accelerate", "predict"]


@pytest.mark.parametrize("script", SCRIPT_NAMES)
def test_help_explains_every_flag_and_says_its_defaults(script, monkeypatch, capsys):
    module = importlib.import_module(script)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert exit_.value.code == 0 and " ".join(module.__doc__.split()) in printed
    flags = [flag for flag in FLAGS if f"--{flag.replace('_', '-')} " in printed]
    assert {"data"} < set(flags)
    for flag in flags:
        assert f"{FLAGS[flag][2]} (default: " in printed.replace("- ", "-"), flag
    for preset in ("sample", "amazon"):
        for flag, default in module.PRESETS[preset].items():
            assert str(default) in printed, (flag, default)


@pytest.mark.parametrize(("launcher", "flags", "bf16"), [
    ("no", "--preset amazon", False), ("bf16", "--preset amazon", True), ("bf16", "--preset sample", True),
    ("bf16", "--no-bf16", False), ("no", "--bf16", True), (None, "--preset amazon", None), (None, "", False),
])  # fmt: skip
def test_a_flag_goes_before_the_launcher_and_the_launcher_before_the_preset(monkeypatch, launcher, flags, bf16):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    monkeypatch.setattr(sys, "argv", ["train_accelerate.py", *flags.split()])
    presets = importlib.import_module("train_accelerate").PRESETS
    assert parse_args("", TRAINING_FLAGS, presets).bf16 is bf16
    assert os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "no"  # where the Trainer would read it


# ---- the README's first command ----------------------------------------------------------------

MY_REVIEWS = [  # not from the sample; the beginnings of words of which a title of them should have one
    ("The story was so boring that I gave up after three chapters.", {"boring", "gave", "finish", "slow"}),
    ("The cover was torn and the corners were bent when the parcel came.", {"torn", "damage", "bent", "cover"}),
    ("Me aburrí muchísimo, la novela es muy lenta y no pude acabarla.", {"aburrid", "lent", "acabar", "terminar"}),
    (
        "El libro llegó con la tapa rota y las páginas dobladas.",
        {"rota", "dañad", "portada", "tapa", "estado", "doblad"},
    ),
]


@pytest.mark.slow
def test_the_sample_model_beats_lead_3_and_titles_my_reviews(tmp_path):
    data, output = tmp_path / "data", tmp_path / "model"
    run("train_trainer.py", "--data", data, "--output-dir", output, OMP_NUM_THREADS="2")
    scores = read_json(output / "results.json")["scores"]
    for language in ("en", "es"):
        for rouge in ("rouge1", "rougeL"):
            assert scores[language]["difference"][rouge]["low"] > 0, (language, rouge)
    printed = run("predict.py", "--model", output, *(text for text, _ in MY_REVIEWS)).stdout
    titles = [line.split(": ", 1)[1].lower() for line in printed.splitlines() if line.startswith("'>>> Summary")]
    for (text, words), title in zip(MY_REVIEWS, titles, strict=True):
        assert any(word in title for word in words), (text, title)
