"""The layouts that prepare_data.py reads: folders by language, a file per split, own tables."""

import csv
import gzip
import json
import time
from datetime import date
from decimal import Decimal
from types import SimpleNamespace

import pytest
from conftest import ROOT, run, sample
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
    (["trainData.csv", "DevSet.csv", "my_Test2.csv"], {"train": 1, "validation": 1, "test": 1}),
    (["trainer.csv", "contest.csv", "latest.csv"], {"train": 3}),  # only whole words count
    (["train::1.csv"], {"train": 1}),  # to datasets, two file systems
    (["train.csv", "README.md", "cover.png", "licence.txt"], {"train": 1}),
    (["train.jsonl", "test.jsonl", "dataset_infos.json"], {"train": 1, "test": 1}),  # as on the Hub
    (["train.csv", "._train.csv", ".ipynb_checkpoints/train-checkpoint.csv"], {"train": 1}),
    (["train/data-00000-of-00001.arrow", "train/state.json", "train/cache-1f.arrow"], {"train": 1}),
]


@pytest.mark.parametrize(("names", "expected"), SPLIT_NAMES)
def test_the_split_stands_in_the_name(names, expected, tmp_path, capsys):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = common.find_files(tmp_path)
    assert {split: len(files) for split, files in found.items()} == expected
    ignored = [name for name in names if name.endswith((".md", ".png", ".txt")) or name[0] == "."]
    printed = capsys.readouterr().out
    assert all(name in printed for name in ignored)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train.csv", "reviews.csv"], "names a split, but"),
        (["taste-test-reviews.csv", "shop.csv"], "taste-test-reviews.csv names a split, but"),
        (["novels.csv", "train-journey-books.csv"], "train-journey-books.csv names a split, but"),
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
    ("a.csv", "text,n\none,1,\ntwo,2,,\n", [{"text": "one", "n": "1"}, {"text": "two", "n": "2"}]),
    ("a.csv", "n,text,,\n1,one,,\n", [{"n": "1", "text": "one"}]),
    ("a.csv", "\n\ntext,n\none,1\n", [{"text": "one", "n": "1"}]),
    ("a.csv", ",text\n0,one\n", [{"": "0", "text": "one"}]),  # as pandas writes its index
    ("a.csv", '"text"\n"x\0y"\n' + "z" * 200_000, [{"text": "x\0y"}, {"text": "z" * 200_000}]),
    ("a.tsv", 'text\tn\na 5" lamp\t1\n', [{"text": 'a 5" lamp', "n": "1"}]),
    ("a.tsv", 'text\n"from here\nto there"\n', [{"text": '"from here'}, {"text": 'to there"'}]),
    (
        "a.txt",
        "one, two\n\nthree",
        [{"review_body": "one, two"}, {"review_body": ""}, {"review_body": "three"}],
    ),
    ("a.json", '[{"text": "007", "n": 7}]', [{"text": "007", "n": 7}]),
    ("a.json", '{"text": "one"}\n{"text": null}\n', [{"text": "one"}, {"text": None}]),
    ("a.jsonl", '{"text": "¡Qué!"}\n\n{"n": 1}', [{"text": "¡Qué!"}, {"n": 1}]),
    ("a.ndjson", '{"text": "one"}', [{"text": "one"}]),
    ("a.jsonl", '\n [\n{"text": "one"},\n{"n": 1}\n]', [{"text": "one"}, {"n": 1}]),
    ("a.json", '{"id": 1234567890123456789012}', [{"id": 1234567890123456789012}]),
]


@pytest.mark.parametrize(("name", "content", "rows"), FILES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_rows_are_read_as_they_stand_in_the_file(name, content, rows, suffix, tmp_path):
    data = content.encode()
    (tmp_path / (name + suffix)).write_bytes(gzip.compress(data) if suffix else data)
    assert list(common.read_file(tmp_path / (name + suffix))) == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,n\none,1\ntwo\n", "a.csv, line 3: 1 values for 2 columns"),
        ("a.csv", "text,n\none,1,more\n", "a.csv, line 2: 3 values for 2 columns"),
        ("a.csv", "text,text\none,two\n", "a.csv has two columns 'text'; rename one of them"),
        ("a.csv", 'text,n\none,1\n"5" lamp,2\n', "a.csv, line 3: ',' expected after"),
        ("a.csv", 'text,n\none,1\n"open,2\n', "a.csv, line 3: unexpected end of data"),
        ("a.jsonl", '{"text": "one"}\n{"text": \n', "a.jsonl, line 2 is not JSON"),
        ("a.json", '[{"text": "one"},\n{"text"}]', "a.json, line 2 is not JSON"),
        ("a.json", '{"data": [\n{"text": "one"}]}', "or have one row on each line"),
        ("a.json", '["one", "two"]', "a.json, row 1 holds no object with columns: one"),
        ("a.json", '[{"text": "one"},\n"two"]', "a.json, row 2 holds no object with columns: two"),
        ("a.jsonl", "5", "a.jsonl, line 1 holds no object with columns: 5"),
        ("a.jsonl", '{"n": 1, "text": "a", "text": "b"}', "a.jsonl has two columns 'text'"),
    ],
)
def test_files_that_are_torn_are_refused_with_the_line(name, content, words, tmp_path, capsys):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit):
        list(common.read_file(tmp_path / name))
    assert words in capsys.readouterr().err


def test_two_columns_of_a_name_that_nobody_asks_for_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("n,text,n\n1,one,2\n")
    assert [row["text"] for row in common.read_file(tmp_path / "a.csv", ["text"])] == ["one"]


TEXTS = [  # a value, as which text it is read
    (" two words\n", "two words"),
    ("NA", "NA"),
    (5, "5"),
    (True, "True"),
    (Decimal("1.10"), "1.10"),
    (date(2021, 3, 1), "2021-03-01"),
    (None, None),
    (float("nan"), None),
    ("half an emoji \ud83d", "half an emoji ?"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_a_value_as_text(value, text):
    assert common.to_text(value, "review_body") == text


@pytest.mark.parametrize("value", [["a"], {"a": 1}, b"a"])
def test_what_is_no_text_is_refused(value, capsys):
    with pytest.raises(SystemExit):
        common.to_text(value, "comment")
    assert "the column 'comment' holds a" in capsys.readouterr().err


COLUMNS = {"review_body": "comment", "review_title": "headline", "language": "language"}
CODES = [("en", "en"), ("EN", "en"), ("zh-CN", "zh"), ("pt_BR", "pt"), ("zh-Hant-TW", "zh")]


@pytest.mark.parametrize(("language", "code"), [*CODES, ("fil", "fil"), ("xx", "xx")])
def test_the_code_of_a_language(language, code):
    assert common.language_code(language) == code
    row = {"comment": " Text. ", "headline": None, "language": language, "stars": 5}
    texts = {"review_body": "Text.", "review_title": None, "language": code}
    assert common.to_chapter_row(row, COLUMNS) == texts


@pytest.mark.parametrize(
    ("folders", "language", "found"),
    [
        (["en", "es"], "es", "es"),
        (["EN", "zh-CN", "pt_BR"], "zh", "zh-CN"),
        (["EN", "pt_BR"], "en", "EN"),
        (["en_train", "en_test"], "en", None),
        ([], "en", None),
    ],
)
def test_the_folder_of_a_language(folders, language, found, tmp_path):
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert common.language_folder(tmp_path, language) == found


def test_reviews_in_folders_of_other_languages_are_refused(tmp_path, capsys):
    for folder in ("es", "en", "notes"):
        (tmp_path / folder).mkdir()
    with pytest.raises(SystemExit):
        common.language_folder(tmp_path, "de")
    assert f"{tmp_path} has folders for en, es, and none for de" in capsys.readouterr().err


def test_a_name_instead_of_a_code_is_refused(capsys):
    with pytest.raises(SystemExit):
        common.language_code("Spanish")
    assert "Spanish is not the code of a language; give es" in capsys.readouterr().err


def test_a_data_set_that_was_saved_to_disk(tmp_path):
    rows = {split: first_books("en", split) for split in ("train", "test")}
    # For more rows than datasets writes at once, the category is not known.
    unknown = [{**rows["train"][0], "product_category": None}] * 1500
    rows["train"] = Dataset.from_list(unknown + rows["train"])
    rows["test"] = Dataset.from_list(rows["test"]).remove_columns("stars")
    DatasetDict(rows).save_to_disk(tmp_path / "saved")
    flags = ["--dataset", tmp_path / "saved", "--data", tmp_path / "data", "--languages", "en"]
    run("prepare_data.py", *flags)
    books = load_from_disk(tmp_path / "data")
    for split in ("train", "test"):
        reviews = [row["review_body"] for row in first_books("en", split)]
        assert sorted(books[split]["review_body"]) == sorted(reviews)


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
    assert f"train: 7 rows of {folder}/train.csv\n" in printed
    assert [line for line in printed.splitlines() if "dropped" in line] == [
        "train: 1 of 7 rows are dropped: not of --categories book digital_ebook_purchase in en",
        "train: 1 of 6 rows are dropped: without a review (--text-column)",
        "train: 1 of 5 rows are dropped: without a title (--title-column)",
        "train: 2 of 4 rows are dropped: with a title of fewer than 3 words",
    ]
    assert "test: 1 reviews and 100% of the titles are also in train." in printed
    books = load_from_disk(tmp_path / "data")
    assert sorted(books["train"]["review_body"]) == ["Kept in train and test.", "Kept in train."]


LONG_TITLES = [
    ("en", "Good book", False),
    ("en", "A good book", True),
    ("es", "¡Muy bueno!", False),
    ("ja", "面白", False),
    ("ja", "面白い", True),  # each character counts as a word
    ("zh", "很好!", False),
    ("th", "ดีมาก", True),
]


@pytest.mark.parametrize(("language", "title", "kept"), LONG_TITLES)
def test_has_long_title(language, title, kept):
    example = {"language": language, "review_title": title}
    assert prepare_data.has_long_title(example) is kept
    assert (common.count_words(title, language) >= prepare_data.MIN_TITLE_WORDS) is kept  # as drawn


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
    assert "validation: 3 rows are taken from train (--validation-share)" in printed
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


# ---- people's files, through the real commands ---------------------------------------------------

EN = ["--languages", "en"]
HEAD = "review_body,review_title\n"
LAMP, CHAIR = ("I like it", "A good lamp"), ("I hate it", "A bad wobbly chair")
LAMP_ROW, CHAIR_ROW = "I like it,A good lamp\n", "I hate it,A bad wobbly chair\n"
LAMP_JSON = '{"review_body": "I like it", "review_title": "A good lamp"'
SITUATIONS = {  # files, flags, {split: reviews and titles} or words of the one line
    "each row ends with a comma": (
        {"a.csv": "stars,review_body,review_title,date\n5,I like it,A good lamp,March 1,\n"},
        "",
        {"train": [LAMP]},
    ),
    "a field begins with a quotation mark and a later one ends with it": (
        {"a.tsv": 'review_title\treview_body\n"A 5" lamp\t1\nA 7" lamp\t2\nA good "lamp"\t3\n'},
        "",
        {"train": [("1", '"A 5" lamp'), ("2", 'A 7" lamp'), ("3", 'A good "lamp"')]},
    ),
    "reviews that say None, null and NA": (
        {"a.csv": HEAD + "None,A good lamp\nnull,A good lamp\nNA,A good lamp\n"},
        "",
        {"train": [("NA", "A good lamp"), ("None", "A good lamp"), ("null", "A good lamp")]},
    ),
    "no values in JSON": (
        {"a.jsonl": LAMP_JSON + '}\n{"review_body": "x", "review_title": NaN}\n{"id": 1}\n'},
        "",
        {"train": [LAMP]},
    ),
    "a test split without titles": (
        {"train.csv": HEAD + LAMP_ROW, "test.csv": "id,review_body\n1,I like it\n"},
        "",
        {"train": [LAMP]},
    ),
    "a space in the header": (
        {"a.csv": "review_body, review_title\n" + LAMP_ROW},
        "",
        "no review is left in train: 1 without a title (--title-column)",
    ),
    "splits in capital letters": (
        {"Train.csv": HEAD + LAMP_ROW, "Valid.csv": HEAD + CHAIR_ROW, "TEST.csv": HEAD + LAMP_ROW},
        "",
        {"train": [LAMP], "validation": [CHAIR], "test": [LAMP]},
    ),
    "a test of taste": (
        {"taste-test-reviews.csv": HEAD + LAMP_ROW, "shop-reviews.csv": HEAD + CHAIR_ROW},
        "",
        "taste-test-reviews.csv names a split, but",
    ),
    "the second file has another column": (
        {"a.csv": HEAD + LAMP_ROW, "b.csv": "body,review_title\n" + CHAIR_ROW},
        "",
        "b.csv has the columns body, review_title; see --text-column",
    ),
    "a header only": ({"a.csv": HEAD}, "", "a.csv holds no reviews"),
    "zh-CN": (
        {"a.jsonl": '{"review_body": "好看", "review_title": "非常好看", "language": "zh-CN"}'},
        "--languages zh-CN",
        {"train": [("好看", "非常好看")]},
    ),
    "Thai has no spaces": (
        {"a.jsonl": '{"review_body": "ดี", "review_title": "สนุกมาก", "language": "th"}'},
        "--languages th",
        {"train": [("ดี", "สนุกมาก")]},
    ),
    "the name of a language as a flag": (
        {"a.jsonl": LAMP_JSON + ', "language": "Spanish"}'},
        "--languages Spanish",
        "Spanish is not the code of a language; give es",
    ),
    "the name of a language in the rows": (
        {"a.jsonl": LAMP_JSON + ', "language": "Spanish"}'},
        "--languages es",
        "has no review in es (--languages)",
    ),
    "two titles": (
        {"a.csv": "review_title,review_body,review_title\nA good lamp,I like it,Five stars\n"},
        "",
        "a.csv has two columns 'review_title'; rename one of them",
    ),
    "a dictionary of columns": (
        {"a.json": '{"review_body": {"0": "I like it"}, "review_title": {"0": "A good lamp"}}'},
        "",
        "the column 'review_body' holds a dict where a text should be",
    ),
}


@pytest.fixture(scope="module")
def tiny(prepared):
    return prepared[0] / "tiny-mt5"


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_prepare_data_makes_of_peoples_files(name, tiny, tmp_path):
    files, flags, expected = SITUATIONS[name]
    folder = tmp_path / "reviews"
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_text(content, encoding="utf-8")
    flags = ["--dataset", folder, "--model", tiny, "--categories", *(flags.split() or EN)]
    result = run("prepare_data.py", "--data", tmp_path / "data", *flags, check=False)
    if isinstance(expected, str):
        assert result.returncode == 2 and expected in result.stderr.splitlines()[-1]
    else:
        assert result.returncode == 0, result.stderr
        books = load_from_disk(tmp_path / "data")
        assert set(books) == set(expected)
        for split, pairs in expected.items():
            rows = sorted(books[split].to_list(), key=lambda row: row["review_body"])
            assert [(row["review_body"], row["review_title"]) for row in rows] == pairs


def test_a_language_without_rules_is_used_and_named(tiny, tmp_path):
    rows = [{"review_body": "Mooi", "review_title": "Een mooi boek", "language": "nl"}]
    write_csv(tmp_path / "a.csv", rows)
    flags = ["--dataset", tmp_path / "a.csv", "--data", tmp_path / "data", "--model", tiny]
    printed = run("prepare_data.py", *flags, "--categories", "--languages", "nl-BE").stdout
    assert "There are no rules for nl: " in printed
    assert load_from_disk(tmp_path / "data")["train"]["language"][:] == ["nl"]


def test_a_column_that_nobody_uses_decides_nothing(tmp_path):
    path, columns = tmp_path / "a.jsonl", {**COLUMNS, "review_body": "text"}
    lines = ['{"text": "one", "note": null}'] * 20_000 + ['{"text": "two", "note": {"a": [1]}}']
    path.write_text("\n".join(lines))
    rows = list(common.read_split("train", [path], columns))
    args = SimpleNamespace(dataset=str(path), languages=["en"])
    texts = common.load_splits(args, path, columns, "en")["train"]
    assert texts["review_body"][-2:] == ["one", "two"] and len(texts) == len(rows) == 20_001


def test_a_review_of_a_hundred_thousand_words_is_drawn_in_seconds(tmp_path):
    row = {"review_body": "word " * 100_000, "review_title": "A long story", "language": "en"}
    started = time.process_time()
    figure = common.draw_lengths(DatasetDict({"train": Dataset.from_list([row])}), 3)
    figure.savefig(tmp_path / "lengths.png")
    assert time.process_time() - started < 10
    assert len(figure.axes[0].patches) <= 51


IN_AND_OUT = [  # a file, another one to write, its content with the summary as S
    (
        "in.csv",
        'asin,tweet,country,"zip, code",,review_body\n0006476100,1234567890123456789,NA,02100,,'
        '" It\'s 5"" long\n"\n007,,null,1e3,True,None\n',
        "out.csv",
        'asin,tweet,country,"zip, code",,review_body,summary\n0006476100,1234567890123456789,NA,'
        '02100,," It\'s 5"" long\n",S\n007,,null,1e3,True,None,S\n',
    ),
    (
        "in.jsonl",
        '{"review_body": "a", "id": 123456789012345678901, "x": [1, null], "half": "\\ud83d"}\n'
        '{"review_body": 5, "id": "007", "x": true, "z": 1.50}\n',
        "out.jsonl",
        '{"review_body": "a", "id": 123456789012345678901, "x": [1, null], "half": "\\ud83d", '
        '"summary": "S"}\n{"review_body": 5, "id": "007", "x": true, "z": 1.5, "summary": "S"}\n',
    ),
    (
        "in.jsonl",
        '{"review_body": "a", "x": ["b", null], "y": null}\n{"review_body": "c", "x": true}\n',
        "out.csv",
        'review_body,x,y,summary\na,"[""b"", null]",,S\nc,true,,S\n',
    ),
    ("in.TXT", "one\n\ntwo", "out.csv", "review_body,summary\none,S\n,\ntwo,S\n"),
]


@pytest.mark.parametrize(("name", "content", "output", "expected"), IN_AND_OUT)
def test_predict_writes_each_value_as_it_was_read(name, content, output, expected, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    rows = common.read_input(str(tmp_path / name), "review_body")
    summaries = ["S" if common.to_text(row["review_body"], "review_body") else "" for row in rows]
    common.write_summaries(rows, summaries, tmp_path / output)
    written = (tmp_path / output).read_bytes().decode()
    assert written.replace("\r\n", "\n") == expected


def test_a_damaged_gz_file_is_one_line(tmp_path, capsys):
    path = tmp_path / "in.csv.gz"
    packed = bytearray(gzip.compress(b"review_body\n" + bytes(range(32, 127)) * 9))
    packed[20:40] = b"\xff" * 20
    path.write_bytes(packed)
    with pytest.raises(SystemExit):
        common.read_input(str(path), "review_body")
    assert f"cannot read --input {path}" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "7", "{}"])
def test_a_file_of_arguments_that_is_not_ours_says_nothing(content, tmp_path):
    (tmp_path / "arguments.json").write_text(content)
    assert common.read_arguments(tmp_path) == {}


@pytest.mark.parametrize("suffix", ["csv.gz", "tsv", "xlsx", "parquet", "CSV", "json"])
def test_predict_writes_only_what_the_name_says(suffix, tmp_path, capsys):
    with pytest.raises(SystemExit):
        common.check_output_file(f"{tmp_path}/t.{suffix}", None)
    assert "must end in .csv or .jsonl" in capsys.readouterr().err


def test_predict_shows_what_is_not_utf8_as_it_reads_it(tiny):
    printed = run("predict.py", "--model", tiny, "--max-target-length", 3, "caf\udce9").stdout
    assert "'>>> Review: caf\ufffd'" in printed


REFUSED = [  # script, flags, words of the one line
    ("predict.py", "--data a::b x", "--data must not have '::' in it"),
    ("predict.py", "--output notes.txt::x.csv x", "--output must not have '::' in it"),
    ("baseline.py", "--data data/prepared/onw", "data/prepared/onw holds no prepared data"),
]


@pytest.mark.parametrize(("script", "flags", "words"), REFUSED)
def test_nothing_is_made_under_a_name_with_a_slip(script, flags, words):
    result = run(script, *flags.split(), check=False)
    assert result.returncode == 2 and words in result.stderr.splitlines()[-1]
    assert not (ROOT / "data/prepared/onw").exists()
