"""Summarize reviews with a fine-tuned model, which writes a title for each, or score the model on a split.

Chapter section: "Using your fine-tuned model"; its pipeline("summarization") was removed, summarize() does the same.

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 0 5 12                  # rows of the test split
    python predict.py "I could not put it down."         # your own review; - reads one from standard input
    python predict.py --input reviews.csv --output titles.jsonl
    python predict.py --model results/sample-accelerate --split test --output titles.csv --scores scores.json

Reads   --model: a folder (results/<preset>-trainer, which train_trainer.py writes) or a Hub id; the reviews of a file,
        or data/prepared/<preset>/ (made if it is missing)
Writes  summaries to the screen or, with --output, all columns and the summary (for --split also lead_3, the longest
        review first) to a file: CSV if its name ends in .csv, else JSON Lines; for --split a table of scores
Takes   seconds; on the sample, --split validation gives the scores that the training script printed
"""

import os
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from tqdm.auto import tqdm

import common

PRESETS = {
    "sample": {"model": "results/sample-trainer", "batch_size": 32, "bf16": False},
    "amazon": {"model": "results/amazon-trainer", "batch_size": 64},
}


def summarize(tokenizer, model, reviews, args):
    """Return a summary of each review, in order; that of an empty review is empty."""
    summaries, limits = [""] * len(reviews), (args.max_input_length, args.max_target_length)
    reviews = common.longest_first(reviews.add_column("row", list(range(len(reviews)))))
    batches = list(reviews.iter(args.batch_size))  # of reviews of about one length: little padding
    for batch in tqdm(batches, "Summarize", disable=len(batches) == 1):
        # As in a training; there are no titles, so no labels, and the tokenizer can pad without the collator.
        inputs = common.preprocess_function(batch, tokenizer, model.config, *limits)
        inputs = tokenizer.pad(inputs, return_tensors="pt").to(model.device)
        with torch.inference_mode():  # ids and attention mask; load_checkpoint has set beams and length
            generated_tokens = model.generate(**common.generation_inputs(tokenizer, inputs))
        if not model.config.is_encoder_decoder:  # GPT-2: the review, padded on the left, comes before its summary
            generated_tokens = generated_tokens[:, inputs["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        for row, review, summary in zip(batch["row"], batch["review_body"], decoded, strict=True):
            summaries[row] = summary.strip() if review.strip() else ""
    return summaries


def print_summary(example, text_column):
    print()
    for name, column in {"Review": text_column, "Title": "review_title", "Summary": "summary"}.items():
        if example.get(column) is not None:
            print(common.printable(f"'>>> {name}: {example[column]}'"))


@common.command()
def main():
    flags = "preset model data examples input output scores text_column language split rouge batch_size num_beams"
    args = common.parse_args(__doc__, (flags + " max_input_length max_target_length bf16 text").split(), PRESETS)
    if sum(map(bool, (args.text, args.input, args.split, args.examples))) > 1:
        common.fail("give one of: reviews, --input, --split, --examples")
    if args.scores and not args.split:
        common.fail("--scores needs --split")
    named = [Path(file).resolve() for file in (args.input, args.output, args.scores) if file]
    for file in map(Path, filter(None, (args.output, args.scores))):
        if named.count(file.resolve()) > 1:
            common.fail(f"{file} is --input or --output, which would be overwritten; name another file")
        common.check_free(file)  # now, not after the work
        file.parent.mkdir(parents=True, exist_ok=True)
    if args.model == f"results/{args.preset}-trainer" and not Path(args.model, "config.json").exists():
        common.fail(f"{args.model} holds no model; run: python train_trainer.py --preset {args.preset}")

    # 1. What to summarize
    column = args.text_column if args.input else "review_body"
    if args.text:
        texts = [os.fdopen(0, errors="replace").read() if text == "-" else text for text in args.text]  # 0: stdin
        rows = Dataset.from_dict({column: texts})
    elif args.input:
        with common.expected(f"cannot read --input {args.input}", "it must be CSV, JSON, Parquet or TXT in UTF-8"):
            rows = load_dataset(**common.locate(args.input, "--input"), split="train")
        if rows.column_names == ["text"] and column != "text":  # that is what load_dataset makes of a TXT
            rows = rows.rename_column("text", column)
    elif args.split:  # in the order of the training scripts, so that the intervals' random rows are theirs
        rows = common.longest_first(common.load_prepared(args, args.split)[args.split])
    else:
        rows = common.load_prepared(args, "test")["test"]
        examples = args.examples or rows.to_pandas().drop_duplicates("language").index  # the first of each language
        with common.expected("--examples", f"the test split has rows 0 to {len(rows) - 1}"):
            rows = rows.select(examples)
    if taken := {"summary", "lead_3"} & set(rows.column_names):
        common.fail(f"the reviews have a column {taken.pop()!r}, which would be overwritten; rename it")
    with common.expected(f"cannot read {args.input}", "name a column of texts with --text-column"):
        texts = [(review or "").strip() for review in rows[column]]
    if empty := texts.count(""):
        common.print_main(f"{empty} empty reviews get an empty summary")
    known = "language" in rows.column_names and not args.language
    languages = rows["language"] if known else [args.language] * len(rows)  # only mBART-50 looks at them
    reviews = Dataset.from_dict({"review_body": texts, "language": languages})

    # 2. The model
    tokenizer, model = common.load_checkpoint(args)
    # A training keeps its weights in fp32 and only multiplies in bf16; here they may be in bf16 themselves
    dtype = torch.bfloat16 if common.mixed_precision(args.bf16) == "bf16" else torch.float32
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu", dtype)

    # 3. Summaries, and for a split their scores beside lead-3's
    rows = rows.add_column("summary", summarize(tokenizer, model, reviews, args))
    if args.split:
        lead_3 = map(common.three_sentence_summary, rows["review_body"], rows["language"])
        rows = rows.add_column("lead_3", list(lead_3))
        scores = common.score(rows, args.rouge, rows["summary"])
        print("\n" + common.score_table(scores, args.split))

    # 4. To a file or the screen
    if args.scores:
        with common.new_files(args.scores) as folder:
            common.write_json(folder / Path(args.scores).name, scores)
    if args.output:
        with common.new_files(args.output) as folder:
            file = folder / Path(args.output).name
            rows.to_csv(file) if file.suffix == ".csv" else rows.to_json(file, force_ascii=False)
        print(f"Written to {args.output}")
    elif not args.split:
        for example in rows:
            print_summary(example, column)


if __name__ == "__main__":
    main()
