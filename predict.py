"""Write titles for reviews with a trained model, or score the model on a split.

Chapter section: "Using your fine-tuned model". Its pipeline("summarization") is gone from
transformers 5. In its place:

    summarizer = pipeline("summarization", model=hub_model_id)    load_model(), with --model
    summarizer(review)[0]["summary_text"]                         summarize_batch()
    print_summary(100)                                            --examples 100

    python predict.py                                    # an English and a Spanish test example
    python predict.py --examples 100 0                   # other rows of the test split
    python predict.py "I could not put it down."         # a review of your own
    python predict.py --input reviews.csv --output titles.csv
    python predict.py --split validation                 # a table of ROUGE scores
    python predict.py --model results/sample-accelerate  # the model of train_accelerate.py
    python predict.py --preset amazon                    # after train_trainer.py --preset amazon
    python predict.py --model huggingface-course/mt5-small-finetuned-amazon-en-es "I loved it, too."

The last command needs the Hub: it loads the chapter's own model. We could not try it.

Reads   --model: a folder that a training script wrote, or a Hub id. By default it is the model of
        train_trainer.py, which has to be run first.
        --data: the folder with the splits, for examples and for --split. By default it is the one
        that a training script noted beside the model or, without a note, data/prepared/<preset>/.
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
        does not open". The second one is good: the title is "badly packed and damaged", and the
        summary "bent cover and bad packaging".

The sample is made of book reviews that a program composed. For --split validation, expect rouge1 of
64 to 69. This is too good: most titles are also in the training split, and the model knows these by
heart. Do not compare such scores with the chapter's.
"""

import sys
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import common  # what the scripts share: flags, files, errors, ROUGE, models other than mT5

# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {  # a tiny mT5 on a CPU
        "model": "results/sample-trainer",
        "data": None,  # the data that the model was trained on; read_rows() finds out which
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


def summarize_batch(examples, tokenizer, model, args):
    """Return summaries of a batch of reviews. ``examples`` is a dictionary of lists."""
    # 1. The reviews become tokens, as in preprocess_function() of the training scripts. They are
    # also padded to one length and become tensors, as there is no data collator.
    inputs = tokenizer(
        examples["review_body"],
        max_length=args.max_input_length,
        truncation=True,
        padding=True,
        return_tensors="pt",
    )
    inputs = inputs.to(model.device)
    # 2. The model generates tokens, one after another, up to its end token or max_new_tokens.
    # The chapter's model.eval() and torch.no_grad() are not needed: from_pretrained() switches
    # dropout off, and generate() computes no gradients.
    generated_tokens = model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=args.max_target_length,  # titles were cut to this length in the training
    )
    # 3. The tokens become text.
    return tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)


def load_model(args):
    """Return the tokenizer and the model of --model, on the GPU if there is one."""
    with common.explain_checkpoint_errors(args.model):  # an error is one line, not a traceback
        auto_class = AutoModelForSeq2SeqLM
        if common.is_decoder_only(args.model):  # GPT-2
            auto_class = AutoModelForCausalLM
        # trust_remote_code=False: code in a checkpoint never runs. By default, the user is asked.
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        model, loading_info = auto_class.from_pretrained(
            args.model,
            trust_remote_code=False,
            dtype=torch.bfloat16 if args.bf16 else torch.float32,
            output_loading_info=True,  # tells which weights the checkpoint does not have
        )
    settings = model.generation_config  # generate() reads these, beside its arguments
    # mT5 was pre-trained to fill gaps, which tokens such as <extra_id_0> mark. Suppress the tokens
    # with these ids.
    settings.suppress_tokens = common.tokens_of_pretraining(tokenizer, model)
    if args.num_beams:  # without this flag, the checkpoint says how many beams; for mT5, one
        settings.num_beams = args.num_beams
    common.adapt_model(tokenizer, model)  # what models other than mT5 need
    # End the script if weights are missing, or if the tokenizer is one for another model.
    common.check_checkpoint(args, tokenizer, model, loading_info)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    return tokenizer, model


def batches_by_length(reviews, batch_size):
    """Return lists of positions in ``reviews``, one per batch.

    The reviews of a batch have similar lengths, which saves padding. The longest come first, so
    that a lack of memory shows at once. Empty reviews are left out.
    """
    positions = [position for position, review in enumerate(reviews) if review]
    positions.sort(key=lambda position: len(reviews[position]), reverse=True)
    starts = range(0, len(positions), batch_size)
    return [positions[start : start + batch_size] for start in starts]


def summarize(dataset, tokenizer, model, args):
    """Return a summary of each review. An empty review gets an empty summary."""
    texts = list(dataset["review_body"])  # a list, as a column is read lazily today
    summaries = [""] * len(texts)
    batches = batches_by_length(texts, args.batch_size)
    # leave=False: the bar disappears at its end. disable=None: a log file has no bar.
    for positions in tqdm(batches, "Summarize", disable=None, leave=False):
        examples = dataset[positions]  # a dictionary of lists
        if model.config.model_type == "mt5":
            batch_summaries = summarize_batch(examples, tokenizer, model, args)
        else:  # T5 wants a prefix, mBART-50 a language, and GPT-2 can only continue a text
            batch_summaries = common.summarize_batch_of_other_models(
                examples, tokenizer, model, args
            )
        for position, summary in zip(positions, batch_summaries, strict=True):
            summaries[position] = summary.strip()
    return summaries


def read_rows(args):
    """Return the rows to summarize, a list of dictionaries.

    They are reviews from the command line, the rows of a file, a split, or examples of a split.
    """
    if args.text:
        texts = common.read_command_line(args.text)  # "-" stands for standard input
        return [{"review_body": text} for text in texts]
    if args.input:
        return common.read_input(args.input, args.text_column)
    if args.data is None:
        args.data = common.find_data_of_model(args)
    books_dataset = common.load_prepared(args)
    # Examples come from the test split. Your own data may not have one.
    split = args.split or ("test" if "test" in books_dataset else "validation")
    if split not in books_dataset:
        common.fail(f"--data {args.data} has no split {split}, only {', '.join(books_dataset)}")
    rows = books_dataset[split]
    if args.split:
        return list(rows)
    if args.examples:
        if min(args.examples) < 0 or max(args.examples) >= len(rows):
            common.fail(f"--examples: the {split} split has the rows 0 to {len(rows) - 1}")
        return [rows[idx] for idx in args.examples]
    languages = list(rows["language"])  # by default, the first row of each language
    return [rows[languages.index(language)] for language in sorted(set(languages))]


def print_summary(example, summary):
    """Print a review, its title if it has one, and the summary.

    Differs from the chapter: the summary is a parameter, as summarize() writes many at once.
    """
    lines = [f"\n'>>> Review: {example['review_body']}'"]
    if example["review_title"]:
        lines.append(f"'>>> Title: {example['review_title']}'")
    lines.append(f"'>>> Summary: {summary}'")
    # print_text() escapes characters that could, for instance, clear the screen.
    common.print_text("\n".join(lines))


def parse_args():
    parser = common.argument_parser(__doc__)  # adds --data
    # This adds --model, the maximal lengths, --num-beams, --batch-size, --bf16 and --rouge.
    common.add_generation_arguments(parser)
    source = parser.add_mutually_exclusive_group()  # one of these says which reviews to summarize
    source.add_argument(
        "text",
        nargs="*",
        default=[],  # without it, argparse does not allow a positional argument in a group
        help="reviews to summarize; - reads one from standard input",
    )
    source.add_argument(
        "--examples",
        type=int,
        nargs="+",
        help="rows of the test split, or of validation if there is no test, counted from 0",
    )
    source.add_argument(
        "--input",
        help="file of reviews: CSV, TSV, JSON, JSONL, Parquet, or TXT with one review per line",
    )
    source.add_argument("--split", choices=["validation", "test"], help="split to score")
    parser.add_argument(
        "--text-column", default="review_body", help="column of --input with reviews (review_body)"
    )
    parser.add_argument(
        "--language", help="language of all reviews, such as en; only mBART-50 needs to know it"
    )
    parser.add_argument(
        "--output", help="file to write, .csv or .jsonl; an existing one is replaced"
    )
    args = common.parse_args(parser, PRESETS)  # adds --preset
    if args.output:
        # This stops if the file cannot be written, or if it is the input.
        common.check_output_file(args.output, args.input)
    # Without this check, a missing folder results/... would be looked up on the Hub.
    if args.model == PRESETS[args.preset]["model"] and not Path(args.model).is_dir():
        common.fail(f"{args.model} holds no model; run train_trainer.py --preset {args.preset}")
    return args


def main():
    args = parse_args()

    # 1. The reviews. They are read before the model, so that a mistake in a file shows at once.
    # rows: dictionaries with all columns, for --output. reviews: a Dataset with three columns only,
    # review_body, review_title, which may be None, and language.
    rows = read_rows(args)
    reviews = common.to_reviews(args, rows)  # heeds --text-column and --language

    # 2. The tokenizer and the model
    tokenizer, model = load_model(args)

    # 3. The summaries
    summaries = summarize(reviews, tokenizer, model, args)
    if "" in summaries:
        print(f"{summaries.count('')} of {len(rows)} summaries are empty", file=sys.stderr)

    # 4. Save the summaries, score them, or print them
    if args.output:
        common.write_summaries(rows, summaries, args.output)
        print(f"Saved in {args.output}")
    if args.split:
        # The table of the training scripts: ROUGE by language, beside that of lead-3
        rouge = common.Rouge(args.rouge)
        scores = common.score_beside_lead_3(rouge, reviews, summaries)
        print(common.format_scores(scores, args.split))
    if not args.output and not args.split:
        for example, summary in zip(reviews, summaries, strict=True):
            print_summary(example, summary)


if __name__ == "__main__":
    with common.command_line():  # Ctrl-C, for example, gives one line and not a traceback
        main()
