"""Make the corpus: English and Spanish book reviews, each with its title as the summary to learn.

Chapter section: "Preparing a multilingual corpus", and the tokenizer of "Models for text
summarization".

    python prepare_data.py                      # the sample: reviews that a program composed
    python prepare_data.py --preset amazon      # the chapter's corpus, from the Hub
    python prepare_data.py --data data/prepared/own --dataset own.csv --languages en --categories

The last command reads a file of your own. It has columns review_body and review_title, or others
that --text-column and --title-column name. --categories without a name keeps all products.

Reads   --dataset: by default data/sample/; a Hub data set, or a file or folder of CSV, TSV, JSON,
        JSONL or Parquet.
Writes  --data, by default data/prepared/<preset>/:
            a DatasetDict for datasets.load_from_disk()
            title_lengths.png
            arguments.json, the flags
            tiny-mt5/, for the sample: the untrained model that its training starts from
Takes   about 15 seconds for the sample, of which 6,866 rows to train on, 496 to validate on, and
        491 to test on are left.
"""

import os
from pathlib import Path

from datasets import DatasetDict, concatenate_datasets
from transformers import AutoTokenizer

import common  # what the scripts share
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
    parser = common.argument_parser(__doc__)
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
    args.languages = common.language_codes(args.languages)
    return args


def show_samples(dataset, num_samples=3, seed=42):
    """Print the titles and reviews of a few random rows of the training split."""
    rows = dataset[common.main_split(dataset)]  # somebody's own data may have no split "train"
    sample = rows.shuffle(seed=seed).select(range(min(num_samples, len(rows))))
    for example in sample:
        # printable() escapes characters that could, for instance, clear the screen.
        print(common.printable(f"\n'>> Title: {example['review_title']}'"))
        print(common.printable(f"'>> Review: {example['review_body']}'"))


def show_categories(dataset):
    """Print the counts of the 20 largest product categories."""
    rows = dataset[common.main_split(dataset)]
    # Differs from the chapter: to_pandas() stands for set_format("pandas"), and only this column
    # becomes a DataFrame, which saves memory.
    df = rows.select_columns("product_category").to_pandas()
    print(df["product_category"].value_counts()[:20].to_string())


def filter_books(example, categories):
    """Return whether the product is of one of the ``categories``."""
    return example["product_category"] in categories


def has_long_title(example):
    """Return whether the title has three words or more: the chapter's ``len(title.split()) > 2``.

    In languages without spaces, such as Japanese, each character counts as a word.
    """
    words = common.count_words(example["review_title"], example["language"])
    return words >= MIN_TITLE_WORDS


def main():
    args = parse_args()
    common.check_folder(args.data, args.dataset)  # ends the run if other programs wrote to --data

    # 1. Load the reviews of each language and look at some of them
    # Differs from the chapter: load_corpus() stands for load_dataset("amazon_reviews_multi", "es").
    # It also reads your own files, without guessing: a title "NA" stays a title. The columns are
    # review_body, review_title, language and product_category.
    corpus = {}  # {language: DatasetDict}
    for language, reviews in common.load_corpus(args):
        print(reviews)
        show_samples(reviews, seed=args.seed)
        corpus[language] = reviews

    # 2. Keep the books, as all reviews of the chapter's corpus are too many for a single GPU
    if args.categories:
        for language, reviews in corpus.items():
            print(f"\n=== {language}: the 20 largest product categories ===")
            show_categories(reviews)
            books = reviews.filter(filter_books, fn_kwargs={"categories": args.categories})
            reason = f"not of --categories {' '.join(args.categories)} in {language}"
            common.print_dropped(reviews, books, reason)
            print(f"\n=== {language}: after filter_books ===")
            show_samples(books, seed=args.seed)
            corpus[language] = books

    # 3. Put the languages together, split by split. Shuffle, so that each batch has both.
    books_dataset = DatasetDict()
    for split in ("train", "validation", "test"):
        parts = [reviews[split] for reviews in corpus.values() if split in reviews]
        if parts:
            books_dataset[split] = concatenate_datasets(parts).shuffle(seed=args.seed)
    print("\n=== all languages ===")
    show_samples(books_dataset, seed=args.seed)

    # Not in the chapter: drop rows without a review or a title, as your own files may have some
    books_dataset = common.drop_empty_texts(books_dataset)

    # 4. Draw the lengths of reviews and titles. Then drop titles of one or two words, so that the
    # model does not learn to write such titles.
    figure = common.draw_lengths(books_dataset, MIN_TITLE_WORDS)
    with_long_titles = books_dataset.filter(has_long_title)
    reason = f"with a title of fewer than {MIN_TITLE_WORDS} words"
    common.print_dropped(books_dataset, with_long_titles, reason)
    books_dataset = with_long_titles

    # 5. Not in the chapter: take validation rows from train if there are none (--validation-share).
    # Print how many rows there are, and how many reviews and titles are also in train. These rows
    # stay, but they make the scores too high.
    common.add_validation_split(books_dataset, args)
    common.print_splits(books_dataset)

    # 6. Not in the chapter: save the data for the other scripts
    with common.new_files(args.data) as folder:  # moved to --data when all files are there
        common.write_json(folder / common.ARGUMENTS_FILE, vars(args))
        books_dataset.save_to_disk(folder)
        figure.savefig(folder / "title_lengths.png")
        # --model tiny stands for this folder: an untrained mT5, whose tokenizer knows these reviews
        if args.model == common.tiny_checkpoint(args):
            make_tiny_checkpoint(books_dataset, args.seed, folder / "tiny-mt5")
    print(f"\nSaved in {args.data}")

    # 7. The tokens of an example, by SentencePiece. "▁" is the start of a word, and "</s>" the end
    # of the text. The tokenizer of the tiny model has few tokens, so it cuts many words.
    with common.explain_checkpoint_errors(args.model):
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    inputs = tokenizer("I loved reading the Hunger Games!")
    print(f"\n=== the tokens of one sentence ===\n{inputs}")
    print(tokenizer.convert_ids_to_tokens(inputs.input_ids))


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
