"""Make the corpus: English and Spanish book reviews, each with its title as the summary to learn.

Chapter section: "Preparing a multilingual corpus", and the tokenizer from "Models for text
summarization".

    python prepare_data.py                      # the sample reviews that come with the project
    python prepare_data.py --preset amazon      # the chapter's corpus, from the Hub
    python prepare_data.py --dataset my.csv --languages en --categories --data data/prepared/my

Reads   data/sample/, a Hub data set, or a file or folder of CSV, JSON, JSONL(.gz) or Parquet
Writes  data/prepared/<preset>/, a DatasetDict to open with datasets.load_from_disk. In it are also
        title_lengths.png and tiny-mt5/, the checkpoint that the preset sample trains.
Takes   about 15 seconds for the sample
"""

import os
from pathlib import Path

import pandas as pd
from datasets import DatasetDict, concatenate_datasets, load_dataset
from matplotlib.figure import Figure
from transformers import AutoTokenizer

import common
from data.tiny_mt5 import make_tiny_checkpoint

# What each --preset sets. A flag on the command line goes before the preset.
PRESETS = {
    "sample": {
        "dataset": os.path.relpath(Path(__file__).with_name("data") / "sample"),
        "model": "tiny",
    },
    "amazon": {
        # Differs from the chapter: its amazon_reviews_multi was withdrawn. This is a copy.
        "dataset": "buruzaemon/amazon_reviews_multi",
        "model": "google/mt5-small",
    },
}
SPLITS = ["train", "validation", "test"]


def parse_args():
    parser = common.argument_parser(__doc__, PRESETS)
    add = parser.add_argument
    add("--dataset", help="file, folder or Hub data set (user/name) with the reviews")
    add("--languages", nargs="+", default=["en", "es"], help="languages to keep (en es)")
    add("--text-column", default="review_body", help="column with the review (review_body)")
    add("--title-column", default="review_title", help="column with its title (review_title)")
    books = ["book", "digital_ebook_purchase"]
    categories_help = "product categories to keep, without a name all (the chapter's two of books)"
    add("--categories", nargs="*", default=books, help=categories_help)
    share_help = "share of train that becomes validation, if there is none (0)"
    add("--validation-share", type=float, default=0.0, help=share_help)
    add("--model", help="checkpoint whose tokenizer is shown: a folder or Hub id")
    add("--seed", type=int, default=42, help="of the shuffles and the tiny model (42)")
    return common.parse_args(parser, PRESETS)


def name_columns(review, title):
    """Return the two texts under the chapter's names; a missing text is empty."""
    return {"review_body": (review or "").strip(), "review_title": (title or "").strip()}


def load_reviews(args, language):
    """Return the ``DatasetDict`` of one language with review_body, review_title and language."""
    columns = [args.text_column, args.title_column]
    remedy = (
        "it must be CSV, JSON, JSONL or Parquet in UTF-8, "
        "with texts in --text-column and --title-column"
    )
    source = common.dataset_source(args.dataset, "--dataset", language)
    with common.explain_errors(f"cannot read {args.dataset}", remedy):
        reviews = load_dataset(**source)
        reviews = reviews.map(name_columns, input_columns=columns, remove_columns=columns)
    if "language" not in reviews[next(iter(reviews))].column_names:
        if len(args.languages) > 1 and not source.get("data_dir"):
            common.fail(
                f"{args.dataset} has no column 'language'; name one language with --languages"
            )
        reviews = reviews.map(lambda example: {"language": language})
    return reviews.filter(lambda code: code == language, input_columns="language")


def show_samples(dataset, num_samples=3, seed=42):
    """Print a few random rows of the training split, or of the first split if there is no train."""
    rows = dataset["train" if "train" in dataset else next(iter(dataset))]
    sample = rows.shuffle(seed=seed).select(range(min(num_samples, len(rows))))
    for example in sample:
        print(common.printable(f"\n'>> Title: {example['review_title']}'"))
        print(common.printable(f"'>> Review: {example['review_body']}'"))


def filter_books(example, categories):
    """Return whether the product is of one of the ``categories``, by default those of books."""
    return example["product_category"] in categories


def has_long_title(example):
    """Return whether the title has more than two words; a model learns to write such as it sees."""
    return common.count_words(example["review_title"], example["language"]) > 2


def count_all_words(books):
    """Return a ``DataFrame`` with split and language of each row, words of its review and title."""
    tables = []
    for split, rows in books.items():
        languages = rows["language"][:]
        table = pd.DataFrame({"split": split, "language": languages})
        table["review"] = list(map(common.count_words, rows["review_body"], languages))
        table["title"] = list(map(common.count_words, rows["review_title"], languages))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def draw_lengths(words, path):
    """Draw histograms of the words in reviews and titles, one row of pictures per language."""
    languages = sorted(words["language"].unique())
    figure = Figure(figsize=(10, 3 * len(languages)), layout="constrained")
    axes = figure.subplots(len(languages), 2, squeeze=False)
    for row, language in zip(axes, languages, strict=True):
        for axis, name in zip(row, ["review", "title"], strict=True):
            rows = words[words["language"] == language]
            kept, dropped = rows[rows["title"] > 2][name], rows[rows["title"] <= 2][name]
            longest = int(rows[name].quantile(0.99))  # the longest 1% would flatten the picture
            bins = range(1, longest + 2) if longest <= 50 else 50
            labels = ["kept", "dropped: title of fewer than three words"]
            axis.hist([kept, dropped], bins, range=(1, longest + 1), stacked=True, label=labels)
            axis.set(title=f"Words in a {name}, {language}", xlabel="words", ylabel="reviews")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.text(0.99, 0.01, "Without the longest 1% of each picture.", ha="right", fontsize=8)
    figure.savefig(path)


def check_splits(args, books):
    """Print the rows of each split and what is odd about them; end the run if a split has none."""
    for split in SPLITS:
        if split not in books:
            print(f"There is no split {split}.")
        elif not len(books[split]):
            common.fail(
                f"no review is left in {split} of {args.dataset}; see --languages and --categories"
            )
    if "validation" not in books:
        print("--validation-share takes one from train.")
    rows = pd.concat([rows.to_pandas().assign(split=split) for split, rows in books.items()])
    print(pd.crosstab(rows["split"], rows["language"]).to_string())
    if empty := (rows["review_body"] == "").sum():
        common.fail(f"{args.dataset} has {empty} empty reviews; fill or remove them")
    twice = rows.duplicated(["split", "review_body"])
    elsewhere = rows[~twice].duplicated(
        "review_body"
    )  # in train and test, that flatters the scores
    print(f"{twice.sum()} reviews occur again in their split, {elsewhere.sum()} in another split.")


def main():
    args = parse_args()
    common.check_folder(args.data, args.dataset)  # ends the run if it holds what we did not write
    languages = list(dict.fromkeys(args.languages))  # each of them once

    # 1. Load the reviews of each language and look at them
    corpus = {}
    for language in languages:
        corpus[language] = load_reviews(args, language)
        print(f"\n=== {language} ===\n{corpus[language]}")
        show_samples(corpus[language], seed=args.seed)

    # 2. Keep the books
    if args.categories:
        for language, reviews in corpus.items():
            rows = reviews[next(iter(reviews))]
            with common.explain_errors(
                f"cannot choose books of {args.dataset}", "see --categories"
            ):
                categories_df = rows.select_columns("product_category").to_pandas()
            print(f"\n=== {language}: the 20 largest categories of {len(rows):,} reviews ===")
            print(categories_df["product_category"].value_counts()[:20].to_string())
            reviews = reviews.filter(filter_books, fn_kwargs={"categories": args.categories})
            print(f"\n=== {language}: after filter_books ===")
            show_samples(reviews, seed=args.seed)
            corpus[language] = reviews

    # 3. Put the languages together, split by split, and shuffle
    books_dataset = DatasetDict()
    for split in SPLITS:
        parts = [reviews[split] for reviews in corpus.values() if split in reviews]
        if parts:
            books_dataset[split] = concatenate_datasets(parts).shuffle(seed=args.seed)
    if not books_dataset:
        common.fail(f"{args.dataset} has none of the splits {', '.join(SPLITS)}; name its files so")
    if args.validation_share and "validation" not in books_dataset:
        with common.explain_errors("cannot take --validation-share of train", "see --languages"):
            parts = books_dataset["train"].train_test_split(args.validation_share, seed=args.seed)
        books_dataset["train"], books_dataset["validation"] = parts["train"], parts["test"]
    print("\n=== all languages ===")
    show_samples(books_dataset, seed=args.seed)

    # 4. Drop titles of one or two words, else a model learns to write such titles
    words = count_all_words(books_dataset)  # of all rows, for the picture
    books_dataset = books_dataset.filter(has_long_title)
    print("\n=== rows with a title of three words or more ===")
    check_splits(args, books_dataset)

    # 5. Save
    with common.new_files(args.data) as folder:  # its files replace older ones when all are written
        common.write_json(folder / common.MARK, vars(args))
        books_dataset.save_to_disk(folder)
        draw_lengths(words, folder / "title_lengths.png")
        if args.model == f"{args.data}/tiny-mt5":
            # Not in the chapter: a small mT5 with random weights and a tokenizer of these reviews.
            make_tiny_checkpoint(books_dataset, args.seed, folder / "tiny-mt5")
    print(f"\nSaved in {args.data}")

    # 6. The tokenizer, as the training scripts use it
    with common.explain_checkpoint_errors(args.model):
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    inputs = tokenizer("I loved reading the Hunger Games!")
    print(f"\n=== the tokens of one sentence ===\n{inputs}")
    print(tokenizer.convert_ids_to_tokens(inputs.input_ids))


if __name__ == "__main__":
    with common.command_line():
        main()
