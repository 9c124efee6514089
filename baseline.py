"""Score the baseline: the first three sentences of a review as its title (lead-3).

Chapter sections: "Metrics for text summarization" and "Creating a strong baseline".

    python baseline.py                    # the sample's validation split
    python baseline.py --split test
    python baseline.py --preset amazon --rouge rouge_score     # the chapter: a-z only, no stems
    python baseline.py --data data/prepared/own --output-dir results/own-baseline

Reads   data/prepared/<preset>/ or --data. If the data of a preset is missing, prepare_data.py makes
        it first.
Writes  results/<preset>-baseline/: results.json, and the flags in arguments.json
Takes   about 15 seconds. Expect rouge1 of about 22 on the sample, rouge2 of 11, rougeL of 20.
"""

from collections import Counter
from itertools import pairwise

import common

# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {"output_dir": "results/sample-baseline"},
    "amazon": {"output_dir": "results/amazon-baseline"},
}


def parse_args():
    parser = common.argument_parser(__doc__)
    parser.add_argument("--output-dir", help="folder to write to")
    splits = ["validation", "test"]
    split_help = "rows to score (validation)"
    parser.add_argument("--split", choices=splits, default="validation", help=split_help)
    common.add_rouge_argument(parser)
    return common.parse_args(parser, PRESETS)


def print_overlap(name, generated, reference):
    """Print recall, precision and F1 of two lists of words, or of other units."""
    # Each unit counts as often as both lists have it: "&" of two Counters takes the smaller count.
    overlap = (Counter(generated) & Counter(reference)).total()
    recall = overlap / len(reference)
    precision = overlap / len(generated)
    f1 = 2 * recall * precision / (recall + precision)
    fractions = f"recall {overlap}/{len(reference)}, precision {overlap}/{len(generated)}"
    print(f"{name}: {fractions}, F1 {f1:.4f}")


def three_sentence_summary(text, language):
    """Return the first three sentences of ``text``, one per line.

    Differs from the chapter: Spanish reviews are split by Spanish rules. The package punkt has the
    rules of nltk, so nothing is downloaded.
    """
    return "\n".join(common.sent_tokenize(text, language)[:3])


def evaluate_baseline(dataset, metric):
    """Return the mean F1 scores of the ``three_sentence_summary`` of each review."""
    languages = list(dataset["language"])  # the rules for sentences and words depend on it
    pairs = zip(dataset["review_body"], languages, strict=True)
    summaries = [three_sentence_summary(text, language) for text, language in pairs]
    # Differs from the chapter: the sentences of a title are put on lines too, as ROUGE-Lsum goes
    # line by line.
    titles = common.sentence_lines(dataset["review_title"], languages)
    return metric.compute(predictions=summaries, references=titles, languages=languages)


def main():
    args = parse_args()
    # The script ends here if --output-dir holds files of other programs, or overlaps --data.
    common.check_folder(args.output_dir, args.data)

    # 1. ROUGE by hand: what a summary and its reference have in common
    generated_summary = "I absolutely loved reading the Hunger Games"
    reference_summary = "I loved reading the Hunger Games"
    print(f"\nsummary   {generated_summary}\nreference {reference_summary}")
    generated = generated_summary.lower().split()
    reference = reference_summary.lower().split()
    print_overlap("rouge1, words", generated, reference)
    print_overlap("rouge2, pairs of words", list(pairwise(generated)), list(pairwise(reference)))
    # This wordy summary has all six words of the reference, but precision falls to 6/10.
    wordy_summary = "I really really loved reading the Hunger Games all night"
    print(f"wordy     {wordy_summary}")
    print_overlap("rouge1 of a wordy summary", wordy_summary.lower().split(), reference)

    # 2. The metric gives the same F1 for rouge1 and rouge2
    # Differs from the chapter: common.Rouge stands for evaluate.load("rouge"), and takes languages.
    # It keeps letters as "ñ", and cuts words to the stems of their language. A score is one number,
    # without .mid.
    rouge_score = common.Rouge(args.rouge)
    scores = rouge_score.compute(
        predictions=[generated_summary], references=[reference_summary], languages=["en"]
    )
    print("the metric, F1:", {name: round(f1, 4) for name, f1 in scores.items()})
    # Differs from the chapter, which has these two the wrong way round: ROUGE-L takes a text as one
    # sequence of words, and ROUGE-Lsum goes line by line. If two lines change places, ROUGE-L falls
    # to 0.5, and ROUGE-Lsum stays at 1.
    predictions = ["Great story.\nSlow start."]
    references = ["Slow start.\nGreat story."]
    scores = rouge_score.compute(predictions=predictions, references=references, languages=["en"])
    print("two lines in another order:", {name: round(f1, 4) for name, f1 in scores.items()})

    # 3. Lead-3 of one review
    dataset = common.load_prepared(args, [args.split])[args.split]
    example = dataset[0]
    summary = three_sentence_summary(example["review_body"], example["language"])
    # printable() escapes characters that would steer the terminal.
    print(common.printable(f"\ntitle  {example['review_title']}\nlead-3 {summary}"))

    # 4. Lead-3 of the whole split. Three sentences have many more words than a title, so precision
    # is low. (With --rouge rouge_score, words are counted as the chapter counts them.)
    score = evaluate_baseline(dataset, rouge_score)
    print(f"\nlead-3 of {args.split}, F1 × 100:")
    print({name: round(f1 * 100, 2) for name, f1 in score.items()})

    # 5. Not in the chapter: a table by language. Its last line, "all", has the means of step 4. The
    # brackets are 95% intervals, like the chapter's .low and .high. The training scripts print this
    # table with a model beside lead-3.
    table = common.score_beside_lead_3(rouge_score, dataset)
    print("\n" + common.format_scores(table, args.split))
    with common.new_files(args.output_dir) as folder:
        # arguments.json says that this script wrote the folder, so that a later run may replace it.
        common.write_json(folder / common.ARGUMENTS_FILE, vars(args))
        common.write_json(folder / "results.json", {"scores": table})


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
