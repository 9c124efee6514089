"""Make the corpus: English and Spanish book reviews, each with its title as the summary to learn.

Chapter section: "Preparing a multilingual corpus".

    python prepare_data.py                        # the bundled sample reviews
    python prepare_data.py --preset amazon        # the chapter's corpus, from the Hub
    python prepare_data.py --dataset my/reviews.csv --languages en --categories

Reads   data/sample/, a Hub data set, or a local file or folder of CSV, JSON, JSONL(.gz) or Parquet
Writes  data/prepared/<preset>/, a DatasetDict to open with datasets.load_from_disk; in it
        title_lengths.png and, for the preset sample, tiny-mt5/, the checkpoint to train
Takes   about 15 seconds for the sample
"""

import io
import json
import os
import re
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import DatasetDict, concatenate_datasets, load_dataset
from huggingface_hub import HfApi
from sentencepiece import SentencePieceTrainer
from transformers import AutoTokenizer, MT5Config, MT5ForConditionalGeneration, T5Tokenizer, set_seed

from common import ROOT, check_hub, fail, first_line, load, new_files, parse_args

SHARED = {
    "data": "data/prepared/{preset}",
    "languages": ["en", "es"],
    "text_column": "review_body",
    "title_column": "review_title",
    "categories": ["book", "digital_ebook_purchase"],
    "validation_share": 0.0,
    "seed": 42,
}
DEFAULTS = {
    "sample": {"dataset": os.path.relpath(ROOT / "data/sample"), "model": "tiny", **SHARED},
    "amazon": {"dataset": "buruzaemon/amazon_reviews_multi", "model": "google/mt5-small", **SHARED},
}
LOADERS = {"csv": "csv", "json": "json", "jsonl": "json", "parquet": "parquet"}  # suffix: load_dataset's name
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
          "dev": "validation", "test": "test"}  # word in a file name: split  # fmt: skip


def find_files(dataset):
    """Return the paths of all reviews in a local file or folder or in a Hub repository."""
    path = Path(dataset)
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        files = sorted(str(file) for file in path.rglob("*"))
    elif loader_of(dataset) or len(path.parts) != 2:
        fail(f"--dataset {dataset} does not exist; name a file, a folder or a Hub data set (user/name)")
    else:
        check_hub(f"without a network give --dataset a file or folder instead of {dataset}")
        try:
            files = HfApi().list_repo_files(dataset, repo_type="dataset")
        except Exception as error:  # no such repository, no permission
            fail(f"cannot reach the Hub data set {dataset} ({first_line(error)}); for local files use --dataset PATH")
        files = [f"hf://datasets/{dataset}/{file}" for file in files]
    files = [file for file in files if loader_of(file)]
    return files or fail(f"--dataset {dataset} holds no CSV, JSON, JSONL or Parquet file")


def loader_of(file):
    """Return the name of ``load_dataset``'s loader for a file, or None."""
    return LOADERS.get(Path(file.removesuffix(".gz")).suffix[1:])


def load_reviews(args, found, language):
    """Return the ``DatasetDict`` of one language from the files ``found``, with the columns review_body and review_title."""
    words = {file: re.split(r"[\W_]+", file.split(args.dataset)[-1].lower()) for file in found}
    if any(code in words[file] for code in args.languages for file in words):  # else a column says the language
        words = {file: words[file] for file in words if language in words[file]}
    files = {}
    for file in words:
        split = next((SPLITS[word] for word in words[file] if word in SPLITS), "train")
        files.setdefault(split, []).append(file)
    if not files:
        fail(f"--dataset {args.dataset} holds no file for the language {language}; see --languages")
    try:
        reviews = load_dataset(loader_of(next(iter(files.values()))[0]), data_files=files)
    except Exception as error:
        while error.__cause__ or error.__context__:  # the first cause says what is wrong with the file
            error = error.__cause__ or error.__context__
        names = ", ".join(file for split in files.values() for file in split)
        fail(f"cannot read {names}: {error}; save it as UTF-8 text, one review a row")

    reviews = DatasetDict({split: reviews[split] for split in ("train", "validation", "test") if split in reviews})
    for split, rows in reviews.items():
        wanted = {args.text_column: "review_body", args.title_column: "review_title"}
        if args.categories:
            wanted["product_category"] = "product_category"
        for column in wanted:
            if column not in rows.column_names:
                fail(f"{files[split][0]} has no column {column!r} but {rows.column_names}; "
                     "see --text-column, --title-column and --categories")  # fmt: skip
        rows = rows.rename_columns({old: new for old, new in wanted.items() if old != new})
        if "language" not in rows.column_names:
            if len(args.languages) > 1 and not any(language in words[file] for file in words):
                fail(f"{files[split][0]} has no column 'language'; name one language with --languages")
            rows = rows.map(lambda titles: {"language": [language] * len(titles)}, input_columns="review_title",
                            batched=True)  # fmt: skip
        row = 0
        for batch in rows.select_columns(["review_body", "language"]).iter(batch_size=10_000):
            for body, code in zip(batch["review_body"], batch["language"], strict=True):
                row += 1
                if code == language and not (body or "").strip():
                    fail(f"{files[split][0]}: row {row} has an empty {args.text_column}; fill or remove it")
        rows = rows.filter(lambda codes: [code == language for code in codes], input_columns="language", batched=True)
        reviews[split] = rows
    return reviews


def show_samples(reviews, seed, num_samples=3):
    """Print a few random titles and reviews of the first split."""
    rows = next(iter(reviews.values()))
    for example in rows.shuffle(seed=seed).select(range(min(num_samples, len(rows)))):
        print(f"\n'>> Title: {example['review_title']}'\n'>> Review: {example['review_body']}'")


def count_categories(reviews):
    """Count the product categories of the first split, a batch in memory at a time."""
    counts = Counter()
    for batch in next(iter(reviews.values())).select_columns("product_category").iter(batch_size=10_000):
        counts.update(batch["product_category"])
    return counts


def filter_books(example, categories):
    """Keep the chapter's "book" and "digital_ebook_purchase", or what --categories says."""
    return example["product_category"] in categories


def count_words(reviews):
    """Return {column: Counter of words a row} over all splits."""
    counts = {"review_body": Counter(), "review_title": Counter()}
    for rows in reviews.values():
        for batch in rows.select_columns(list(counts)).iter(batch_size=10_000):
            for column, counter in counts.items():
                counter.update(len((text or "").split()) for text in batch[column])
    return counts


def quantile(counts, share):
    """Return the number of words that ``share`` of the rows do not exceed."""
    return next(
        words for words in sorted(counts) if sum(counts[w] for w in counts if w <= words) >= share * counts.total()
    )


def draw_word_counts(before, after, path):
    """Draw the distribution of words a review and a title, before and after the short titles went."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, column in zip(axes, before, strict=True):
        for counts, label in ((before[column], "all"), (after[column], "more than two words in the title")):
            longest = quantile(counts, 0.99)  # a few rows are very long
            bins = np.linspace(0.5, longest + 0.5, min(longest, 40) + 1)
            axis.hist(counts.keys(), bins, weights=counts.values(), alpha=0.5, label=label)
        axis.set(xlabel=f"words in {column}", ylabel="reviews")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def make_tiny_checkpoint(reviews, seed, folder):
    """Save a small mT5 with random weights and a Unigram tokenizer learned from the training split."""
    rows = reviews["train"].select(range(min(len(reviews["train"]), 50_000)))  # sentencepiece holds them in memory
    texts = (text for batch in rows.iter(batch_size=1_000) for text in batch["review_body"] + batch["review_title"])
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=written, vocab_size=4_000, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    folder.mkdir()
    (folder / "spiece.model").write_bytes(written.getvalue())
    tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=0)
    set_seed(seed)
    config = MT5Config(
        vocab_size=len(tokenizer), d_model=128, d_kv=32, d_ff=256, num_layers=1, num_decoder_layers=1,
        num_heads=4, dropout_rate=0.0, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = MT5ForConditionalGeneration(config)
    # mT5's initial values suit weeks of training. To learn in minutes: a separate, small head (so that the
    # first loss is ln(vocabulary)), smaller embeddings, and encoder layers that hardly change their input yet.
    config.tie_word_embeddings = False
    model.shared.weight.data.normal_(std=0.5)
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight).normal_(std=0.05))
    for name, weights in model.encoder.named_parameters():
        if name.endswith("o.weight"):
            weights.data *= 0.03
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    print(f"\nTiny mT5: {len(tokenizer):,} pieces, {model.num_parameters():,} random weights in {folder}")


def main():
    args = parse_args(__doc__, DEFAULTS)

    # 1. Load each language and look at it
    found = find_files(args.dataset)
    corpus = {language: load_reviews(args, found, language) for language in args.languages}
    for language, reviews in corpus.items():
        print(f"\n=== {language} ===\n{reviews}")
        show_samples(reviews, args.seed)

    # 2. Keep the books
    if args.categories:
        for language, reviews in corpus.items():
            print(f"\n=== {language}: the 20 largest categories of {len(next(iter(reviews.values()))):,} reviews ===")
            for category, count in count_categories(reviews).most_common(20):
                print(f"{category:<24}{count:>9,}")
            corpus[language] = reviews.filter(filter_books, fn_kwargs={"categories": args.categories})
            print(f"\n=== {language}: after filter_books ===")
            show_samples(corpus[language], args.seed)

    # 3. One corpus: concatenate the languages split by split and shuffle
    books = DatasetDict()
    for split in ("train", "validation", "test"):
        parts = [reviews[split] for reviews in corpus.values() if split in reviews]
        if parts:
            books[split] = concatenate_datasets(parts).shuffle(seed=args.seed)
    print("\n=== all languages ===")
    show_samples(books, args.seed)

    # 4. Drop titles of one or two words: they say too little to learn from
    before = count_words(books)
    books = books.filter(lambda x: len((x["review_title"] or "").split()) > 2)
    after = count_words(books)
    if args.validation_share and "train" in books and "validation" not in books:
        parts = books["train"].train_test_split(args.validation_share, seed=args.seed)
        books |= {"train": parts["train"], "validation": parts["test"]}
    for split in ("train", "validation", "test"):
        if split not in books:
            print(f"There is no split {split}" + "; see --validation-share" * (split == "validation"))
    for split, rows in books.items():
        if not len(rows):
            fail(f"no review is left in the split {split} of {args.dataset}; see --languages and --categories")
    print(f"\n{'words':<24}{'rows':>8}{'median':>8}{'mean':>8}{'longest':>9}")
    for column in before:
        for counts, when in ((before[column], "all"), (after[column], "kept")):
            mean = sum(words * rows for words, rows in counts.items()) / counts.total()
            print(
                f"{column + ', ' + when:<24}{counts.total():>8,}{quantile(counts, 0.5):>8}{mean:>8.1f}{max(counts):>9,}"
            )

    with new_files(args.data) as folder:
        # 5. Tokenize one example
        if args.model == "tiny":
            make_tiny_checkpoint(books, args.seed, folder / "tiny-mt5")
        checkpoint = str(folder / "tiny-mt5") if args.model == "tiny" else args.model
        tokenizer = load(AutoTokenizer, checkpoint)
        inputs = tokenizer("I loved reading the Hunger Games!")
        print(f"\n{inputs}\n{tokenizer.convert_ids_to_tokens(inputs.input_ids)}")

        # 6. Save
        arguments = json.dumps(vars(args), indent=2, ensure_ascii=False) + "\n"
        (folder / "arguments.json").write_text(arguments, encoding="utf-8")
        draw_word_counts(before, after, folder / "title_lengths.png")
        books.save_to_disk(folder)
    print(f"\n{'rows in ' + args.data:<32}" + "".join(f"{language:>9}" for language in args.languages))
    for split, rows in books.items():
        counts = Counter()
        for batch in rows.select_columns("language").iter(batch_size=10_000):
            counts.update(batch["language"])
        print(f"{split:<32}" + "".join(f"{counts[language]:>9,}" for language in args.languages))


if __name__ == "__main__":
    main()
