"""Write titles for reviews with a trained model, or score the model on a split.

Chapter section: "Using your fine-tuned model". The chapter's pipeline("summarization") was removed
from transformers, so this script calls the model's generate().

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 0 5 12                  # these rows of the test split
    python predict.py "I could not put it down."         # a review of your own
    python predict.py --input reviews.csv --output titles.csv
    python predict.py --model results/sample-accelerate --split test     # a table of scores
    python predict.py --preset amazon                    # the chapter's model, if it is trained

Of a review of your own, the sample's model writes:

    '>>> Review: El libro llegó con la tapa rota y las páginas dobladas.'
    '>>> Summary: La portada llegó doblada'

Reads   a model: --model is a folder that a training script wrote, or a Hub id. Reviews, one of
        - those on the command line, or in the file --input
        - with --split, all rows of this split of the prepared data
        - with --examples, these rows of the test split
        - otherwise the first review of each language of the test split.
        The prepared data is --data. Without it, the data that the model was trained on is read or,
        for a model of the Hub, the data of the preset. If there is no test split, validation takes
        its place.
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

import common  # what the scripts share: flags, files, errors, ROUGE, models other than mT5

# What each --preset sets: "sample" is for a small model and a CPU, "amazon" has the settings of the
# chapter. A flag on the command line overrides it.
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
        "bf16": None,  # common.parse_args() makes it True if the device has bfloat16, else False
    },
}


def parse_args():
    parser = common.argument_parser(__doc__, PRESETS)  # with --preset and --data
    # --model, --max-input-length (512), --max-target-length (30), --num-beams, --batch-size, --bf16
    # and --rouge, which says how the scores of a split count words
    common.add_generation_arguments(parser)
    reviews = parser.add_mutually_exclusive_group()
    # Without a default, argparse would take "text" as required, which this group does not allow.
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
    parser.add_argument(
        "--output", help="file to write, .csv or .jsonl; an existing one is replaced"
    )
    parser.add_argument(
        "--text-column", default="review_body", help="column of --input with reviews (review_body)"
    )
    parser.add_argument(
        "--language", help="language of all reviews, such as en; only mBART-50 needs to know it"
    )
    return common.parse_args(parser, PRESETS)


def read_rows(args):
    """Return the rows to summarize, a list of dictionaries."""
    if args.text:
        return [{"review_body": text} for text in common.read_command_line(args.text)]
    if args.input:
        return common.read_input(args.input, args.text_column)
    if args.split:
        books = common.load_prepared(args, [args.split])  # a DatasetDict that has this split
        return list(books[args.split])
    return read_examples(args)


def read_examples(args):
    """Return the rows of the test split that --examples names, or the first of each language.

    If there is no test split, the validation split is used.
    """
    books = common.load_prepared(args, [])  # no split has to be there
    split = "test" if "test" in books else "validation"
    if split not in books:
        common.fail(f"{args.data} has neither test nor validation reviews; give a review")
    rows = list(books[split])
    if args.examples:
        if min(args.examples) < 0 or max(args.examples) >= len(rows):
            common.fail(f"--examples: the split has the rows 0 to {len(rows) - 1}")
        return [rows[number] for number in args.examples]
    first_rows = {}  # {language: its first row}
    for row in rows:
        if row["language"] not in first_rows:
            first_rows[row["language"]] = row
    return list(first_rows.values())


def load_model(args):
    """Return the tokenizer and the model of --model, on the GPU if there is one."""
    with common.explain_checkpoint_errors(args.model):  # reports an error in one line
        # trust_remote_code=False: Python code that comes with a checkpoint is never executed.
        config = AutoConfig.from_pretrained(args.model, trust_remote_code=False)
        # Of the chapter's models only GPT-2 has no encoder.
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        model, loading_info = auto_class.from_pretrained(
            args.model, trust_remote_code=False, dtype=dtype, output_loading_info=True
        )
    # generate() takes its settings from generation_config. mT5 must not write <extra_id_0> and the
    # like, which it knows from its pre-training. Without --num-beams, the number of beams is that
    # of the checkpoint.
    model.generation_config.suppress_tokens = common.tokens_of_pretraining(tokenizer, model)
    if args.num_beams:
        model.generation_config.num_beams = args.num_beams
    # The script ends here if a weight is missing, if the tokenizer does not fit the model, or if
    # the model cannot generate. Models other than mT5 get what they need: GPT-2 a token for
    # padding, BART no minimum length, mBART-50 the choice of its language.
    common.adapt_checkpoint(args, tokenizer, model, loading_info)
    if not config.is_encoder_decoder:
        tokenizer.padding_side = "left"  # in GPT-2 no padding may follow the prompt "TL;DR:"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    model.eval()
    return tokenizer, model


def summarize(reviews, languages, tokenizer, model, args):
    """Return a summary of each review. An empty review gets an empty summary."""
    summaries = [""] * len(reviews)
    # Reviews of similar length share a batch, which saves padding. The longest come first, so that
    # a lack of memory shows at once.
    order = [index for index, review in enumerate(reviews) if review]
    order.sort(key=lambda index: len(reviews[index]), reverse=True)
    starts = range(0, len(order), args.batch_size)
    # disable=None: the progress bar is shown on a terminal, and not in a log file.
    for start in tqdm(starts, "Summarize", disable=None, leave=False):
        batch = order[start : start + args.batch_size]
        batch_reviews = [reviews[index] for index in batch]
        batch_languages = [languages[index] for index in batch]
        written = summarize_batch(batch_reviews, batch_languages, tokenizer, model, args)
        for index, summary in zip(batch, written, strict=True):
            summaries[index] = summary.strip()
    return summaries


def summarize_batch(reviews, languages, tokenizer, model, args):
    """Return summaries of a batch of reviews.

    As in the pipeline of the chapter, the reviews become tokens, the model generates tokens, and
    these become text.
    """
    if not model.config.is_encoder_decoder:
        return continue_batch(reviews, tokenizer, model, args)  # GPT-2, see below
    prefix = common.task_prefix(model)  # "summarize: " for T5, empty for mT5
    inputs = tokenizer(
        [prefix + review for review in reviews],
        max_length=args.max_input_length,
        truncation=True,
        padding=True,
        return_tensors="pt",
    )
    # mBART-50 only: the first token of a review is its language, in which the title is written.
    inputs = common.set_language_codes(inputs, languages, tokenizer)
    inputs = inputs.to(model.device)
    with torch.inference_mode():
        generated_tokens = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=args.max_target_length,
        )
    return tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)


def continue_batch(reviews, tokenizer, model, args):
    """Return summaries of a batch of reviews by GPT-2, which can only continue a text.

    The prompt "TL;DR:" after a review asks for its summary.
    """
    inputs = tokenizer(
        reviews,
        ["\nTL;DR:"] * len(reviews),
        max_length=args.max_input_length,
        truncation="only_first",  # cut the review, and never the prompt
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        generated_tokens = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=args.max_target_length,
        )
    # The output begins with the review and the prompt.
    generated_tokens = generated_tokens[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)


def print_summary(review, title, summary):
    """Print a review, its title if it has one, and the summary."""
    lines = [f"\n'>>> Review: {review}'"]
    if title:
        lines.append(f"'>>> Title: {title}'")
    lines.append(f"'>>> Summary: {summary}'")
    print(common.printable("\n".join(lines)))  # without terminal control characters


def main():
    args = parse_args()
    if args.output:
        common.check_output_file(args.output, args.input)  # stops if it cannot be written
    # The preset's model is a folder. If it is missing, its name would be looked for on the Hub.
    if args.model == PRESETS[args.preset]["model"] and not Path(args.model).is_dir():
        common.fail(f"{args.model} holds no model; run train_trainer.py --preset {args.preset}")
    if args.data is None:
        # The data that the model was trained on stands beside the model, with the other flags of
        # its training. A model of the Hub has no such file, and gets the data of the preset.
        training_flags = common.read_arguments(args.model)
        args.data = training_flags.get("data", common.preset_data(args.preset))

    # 1. The reviews. Only the file --input may have them in another column than review_body.
    rows = read_rows(args)
    column = args.text_column if args.input else "review_body"
    # In a file, a number counts as text. A missing review becomes "".
    reviews = [common.to_text(row.get(column), column) or "" for row in rows]

    # 2. The model
    tokenizer, model = load_model(args)
    languages = common.find_languages(args, rows, tokenizer)  # only mBART-50 needs them

    # 3. The summaries
    summaries = summarize(reviews, languages, tokenizer, model, args)
    for row, summary in zip(rows, summaries, strict=True):
        row["summary"] = summary  # read_input() has refused a file with this column
    if "" in summaries:
        print(f"{summaries.count('')} of {len(rows)} summaries are empty", file=sys.stderr)

    # 4. Save before scoring, so that a stop in the scoring loses no summary
    if args.output:
        common.write_rows(rows, Path(args.output))
        print(f"Saved in {args.output}")
    if args.split:
        # ROUGE compares each summary with the title that the review has. Beside it stands the
        # chapter's baseline, the first three sentences of the review (lead-3).
        metric = common.Rouge(args.rouge)
        books = Dataset.from_list(rows)  # a table with the columns review_title, language, ...
        scores = common.score_beside_lead_3(metric, books, summaries)
        print(common.format_scores(scores, args.split))
    if not args.split and not args.output:
        for review, row in zip(reviews, rows, strict=True):
            print_summary(review, row.get("review_title"), row["summary"])


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
