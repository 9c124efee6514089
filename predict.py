"""Write the titles of reviews with a fine-tuned model, or score the model on a split.

Chapter section: "Using your fine-tuned model".

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 0 5 12                  # rows of the test split
    python predict.py "I could not put it down."         # your own review; - reads standard input
    python predict.py --input reviews.csv --output titles.jsonl
    python predict.py --model results/sample-accelerate --split test

Reads   the folder --model (results/<preset>-trainer; train_trainer.py runs first if it is missing) or a
        Hub id; --input as CSV or JSONL with a column review_body, or TXT with a review a line
Writes  summaries to the screen or, for each row of --input in its order, to --output; the scores of
        --split to the screen and, as JSON, to --output
Takes   seconds on the sample; expect the scores that the training script printed
"""

import csv
import json
import sys
from pathlib import Path

import torch
from tqdm.auto import tqdm

from common import (
    MAX_INPUT_LENGTH,
    compare_with_lead_3,
    fail,
    load_checkpoint,
    load_prepared,
    parse_args,
    print_scores,
    run_stage,
    write,
)

SHARED = {
    "model": "results/{preset}-trainer",
    "data": "data/prepared/{preset}",
    "examples": None,
    "input": None,
    "output": None,
    "text_column": "review_body",
    "split": None,
    "rouge": "language",
    "batch_size": 32,
}
DEFAULTS = {"sample": SHARED, "amazon": SHARED}


def generate_summaries(tokenizer, model, texts, batch_size):
    """Return a title for each text, in order; batches go from the longest text to the shortest."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    summaries = [None] * len(texts)
    for start in tqdm(range(0, len(texts), batch_size), "Summarize", disable=len(texts) <= batch_size):
        rows = order[start : start + batch_size]
        inputs = tokenizer(
            [texts[i] for i in rows], max_length=MAX_INPUT_LENGTH, truncation=True, padding=True, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            generated_tokens = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask)
        for i, summary in zip(rows, tokenizer.batch_decode(generated_tokens, skip_special_tokens=True), strict=True):
            summaries[i] = summary
    return summaries


def read_reviews(file, column):
    """Return the rows of a CSV, JSONL or TXT file as dictionaries; ``column`` holds the review."""
    suffix = Path(file).suffix.lower()
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            if suffix == ".csv":
                rows = list(csv.DictReader(lines))
            elif suffix in (".jsonl", ".json"):
                rows = [json.loads(line) for line in lines]
            else:
                rows = [{column: line.strip()} for line in lines]
    except (OSError, ValueError, csv.Error) as error:
        fail(f"cannot read --input {file}: {error}; it must be UTF-8 text as CSV, JSONL or TXT")
    if not rows:
        fail(f"--input {file} holds no review")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or column not in row:
            fail(f"--input {file}: row {number} has no column {column!r}; see --text-column")
        if not str(row[column] or "").strip():
            fail(f"--input {file}: review {number} is empty; fill or remove it")
    return rows


def write_output(file, text):
    try:
        write(file, text)
    except OSError as error:
        fail(f"cannot write --output {file}: {error.strerror}; free space or name another file")
    print(f"Written to {file}")


def print_summary(review, title, summary):
    print(f"\n'>>> Review: {review}'")
    if title is not None:
        print(f"'>>> Title: {title}'")
    print(f"'>>> Summary: {summary}'")


def main():
    args = parse_args(__doc__, DEFAULTS, positional="text")
    if args.output and not (args.input or args.split):
        fail("--output needs --input FILE or --split")

    # 1. What to summarize
    rows = read_reviews(args.input, args.text_column) if args.input else []
    texts = [sys.stdin.read() if text == "-" else text for text in args.text]
    if not all(text.strip() for text in texts):
        fail("the review is empty; give its text")

    # 2. The model
    if args.model == f"results/{args.preset}-trainer" and not Path(args.model, "config.json").exists():
        run_stage("train_trainer.py", args.model, "--preset", args.preset)
    tokenizer, model = load_checkpoint(args)
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    # 3. Summaries
    if args.input:
        summaries = generate_summaries(tokenizer, model, [str(row[args.text_column]) for row in rows], args.batch_size)
        if not args.output:
            for row, summary in zip(rows, summaries, strict=True):
                print_summary(row[args.text_column], None, summary)
            return
        rows = [row | {"summary": summary} for row, summary in zip(rows, summaries, strict=True)]
        write_output(args.output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif texts:
        for text, summary in zip(texts, generate_summaries(tokenizer, model, texts, args.batch_size), strict=True):
            print_summary(text, None, summary)
    elif args.split:
        books = load_prepared(args, args.split)[args.split]
        summaries = generate_summaries(tokenizer, model, list(books["review_body"]), args.batch_size)
        scores = compare_with_lead_3(summaries, books, args.rouge)
        print_scores(scores, args.split)
        if args.output:
            write_output(args.output, json.dumps(scores, indent=2) + "\n")
    else:
        books = load_prepared(args, "test")["test"]
        languages = list(books["language"])
        examples = args.examples or [languages.index(language) for language in sorted(set(languages))]
        if max(examples) >= len(books):
            fail(f"--examples: the test split has rows 0 to {len(books) - 1}")
        books = books.select(examples)
        summaries = generate_summaries(tokenizer, model, list(books["review_body"]), args.batch_size)
        for row, summary in zip(books, summaries, strict=True):
            print_summary(row["review_body"], row["review_title"], summary)


if __name__ == "__main__":
    main()
