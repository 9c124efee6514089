"""Make the corpus: English and Spanish book reviews, each with its title as the summary to learn.

Chapter section: "Preparing a multilingual corpus"; at its end, what the next two sections make of a row.

    python prepare_data.py                        # the bundled sample reviews
    python prepare_data.py --preset amazon        # the chapter's corpus, from the Hub
    python prepare_data.py --dataset my/reviews.csv --data data/prepared/my --languages en --categories    # of any

Reads   data/sample/, a Hub data set, or a local file or folder of CSV, JSON, JSONL(.gz) or Parquet
Writes  data/prepared/<preset>/, a DatasetDict to open with datasets.load_from_disk; in it
        title_lengths.png and, for the preset sample, tiny-mt5/, the checkpoint to train
Takes   about 15 seconds for the sample
"""

import os
import runpy
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

import common

DATA = Path(__file__).with_name("data")
PRESETS = {
    "sample": {"dataset": os.path.relpath(DATA / "sample"), "model": "tiny"},
    "amazon": {"dataset": "buruzaemon/amazon_reviews_multi", "model": "google/mt5-small"},
}
SPLITS = ["train", "validation", "test"]


def name_texts(review, title):
    """Name the texts as the chapter's corpus does; a missing one is empty."""
    return {"review_body": (review or "").strip(), "review_title": (title or "").strip()}


def load_reviews(args, language):
    """Return the ``DatasetDict`` of one language, with the columns review_body, review_title and language.

    Differs from the chapter: ``amazon_reviews_multi`` was withdrawn; copies of it are files in a folder or on the Hub.
    """
    # {"path": args.dataset, ...}; with "data_dir": language where each language has a folder
    source = common.locate(args.dataset, "--dataset", language)
    remedy = "it must be CSV, JSON, JSONL or Parquet in UTF-8, with texts in --text-column and --title-column"
    with common.expected(f"cannot read {args.dataset}", remedy):
        columns = [args.text_column, args.title_column]
        reviews = load_dataset(**source).map(name_texts, input_columns=columns, remove_columns=columns)
    if "language" not in next(iter(reviews.values())).column_names:
        if len(args.languages) > 1 and not source.get("data_dir"):
            common.fail(f"{args.dataset} has no column 'language'; name one language with --languages")
        reviews = reviews.map(lambda example: {"language": language})
    return reviews.filter(lambda code: code == language, input_columns="language")


def show_samples(reviews, num_samples=3, seed=42):
    """Print a few random titles and reviews of the first split."""
    rows = next(iter(reviews.values()))
    for example in rows.shuffle(seed=seed).select(range(min(num_samples, len(rows)))):
        print(common.printable(f"\n'>> Title: {example['review_title']}'\n'>> Review: {example['review_body']}'"))


def filter_books(example, categories):
    """Keep the chapter's "book" and "digital_ebook_purchase", or what --categories says."""
    return example["product_category"] in categories


def word_table(books):
    """Return a ``DataFrame`` of all rows: texts, language, split, words of review and title."""
    books = books.select_columns(["review_body", "review_title", "language"])
    table = pd.concat([rows.to_pandas().assign(split=split) for split, rows in books.items()])
    table["review"] = list(map(common.count_words, table["review_body"], table["language"]))
    table["title"] = list(map(common.count_words, table["review_title"], table["language"]))
    return table


def draw_title_lengths(words, path):
    """Draw how many reviews and titles have how many words, a bar a word, for each language."""
    groups = words.groupby("language")
    figure, axes = plt.subplots(len(groups), 2, figsize=(10, 3 * len(groups)), squeeze=False, layout="constrained")
    for ((language, rows), name), axis in zip(product(groups, ["review", "title"]), axes.flat, strict=True):
        limit, kept = int(rows[name].quantile(0.99)), rows.title > 2
        parts, labels = [rows[name][kept], rows[name][~kept]], ["kept", "dropped: title of fewer than three words"]
        axis.hist(parts, [edge - 0.5 for edge in range(limit + 2)], stacked=True, label=labels)
        axis.set(title=f"Words in a {name}, {language}", xlabel="words, without the longest 1%", ylabel="reviews")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(path)


def check_splits(args, books, words):
    """Print the rows of each split, and what is odd about them; end the run if one has none."""
    for split in SPLITS:
        if split not in books:
            print(f"There is no split {split}" + "; see --validation-share" * (split == "validation"))
        elif not len(books[split]):
            common.fail(f"no review is left in {split} of {args.dataset}; see --languages and --categories")
    kept = words[words.title > 2]
    print(pd.crosstab(kept.split, kept.language).to_string())
    if empty := (words.review == 0).sum():
        common.fail(f"{args.dataset} has {empty} empty reviews; fill or remove them")
    twice = words.duplicated(["split", "review_body"])
    elsewhere = words[~twice].duplicated("review_body")  # in train and test, it flatters the scores
    print(f"Of all books, {twice.sum()} reviews occur again in their split, {elsewhere.sum()} in another one")


@common.command()
def main():
    flags = "preset dataset languages text_column title_column categories validation_share data model seed"
    args = common.parse_args(__doc__, flags.split(), PRESETS)
    common.claim(args.data, args.dataset)  # ends the run if the folder holds what we did not write
    if args.model != "tiny":
        common.load(AutoTokenizer, args.model)  # what cannot be had shows now, not after the work

    corpus = []
    for language in dict.fromkeys(args.languages):
        # 1. Load the reviews of a language and look at them
        reviews = load_reviews(args, language)
        print(f"\n=== {language} ===\n{reviews}")
        show_samples(reviews, seed=args.seed)

        # 2. Keep the books
        if args.categories:
            with common.expected(f"cannot choose books of {args.dataset}", "see --categories"):
                categories_df = next(iter(reviews.values())).select_columns("product_category").to_pandas()
            print(f"\n=== {language}: the 20 largest categories of {len(categories_df):,} reviews ===")
            print(categories_df["product_category"].value_counts()[:20].to_string())
            reviews = reviews.filter(filter_books, fn_kwargs={"categories": args.categories})
            print(f"\n=== {language}: after filter_books ===")
            show_samples(reviews, seed=args.seed)
        corpus.append(reviews)

    # 3. One corpus: concatenate the languages split by split and shuffle
    books = DatasetDict()
    for split in SPLITS:
        if parts := [reviews[split] for reviews in corpus if split in reviews]:
            books[split] = concatenate_datasets(parts).shuffle(seed=args.seed)
    if not books:
        common.fail(f"{args.dataset} has none of the splits {', '.join(SPLITS)}; name its files so")
    if args.validation_share and "validation" not in books:
        with common.expected("cannot take --validation-share of train", "see --languages and --categories"):
            parts = books["train"].train_test_split(args.validation_share, seed=args.seed)
        books |= {"train": parts["train"], "validation": parts["test"]}
    print("\n=== all languages ===")
    show_samples(books, seed=args.seed)

    # 4. Drop titles of fewer than three words (in languages without spaces, characters), else a model learns to write such
    words = word_table(books)  # of all, for the picture
    books = books.filter(lambda x: common.count_words(x["review_title"], x["language"]) > 2)
    check_splits(args, books, words)

    with common.new_files(f"{args.data}/dataset_dict.json") as folder:  # its files move to args.data at the end
        # 5. What a model will see. The training scripts do this to every row; nothing of it is saved, but the tiny model
        rows, checkpoint = next(iter(books.values())), args.model
        if args.model == "tiny":  # not in the chapter: a tokenizer of these reviews, a small mT5 with random weights
            checkpoint = folder / "tiny-mt5"
            runpy.run_path(DATA / "tiny_mt5.py")["make_tiny_checkpoint"](rows, args.seed, checkpoint)
        tokenizer, config = common.load(AutoTokenizer, checkpoint), common.load(AutoConfig, checkpoint)
        inputs = tokenizer("I loved reading the Hunger Games!")
        print(f"\n{inputs}\n{tokenizer.convert_ids_to_tokens(inputs.input_ids)}")
        features = list(Dataset.from_dict(common.preprocess_function(rows[:2], tokenizer, config)))
        print("\nTwo rows after preprocess_function: lists of ids, not yet padded", *features, sep="\n")
        with common.expected(f"cannot train {checkpoint}", "name an encoder with a decoder"), torch.device("meta"):
            # The collator asks only how the model shifts labels: no weights are needed.
            model = AutoModelForSeq2SeqLM.from_config(config)
        data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
        print("\nThe same from the collator: padded to the longer row, labels with -100, which the loss ignores;")
        print("decoder_input_ids are the labels shifted right by one, so that each step predicts the next token")
        print(data_collator(features))

        # 6. Save
        draw_title_lengths(words, folder / "title_lengths.png")
        common.write_json(folder / "arguments.json", vars(args))
        books.save_to_disk(folder)
    print(f"\nSaved in {args.data}")


if __name__ == "__main__":
    main()
