r"""Make the corpus: English and Spanish book reviews, each with its title as the summary to learn.

Chapter section: "Preparing a multilingual corpus", and the tokenizer of "Models for text
summarization".

    python prepare_data.py                      # synthetic reviews: runs in seconds and offline
    python prepare_data.py --preset amazon      # the chapter's corpus, from the Hub
    python prepare_data.py --dataset own.csv --data data/prepared/own \
        --languages en --categories --validation-share 0.1

The last command reads a file of your own, --dataset, and writes to the folder --data. The file has
columns review_body and review_title, or others that --text-column and --title-column name.
--categories without a name keeps all products.

Reads   --dataset: by default data/sample/; a Hub data set, or a file or folder of CSV, TSV, JSON,
        JSONL or Parquet.
Writes  --data, by default data/prepared/<preset>/:
            a DatasetDict for datasets.load_from_disk()
            title_lengths.png
            arguments.json, the flags
            tiny-mt5/, with --model tiny, as for the sample: the untrained model to train
Takes   about 15 seconds for the sample. It leaves 6,866 rows to train on, 496 to validate on and
        491 to test on.
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
MIN_TITLE_WORDS = 3


def parse_args():
    parser = common.argument_parser(__doc__)
    add = parser.add_argument
    add("--dataset", help="file, folder or Hub data set (user/name) with the reviews")
    add("--languages", nargs="+", default=["en", "es"], help="languages to keep (en es)")
    add("--text-column", default="review_body", help="column with the review (review_body)")
    add("--title-column", default="review_title", help="column with its title (review_title)")
    books = ["book", "digital_ebook_purchase"]
    categories_help = "product categories to keep (two of books, as the chapter); no name keeps all"
    add("--categories", nargs="*", default=books, help=categories_help)
    share_help = "share of train that becomes the validation split, if the data has none (0)"
    add("--validation-share", type=float, default=0.0, help=share_help)
    add("--model", help="checkpoint whose tokenizer is shown; tiny also makes an untrained model")
    add("--seed", type=int, default=42, help="seed of the shuffles and of the tiny model (42)")
    args = common.parse_args(parser, PRESETS)
    # common.parse_args() turns the model "tiny" into the folder that step 7 saves the model in.
    args.make_tiny_model = args.model == common.tiny_checkpoint(args)
    args.languages = common.language_codes(args.languages)
    # The script ends here if it would overwrite the data of a preset or the files of others.
    is_own = args.dataset != PRESETS[args.preset]["dataset"]
    if is_own and args.data == common.preset_data(args.preset):
        common.fail("--dataset needs --data; else it would replace the data of the preset")
    common.check_folder(args.data, args.dataset)
    return args


def show_samples(dataset, num_samples=3, seed=42):
    """Print the titles and reviews of a few random rows of the training split."""
    rows = dataset[common.main_split(dataset)]  # somebody's own data may have no split "train"
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
    # Differs from the chapter: to_pandas() stands for set_format("pandas"), and only this column
    # becomes a DataFrame, which saves memory.
    rows = reviews[common.main_split(reviews)]
    df = rows.select_columns("product_category").to_pandas()
    print(df["product_category"].value_counts()[:20].to_string())
    books = reviews.filter(filter_books, fn_kwargs={"categories": args.categories})
    reason = f"not of --categories {' '.join(args.categories)} in {language}"
    common.print_dropped(reviews, books, reason)  # how many of each split
    print(f"\n=== {language}: after filter_books ===")
    show_samples(books, seed=args.seed)
    return books


def has_long_title(example):
    """Return whether the title has three words or more."""
    title, language = example["review_title"], example["language"]
    # Differs from the chapter: Japanese has no spaces, for example. There each character counts.
    if language in common.NO_SPACES:
        return common.count_words(title, language) >= MIN_TITLE_WORDS
    return len(title.split()) >= MIN_TITLE_WORDS


def show_tokens(text, checkpoint):
    """Print the tokens of ``text``. "▁" is the start of a word, and "</s>" the end of the text."""
    with common.explain_checkpoint_errors(checkpoint):  # a wrong name ends the script in one line
        # By default the user is asked whether code that comes with a checkpoint may run. With
        # trust_remote_code=False no such code runs.
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    inputs = tokenizer(text)
    print(f"\n=== the tokens of one sentence ===\n{inputs}")
    print(tokenizer.convert_ids_to_tokens(inputs.input_ids))


def main():
    args = parse_args()

    # 1. Load the reviews of each language and look at some of them
    # Differs from the chapter: load_reviews() stands for load_dataset("amazon_reviews_multi", ...).
    # That data set was withdrawn. Also, load_dataset() guesses types: a title "NA" in a CSV file of
    # your own would become empty. The columns are review_body, review_title, product_category and
    # language. If the files have no column "language", the name of their folder says the language,
    # or --languages has only one.
    path = common.find_dataset(args.dataset)  # downloads a data set of the Hub
    corpus = {}  # {language: a DatasetDict}
    for language in args.languages:
        print(f"\n=== {language} ===")
        reviews = common.load_reviews(args, path, language)
        if reviews is None:  # no review is in this language
            continue
        print(reviews)
        show_samples(reviews, seed=args.seed)
        corpus[language] = reviews
    if not corpus:
        languages = " or ".join(args.languages)
        common.fail(f"no review of {args.dataset} is in {languages}; see --languages")

    # 2. Keep the books, as all reviews of the chapter's corpus are too many for a single GPU
    books = {}  # {language: a DatasetDict}
    for language, reviews in corpus.items():
        books[language] = keep_books(language, reviews, args)

    # 3. Put the languages together, split by split. Shuffle, so that batches mix both languages.
    books_dataset = DatasetDict()
    for split in ("train", "validation", "test"):
        parts = [reviews[split] for reviews in books.values() if split in reviews]
        if parts:  # files of your own may have fewer splits
            books_dataset[split] = concatenate_datasets(parts).shuffle(seed=args.seed)
    print("\n=== all languages ===")
    show_samples(books_dataset, seed=args.seed)

    # 4. Not in the chapter: drop rows without a review or a title. Files of your own may have some.
    books_dataset = common.drop_empty_texts(books_dataset)

    # 5. Draw the lengths of reviews and titles. Then drop titles of one or two words, so that the
    # model does not learn to write such titles.
    figure = common.draw_lengths(books_dataset, MIN_TITLE_WORDS)  # saved in step 7
    with_long_titles = books_dataset.filter(has_long_title)
    reason = f"with a title of fewer than {MIN_TITLE_WORDS} words"
    common.print_dropped(books_dataset, with_long_titles, reason)
    books_dataset = with_long_titles

    # 6. Not in the chapter: take validation rows from train if there are none (--validation-share).
    # Print how many rows there are, and how many reviews and titles are also in train. These rows
    # make the scores too high. They stay, as in the chapter: most rows of the sample are such rows.
    books_dataset = common.add_validation_split(books_dataset, args.validation_share, args.seed)
    common.print_splits(books_dataset)

    # 7. Not in the chapter: save the data for the other scripts. With --model tiny, also make an
    # untrained mT5, whose tokenizer is learned from these reviews.
    with common.new_files(args.data) as folder:  # moved to --data when all files are there
        common.write_json(folder / common.ARGUMENTS_FILE, vars(args))
        books_dataset.save_to_disk(folder)
        figure.savefig(folder / "title_lengths.png")
        if args.make_tiny_model:
            make_tiny_checkpoint(books_dataset, args.seed, folder / "tiny-mt5")
    print(f"\nSaved in {args.data}")

    # 8. See how the tokenizer, which is SentencePiece, cuts a text. That of the tiny model has few
    # tokens, so it cuts many words. The training scripts tokenize the reviews and titles, in their
    # preprocess_function().
    show_tokens("I loved reading the Hunger Games!", args.model)


if __name__ == "__main__":
    # Warnings of the libraries are hidden, and Ctrl-C or a full disk end in one line. The lesson is
    # in main().
    with common.command_line():
        main()
