"""Score the baseline: the first three sentences of a review as its title (lead-3).

Chapter sections: "Metrics for text summarization" and "Creating a strong baseline".

    python baseline.py                    # the sample's validation split
    python baseline.py --split test
    python baseline.py --preset amazon --rouge rouge_score     # words as the chapter counted them

Reads   data/prepared/<preset>/ (made if it is missing)
Writes  results/<preset>-baseline/results.json
Takes   about 15 seconds; expect rouge1 about 22 on the sample
"""

from itertools import pairwise

import common

PRESETS = {"sample": {"split": "validation"}, "amazon": {"split": "validation"}}


def print_overlap(name, generated, reference):
    """Print what a summary and its reference share (none of it twice): recall, precision, F1, their harmonic mean."""
    shared = len(set(generated) & set(reference))
    recall, precision = shared / len(reference), shared / len(generated)
    f1 = 2 * recall * precision / (recall + precision)
    print(f"{name}: recall {shared}/{len(reference)}, precision {shared}/{len(generated)}, F1 {f1:.4f}")


def evaluate_baseline(dataset, scoring):
    """Score the ``three_sentence_summary`` of each review against its title, by language and for all."""
    return common.score(dataset, scoring)


@common.command()
def main():
    args = common.parse_args(__doc__, ["preset", "data", "output_dir", "split", "rouge"], PRESETS)
    common.claim(args.output_dir)  # ends the run if the folder holds what we did not write
    # In the order of the training scripts, so that the bootstrap draws the same rows
    dataset = common.longest_first(common.load_prepared(args, args.split)[args.split])

    # 1. ROUGE by hand: what a summary and its reference have in common
    generated_summary = "I absolutely loved reading the Hunger Games"
    reference_summary = "I loved reading the Hunger Games"
    print(f"\nsummary   {generated_summary}\nreference {reference_summary}")
    generated, reference = generated_summary.lower().split(), reference_summary.lower().split()
    print_overlap("rouge1, words", generated, reference)
    longer = "I really really loved reading the Hunger Games all night".lower().split()
    print_overlap("rouge1 of a wordy summary", longer, reference)  # recall does not mind, precision does
    print_overlap("rouge2, pairs of neighbours", list(pairwise(generated)), list(pairwise(reference)))
    # ROUGE-L counts the longest common subsequence (LCS), words in the same order, gaps allowed: here all six.

    # 2. The metric does the same
    rouge = common.Rouge()
    scores = rouge.compute(predictions=[generated_summary], references=[reference_summary])
    print("F1 of the pair:", {name: round(f1, 4) for name, f1 in scores.items()})
    # Differs from the chapter, which swaps the two: ROUGE-L takes a text as one sequence of words. ROUGE-Lsum takes its
    # lines (sentences): for each line of the reference, the words in its LCS with any line of the summary, joined.
    scores = rouge.compute(predictions=["Great story.\nSlow start."], references=["Slow start.\nGreat story."])
    print("F1 of two lines in another order:", {name: round(f1, 4) for name, f1 in scores.items()})

    # 3. Lead-3 of the longest review
    example = dataset[0]
    summary = common.three_sentence_summary(example["review_body"], example["language"])
    print(common.printable(f"\ntitle  {example['review_title']}\nlead-3 {summary}"))

    # 4. Lead-3 of the split: F1 × 100, by default of the words and stems of each row's language; see --rouge
    scores = evaluate_baseline(dataset, args.rouge)
    print("\n" + common.score_table(scores, args.split))
    with common.new_files(f"{args.output_dir}/results.json") as folder:
        common.write_results(folder, args, scores)


if __name__ == "__main__":
    main()
