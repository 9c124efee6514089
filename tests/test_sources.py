"""The layouts that prepare_data.py reads: folders by language, a file per split, own tables."""

import csv
import gzip
import json

import pytest
from conftest import run, sample
from datasets import Dataset, load_from_disk

ROWS = 12  # per language and split


def first_books(language, split):
    return [
        row
        for row in sample(language, split)
        if row["product_category"] == "book" and len(row["review_title"].split()) > 2
    ][:ROWS]


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def folders_of_gzip(folder):
    for language in ("en", "es"):
        (folder / language).mkdir()
        for split in ("train", "validation", "test"):
            text = "".join(json.dumps(row) + "\n" for row in first_books(language, split))
            (folder / language / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def one_csv_per_split(folder):  # as on Kaggle, with a language too many
    for split in ("train", "validation", "test"):
        rows = first_books("en", split) + first_books("es", split)
        write_csv(folder / f"{split}.csv", rows + [{**row, "language": "de"} for row in rows])


def names_with_language_and_split(folder):
    for language in ("en", "es"):
        for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
            text = "".join(json.dumps(row) + "\n" for row in first_books(language, split))
            (folder / f"dataset_{language}_{name}.json").write_text(text)


def parquet(folder):
    for split in ("train", "validation", "test"):
        rows = first_books("en", split) + first_books("es", split)
        Dataset.from_list(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")


LAYOUTS = [folders_of_gzip, one_csv_per_split, names_with_language_and_split, parquet]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_corpus(layout, tmp_path):
    (tmp_path / "en_test").mkdir()  # words of the folders above mean nothing
    source, data = tmp_path / "en_test/source", tmp_path / "data"
    source.mkdir()
    layout(source)
    run("prepare_data.py", "--dataset", source, "--data", data)
    books = load_from_disk(data)
    for split in ("train", "validation", "test"):
        rows = first_books("en", split) + first_books("es", split)
        for column in ("review_body", "review_title"):
            assert sorted(books[split][column]) == sorted(row[column] for row in rows)
        assert sorted(books[split]["language"]) == ["en"] * ROWS + ["es"] * ROWS


def test_somebodys_own_table(tmp_path):
    rows = [
        {"comment": row["review_body"], "headline": row["review_title"], "review_body": "another"}
        for row in first_books("en", "train")
    ]
    write_csv(tmp_path / "elsewhere.csv", rows)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/own.csv").symlink_to(tmp_path / "elsewhere.csv")
    flags = ["--dataset", tmp_path / "folder/own.csv", "--data", tmp_path / "data"]
    flags += ["--text-column", "comment", "--title-column", "headline", "--languages", "en"]
    flags += ["--validation-share", 0.25, "--categories"]
    printed = run("prepare_data.py", *flags).stdout
    books = load_from_disk(tmp_path / "data")
    assert {split: len(rows) for split, rows in books.items()} == {"train": 9, "validation": 3}
    assert "There is no split test" in printed
    both = list(books["train"]["review_body"]) + list(books["validation"]["review_body"])
    assert sorted(both) == sorted(row["comment"] for row in rows)
    for script in ("trainer", "accelerate"):
        flags = ["--data", tmp_path / "data", "--output-dir", tmp_path / script, "--epochs", 1]
        run(f"train_{script}.py", *flags)  # with fewer rows than one batch holds
        assert (tmp_path / script / "model.safetensors").exists()


def test_a_missing_split_is_used_where_only_the_others_exist(tmp_path):
    reviews, data = tmp_path / "reviews", tmp_path / "data"
    reviews.mkdir()
    write_csv(reviews / "train.csv", first_books("es", "train"))
    flags = ["--dataset", reviews, "--data", data, "--languages", "es", "es"]
    printed = run("prepare_data.py", *flags).stdout
    assert len(load_from_disk(data)["train"]) == ROWS  # a language named twice is read once
    assert "There is no split validation." in printed and "--validation-share takes one" in printed
    for script in ("trainer", "accelerate"):
        flags = ["--data", data, "--output-dir", tmp_path / "model"]
        result = run(f"train_{script}.py", *flags, check=False)
        assert result.returncode == 2 and not (tmp_path / "model").exists()
        assert "no split validation" in result.stderr.splitlines()[-1]
