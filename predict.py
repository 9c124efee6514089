"""Write titles for reviews with a trained model, or score the model on a split.

Chapter section: "Using your fine-tuned model". Its pipeline("summarization") was removed from
transformers; summarize() does the same.

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 0 5 12                  # these rows of the test split
    python predict.py "I could not put it down."         # your own; - reads one from standard input
    python predict.py --input reviews.csv --output titles.csv
    python predict.py --model results/sample-accelerate --split test

Reads   --model: a folder that a training script wrote, or a Hub id; the reviews, which are those of
        the data that the model was trained on if you give none
Writes  titles to the screen or, with --output, all columns of the reviews and the column "summary"
        to a file: CSV if its name ends in .csv, else JSON Lines. --split prints a table of scores.
Takes   seconds. --split validation gives the scores that the training script printed.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import common

# What each --preset sets. A flag on the command line goes before the preset.
PRESETS = {
    "sample": {"model": "results/sample-trainer", "batch_size": 32, "bf16": False},
    "amazon": {"model": "results/amazon-trainer", "batch_size": 64},
}


def parse_args():
    parser = common.argument_parser(__doc__, PRESETS)
    common.add_generation_arguments(parser)
    reviews = parser.add_mutually_exclusive_group()
    reviews.add_argument("text", nargs="*", default=[], help="reviews; - reads standard input")
    reviews.add_argument("--examples", type=int, nargs="+", help="numbers of rows of test")
    reviews.add_argument("--input", help="file of reviews: CSV, JSON, JSONL, Parquet or TXT")
    reviews.add_argument("--split", choices=["validation", "test"], help="split to score")
    add = parser.add_argument
    add("--output", help="file for the reviews with their summaries")
    add("--text-column", default="review_body", help="column of --input (review_body)")
    add("--language", help="code of the reviews' language, which only mBART-50 needs to know")
    return common.parse_args(parser, PRESETS)


def check_output_file(args):
    """End the run if --output would replace the input or something else than a plain file."""
    output = Path(args.output)
    if args.input and output.resolve() == Path(args.input).resolve():
        common.fail(f"--output {output} would overwrite the input; name another file")
    if output.is_symlink() or (output.exists() and not output.is_file()):
        common.fail(f"--output {output} is a link, a folder or a device; name another file")


def read_reviews(args):
    """Return a ``Dataset`` of the rows to summarize and the name of its column with the reviews."""
    if args.text:
        sys.stdin.reconfigure(errors="replace")  # bytes that are no UTF-8
        texts = [sys.stdin.read() if text == "-" else text for text in args.text]
        return Dataset.from_dict({"review_body": texts}), "review_body"
    if args.input:
        remedy = "it must be CSV, JSON, JSONL, Parquet or TXT in UTF-8"
        with common.explain_errors(f"cannot read --input {args.input}", remedy):
            rows = load_dataset(**common.dataset_source(args.input, "--input"), split="train")
        if rows.column_names == ["text"]:  # what load_dataset makes of a TXT file
            return rows, "text"
        return rows, args.text_column
    split = args.split or "test"
    rows = common.load_prepared(args, [split])[split]
    if args.split:
        return rows, "review_body"
    examples = args.examples
    if examples is None:  # the first row of each language
        examples = rows.to_pandas().drop_duplicates("language").index
    with common.explain_errors("--examples", f"the test split has the rows 0 to {len(rows) - 1}"):
        return rows.select(examples), "review_body"


def load_model(args):
    """Return the tokenizer and the model of --model, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with common.explain_checkpoint_errors(args.model):
        config = AutoConfig.from_pretrained(args.model)
        # Of the chapter's models only GPT-2 has no encoder.
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model, loading_info = auto_class.from_pretrained(
            args.model,
            dtype=torch.bfloat16 if args.bf16 else torch.float32,
            output_loading_info=True,
        )
    common.adapt_checkpoint(args, tokenizer, model, loading_info)
    return tokenizer, model.eval().to(device)


def tokenize(reviews, languages, tokenizer, model, max_input_length):
    """Return the batch of padded tensors that ``generate`` takes."""
    prefix = common.task_prefix(model)  # "summarize: " for T5, empty for mT5
    reviews = [prefix + review for review in reviews]
    # GPT-2 summarizes when it continues a text after this prompt, which must not be cut off.
    prompts = None if model.config.is_encoder_decoder else ["\nTL;DR:"] * len(reviews)
    inputs = tokenizer(reviews, prompts, max_length=max_input_length, truncation="only_first")
    inputs = common.set_language_codes(inputs, languages, tokenizer)
    return tokenizer.pad(inputs, return_tensors="pt")


def summarize(reviews, languages, tokenizer, model, args):
    """Return the title that the model writes for each review; that of an empty review is empty.

    A batch has reviews of about one length, which saves padding.
    """
    order = sorted(range(len(reviews)), key=lambda row: len(reviews[row]), reverse=True)
    order = [row for row in order if reviews[row]]
    batches = [order[i : i + args.batch_size] for i in range(0, len(order), args.batch_size)]
    summaries = [""] * len(reviews)
    for batch in tqdm(
        batches, "Summarize", disable=True if len(batches) < 2 else None, leave=False
    ):
        inputs = tokenize(
            [reviews[row] for row in batch],
            [languages[row] for row in batch],
            tokenizer,
            model,
            args.max_input_length,
        ).to(model.device)
        with torch.inference_mode():
            generated_tokens = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )
        if not model.config.is_encoder_decoder:  # GPT-2 returns the review before its title
            generated_tokens = generated_tokens[:, inputs["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        for row, summary in zip(batch, decoded, strict=True):
            summaries[row] = summary.strip()
    return summaries


def print_summary(example, text_column):
    """Print a review, its title if it has one, and the summary."""
    print(common.printable(f"\n'>>> Review: {example[text_column]}'"))
    if "review_title" in example:
        print(common.printable(f"'>>> Title: {example['review_title']}'"))
    print(common.printable(f"'>>> Summary: {example['summary']}'"))


def main():
    args = parse_args()
    if args.output:
        check_output_file(args)
    mark = Path(args.model, common.MARK)
    if args.model == PRESETS[args.preset]["model"] and not mark.exists():
        common.fail(f"{args.model} holds no model; run train_trainer.py --preset {args.preset}")
    if args.data == f"data/prepared/{args.preset}" and mark.exists():
        args.data = common.read_json(mark)["data"]  # that the model was trained on

    # 1. The reviews
    rows, text_column = read_reviews(args)
    if "summary" in rows.column_names:
        common.fail("the reviews have a column 'summary', which would be overwritten; rename it")
    remedy = "name a column of texts with --text-column"
    with common.explain_errors(f"cannot read --input {args.input}", remedy):
        reviews = [(review or "").strip() for review in rows[text_column]]
    languages = [args.language] * len(rows)
    if "language" in rows.column_names and not args.language:
        languages = rows["language"][:]

    # 2. The model
    tokenizer, model = load_model(args)

    # 3. The summaries
    summaries = summarize(reviews, languages, tokenizer, model, args)
    if empty := summaries.count(""):
        print(f"{empty} of {len(summaries)} summaries are empty", file=sys.stderr)
    rows = rows.add_column("summary", summaries)

    # 4. Their scores beside lead-3, if the rows are a split
    if args.split:
        scores = common.score_beside_lead_3(common.Rouge(args.rouge), rows, summaries)
        print("\n" + common.format_scores(scores, args.split))

    # 5. To a file or the screen
    if args.output:
        with common.new_files(Path(args.output).parent) as folder:
            file = folder / Path(args.output).name
            if file.suffix == ".csv":
                rows.to_csv(file)
            else:
                rows.to_json(file, force_ascii=False)
        print(f"Saved in {args.output}")
    elif not args.split:
        for example in rows:
            print_summary(example, text_column)


if __name__ == "__main__":
    with common.command_line():
        main()
