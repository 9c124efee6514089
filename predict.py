"""Write the titles of reviews with a fine-tuned model, or score the model on a split.

Chapter section: "Using your fine-tuned model"; its pipeline("summarization") is gone, summarize() does its work.

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 0 5 12                  # rows of the test split
    python predict.py "I could not put it down."         # your own review; - reads standard input
    python predict.py --input reviews.csv --output titles.jsonl
    python predict.py --model results/sample-accelerate --split test --output titles.csv --scores scores.json

Reads   --model: a folder (results/<preset>-trainer, which train_trainer.py writes) or a Hub id; for --input a file
        with a column review_body, or TXT with a review a line
Writes  summaries to the screen; with --output, all columns and the summaries (for --split also lead_3) to a file;
        for --split a table of scores to the screen, with --scores also as JSON
Takes   seconds on the sample; --split validation gives the scores that the training script printed
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from tqdm.auto import tqdm

import common

PRESETS = {
    "sample": {"model": "results/sample-trainer", "batch_size": 32, "bf16": False},
    "amazon": {"model": "results/amazon-trainer", "batch_size": 64},
}


def read_input(args):
    """Return the rows of --input as a ``Dataset``."""
    with common.expected(f"cannot read --input {args.input}", "it holds no review or is not in UTF-8"):
        rows = load_dataset(**common.locate(args.input, "--input"), split="train")
    if rows.column_names == ["text"]:  # TXT
        rows = rows.rename_column("text", args.text_column)
    common.check_columns(rows, [args.text_column], f"--input {args.input}", "see --text-column")
    if "summary" in rows.column_names:
        common.fail(f"--input {args.input} has a column 'summary', which would be overwritten; rename it")
    return rows


def summarize(tokenizer, model, rows, args):
    """Return a title for each row, in order; an empty review has an empty one."""
    reviews, summaries = list(rows["review_body"]), [""] * len(rows)
    filled = [place for place, review in enumerate(reviews) if review.strip()]
    filled.sort(key=lambda place: -len(reviews[place]))  # reviews of about one length in a batch: little padding
    lengths = args.max_input_length, args.max_target_length
    for start in tqdm(range(0, len(filled), args.batch_size), "Summarize", disable=len(filled) <= args.batch_size):
        places = filled[start : start + args.batch_size]
        inputs = common.preprocess_function(rows.select(places)[:], tokenizer, model.config, *lengths)
        inputs = tokenizer.pad(inputs, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            generated_tokens = model.generate(**common.generation_inputs(tokenizer, inputs))
        if not model.config.is_encoder_decoder:  # GPT-2 gives back the review before its title
            generated_tokens = generated_tokens[:, inputs["input_ids"].shape[1] :]
        titles = tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        for place, title in zip(places, titles, strict=True):
            summaries[place] = title.strip()
    return summaries


def print_summary(review, title, summary):
    print(common.printable(f"\n'>>> Review: {review}'"))
    if title is not None:
        print(common.printable(f"'>>> Title: {title}'"))
    print(common.printable(f"'>>> Summary: {summary}'"))


@common.command()
def main():
    flags = "preset model data examples input output scores text_column language split rouge batch_size num_beams"
    args = common.parse_args(__doc__, (flags + " max_input_length max_target_length bf16 text").split(), PRESETS)
    if sum(map(bool, (args.text, args.input, args.split, args.examples))) > 1:
        common.fail("give one of: reviews, --input, --split, --examples")
    if args.output and not (args.input or args.split):
        common.fail("--output needs --input or --split")
    if args.scores and not args.split:
        common.fail("--scores needs --split")
    for file in filter(None, (args.output, args.scores)):
        if not Path(file).resolve().parent.is_dir():
            common.fail(f"the folder of {file} does not exist; make it or name another file")
        if args.input and Path(file).resolve() == Path(args.input).resolve():
            common.fail(f"{file} is --input, which would be overwritten; name another file")

    # 1. What to summarize
    if args.input:
        rows = read_input(args)
    elif args.text:
        read = sys.stdin.read if sys.stdin else str  # closed, it has no text
        texts = [read() if text == "-" else text for text in args.text]
        if not all(text.strip() for text in texts):
            common.fail("the review is empty; give its text")
        rows = Dataset.from_dict({"review_body": texts})
    elif args.split:  # in the order of the training scripts, so that intervals come out the same
        rows = common.longest_first(common.load_prepared(args, args.split)[args.split])
    else:
        books = common.load_prepared(args, "test")["test"]
        languages = list(books["language"])
        examples = args.examples or [languages.index(language) for language in sorted(set(languages))]
        if max(examples) >= len(books):
            common.fail(f"--examples: the test split has rows 0 to {len(books) - 1}")
        rows = books.select(examples)
    column = args.text_column if args.input else "review_body"

    # 2. The model; load_checkpoint also sets --num-beams and --max-target-length for generate()
    if args.model == f"results/{args.preset}-trainer" and not Path(args.model, "config.json").exists():
        common.fail(f"{args.model} holds no model; run: python train_trainer.py --preset {args.preset}")
    tokenizer, model = common.load_checkpoint(args)
    # All weights in bf16; in training they stay in fp32, and only products are in bf16
    dtype = torch.bfloat16 if common.mixed_precision(args.bf16) == "bf16" else torch.float32
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu", dtype)

    # 3. Summaries
    reviews = {"review_body": [review or "" for review in rows[column]]}
    if args.language or "language" in rows.column_names:  # which mBART-50 must be told
        reviews["language"] = [args.language] * len(rows) if args.language else rows["language"]
    if empty := sum(not review.strip() for review in reviews["review_body"]):
        common.print_main(f"{empty} empty reviews get an empty summary")
    summaries = summarize(tokenizer, model, Dataset.from_dict(reviews), args)
    if args.split:
        scores = common.score(rows, args.rouge, summaries)
        print("\n" + common.score_table(scores, args.split))
        if args.scores:
            common.write_json(Path(args.scores), scores)
    if args.output:
        if args.split:
            lead_3 = map(common.three_sentence_summary, rows["review_body"], rows["language"])
            rows = rows.add_column("lead_3", list(lead_3))
        rows = rows.add_column("summary", summaries)
        rows.to_csv(args.output) if args.output.endswith(".csv") else rows.to_json(args.output, force_ascii=False)
        print(f"Written to {args.output}")
    elif not args.split:
        titles = rows["review_title"] if "review_title" in rows.column_names else [None] * len(rows)
        for review, title, summary in zip(rows[column], titles, summaries, strict=True):
            print_summary(review, title, summary)


if __name__ == "__main__":
    main()
