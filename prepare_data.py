r"""Make the corpus: English and Spanish book reviews, each with its title as the summary to learn.

Chapter section: "Preparing a multilingual corpus", and the tokenizer of "Models for text
summarization".

    python prepare_data.py                      # synthetic reviews: runs in seconds and offline
    python prepare_data.py --preset amazon      # the chapter's corpus, from the Hub
    python prepare_data.py --dataset own.csv --data data/prepared/own \
        --languages en --categories --validation-share 0.1

The last command reads a file of your own, --dataset, and writes to the folder --data. The file has
columns review_body and review_title, or others that --text-column and --title-column name.
--categories with nothing after it keeps all products. --validation-share 0.1 takes a tenth of the
rows for the validation split.

The sample is synthetic reviews that come with the project. Scores that are measured on it will be
too high, as most titles of validation and test are also in train.

Reads   --dataset: by default data/sample/; a Hub data set, or a file or folder of CSV, TSV, JSON,
        JSONL or Parquet.
Writes  --data, by default data/prepared/<preset>/:
            a DatasetDict for datasets.load_from_disk()
            title_lengths.png
            arguments.json, the flags, which also mark the folder as made by this script
            tiny-mt5/, an untrained model, so that the sample needs no download; only with
            --model tiny, the default of --preset sample
Takes   about 15 seconds for the sample, which then has 6,866 rows to train on, 496 to validate on
        and 491 to test on.
"""

import os
from pathlib import Path

from datasets import DatasetDict, concatenate_datasets
from transformers import AutoTokenizer

import common  # what the scripts share
from data.tiny_mt5 import make_tiny_checkpoint

SAMPLE = Path(__file__).parent / "data/sample"  # found from any folder
# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {"dataset": os.path.relpath(SAMPLE), "model": "tiny"},  # relative: short to print
    # Differs from the chapter: its amazon_reviews_multi was withdrawn. This is a copy.
    "amazon": {"dataset": "buruzaemon/amazon_reviews_multi", "model": "google/mt5-small"},
}
BOOK_CATEGORIES = ["book", "digital_ebook_purchase"]
MIN_TITLE_WORDS = 3


def parse_args():
    parser = common.argument_parser(__doc__)
    add = parser.add_argument
    # common.py adds --data and --preset. The defaults of --dataset and --model are in PRESETS.
    add("--dataset", help="file, folder or Hub data set (user/name) with the reviews")
    add("--languages", nargs="+", default=["en", "es"], help="languages to keep (en es)")
    add("--text-column", default="review_body", help="column with the review (review_body)")
    add("--title-column", default="review_title", help="column with its title (review_title)")
    categories_help = "product categories to keep (two of books, as the chapter); no name keeps all"
    add("--categories", nargs="*", default=BOOK_CATEGORIES, help=categories_help)
    share_help = "share of train that becomes the validation split, if the data has none (0)"
    add("--validation-share", type=float, default=0.0, help=share_help)
    add("--model", help="checkpoint whose tokenizer is shown; tiny also makes an untrained model")
    add("--seed", type=int, default=42, help="seed of the shuffles and of the tiny model (42)")
    # find_tiny=False: the folder of the tiny model is made below, and does not exist yet.
    args = common.parse_args(parser, PRESETS, find_tiny=False)
    args.languages = common.language_codes(args.languages)  # only codes, such as es, are accepted
    # The script ends here if it would replace the data of a preset, or files that it did not make.
    common.check_data_folder(args, PRESETS)
    return args


def show_samples(dataset, num_samples=3, seed=42):
    """Print the titles and reviews of a few random rows of train, or of the first split."""
    rows = dataset[common.main_split(dataset)]
    sample = rows.shuffle(seed=seed).select(range(min(num_samples, len(rows))))
    for example in sample:
        # print_text() escapes characters that could, for instance, clear the screen.
        common.print_text(f"\n'>> Title: {example['review_title']}'")
        common.print_text(f"'>> Review: {example['review_body']}'")


def filter_books(example, categories):
    """Return whether the product is of one of the ``categories``."""
    return example["product_category"] in categories


def keep_books(language, reviews, args):
    """Print the 20 largest product categories, and return the reviews of --categories."""
    if not args.categories:  # --categories without a name keeps all products
        return reviews
    print(f"\n=== {language}: the 20 largest product categories ===")
    # Differs from the chapter: to_pandas() replaces set_format("pandas"), so that reset_format() is
    # not needed. Only this column becomes a DataFrame, which saves memory.
    rows = reviews[common.main_split(reviews)]
    df = rows.select_columns("product_category").to_pandas()
    print(df["product_category"].value_counts()[:20].to_string())
    reason = f"not of --categories {' '.join(args.categories)} in {language}"
    books = reviews.filter(filter_books, fn_kwargs={"categories": args.categories})
    # Print how many rows the filter has dropped, and leave out splits that have none left.
    books = common.report_dropped(reviews, books, reason)
    print(f"\n=== {language}: after filter_books ===")
    show_samples(books, seed=args.seed)
    return books


def has_long_title(example):
    """Return whether the title has three words or more."""
    # This is len(example["review_title"].split()), as in the chapter. In languages without spaces,
    # such as Japanese, count_words() counts characters.
    words = common.count_words(example["review_title"], example["language"])
    return words >= MIN_TITLE_WORDS


def main():
    args = parse_args()

    # 1. Load the reviews of each language and look at some of them
    # Differs from the chapter: load_dataset("amazon_reviews_multi") fails today. load_reviews()
    # reads a copy, or your own files, without load_dataset(), which may take a title "NA" for a
    # missing one. Its columns are texts: review_body, review_title, language, product_category.
    path = common.find_dataset(args.dataset)  # huggingface_hub.snapshot_download(), or a local path
    corpus = {}  # {language: a DatasetDict}
    for language in args.languages:
        print(f"\n=== {language} ===")
        reviews = common.load_reviews(args, path, language)
        if reviews:  # else load_reviews() has said that no review is in this language
            print(reviews)
            show_samples(reviews, seed=args.seed)
            corpus[language] = reviews
    if not corpus:
        common.fail(f"{args.dataset} has no review in {' or '.join(args.languages)} (--languages)")

    # 2. Keep the books, as all reviews of the chapter's corpus are too many for a single GPU
    books = {}  # {language: a DatasetDict}
    for language, reviews in corpus.items():
        books[language] = keep_books(language, reviews, args)

    # 3. Put the languages together, split by split. Shuffle, so that batches mix both languages.
    books_dataset = DatasetDict()
    for split in ("train", "validation", "test"):  # load_reviews() returns no others
        parts = [dataset[split] for dataset in books.values() if split in dataset]
        if parts:  # files of your own may have fewer splits
            books_dataset[split] = concatenate_datasets(parts).shuffle(seed=args.seed)
    print("\n=== all languages ===")
    show_samples(books_dataset, seed=args.seed)

    # 4. Not in the chapter: drop rows without a review or a title, which your own files may have
    books_dataset = common.drop_empty_texts(books_dataset)

    # 5. Draw the lengths of reviews and titles. Then drop titles of one or two words, so that the
    # model does not learn to write such titles.
    figure = common.draw_lengths(books_dataset, MIN_TITLE_WORDS)  # saved in step 8
    with_long_titles = books_dataset.filter(has_long_title)
    reason = f"with a title of fewer than {MIN_TITLE_WORDS} words"
    books_dataset = common.report_dropped(books_dataset, with_long_titles, reason)

    # 6. Not in the chapter: if there is no validation split, take --validation-share of train
    books_dataset = common.add_validation_split(books_dataset, args.validation_share, args.seed)

    # 7. Not in the chapter: count the rows, and those whose review or title is also in train. Such
    # rows make the scores too high, above all in the sample. They are kept, as in the chapter.
    common.print_sizes_and_overlap(books_dataset)

    # 8. Not in the chapter: save the data for the other scripts. With --model tiny, also make an
    # untrained mT5, whose tokenizer is learned from these reviews.
    with common.new_files(args.data) as folder:  # moved to --data when all files are there
        common.write_json(folder / common.ARGUMENTS_FILE, vars(args))
        books_dataset.save_to_disk(folder)
        figure.savefig(folder / "title_lengths.png")
        if args.model == "tiny":
            make_tiny_checkpoint(books_dataset, args.seed, folder / "tiny-mt5")
    print(f"\nSaved in {args.data}")

    # 9. See how SentencePiece cuts a text: "▁" is the start of a word, "</s>" the end of the text.
    # The tiny model of step 8 has few tokens, so that many words are cut. All reviews are tokenized
    # in the training scripts, by preprocess_function().
    checkpoint = common.tiny_checkpoint(args) if args.model == "tiny" else args.model
    with common.explain_checkpoint_errors(checkpoint):
        # trust_remote_code=False: code in a checkpoint never runs. By default, the user is asked.
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    inputs = tokenizer("I loved reading the Hunger Games!")
    print(f"\n=== the tokens of one sentence ===\n{inputs}")
    print(tokenizer.convert_ids_to_tokens(inputs.input_ids))


if __name__ == "__main__":
    with common.command_line():  # Ctrl-C, for example, gives one line and not a traceback
        main()
