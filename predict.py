"""Write titles for reviews with a trained model, or score the model on a split.

Chapter section: "Using your fine-tuned model". Its pipeline("summarization") is gone from
transformers 5. summarize_batch() has the three steps of it: tokenizer, generate, batch_decode.

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 100 0                   # the rows that the chapter shows
    python predict.py "I could not put it down."         # a review of your own
    python predict.py --input reviews.csv --output titles.csv
    python predict.py --split test                       # a table of ROUGE scores
    python predict.py --model results/sample-accelerate  # the model of train_accelerate.py
    python predict.py --preset amazon                    # after train_trainer.py --preset amazon

Reads   --model: a folder that a training script wrote, or a Hub id. By default it is the model of
        train_trainer.py, which has to be run first.
        --data: the folder with the splits. By default it is the data that the model was trained on
        or, for a model of the Hub, the data of the preset.
Writes  summaries to the screen or, with --output, to a .csv or .jsonl file: the reviews with all
        their columns and one more, "summary". With --split it prints a table of scores.
Takes   a few seconds for one review, and half a minute for a split of the sample, on two CPU cores.
Prints  for the sample, with the model of train_trainer.py,
            '>>> Review: I bought it during the sales on a whim. It copies every trick of the ...'
            '>>> Title: You can see it coming'
            '>>> Summary: El archivo no se abre'

            '>>> Review: Tiene una pisada en la primera página y las esquinas dobladas. ...'
            '>>> Title: Mal embalado y dañado'
            '>>> Summary: Portada doblada y mal embalaje'
        (The reviews are cut here.) The first summary is wrong, and in the wrong language: "the file
        does not open". The model is small. The second one is good. With --split validation, expect
        rouge1 of 66 to 69: most of these titles, and of those of test, are also in the training
        split.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import common  # what the scripts share: flags, files, errors, ROUGE, checks of a checkpoint

# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {  # a small model on a CPU
        "model": "results/sample-trainer",
        "data": None,  # the data that the model was trained on
        "max_input_length": 512,  # tokens of a review; the rest is cut
        "max_target_length": 30,  # tokens of a summary, at most
        "batch_size": 32,
        "bf16": False,  # 16-bit numbers: a model as small as the sample's is no faster with them
    },
    "amazon": {  # google/mt5-small, better on a GPU
        "model": "results/amazon-trainer",
        "data": None,
        "max_input_length": 512,
        "max_target_length": 30,
        "batch_size": 64,
        "bf16": None,  # common.parse_args() makes it True if the device has bfloat16, else False
    },
}


def load_model(args):
    """Return the tokenizer and the model of --model, on the GPU if there is one."""
    with common.explain_checkpoint_errors(args.model):  # reports an error in one line
        # trust_remote_code=False: code that comes with a checkpoint never runs. By default,
        # transformers asks the user.
        config = AutoConfig.from_pretrained(args.model, trust_remote_code=False)
        # Seq2Seq: the model has an encoder for the review and a decoder for the summary, as mT5.
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        model, loading_info = auto_class.from_pretrained(
            args.model,
            trust_remote_code=False,
            dtype=torch.bfloat16 if args.bf16 else torch.float32,
            output_loading_info=True,  # says which weights are not in the files, and thus random
        )
    settings = model.generation_config  # generate() reads these
    # Never write <extra_id_0> and the like, which mark the gaps in mT5's pre-training.
    settings.suppress_tokens = common.tokens_of_pretraining(tokenizer, model)
    if args.num_beams:  # the search keeps so many beginnings; the default of mT5 is one
        settings.num_beams = args.num_beams
    # End the script if a weight is missing, or if the tokenizer is that of another model. Set up
    # what models other than mT5 need. For example, BART's minimum length is longer than a title.
    common.set_up_checkpoint(args, tokenizer, model, loading_info)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    model.eval()
    return tokenizer, model


def summarize_batch(examples, tokenizer, model, args):
    """Return summaries of a batch of reviews. ``examples`` is a dictionary of lists."""
    # 1. The reviews become tokens, as in preprocess_function() of the training scripts. They are
    # also padded to one length and become tensors, as there is no data collator.
    prefix = common.task_prefix(model)  # "summarize: " for T5; mT5 was not trained with prefixes
    inputs = tokenizer(
        [prefix + review for review in examples["review_body"]],
        max_length=args.max_input_length,
        truncation=True,
        padding=True,
        return_tensors="pt",
    )
    # For mBART-50 this adds the language of each text. For mT5 it changes nothing.
    inputs = common.set_language_codes(inputs, examples["language"], tokenizer)
    inputs = inputs.to(model.device)
    # 2. The model generates tokens, one after another, up to its end token or max_new_tokens
    generated_tokens = model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=args.max_target_length,  # titles were cut to this length in the training
    )  # torch.no_grad() is not needed, as generate() computes no gradients
    # 3. The tokens become text.
    return tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)


def batches_by_length(reviews, batch_size):
    """Return lists of positions of reviews, each with reviews of similar length, to save padding.

    The longest come first, so that a lack of memory shows at once. Empty reviews are left out.
    """
    positions = [position for position, review in enumerate(reviews) if review]
    positions.sort(key=lambda position: len(reviews[position]), reverse=True)
    starts = range(0, len(positions), batch_size)
    return [positions[start : start + batch_size] for start in starts]


def summarize(dataset, tokenizer, model, args):
    """Return a summary of each review. An empty review gets an empty summary."""
    summarize_examples = summarize_batch
    if not model.config.is_encoder_decoder:  # GPT-2, which can only continue a text
        summarize_examples = common.continue_batch
    reviews = list(dataset["review_body"])
    summaries = [""] * len(reviews)
    batches = batches_by_length(reviews, args.batch_size)
    # leave=False: the bar disappears at its end. disable=None: a log file has no bar.
    for positions in tqdm(batches, "Summarize", disable=None, leave=False):
        examples = dataset[positions]  # a dictionary of lists
        written = summarize_examples(examples, tokenizer, model, args)
        for position, summary in zip(positions, written, strict=True):
            summaries[position] = summary.strip()  # BART and GPT-2 begin with a space
    return summaries


def read_rows(args):
    """Return the rows to summarize: dictionaries of typed texts, a file, a split or examples."""
    if args.text:
        return [{"review_body": text} for text in common.read_command_line(args.text)]
    if args.input:
        return common.read_input(args.input, args.text_column)
    if args.split:
        books_dataset = common.load_data_of_model(args, [args.split])
        return list(books_dataset[args.split])
    books_dataset = common.load_data_of_model(args, [])
    split = "test" if "test" in books_dataset else "validation"  # your own data may have no test
    if split not in books_dataset:
        common.fail(f"{args.data} has neither test nor validation reviews; give a review")
    rows = books_dataset[split]
    if args.examples:
        if min(args.examples) < 0 or max(args.examples) >= len(rows):
            common.fail(f"--examples: the {split} split has the rows 0 to {len(rows) - 1}")
        return [rows[idx] for idx in args.examples]
    languages = list(rows["language"])  # by default, the first row of each language
    return [rows[languages.index(language)] for language in sorted(set(languages))]


def print_summary(review, title, summary):
    """Print a review, its title if it has one, and the summary.

    Differs from the chapter: the summary is a parameter, as summarize() writes many at once.
    """
    lines = [f"\n'>>> Review: {review}'"]
    if title:
        lines.append(f"'>>> Title: {title}'")
    lines.append(f"'>>> Summary: {summary}'")
    print(common.printable("\n".join(lines)))  # without terminal control characters


def parse_args():
    parser = common.argument_parser(__doc__)  # with --preset and --data
    # --model, --max-input-length, --max-target-length, --num-beams, --batch-size, --bf16, --rouge
    common.add_generation_arguments(parser)
    reviews = parser.add_mutually_exclusive_group()  # one of these says which reviews to summarize
    text_help = "reviews to summarize; - reads one from standard input"
    reviews.add_argument("text", nargs="*", default=[], help=text_help)
    examples_help = "rows of the test split, or of validation if there is no test, counted from 0"
    reviews.add_argument("--examples", type=int, nargs="+", help=examples_help)
    input_help = "file of reviews: CSV, TSV, JSON, JSONL, Parquet, or TXT with one review per line"
    reviews.add_argument("--input", help=input_help)
    reviews.add_argument("--split", choices=["validation", "test"], help="split to score")
    add = parser.add_argument
    add("--output", help="file to write, .csv or .jsonl; an existing one is replaced")
    column_help = "column of --input with reviews (review_body)"
    add("--text-column", default="review_body", help=column_help)
    add("--language", help="language of all reviews, such as en; only mBART-50 needs to know it")
    args = common.parse_args(parser, PRESETS)
    if args.output:
        # This stops if the file cannot be written, or if it is the input.
        common.check_output_file(args.output, args.input)
    # The preset's model is a folder. If it is missing, its name would be looked for on the Hub.
    if args.model == PRESETS[args.preset]["model"] and not Path(args.model).is_dir():
        common.fail(f"{args.model} holds no model; run train_trainer.py --preset {args.preset}")
    return args


def main():
    args = parse_args()

    # 1. The reviews. They are read before the model, so that a mistake in a file shows at once.
    # rows are dictionaries with all columns. reviews is a Dataset with review_body and language.
    rows = read_rows(args)
    reviews = common.to_reviews(args, rows)

    # 2. The tokenizer and the model
    tokenizer, model = load_model(args)

    # 3. The summaries
    summaries = summarize(reviews, tokenizer, model, args)
    if "" in summaries:
        print(f"{summaries.count('')} of {len(rows)} summaries are empty", file=sys.stderr)

    # 4. --output saves the summaries. --split prints scores. With neither, print the summaries.
    for row, summary in zip(rows, summaries, strict=True):
        row["summary"] = summary  # read_input() ends the script if a file has this column
    if args.output:
        common.write_rows(rows, Path(args.output))
        print(f"Saved in {args.output}")
    if args.split:
        rouge_score = common.Rouge(args.rouge)
        # Beside the model's scores stand those of lead-3, the chapter's baseline.
        scores = common.score_beside_lead_3(rouge_score, Dataset.from_list(rows), summaries)
        print(common.format_scores(scores, args.split))
    elif not args.output:
        for review, row in zip(reviews["review_body"], rows, strict=True):
            print_summary(review, row.get("review_title"), row["summary"])


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
