"""Write titles for reviews with a trained model, or score the model on a split.

Chapter section: "Using your fine-tuned model". Its cells, and what stands for them here:

    hub_model_id = "huggingface-course/..."       --model; by default the model of train_trainer.py
    summarizer = pipeline("summarization", ...)   load_model()
    summarizer(review)[0]["summary_text"]         summarize(), and for each batch summarize_batch(),
                                                  which does the steps of pipeline(), as this has no
                                                  summarization in transformers 5
    books_dataset["test"][idx]                    read_examples()
    print(f"'>>> Review: {review}'"), ...         print_summary(), which only prints here
    print_summary(100), print_summary(0)          python predict.py --examples 100 0

More commands:

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 0 5 12                  # these rows of the test split
    python predict.py "I could not put it down."         # a review of your own
    python predict.py --input reviews.csv --output titles.csv
    python predict.py --split test                       # a table of ROUGE scores
    python predict.py --model results/sample-accelerate  # the model of train_accelerate.py
    python predict.py --preset amazon                    # after train_trainer.py --preset amazon

Run train_trainer.py first, which takes minutes. It trains a small model on the sample, reviews in
English and Spanish that a program composed. With this model, python predict.py prints, for example

    '>>> Review: I bought it during the sales on a whim. It copies every trick of the genre and ...'
    '>>> Title: You can see it coming'
    '>>> Summary: El archivo no se abre'

    '>>> Review: Tiene una pisada en la primera página y las esquinas dobladas. Pésimamente ...'
    '>>> Title: Mal embalado y dañado'
    '>>> Summary: Portada doblada y mal embalaje'

The first summary is in the wrong language and about another fault ("the file does not open"): the
model is small. The second one is good, although the corners were bent, and not the cover.

Reads   --model: a folder that a training script wrote, or a Hub id.
        Reviews from one of: the command line; a file (--input); a split (--split); some rows of the
        test split (--examples); by default, the first test review of each language.
        --data: a folder that prepare_data.py wrote. By default it is the data on which the model
        was trained or, for a model of the Hub, the data of the preset. If there is no test split,
        the examples are from the validation split.
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

import common  # what the scripts share: flags, files, errors, ROUGE, checks of a checkpoint

# What each --preset sets. A flag on the command line overrides it. The chapter's pipeline() is only
# given the model. The lengths are those of the chapter's training, and not those of the checkpoint.
# The batch size and bf16 matter for speed and memory.
PRESETS = {
    "sample": {  # a small model on a CPU
        "model": "results/sample-trainer",
        "data": None,  # load_books() finds the data that the model was trained on
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


# ---- The chapter's section: a model, and its summaries -------------------------------------------


def load_model(args):
    """Return the tokenizer and the model of --model, on the GPU if there is one."""
    with common.explain_checkpoint_errors(args.model):  # reports an error in one line
        # Code that comes with a checkpoint never runs. By default, transformers asks the user.
        safe = {"trust_remote_code": False}
        config = AutoConfig.from_pretrained(args.model, **safe)
        # Of the chapter's models only GPT-2 has no encoder.
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(args.model, **safe)
        model, loading_info = auto_class.from_pretrained(
            args.model,
            dtype=torch.bfloat16 if args.bf16 else torch.float32,
            output_loading_info=True,  # says which weights are not in the files, and thus random
            **safe,
        )
    settings = model.generation_config  # generate() reads these
    # Never write <extra_id_0> and the like, which mark the gaps in mT5's pre-training.
    settings.suppress_tokens = common.tokens_of_pretraining(tokenizer, model)
    if args.num_beams:  # explained in summarize_batch(); by default, as many as the checkpoint says
        settings.num_beams = args.num_beams
    # What models other than mT5 need. BART's minimum length is longer than a title, and becomes 0.
    # GPT-2 has no token for padding, so its end token serves. Its padding is on the left, because
    # GPT-2 goes on after the last token of a row, which must be text.
    common.set_up_checkpoint(args, tokenizer, model, loading_info)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    model.eval()
    return tokenizer, model


def summarize_batch(reviews, languages, tokenizer, model, args):
    """Return summaries of a batch of reviews, in the three steps that pipeline() did."""
    # 1. The texts become tokens.
    inputs = tokenize_reviews(reviews, languages, tokenizer, model, args.max_input_length)
    inputs = inputs.to(model.device)
    # 2. The model generates tokens, one after another, up to its end token or max_new_tokens. With
    # one beam, it takes the likeliest next token each time. With n beams, it keeps the n likeliest
    # beginnings, and returns the best one at the end.
    with torch.no_grad():
        generated_tokens = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=args.max_target_length,  # titles were cut to this length in the training
        )
    if not model.config.is_encoder_decoder:  # GPT-2's output begins with its whole padded input
        generated_tokens = generated_tokens[:, inputs["input_ids"].shape[1] :]
    # 3. The tokens become text.
    return tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)


def tokenize_reviews(reviews, languages, tokenizer, model, max_length):
    """Return the tokens of reviews. For mT5, this is what preprocess_function() did to a review.

    The rows are also padded to one length and become tensors, as there is no collator here.
    """
    options = {"max_length": max_length, "padding": True, "return_tensors": "pt"}
    if model.config.is_encoder_decoder:
        prefix = common.task_prefix(model)  # "summarize: " for T5, empty for mT5
        inputs = tokenizer([prefix + review for review in reviews], truncation=True, **options)
        # mBART-50 reads the language before each text, and after a training by our scripts it
        # writes in this language. For other models nothing changes.
        return common.set_language_codes(inputs, languages, tokenizer)
    # GPT-2 can only continue a text, so "TL;DR:" after a review asks for its summary. If the two
    # are too long, only_first cuts the review. Our scripts do not train GPT-2.
    prompts = ["\nTL;DR:"] * len(reviews)
    return tokenizer(reviews, text_pair=prompts, truncation="only_first", **options)


def summarize(reviews, languages, tokenizer, model, args):
    """Return a summary of each review. An empty review gets an empty summary."""
    summaries = [""] * len(reviews)
    # The positions of the reviews that are not empty, with the longest first. Reviews of similar
    # length share a batch, which saves padding, and a lack of memory shows at once.
    order = [index for index, review in enumerate(reviews) if review]
    order.sort(key=lambda index: len(reviews[index]), reverse=True)
    starts = range(0, len(order), args.batch_size)
    # leave=False: the bar disappears at its end. disable=None: a log file has no bar.
    for start in tqdm(starts, "Summarize", disable=None, leave=False):
        batch = order[start : start + args.batch_size]
        batch_reviews = [reviews[index] for index in batch]
        batch_languages = [languages[index] for index in batch]
        written = summarize_batch(batch_reviews, batch_languages, tokenizer, model, args)
        for index, summary in zip(batch, written, strict=True):
            summaries[index] = summary.strip()  # GPT-2 begins with a space
    return summaries


def print_summary(review, title, summary):
    """Print a review, its title if it has one, and the summary."""
    lines = [f"\n'>>> Review: {review}'"]
    if title:
        lines.append(f"'>>> Title: {title}'")
    lines.append(f"'>>> Summary: {summary}'")
    print(common.printable("\n".join(lines)))  # without terminal control characters


def print_scores(rows, summaries, args):
    """Print ROUGE of the summaries and of the chapter's baseline lead-3, beside each other.

    Both are compared with the titles. Lead-3 is the first three sentences of a review.
    """
    metric = common.Rouge(args.rouge)  # used like the chapter's evaluate.load("rouge")
    # The rows are dictionaries. score_beside_lead_3() reads columns: review_body, review_title, ...
    scores = common.score_beside_lead_3(metric, Dataset.from_list(rows), summaries)
    print(common.format_scores(scores, args.split))


# ---- Which reviews: flags, files and splits ------------------------------------------------------


def read_rows(args):
    """Return the rows to summarize, a list of dictionaries, and their reviews, a list of texts."""
    column = "review_body"
    if args.text:
        # The review "-" is read from standard input.
        rows = [{column: text} for text in common.read_command_line(args.text)]
    elif args.input:
        column = args.text_column
        rows = common.read_input(args.input, column)
    elif args.split:
        books = load_books(args, required_splits=[args.split])
        rows = list(books[args.split])
    else:
        rows = read_examples(args)
    # A cell of a file may hold a number, which becomes text, or nothing (None), which becomes "".
    reviews = [common.to_text(row.get(column), column) or "" for row in rows]
    return rows, reviews


def read_examples(args):
    """Return the rows of the test split that --examples names, or the first of each language.

    If there is no test split, the validation split is used.
    """
    books = load_books(args, required_splits=[])
    split = "test" if "test" in books else "validation"
    if split not in books:
        common.fail(f"{args.data} has neither test nor validation reviews; give a review")
    rows = books[split]
    if args.examples:
        if min(args.examples) < 0 or max(args.examples) >= len(rows):
            common.fail(f"--examples: the {split} split has the rows 0 to {len(rows) - 1}")
        return [rows[idx] for idx in args.examples]
    languages = list(rows["language"])  # "en" or "es" for each row
    return [rows[languages.index(language)] for language in sorted(set(languages))]


def load_books(args, required_splits):
    """Return the prepared data, a ``DatasetDict``: --data or, without it, the model's own."""
    if args.data is None:
        # A training script saves its flags beside its model, with --data among them. A model of the
        # Hub has no such file, and training_flags is {}.
        training_flags = common.read_arguments(args.model)
        args.data = training_flags.get("data", common.preset_data(args.preset))
    return common.load_prepared(args, required_splits)  # ends the script if a split is missing


def parse_args():
    parser = common.argument_parser(__doc__, PRESETS)  # with --preset and --data
    # --model, --max-input-length, --max-target-length, --num-beams, --batch-size, --bf16, and
    # --rouge, which says how the scores of a split compare words:
    #   language               by the stems of each language (the default)
    #   rouge_score            as they are, like the chapter's baseline; letters beyond a-z are lost
    #   rouge_score_stemmer    by English stems, like the chapter's compute_metrics()
    common.add_generation_arguments(parser)
    reviews = parser.add_mutually_exclusive_group()
    # Without a default, argparse calls "text" required, and no required argument may be in a group.
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


def main():
    args = parse_args()
    if args.output:
        # This stops if the file cannot be written, or if it is the input.
        common.check_output_file(args.output, args.input)
    # The preset's model is a folder. If it is missing, its name would be looked for on the Hub.
    if args.model == PRESETS[args.preset]["model"] and not Path(args.model).is_dir():
        common.fail(f"{args.model} holds no model; run train_trainer.py --preset {args.preset}")

    # 1. The reviews, before the model, so that a mistake in a flag or a file shows at once
    rows, reviews = read_rows(args)

    # 2. The model
    tokenizer, model = load_model(args)
    languages = common.find_languages(args, rows, tokenizer)  # only mBART-50 uses them

    # 3. The summaries
    summaries = summarize(reviews, languages, tokenizer, model, args)
    for row, summary in zip(rows, summaries, strict=True):
        row["summary"] = summary  # read_input() has refused a file with this column
    if "" in summaries:
        print(f"{summaries.count('')} of {len(rows)} summaries are empty", file=sys.stderr)

    # 4. --output saves the summaries, --split prints scores; with neither, print the summaries
    if args.output:
        common.write_rows(rows, Path(args.output))
        print(f"Saved in {args.output}")
    if args.split:
        print_scores(rows, summaries, args)
    elif not args.output:
        for review, row in zip(reviews, rows, strict=True):
            print_summary(review, row.get("review_title"), row["summary"])


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
