"""The layouts that prepare_data.py reads: folders by language, a file per split, own tables."""

import csv
import gzip
import json

import pytest
from conftest import run, sample
from datasets import Dataset, DatasetDict, load_from_disk

import common
import prepare_data

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


SPLIT_NAMES = [  # files of a folder, {split: its files}
    (["train.csv", "dev.csv", "eval.csv"], {"train": 1, "validation": 1, "test": 1}),
    (["TRAIN.CSV", "reviews-val.tsv"], {"train": 1, "validation": 1}),
    (["en/train.jsonl", "es/train.jsonl.gz"], {"train": 2}),
    (["train/1.parquet", "train/2.parquet", "test/1.parquet"], {"train": 2, "test": 1}),
    (["reviews.csv", "more.csv"], {"train": 2}),
    (["trainer.csv", "contest.csv"], {"train": 2}),  # only whole words count
    (["train.csv", "README.md", "cover.png"], {"train": 1}),
]


@pytest.mark.parametrize(("names", "expected"), SPLIT_NAMES)
def test_the_split_stands_in_the_name(names, expected, tmp_path, capsys):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = common.find_files(tmp_path)
    assert {split: len(files) for split, files in found.items()} == expected
    ignored = [name for name in names if name.endswith((".md", ".png"))]
    printed = capsys.readouterr().out
    assert all(name in printed for name in ignored)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train.csv", "reviews.csv"], "names a split, but"),
        (["train-test.csv"], "names the splits train and test; rename it"),
        (["README.md"], "has no files of the types .csv"),
    ],
)
def test_names_that_leave_a_split_open_are_refused(names, words, tmp_path, capsys):
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(SystemExit):
        common.find_files(tmp_path)
    assert words in capsys.readouterr().err


# Nothing is guessed: a value of CSV and TSV is the text that stands there.
FILES = [
    ("a.csv", "id,text\n007,NA\n1e3,\n", [{"id": "007", "text": "NA"}, {"id": "1e3", "text": ""}]),
    (
        "a.csv",
        '\ufefftext,n\n"two\nlines, ""quoted""",1\n',
        [{"text": 'two\nlines, "quoted"', "n": "1"}],
    ),
    ("A.CSV", "text\r\ntrue\r\n\r\nnull\r\n", [{"text": "true"}, {"text": "null"}]),
    ("a.tsv", 'text\tn\na 5" lamp\t1\n', [{"text": 'a 5" lamp', "n": "1"}]),
    ("a.txt", "one, two\n\nthree", [{"text": "one, two"}, {"text": ""}, {"text": "three"}]),
    ("a.json", '[{"text": "007", "n": 7}]', [{"text": "007", "n": 7}]),
    ("a.json", '{"text": "one"}\n{"text": null}\n', [{"text": "one"}, {"text": None}]),
    ("a.jsonl", '{"text": "¡Qué!"}\n\n{"n": 1}', [{"text": "¡Qué!"}, {"n": 1}]),
    ("a.ndjson", '{"text": "one"}', [{"text": "one"}]),
]


@pytest.mark.parametrize(("name", "content", "rows"), FILES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_rows_are_read_as_they_stand_in_the_file(name, content, rows, suffix, tmp_path):
    data = content.encode()
    (tmp_path / (name + suffix)).write_bytes(gzip.compress(data) if suffix else data)
    assert list(common.read_rows(tmp_path / (name + suffix))) == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,n\none,1\ntwo\n", "a.csv, line 3: 1 values for 2 columns"),
        ("a.csv", "text,n\none,1,more\n", "a.csv, line 2: 3 values for 2 columns"),
        ("a.csv", "text,text\none,two\n", "a.csv has two columns 'text'; rename one of them"),
        ("a.jsonl", '{"text": "one"}\n{"text": \n', "a.jsonl, line 2 is not JSON"),
    ],
)
def test_files_that_are_torn_are_refused_with_the_line(name, content, words, tmp_path, capsys):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit):
        list(common.read_rows(tmp_path / name))
    assert words in capsys.readouterr().err


CODES = [("en", "en"), ("EN", "en"), ("zh-CN", "zh"), ("pt_BR", "pt"), ("fil", "fil")]


@pytest.mark.parametrize(("language", "code"), CODES)
def test_the_code_of_a_language(language, code):
    assert common.language_code(language) == code
    row = {"comment": " Text. ", "headline": None, "language": language, "stars": 5}
    texts = {"review_body": "Text.", "review_title": None, "language": code}
    expected = {**texts, "product_category": None}
    assert common.to_texts(row, "comment", "headline") == expected


def test_a_name_instead_of_a_code_is_refused(capsys):
    with pytest.raises(SystemExit):
        common.language_code("Spanish")
    assert "Spanish is not the code of a language; give es" in capsys.readouterr().err


def test_a_data_set_that_was_saved_to_disk(tmp_path):
    rows = {split: Dataset.from_list(first_books("en", split)) for split in ("train", "test")}
    DatasetDict(rows).save_to_disk(tmp_path / "saved")
    flags = ["--dataset", tmp_path / "saved", "--data", tmp_path / "data", "--languages", "en"]
    run("prepare_data.py", *flags)
    books = load_from_disk(tmp_path / "data")
    for split in ("train", "test"):
        assert sorted(books[split]["review_body"]) == sorted(rows[split]["review_body"])


def test_prepare_data_says_what_it_drops(tmp_path):
    rows = [
        {"language": "en", "product_category": "book", "review_body": body, "review_title": title}
        for body, title in (
            ("Kept in train.", "A good book"),
            ("Kept in train and test.", "A very good book"),
            ("A short title.", "Good"),
            ("Another short title.", "Good book"),
            ("No title at all.", ""),
            ("", "A title without review"),
        )
    ]
    rows.append({**rows[0], "product_category": "kitchen"})
    folder = tmp_path / "reviews"
    folder.mkdir()
    write_csv(folder / "train.csv", rows)
    write_csv(folder / "test.csv", [rows[1], {**rows[0], "review_body": "Kept in test."}])
    flags = ["--dataset", folder, "--data", tmp_path / "data", "--languages", "en"]
    printed = run("prepare_data.py", *flags).stdout
    assert (
        "train: 2 rows; dropped: 1 not of --categories book digital_ebook_purchase, "
        "1 without a review, 1 without a title, 2 with a title of fewer than 3 words\n"
        "test: 2 rows; dropped: none\n"
    ) in printed
    assert "test: 1 reviews and 100% of the titles are also in train." in printed
    books = load_from_disk(tmp_path / "data")
    assert sorted(books["train"]["review_body"]) == ["Kept in train and test.", "Kept in train."]


LONG_TITLES = [
    ("en", "Good book", False),
    ("en", "A good book", True),
    ("es", "¡Muy bueno!", False),
    ("ja", "面白", False),
    ("ja", "面白い", True),  # each character counts as a word
]


@pytest.mark.parametrize(("language", "title", "kept"), LONG_TITLES)
def test_has_long_title(language, title, kept):
    example = {"language": language, "review_title": title}
    assert prepare_data.has_long_title(example) is kept


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
    assert "validation: 3 of these rows of train, by --validation-share" in printed
    books = load_from_disk(tmp_path / "data")
    assert {split: len(rows) for split, rows in books.items()} == {"train": 9, "validation": 3}
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
    assert "There is no validation split; --validation-share 0.1 takes a tenth" in printed
    for script in ("trainer", "accelerate"):
        flags = ["--data", data, "--output-dir", tmp_path / "model"]
        result = run(f"train_{script}.py", *flags, check=False)
        assert result.returncode == 2 and not (tmp_path / "model").exists()
        assert "no split validation" in result.stderr.splitlines()[-1]
