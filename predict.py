"""Write titles for reviews with a trained model, or score the model on a split.

Chapter section: "Using your fine-tuned model". The chapter's pipeline("summarization") was removed
from transformers, so this script calls the model's generate().

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 0 5 12                  # these rows of the test split
    python predict.py "I could not put it down."         # a review of your own
    python predict.py --input reviews.csv --output titles.csv
    python predict.py --model results/sample-accelerate --split test

Reads   --model, a folder that a training script wrote or a Hub id, and reviews: from the command
        line, from a file, or by default from the test split of --data. The default of --data is
        the data that --model was trained on or, for a Hub id, data/prepared/<preset>.
Writes  summaries to the screen or, with --output, the reviews with all their columns and one more,
        "summary", to a .csv or .jsonl file. With --split the screen shows a table of scores.
Takes   a few seconds for one review, and half a minute for a split of the sample, on two CPU cores.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import common

# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {
        "model": "results/sample-trainer",
        "data": None,  # None means: the data that the model was trained on
        "batch_size": 32,
        "bf16": False,  # a model as small as the sample's is no faster in bf16
    },
    "amazon": {
        "model": "results/amazon-trainer",
        "data": None,
        "batch_size": 64,
        "bf16": None,  # None means: on if the GPU or the CPU has bfloat16
    },
}


def parse_args():
    parser = common.argument_parser(__doc__, PRESETS)
    common.add_generation_arguments(parser)
    reviews = parser.add_mutually_exclusive_group()
    reviews.add_argument(
        "text", nargs="*", default=[], help="reviews to summarize; - reads one from standard input"
    )
    reviews.add_argument(
        "--examples",
        type=int,
        nargs="+",
        help="rows of the test split, or of validation if there is no test, counted from 0",
    )
    reviews.add_argument(
        "--input",
        help="file of reviews: CSV, TSV, JSON, JSONL, Parquet, or TXT with one review per line",
    )
    reviews.add_argument("--split", choices=["validation", "test"], help="split to score")
    add = parser.add_argument
    add("--output", help="file to write, .csv or .jsonl; an existing one is replaced")
    add("--text-column", default="review_body", help="column with the reviews (review_body)")
    add("--language", help="language of all reviews, such as en; only mBART-50 needs to know it")
    return common.parse_args(parser, PRESETS)


def load_model(args):
    """Return the tokenizer and the model of --model, on the GPU if there is one.

    Code that comes with a checkpoint is never executed: trust_remote_code is False.
    """
    with common.explain_checkpoint_errors(args.model):
        config = AutoConfig.from_pretrained(args.model, trust_remote_code=False)
        # Of the chapter's models only GPT-2 has no encoder.
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        model, loading_info = auto_class.from_pretrained(
            args.model, trust_remote_code=False, dtype=dtype, output_loading_info=True
        )
    # This checks that the weights and the tokenizer belong together. It then sets both up for
    # generate(), for instance: --num-beams is set, mT5 may not write tokens of its pre-training
    # such as <extra_id_0>, and GPT-2's texts are padded on the left, as it writes at their right.
    common.adapt_checkpoint(args, tokenizer, model, loading_info)
    return tokenizer, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def generate(reviews, languages, tokenizer, model, args):
    """Return summaries of a batch of reviews, in the three steps of the chapter's pipeline.

    The reviews become tokens, the model generates tokens, and these become text.
    """
    reviews = [common.task_prefix(model) + review for review in reviews]  # "summarize: " for T5
    # GPT-2 continues a text, so a prompt follows the review. Only the review is cut off if it is
    # too long ("only_first").
    prompts = None if model.config.is_encoder_decoder else ["\nTL;DR:"] * len(reviews)
    inputs = tokenizer(
        reviews,
        text_pair=prompts,
        max_length=args.max_input_length,
        truncation="only_first",
        padding=True,
        return_tensors="pt",
    )
    # Only mBART-50 marks each text with its language. For other models nothing changes here.
    inputs = common.set_language_codes(inputs, languages, tokenizer).to(model.device)
    with torch.inference_mode():
        # The number of beams is in model.generation_config.
        generated_tokens = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=args.max_target_length,
        )
    if not model.config.is_encoder_decoder:  # GPT-2 returns review, prompt and summary
        generated_tokens = generated_tokens[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)


def summarize(reviews, languages, tokenizer, model, args):
    """Return a summary of each review. An empty review gets an empty summary."""
    summaries = [""] * len(reviews)
    # Reviews of similar length share a batch, which saves padding. The longest come first, so that
    # a lack of memory shows at once.
    order = [index for index, review in enumerate(reviews) if review]
    order.sort(key=lambda index: len(reviews[index]), reverse=True)
    starts = range(0, len(order), args.batch_size)
    # A log file gets no progress bar, and neither does a single batch.
    show_bar = sys.stderr.isatty() and len(starts) > 1
    for start in tqdm(starts, "Summarize", disable=not show_bar, leave=False):
        batch = order[start : start + args.batch_size]
        batch_reviews = [reviews[index] for index in batch]
        batch_languages = [languages[index] for index in batch]
        written = generate(batch_reviews, batch_languages, tokenizer, model, args)
        for index, summary in zip(batch, written, strict=True):
            summaries[index] = summary.strip()
    return summaries


def print_summary(review, title, summary):
    """Print a review, its title if it has one, and the summary."""
    print(common.printable(f"\n'>>> Review: {review}'"))
    if title:
        print(common.printable(f"'>>> Title: {title}'"))
    print(common.printable(f"'>>> Summary: {summary}'"))


def read_reviews(args):
    """Return the rows to summarize, a list of dictionaries."""
    if args.text:
        return [{"review_body": text} for text in read_command_line(args.text)]
    if args.input:
        return common.read_input(args.input, args.text_column)
    if args.split:
        return list(common.load_prepared(args, [args.split])[args.split])
    return read_examples(args)


def read_command_line(texts):
    """Return the reviews of the command line. For "-", one is read from standard input."""
    if "-" in texts:
        if sys.stdin is None:
            common.fail("standard input is closed")
        sys.stdin.reconfigure(errors="replace")
    texts = [sys.stdin.read() if text == "-" else text for text in texts]
    # Python keeps bytes of the command line that are not UTF-8 as surrogates. Replace them.
    return [text.encode(errors="surrogateescape").decode(errors="replace") for text in texts]


def read_examples(args):
    """Return the rows of the test split that --examples names, or the first of each language.

    If there is no test split, the validation split is used.
    """
    books = common.load_prepared(args, [])
    if not {"test", "validation"} & set(books):
        common.fail(
            f"{args.data} has neither test nor validation reviews; give a review, or --input"
        )
    rows = list(books["test" if "test" in books else "validation"])
    if args.examples is None:
        first = {}
        for row in rows:
            first.setdefault(row["language"], row)
        return list(first.values())
    if min(args.examples) < 0 or max(args.examples) >= len(rows):
        common.fail(f"--examples: the split has the rows 0 to {len(rows) - 1}")
    return [rows[number] for number in args.examples]


def main():
    args = parse_args()
    if args.output:
        common.check_output_file(args.output, args.input)

    # 1. The reviews. A model that was trained here has an arguments.json, which names its data.
    trained = common.read_arguments(args.model)  # {} for a model from elsewhere
    # Without this check, a default model not yet trained would be looked for on the Hub.
    if args.model == PRESETS[args.preset]["model"] and not trained:
        common.fail(f"{args.model} holds no model; run train_trainer.py --preset {args.preset}")
    if args.data is None:
        args.data = trained.get("data", common.preset_data(args.preset))
    rows = read_reviews(args)
    # Only a file may name its column of reviews differently. A missing review becomes "".
    column = args.text_column if args.input else "review_body"
    reviews = [common.to_text(row.get(column), column) or "" for row in rows]
    # Only mBART-50 uses the languages, and it refuses "unknown". es-MX becomes es.
    codes = [args.language or row.get("language") or "unknown" for row in rows]
    languages = [common.base_language(str(code)) for code in codes]

    # 2. The model
    tokenizer, model = load_model(args)
    # mBART-50 stops here, and not halfway, if it does not know a language.
    common.check_languages(languages, tokenizer)

    # 3. The summaries
    summaries = summarize(reviews, languages, tokenizer, model, args)
    for row, summary in zip(rows, summaries, strict=True):
        row["summary"] = summary
    if "" in summaries:
        print(f"{summaries.count('')} of {len(rows)} summaries are empty", file=sys.stderr)

    # 4. Save before scoring, so that a stop in the scoring loses no summary
    if args.output:
        common.write_rows(rows, Path(args.output))
        print(f"Saved in {args.output}")
    if args.split:
        metric = common.Rouge(args.rouge)
        books = Dataset.from_list(rows)  # so that books["language"] is a column
        scores = common.score_beside_lead_3(metric, books, summaries)
        print(common.format_scores(scores, args.split))
    elif not args.output:
        for review, row in zip(reviews, rows, strict=True):
            print_summary(review, row.get("review_title"), row["summary"])


if __name__ == "__main__":
    with common.command_line():
        main()
