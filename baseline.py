"""Score the baseline: the first three sentences of a review as its title (lead-3).

Chapter sections: "Metrics for text summarization" and "Creating a strong baseline".

    python baseline.py                    # the sample
    python baseline.py --preset amazon --rouge rouge_score

Reads   data/prepared/<preset>/ (made if it is missing)
Writes  results/<preset>-baseline/results.json
Takes   about 15 seconds; expect rouge1 about 20 on the sample
"""

from pathlib import Path

import common

PRESETS = {preset: {"output_dir": f"results/{preset}-baseline"} for preset in common.PRESETS}


def evaluate_baseline(dataset, scoring):
    """Score lead-3 against the titles of ``dataset``, by language and for all."""
    return common.score(dataset, scoring)


@common.command
def main():
    args = common.parse_args(__doc__, "data output_dir rouge", PRESETS)
    common.claim(args.output_dir, "results.json")
    books = common.load_prepared(args, "train", "validation")

    # 1. ROUGE-1: the words that a summary and its reference share
    generated_summary = "I absolutely loved reading the Hunger Games"
    reference_summary = "I loved reading the Hunger Games"
    generated, reference = generated_summary.lower().split(), reference_summary.lower().split()
    overlap = len(set(generated) & set(reference))
    recall, precision = overlap / len(reference), overlap / len(generated)
    print(f"\nsummary   {generated_summary}\nreference {reference_summary}")
    print(f"recall    {overlap}/{len(reference)} words of the reference are in the summary")
    print(f"precision {overlap}/{len(generated)} words of the summary are in the reference")
    print(
        f"          F1 2 × recall × precision / (recall + precision) = {2 * recall * precision / (recall + precision):.4f}"
    )
    longer = "I really really loved reading the Hunger Games all night".lower().split()
    print(f"precision {len(set(longer) & set(reference))}/{len(longer)} of: {' '.join(longer)}")

    # 2. ROUGE-2 counts pairs of neighbours; ROUGE-L the longest common subsequence, words in the same order with
    # others between them. ROUGE-L takes each text as one sequence of words, ROUGE-Lsum line by line: it joins, for
    # each line of the reference, what it has in common with any line of the summary. On one line they are the same.
    def pairs(words):
        return list(zip(words, words[1:], strict=False))

    shared = len(set(pairs(generated)) & set(pairs(reference)))
    print(
        f"rouge2    recall {shared}/{len(pairs(reference))}, precision {shared}/{len(pairs(generated))} of the pairs of words"
    )
    print(
        f"rougeL    recall {overlap}/{len(reference)}, precision {overlap}/{len(generated)}: here all shared words stand in order"
    )
    rouge = common.Rouge()
    print(rouge.compute(predictions=[generated_summary], references=[reference_summary]))
    swapped = {"predictions": ["Great story.\nSlow start."], "references": ["Slow start.\nGreat story."]}
    print(f"rougeL and rougeLsum of the same two lines in another order: {rouge.compute(**swapped)}")

    # 3. Lead-3 on one training example
    example = books["train"][1]
    print(f"\ntitle  {common.printable(example['review_title'])}\nlead-3 ", end="")
    print(common.printable(common.three_sentence_summary(example["review_body"], example["language"])))

    # 4. Lead-3 on the validation split
    scores = evaluate_baseline(common.longest_first(books["validation"]), args.rouge)
    print("\n" + common.score_table(scores, "validation"))
    common.write_results(Path(args.output_dir), args, scores)


if __name__ == "__main__":
    main()
