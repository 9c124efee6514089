"""Make the corpus: English and Spanish book reviews, each with its title as the summary to learn.

Chapter section: "Preparing a multilingual corpus", and the tokenizer of "Models for text
summarization".

    python prepare_data.py                      # the sample: synthetic reviews of this project
    python prepare_data.py --preset amazon      # the chapter's corpus, from the Hub
    python prepare_data.py --data data/prepared/own --dataset own.csv --languages en --categories

The last line reads a file of your own, with columns review_body and review_title, or others that
--text-column and --title-column name. --categories without a name keeps all products.

Reads   data/sample/, a Hub data set, or a file or folder of CSV, TSV, JSON, JSONL or Parquet.
Writes  data/prepared/<preset>/ or --data: a DatasetDict for datasets.load_from_disk, the flags in
        arguments.json, title_lengths.png and, with --model tiny, which is the default for the
        sample, tiny-mt5/: the untrained model that the training starts from.
Takes   about 15 seconds for the sample.
"""

import os
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import DatasetDict, concatenate_datasets
from matplotlib.figure import Figure
from transformers import AutoTokenizer

import common
from data.tiny_mt5 import make_tiny_checkpoint

SAMPLE = Path(__file__).parent / "data/sample"
# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {"dataset": os.path.relpath(SAMPLE), "model": "tiny"},  # relative: short to print
    # Differs from the chapter: its amazon_reviews_multi was withdrawn. This is a copy.
    "amazon": {"dataset": "buruzaemon/amazon_reviews_multi", "model": "google/mt5-small"},
}
MIN_TITLE_WORDS = 3


def parse_args():
    parser = common.argument_parser(__doc__, PRESETS)
    add = parser.add_argument
    add("--dataset", help="file, folder or Hub data set (user/name) with the reviews")
    add("--languages", nargs="+", default=["en", "es"], help="languages to keep (en es)")
    add("--text-column", default="review_body", help="column with the review (review_body)")
    add("--title-column", default="review_title", help="column with its title (review_title)")
    books = ["book", "digital_ebook_purchase"]
    categories_help = "product categories to keep (two of books, as the chapter); no name keeps all"
    add("--categories", nargs="*", default=books, help=categories_help)
    share_help = "share of train that becomes validation, if there is none (0)"
    add("--validation-share", type=float, default=0.0, help=share_help)
    add("--model", help="checkpoint whose tokenizer is shown, or tiny")
    add("--seed", type=int, default=42, help="seed of the shuffles and of the tiny model (42)")
    args = common.parse_args(parser, PRESETS)
    is_own = args.dataset != PRESETS[args.preset]["dataset"]
    if is_own and args.data == common.preset_data(args.preset):
        common.fail("--dataset needs --data; else it would replace the data of the preset")
    languages = [common.language_code(language) for language in args.languages]
    args.languages = list(dict.fromkeys(languages))  # each once
    for language in args.languages:
        if language not in common.LANGUAGES:
            print(f"There are no rules for {language}: its sentences are split as in English.")
    return args


def load_reviews(args, path, language):
    """Return the ``DatasetDict`` of the reviews in one language, or None if there are none.

    This is the chapter's load_dataset("amazon_reviews_multi", "es"). Differs from the chapter:
    load_dataset() would turn a title "NA" of a CSV file into an empty one, and "007" into 7. Here
    the values stay as they are, as texts; an empty cell is "" or None. ``path`` is the file or
    folder of --dataset, or of its download from the Hub.
    """
    columns = {  # {name in the chapter: name in the files}
        "review_body": args.text_column,
        "review_title": args.title_column,
        "language": "language",
        "product_category": "product_category",
    }
    # If each language has a folder, only that of this language is read.
    reviews = common.load_splits(args, path, columns, language)
    split = main_split(reviews)
    languages = reviews[split].unique("language")
    if not any(languages):
        remedy = "give exactly one language, such as --languages en"
        common.fail(f"{args.dataset} has no column 'language', or an empty one; {remedy}")
    if language not in languages:
        others = ", ".join(str(code) for code in languages[:20])
        print(f"No review in {split} of {args.dataset} is in {language}, only in {others}")
        return None
    return keep_rows(
        reviews, lambda example: example["language"] == language, f"not in {language} (--languages)"
    )


def main_split(dataset):
    """Return "train" or, if there is no such split, the name of the first one."""
    return "train" if "train" in dataset else next(iter(dataset))


def keep_rows(dataset, keep, reason):
    """Return the rows for which ``keep(example)`` is true; print how many are dropped, and why.

    A split without rows is removed. If it is the ``main_split``, the run ends.
    """
    kept = dataset.filter(keep)
    for split, rows in dataset.items():
        dropped = len(rows) - len(kept[split])
        if dropped:
            print(f"{split}: {dropped:,} of {len(rows):,} rows are dropped: {reason}")
        if len(kept[split]) == 0:
            if split == main_split(dataset):
                common.fail(f"no review is left in {split}: {dropped:,} {reason}")
            print(f"{split} is left out")
            del kept[split]
    return kept


def show_samples(dataset, num_samples=3, seed=42):
    """Print a few random rows of the ``main_split``."""
    rows = dataset[main_split(dataset)]
    sample = rows.shuffle(seed=seed).select(range(min(num_samples, len(rows))))
    for example in sample:
        # printable() escapes characters that could, for instance, clear the screen.
        print(common.printable(f"\n'>> Title: {example['review_title']}'"))
        print(common.printable(f"'>> Review: {example['review_body']}'"))


def filter_books(example, categories):
    """Return whether the product is of one of the ``categories``."""
    return example["product_category"] in categories


def has_review(example):
    return bool(example["review_body"])


def has_title(example):
    return bool(example["review_title"])


def has_long_title(example):
    """Return whether the title has three words or more; the chapter's ``len(title.split()) > 2``.

    In languages without spaces, such as Japanese, each character counts as a word.
    """
    words = common.count_words(example["review_title"], example["language"])
    return words >= MIN_TITLE_WORDS


def draw_lengths(dataset):
    """Return a ``Figure`` with histograms of the words in reviews and titles of each language."""
    tables = []
    for batch in chain(*(rows.iter(batch_size=1000) for rows in dataset.values())):
        languages = batch["language"]
        review = list(map(common.count_words, batch["review_body"], languages))
        title = list(map(common.count_words, batch["review_title"], languages))
        tables.append(pd.DataFrame({"language": languages, "review": review, "title": title}))
    words = pd.concat(tables, ignore_index=True)
    groups = words.groupby("language")
    figure = Figure(figsize=(10, 3 * len(groups)), layout="constrained")
    grid = figure.subplots(len(groups), 2, squeeze=False)
    for row, (language, group) in zip(grid, groups, strict=True):
        for axes, name in zip(row, ["review", "title"], strict=True):
            longest = int(group[name].quantile(0.99))  # a few very long texts would hide the rest
            step = longest // 50 + 1  # words per bar, so that there are at most 50 bars
            counts = group[name][group[name] <= longest]
            axes.hist(counts, np.arange(0, longest + step + 1, step))
            axes.set(title=f"Words in a {name}, {language}", xlabel="words", ylabel="reviews")
        if (group["title"] < MIN_TITLE_WORDS).any():
            label = "Reviews with shorter titles are dropped."
            row[1].axvline(MIN_TITLE_WORDS, color="black", linestyle="--", label=label)
            row[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))  # below, over no bar
    figure.supxlabel("The longest 1% of reviews and titles are not drawn.", fontsize=8)
    return figure


def add_validation_split(dataset, args):
    """Make a share of the training rows, --validation-share, the validation split.

    The chapter's corpus has a validation split.
    """
    if not args.validation_share:
        print("There is no validation split; --validation-share 0.1 takes a tenth of train for it.")
        return
    if "train" not in dataset:
        common.fail("there is no train split to take --validation-share from; leave it out")
    with common.explain_errors("cannot take --validation-share of train", "give another one"):
        parts = dataset["train"].train_test_split(args.validation_share, seed=args.seed)
    dataset["train"] = parts["train"]
    dataset["validation"] = parts["test"]  # the method's name for the share
    print(f"validation: {len(parts['test']):,} rows are taken from train (--validation-share)")


def column_values(rows, column):
    """Yield the values of a column. For many rows ``rows[column][:]`` takes much memory."""
    for batch in rows.select_columns(column).iter(batch_size=1000):
        yield from batch[column]


def count_shared(rows, train, column):
    """Return how many texts in a column of the ``rows`` also occur in this column of ``train``."""
    texts = Counter(column_values(rows, column))
    shared = set(texts).intersection(column_values(train, column))
    return sum(texts[text] for text in shared)


def print_splits(books):
    """Print the rows of each split and language, and what the other splits share with train.

    Not in the chapter: a review or a title that is also in train makes a split easier, and its
    scores too high.
    """
    languages = {split: Counter(column_values(rows, "language")) for split, rows in books.items()}
    print("\n" + pd.DataFrame(languages).T.fillna(0).astype(int).to_string() + "\n")
    for split, rows in books.items():
        if split != "train" and "train" in books:
            reviews = count_shared(rows, books["train"], "review_body")
            share = count_shared(rows, books["train"], "review_title") / len(rows)
            print(f"{split}: {reviews} reviews and {share:.0%} of the titles are also in train.")


def main():
    args = parse_args()
    common.check_folder(args.data, args.dataset)  # ends the run if other programs wrote to --data

    # 1. Load the reviews of each language and look at them
    corpus = {}  # {language: DatasetDict}
    path = common.find_dataset(args.dataset)  # a data set of the Hub is downloaded
    for language in args.languages:
        print(f"\n=== {language} ===")
        if reviews := load_reviews(args, path, language):
            corpus[language] = reviews
            print(reviews)
            show_samples(reviews, seed=args.seed)
    if not corpus:
        languages = " or ".join(args.languages)
        common.fail(f"no review of {args.dataset} is in {languages}; see --languages")

    # 2. Keep the books
    if args.categories:
        for language, reviews in corpus.items():
            values = column_values(reviews[main_split(reviews)], "product_category")
            categories = pd.Series(values, name="product_category")
            print(f"\n=== {language}: the 20 largest product categories ===")
            print(categories.value_counts()[:20].to_string())
            is_book = partial(filter_books, categories=args.categories)
            reason = f"not of --categories {' '.join(args.categories)} in {language}"
            corpus[language] = keep_rows(reviews, is_book, reason)
            print(f"\n=== {language}: after filter_books ===")
            show_samples(corpus[language], seed=args.seed)

    # 3. Put the languages together, split by split, and shuffle
    books_dataset = DatasetDict()
    for split in dict.fromkeys(chain(*corpus.values())):  # the names of all splits, each once
        parts = [reviews[split] for reviews in corpus.values() if split in reviews]
        books_dataset[split] = concatenate_datasets(parts).shuffle(seed=args.seed)
    print("\n=== all languages ===")
    show_samples(books_dataset, seed=args.seed)

    # 4. Drop rows without a text
    books_dataset = keep_rows(books_dataset, has_review, "without a review (--text-column)")
    books_dataset = keep_rows(books_dataset, has_title, "without a title (--title-column)")

    # 5. Draw the lengths. Drop rows with a title of one or two words, so that the model does not
    # learn to write such titles
    figure = draw_lengths(books_dataset)
    reason = f"with a title of fewer than {MIN_TITLE_WORDS} words"
    books_dataset = keep_rows(books_dataset, has_long_title, reason)

    # 6. Take validation rows from train if there are none
    if "validation" not in books_dataset:
        add_validation_split(books_dataset, args)
    print_splits(books_dataset)

    # 7. Save
    with common.new_files(args.data) as folder:  # moved to --data when all files are there
        common.write_json(folder / common.ARGUMENTS_FILE, vars(args))
        books_dataset.save_to_disk(folder)
        figure.savefig(folder / "title_lengths.png")
        # Not in the chapter: for --model tiny, of which parse_args() has made this folder, a small
        # mT5 with random weights, and a tokenizer that is trained on these reviews.
        if args.model == common.tiny_checkpoint(args):
            make_tiny_checkpoint(books_dataset, args.seed, folder / "tiny-mt5")
    print(f"\nSaved in {args.data}")

    # 8. The tokens of an example. "▁" is the start of a word, and "</s>" the end of the text.
    with common.explain_checkpoint_errors(args.model):
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    inputs = tokenizer("I loved reading the Hunger Games!")
    print(f"\n=== the tokens of one sentence ===\n{inputs}")
    print(tokenizer.convert_ids_to_tokens(inputs.input_ids))


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
