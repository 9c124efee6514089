"""Every script through its real command, on a slice of the sample."""

import argparse
import csv
import gzip
import importlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, copy_data, read_json, run, sample
from datasets import Dataset, DatasetDict, load_from_disk
from rouge_score.rouge_scorer import RougeScorer

import common
from common import ROUGE_TYPES, sent_tokenize

SPLITS = ("train", "validation", "test")
BOOKS = ("book", "digital_ebook_purchase")
COLUMNS = ["review_id", "product_id", "reviewer_id", "stars"]
COLUMNS += ["review_body", "review_title", "language", "product_category"]

# ---- data/sample -------------------------------------------------------------------------------


@pytest.mark.full
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
        lines = []
        for language in ("en", "es"):
            text = (reviews / f"{language}_{split}.jsonl").read_text(encoding="utf-8")
            lines += text.splitlines()
        rows = [row for row in map(json.loads, lines) if row["product_category"] in BOOKS]
        long = [row["review_body"] for row in rows if len(row["review_title"].split()) > 2]
        assert Counter(books[split]["review_body"]) == Counter(long)
        assert books[split]["language"][:20].count("en") not in (0, 20)  # shuffled
    counts = [line.split() for line in printed.splitlines() if line[24:].strip().isdigit()]
    categories = [words[0] for words in counts]
    assert categories.count("book") == 2 and "kitchen" in categories  # once per language
    assert "'>> Title: " in printed and "'input_ids'" in printed and "▁I" in printed


def test_prepare_data_twice_gives_the_same_bytes(prepared, reviews, tmp_path):
    run("prepare_data.py", "--dataset", reviews, "--data", tmp_path / "again")
    for folder in ("train", "tiny-mt5"):
        # `prepared` may hold the caches of a training by now.
        for path in (tmp_path / "again" / folder).iterdir():
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
    for fraction in ("recall 6/6", "precision 6/7", "precision 6/10", "recall 4/5", "4/6 = 0.6667"):
        assert fraction in printed
    scores = read_json(tmp_path / "results.json")["scores"]
    # The same numbers as beside a model
    rows = load_from_disk(prepared[0])["validation"]
    assert scores == common.score_beside_lead_3(common.Rouge(), rows)
    assert list(scores) == ["en", "es", "all"]
    rows = {language: part["rows"] for language, part in scores.items()}
    assert rows["all"] == rows["en"] + rows["es"] == len(load_from_disk(prepared[0])["validation"])
    for part in scores.values():
        cell = part["lead-3"]["rouge1"]
        assert 5 < cell["low"] < cell["f1"] < cell["high"] < 40
    # As the chapter prints them: one dictionary of the whole split.
    chapter = {name: round(cell["f1"], 2) for name, cell in scores["all"]["lead-3"].items()}
    assert str(chapter) in printed
    assert common.format_scores(scores, "validation") in printed


def test_the_baseline_of_a_split_needs_no_other(prepared, tmp_path):
    books = load_from_disk(prepared[0])
    DatasetDict({"test": books["test"]}).save_to_disk(tmp_path / "data")
    shutil.copy(prepared[0] / "arguments.json", tmp_path / "data")
    flags = ["--data", tmp_path / "data", "--output-dir", tmp_path / "baseline", "--split", "test"]
    run("baseline.py", *flags)
    scores = read_json(tmp_path / "baseline/results.json")["scores"]
    assert scores["all"]["rows"] == len(books["test"])


def test_the_three_parts_of_rouge_by_hand(prepared, tmp_path):
    printed = run("baseline.py", "--data", prepared[0], "--output-dir", tmp_path).stdout
    # F1 is twice the shared words, or pairs of words, divided by the words of both texts.
    for name, shared, reference, summary in (
        ("rouge1", 6, 6, 7),
        ("rouge2", 4, 5, 6),
        ("rougeL", 6, 6, 7),
        ("rougeLsum", 6, 6, 7),
    ):
        start = f"{name}: Score(precision={shared / summary}, recall={shared / reference}"
        assert f"{start}, fmeasure={2 * shared / (reference + summary):.4}"[:-1] in printed
    # The lines are swapped: two words of four are in the same order; line by line all are there.
    f2 = round(2 * 2 / (3 + 3), 4)
    swapped = {"rouge1": 1.0, "rouge2": f2, "rougeL": 2 * 2 / (4 + 4), "rougeLsum": 1.0}
    assert str(swapped) in printed
    # Letters and stems: the package, and the tokenizer for Spanish
    assert "años and a os: rouge1 1.0 by the package, 0.0 here" in printed
    assert "aburrida and aburrido: rouge1 0.0 by the package, 1.0 here" in printed


# ---- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_training_writes_an_ordinary_checkpoint_and_its_results(trained, script):
    folder = trained[script]
    names = {path.name for path in folder.iterdir()}
    checkpoints = {name for name in names if name.startswith("checkpoint-")}
    assert len(checkpoints) == 3 if script == "trainer" else checkpoints == {"checkpoint-2"}
    assert names - checkpoints == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "arguments.json", "results.json", "log.csv", "training.png",
        "README.md",
    }  # fmt: skip
    generation_config = read_json(folder / "generation_config.json")
    assert generation_config["max_new_tokens"] == 30 and "max_length" not in generation_config
    arguments = read_json(folder / "arguments.json")
    assert arguments.pop("finished") is True
    results = read_json(folder / "results.json")
    paths = {name: Path(arguments[name]).name for name in ("data", "model", "output_dir")}
    assert results["arguments"] == arguments | paths  # others need not know the folders
    assert arguments["seed"] == 42 and arguments["processes"] == 1 and results["versions"]["torch"]
    assert arguments["script"] == f"train_{script}.py"
    for language in ("en", "es", "all"):
        scores = results["scores"][language]
        assert set(scores) == {"rows", "model", "lead-3", "difference"}
        assert list(scores["difference"]["rouge1"]) == ["f1", "low", "high", "p"]


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_the_saved_model_is_that_of_the_best_epoch(trained, script):
    log = pd.read_csv(trained[script] / "log.csv")
    epochs = log[log["eval_rougeL"].notna()].drop_duplicates("epoch")  # the last row is predict()'s
    assert list(epochs["epoch"]) == list(range(1, len(epochs) + 1))
    best = epochs.loc[epochs["eval_rougeL"].idxmax()]
    scores = read_json(trained[script] / "results.json")["scores"]["all"]["model"]
    for name in ROUGE_TYPES:
        assert scores[name]["f1"] == pytest.approx(best[f"eval_{name}"], abs=1e-3)
    losses = log["loss"].dropna()
    assert losses.iloc[0] > losses.iloc[-1] > 0


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_prepared_data_may_be_read_only(script, prepared, tmp_path):
    data = copy_data(prepared[0], tmp_path / "data", validation=4)

    def content():
        return {path: path.stat().st_mtime_ns for path in [data, *data.rglob("*")]}

    before = content()
    flags = ["--data", data, "--output-dir", tmp_path / "model", "--epochs", 1]
    run(f"train_{script}.py", *flags, "--max-train-samples", 8)
    run("predict.py", "--model", tmp_path / "model", "--data", data, "--examples", 0)
    assert content() == before


def test_every_script_scores_the_same_model_alike(trained, prepared, tmp_path):
    data = copy_data(prepared[0], tmp_path / "data", validation=49)  # not divisible by 2 or 3
    flags = ["--model", trained["trainer"], "--data", data]
    printed = run("predict.py", *flags, "--split", "validation").stdout
    expected, eval_loss = None, None
    # The learning rate is too small to change a weight.
    flags += ["--learning-rate", 1e-30, "--weight-decay", 0, "--epochs", 1, "--batch-size", 4]
    for script, processes in (("trainer", 1), ("trainer", 3), ("accelerate", 1), ("accelerate", 2)):
        output = tmp_path / f"{script}-{processes}"
        arguments = [*flags, "--output-dir", output, "--max-train-samples", 12]
        table = run(f"train_{script}.py", *arguments, processes=processes).stdout
        results = read_json(output / "results.json")
        assert results["arguments"]["processes"] == processes
        expected = expected or results["scores"]
        assert results["scores"] == expected  # to the last digit, intervals and p included
        assert common.format_scores(expected, "validation") in table
        log = pd.read_csv(output / "log.csv")
        f1 = log["eval_rouge1"].dropna().iloc[0]
        assert f1 == pytest.approx(expected["all"]["model"]["rouge1"]["f1"], abs=1e-3)
        if script == "accelerate":  # the Trainer's is a mean of batch means
            eval_loss = eval_loss or log["eval_loss"].item()
            assert log["eval_loss"].item() == pytest.approx(eval_loss, rel=1e-6)
    assert 0.1 < eval_loss < 10
    assert expected["all"]["rows"] == 49
    assert expected["all"]["model"]["rouge1"]["f1"] > 5  # it has learned something to score
    assert common.format_scores(expected, "validation") in printed


def test_max_train_samples_and_the_collator_in_view(prepared, tmp_path):
    data = copy_data(prepared[0], tmp_path / "data", validation=8)
    steps = {}
    for script in ("trainer", "accelerate"):
        output = tmp_path / script
        flags = ["--data", data, "--output-dir", output, "--epochs", 1, "--max-train-samples", 40]
        printed = run(f"train_{script}.py", *flags).stdout
        schedules = [*output.glob("checkpoint-*/scheduler.*")]
        steps[script] = [torch.load(path, weights_only=True)["last_epoch"] for path in schedules]
        assert f"Saved in {output}" in printed
        if script == "trainer":  # the labels of two rows, and the same shifted right by one token
            labels, shifted = (part.split("]]")[0] for part in printed.split("tensor([[")[1:3])
            labels, shifted = (
                [row.replace(",", " ").split() for row in text.split("],")]
                for text in (labels, shifted)
            )
            labels, shifted = (
                [[int(number.strip("[")) for number in row if number != "["] for row in rows]
                for rows in (labels, shifted)
            )
            assert len(labels) == 2 and -100 in labels[0] + labels[1]
            for row, row_shifted in zip(labels, shifted, strict=True):
                assert row_shifted == [0] + [max(number, 0) for number in row[:-1]]
    assert steps == {"trainer": [3], "accelerate": [3]}  # 40 rows are three batches of 16


@pytest.mark.parametrize(
    ("rouge", "use_stemmer"), [("rouge_score", False), ("rouge_score_stemmer", True)]
)
def test_rouge_score_is_the_package_with_its_own_words(prepared, tmp_path, rouge, use_stemmer):
    run("baseline.py", "--data", prepared[0], "--output-dir", tmp_path, "--rouge", rouge)
    rows = load_from_disk(prepared[0])["validation"]
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer)
    expected = []
    for row in rows:
        title = "\n".join(sent_tokenize(row["review_title"], row["language"]))
        lead_3 = "\n".join(sent_tokenize(row["review_body"], row["language"])[:3])
        expected.append(scorer.score(title, lead_3))
    scores = read_json(tmp_path / "results.json")["scores"]
    for name in ROUGE_TYPES:
        f1 = 100 * sum(row[name].fmeasure for row in expected) / len(expected)
        assert scores["all"]["lead-3"][name]["f1"] == pytest.approx(f1, abs=1e-9)


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_a_folder_without_a_tokenizer_is_refused(prepared, tmp_path, script):
    shutil.copytree(prepared[0] / "tiny-mt5", tmp_path / "model")
    for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    flags = ["--model", tmp_path / "model", "--data", prepared[0], "--output-dir", tmp_path / "new"]
    result = run(f"train_{script}.py", *flags, check=False)
    assert result.returncode == 2 and not (tmp_path / "new").exists()
    assert "its tokenizer has 4; copy the tokenizer's files" in result.stderr.splitlines()[-1]


# ---- predict.py --------------------------------------------------------------------------------


def predict(trained, *arguments, **options):
    return run("predict.py", "--model", trained["trainer"], *arguments, **options).stdout


def test_predict_shows_an_english_and_a_spanish_example(trained, prepared):
    printed = predict(trained)  # of the data that the model was trained on
    assert printed.count("'>>> Summary: ") == 2
    test = load_from_disk(prepared[0])["test"]
    for language in ("en", "es"):
        row = next(row for row in test if row["language"] == language)
        review = f"'>>> Review: {row['review_body']}'\n'>>> Title: {row['review_title']}'\n"
        assert review + "'>>> Summary: " in printed


def test_predict_shows_the_examples_that_are_asked_for(trained, prepared):
    printed = predict(trained, "--examples", 3, 1)
    titles = [line for line in printed.splitlines() if line.startswith("'>>> Title: ")]
    test = load_from_disk(prepared[0])["test"]
    assert titles == [f"'>>> Title: {test[number]['review_title']}'" for number in (3, 1)]


def test_predict_reads_standard_input(trained):
    assert "'>>> Review: Loved it, truly.'" in predict(trained, "-", stdin="Loved it, truly.")


TEXTS = [
    "Short.",
    "A much longer review, with a comma and a second half that goes on.",
    "¿Qué tal, señora?",
    "Fin.",
]


def write_reviews(path, texts):
    """Write the texts in the format that the suffix of ``path`` names, with numbers as stars."""
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
    start = "'>>> Summary: "
    summaries = [line[len(start) : -1] for line in printed if line.startswith(start)]
    return dict(zip(TEXTS, summaries, strict=True))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "jsonl.gz", "parquet", "txt"])
def test_predict_reads_a_file_and_keeps_its_order(trained, titles, tmp_path, suffix):
    source, output = tmp_path / f"in.{suffix}", tmp_path / "out.jsonl"
    write_reviews(source, TEXTS * 9)
    predict(trained, "--input", source, "--output", output, "--batch-size", 5)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["review_body"] for row in rows] == TEXTS * 9
    assert [row["summary"] for row in rows] == [titles[text] for text in TEXTS * 9]
    stars = [row.get("stars") for row in rows]
    if suffix == "csv":  # has texts only
        assert stars == [str(number) for number in range(36)]
    elif suffix != "txt":
        assert stars == list(range(36))


def test_a_blank_line_gets_an_empty_summary(trained, titles, tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out.csv"
    write_reviews(source, ["Short.", "", "Fin."])
    flags = ["--input", source, "--output", output]
    result = run("predict.py", "--model", trained["trainer"], *flags)
    assert "1 of 3 summaries are empty" in result.stderr
    with open(output, encoding="utf-8", newline="") as lines:
        summaries = [row["summary"] for row in csv.DictReader(lines)]
    assert summaries == [titles["Short."], "", titles["Fin."]]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_the_summaries_of_a_split_in_a_file(trained, prepared, tmp_path, suffix):
    output = tmp_path / f"titles.{suffix}"
    # --text-column is for --input alone.
    flags = ["--output", output, "--text-column", "comment", "--split", "test"]
    printed = predict(trained, "--data", prepared[0], *flags)
    rows = pd.read_csv(output) if suffix == "csv" else pd.read_json(output, lines=True)
    test = load_from_disk(prepared[0])["test"]
    assert list(rows) == [*test.column_names, "summary"]
    for column in ("review_body", "review_title", "language"):
        assert list(rows[column]) == test[column][:]
    summaries = rows["summary"].fillna("").tolist()
    scores = common.score_beside_lead_3(common.Rouge(), test, summaries)
    assert common.format_scores(scores, "test") in printed


# ---- flags -------------------------------------------------------------------------------------

SCRIPT_NAMES = ["prepare_data", "baseline", "train_trainer", "train_accelerate", "predict"]


@pytest.mark.parametrize("script", SCRIPT_NAMES)
def test_help_explains_every_flag_and_says_its_defaults(script, monkeypatch, capsys):
    module = importlib.import_module(script)
    parsers = []
    original = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser,
        "parse_args",
        lambda parser: parsers.append(parser) or original(parser),
    )
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert exit_.value.code == 0 and " ".join(module.__doc__.split()) in printed
    rows = {}
    for preset in ("sample", "amazon"):
        for flag, default in module.PRESETS[preset].items():
            rows.setdefault(f"--{flag.replace('_', '-')}", []).append(default)
    for flag, defaults in rows.items():
        shown = ["as said above" if default is None else f"{default}" for default in defaults]
        if defaults != [None, None]:  # else the help of the flag says its default
            assert " ".join([flag, *shown]) in printed
    assert "None" not in printed
    actions = {action.dest: action for action in parsers[0]._actions}
    assert {"preset", "data"} < set(actions)
    for name, action in actions.items():
        assert action.help, name
        if action.default in (None, False, argparse.SUPPRESS, []) or name == "categories":
            continue  # the help of --categories names the chapter's two in words
        default = action.default
        text = " ".join(default) if isinstance(default, list) else f"{default}"
        assert action.help.endswith(f"({text.removesuffix('.0')})") or f"({text})" in action.help, (
            name
        )


PRECISIONS = [  # flags, whether the device has bf16, --mixed_precision of the launcher, the result
    ("", True, None, False),  # the sample's model is too small to gain from it
    ("--bf16", False, None, True),
    ("--preset amazon", True, None, True),
    ("--preset amazon", False, None, False),
    ("--preset amazon --no-bf16", True, None, False),
    ("--preset amazon", True, "no", True),  # what `accelerate launch` sets without being asked
    ("--no-bf16", True, "bf16", False),
]


@pytest.mark.parametrize(("flags", "device", "launcher", "bf16"), PRECISIONS)
@pytest.mark.parametrize("script", ["train_trainer", "train_accelerate"])
def test_the_flag_bf16_decides_then_the_preset_then_the_device(
    monkeypatch, script, flags, device, launcher, bf16
):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    monkeypatch.setattr(common, "device_has_bf16", lambda: device)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags.split()])
    presets = importlib.import_module(script).PRESETS
    args = common.parse_args(common.training_parser(""), presets)
    assert args.bf16 is bf16


@pytest.mark.parametrize("script", [pytest.param("trainer", marks=pytest.mark.full), "accelerate"])
def test_only_the_flag_bf16_computes_in_bf16(prepared, tmp_path, script):
    """Whatever a launcher asks for; and a CPU computes in bf16 too."""
    data = copy_data(prepared[0], tmp_path / "data", validation=8)
    losses = {}
    launcher = {"ACCELERATE_MIXED_PRECISION": "bf16"}
    for name, flag, environment in (
        ("fp32", "--no-bf16", {}),
        ("bf16", "--bf16", {}),
        ("launcher", "--no-bf16", launcher),
    ):
        output = tmp_path / name
        flags = ["--data", data, "--output-dir", output, "--epochs", 1, "--max-train-samples", 16]
        result = run(f"train_{script}.py", *flags, flag, check=False, **environment)
        if name == "launcher" and script == "trainer":  # the Trainer would follow the launcher
            line = result.stderr.splitlines()[-1]
            assert result.returncode == 2 and "--mixed_precision bf16; give --bf16 too" in line
        else:
            losses[name] = pd.read_csv(output / "log.csv")["loss"].dropna().item()
    # bf16 has three digits; with a launcher the cores are two, and other last digits are rounded.
    assert losses.get("launcher", losses["fp32"]) == pytest.approx(losses["fp32"], rel=1e-6)
    assert losses["bf16"] != pytest.approx(losses["fp32"], rel=2e-6)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)
