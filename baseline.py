"""ROUGE by hand, and the lead-3 baseline: the first three sentences of a review as its title.

Chapter sections: "Metrics for text summarization" and "Creating a strong baseline".

    python baseline.py                    # the sample: made-up reviews that come with the project
    python baseline.py --split test
    python baseline.py --preset amazon --rouge rouge_score    # counts words as the chapter does
    python baseline.py --data data/prepared/own --output-dir results/own-baseline

Reads   data/prepared/<preset>/ or --data. If the data of a preset is missing, prepare_data.py makes
        it first.
Writes  results/<preset>-baseline/: results.json, and the flags in arguments.json
Takes   about 15 seconds. Expect rouge1 of about 22 on the sample, rouge2 of 11, rougeL of 20.
"""

from collections import Counter
from itertools import pairwise
from statistics import mean

import pandas as pd
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

import common  # what the scripts share

# What each --preset sets, as in the other scripts. Here it is only the folder to write to.
PRESETS = {name: {"output_dir": f"results/{name}-baseline"} for name in ("sample", "amazon")}


def parse_args():
    parser = common.argument_parser(__doc__)
    add = parser.add_argument
    add("--output-dir", help="folder to write to")
    add(
        "--split",
        choices=["validation", "test"],
        default="validation",
        help="rows to score (validation)",
    )
    common.add_rouge_argument(parser)
    args = common.parse_args(parser, PRESETS)
    # The script ends here if --output-dir holds files of other programs, or overlaps --data.
    common.check_folder(args.output_dir, args.data)
    return args


def print_overlap(name, generated, reference):
    """Print recall, precision and F1 of two lists of words, or of other units."""
    # Each unit counts as often as both lists have it: "&" of two Counters takes the smaller count.
    overlap = (Counter(generated) & Counter(reference)).total()
    recall = overlap / len(reference)
    precision = overlap / len(generated)
    f1 = 2 * recall * precision / (recall + precision) if overlap else 0
    print(
        f"{name}: recall {overlap}/{len(reference)} = {recall:.4f}, "
        f"precision {overlap}/{len(generated)} = {precision:.4f}, F1 {f1:.4f}"
    )


def three_sentence_summary(text, language):
    """Return the first three sentences of ``text``, one per line."""
    # Differs from the chapter: Spanish is split by Spanish rules. common.sent_tokenize() calls the
    # package punkt, which brings the rules of nltk.download("punkt") without a download.
    return "\n".join(common.sent_tokenize(text, language)[:3])


def evaluate_baseline(dataset, metric):
    """Return {type of ROUGE: the F1 of the ``three_sentence_summary`` of each review}."""
    summaries, titles = [], []
    for row in dataset:
        summaries.append(three_sentence_summary(row["review_body"], row["language"]))
        # Differs from the chapter: each sentence of a title is on a line too, for ROUGE-Lsum.
        titles.append("\n".join(common.sent_tokenize(row["review_title"], row["language"])))
    # Differs from the chapter: use_aggregator=False keeps the score of each review. Steps 4 and 5
    # take the means.
    return metric.compute(
        predictions=summaries,
        references=titles,
        languages=dataset["language"],
        use_aggregator=False,
    )


def main():
    args = parse_args()

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

    # 2. The metric agrees with step 1. The chapter's evaluate.load("rouge") downloads a wrapper of
    # the package rouge_score. RougeScorer is what the wrapper calls.
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    scores = scorer.score(target=reference_summary, prediction=generated_summary)
    print("\nthe same summary, by the package rouge_score:")
    for name, score in scores.items():
        print(f"{name}: {score}")
    # The chapter swaps ROUGE-L and ROUGE-Lsum. ROUGE-L takes a text as one sequence of words, and
    # ROUGE-Lsum goes line by line. If two lines change places, ROUGE-L falls, in this example to
    # 0.5, and ROUGE-Lsum stays at 1.
    scores = scorer.score(target="Slow start.\nNice end.", prediction="Nice end.\nSlow start.")
    swapped = {name: round(score.fmeasure, 4) for name, score in scores.items()}
    print("two lines in another order, F1:", swapped)
    # The package drops letters outside a-z, such as "ñ": "años" becomes the words "a" and "os".
    print("the package's words of 'tres años':", DefaultTokenizer().tokenize("tres años"))
    # Differs from the chapter: the scripts use common.Rouge, as Spanish needs its own letters.
    #   Changed in the library since 2022: a score is one number, the F1, and has no .mid any more.
    #   Changed by us: compute() takes the language of each text. Words keep all letters, and their
    #   stems are compared, so that "reads" matches "reading". This is --rouge language, the
    #   default. --rouge rouge_score has the package's words, and rouge_score_stemmer their stems.
    rouge_score = common.Rouge(args.rouge)
    scores = rouge_score.compute(
        predictions=[generated_summary], references=[reference_summary], languages=["en"]
    )
    print("common.Rouge, F1:", {name: round(f1, 4) for name, f1 in scores.items()})

    # 3. Lead-3 of one review. Precision is low, as three sentences have more words than a title.
    # (The words of this count end at spaces, so "courses." is not "courses". The metric knows both
    # as one word.)
    dataset = common.load_prepared(args, [args.split])[args.split]
    example = dataset[0]
    title = example["review_title"]
    summary = three_sentence_summary(example["review_body"], example["language"])
    common.print_text(f"\ntitle  {title}\nlead-3 {summary}")
    print_overlap("rouge1 of lead-3", summary.lower().split(), title.lower().split())

    # 4. Lead-3 of the whole split: the scores that a model has to beat
    score = evaluate_baseline(dataset, rouge_score)
    print(f"\nlead-3 of {args.split}, F1 × 100:")
    print({name: round(mean(f1) * 100, 2) for name, f1 in score.items()})

    # 5. Not in the chapter: the same scores by language. The last line, "all", has the means of
    # step 4. The brackets are 95% intervals, like the chapter's .low and .high. The training
    # scripts print this table with a model beside lead-3.
    f1 = 100 * pd.DataFrame(score)  # one row per review, one column per type of ROUGE
    table = common.scores_by_language({"lead-3": f1}, dataset["language"])
    print("\n" + common.format_scores(table, args.split))

    # 6. Save
    with common.new_files(args.output_dir) as folder:
        # arguments.json says that this script wrote the folder, so that a later run may replace it.
        common.write_json(folder / common.ARGUMENTS_FILE, vars(args))
        common.write_json(folder / "results.json", {"scores": table})


if __name__ == "__main__":
    # Warnings of the libraries are hidden, and Ctrl-C or a full disk end in one line. The lesson is
    # in main().
    with common.command_line():
        main()
