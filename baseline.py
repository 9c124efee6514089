"""Score the baseline: the first three sentences of a review as its title (lead-3).

Chapter sections: "Metrics for text summarization" and "Creating a strong baseline".

    python baseline.py                    # the sample
    python baseline.py --preset amazon --rouge chapter

Reads   data/prepared/<preset>/ (made if it is missing)
Writes  results/<preset>-baseline/results.json
Takes   about 15 seconds; expect rouge1 about 20 on the sample
"""

from rouge_score.rouge_scorer import RougeScorer

from common import (
    Rouge,
    load_prepared,
    new_files,
    parse_args,
    print_scores,
    row_languages,
    score,
    sent_tokenize,
    write_results,
)

SHARED = {"data": "data/prepared/{preset}", "output_dir": "results/{preset}-baseline", "rouge": "language"}
DEFAULTS = {"sample": SHARED, "amazon": SHARED}


def three_sentence_summary(text, language):
    """Return the first three sentences, one a line."""
    return "\n".join(sent_tokenize(text, language)[:3])


def evaluate_baseline(rows, rouge):
    """Score lead-3 against the titles of ``rows``."""
    summaries = [
        three_sentence_summary(text, language)
        for text, language in zip(rows["review_body"], row_languages(rows, rouge), strict=True)
    ]
    return score({"lead-3": summaries}, rows, rouge)


def main():
    args = parse_args(__doc__, DEFAULTS)
    books = load_prepared(args, "train", "validation")

    # 1. What ROUGE counts: the words that a summary and its reference share
    generated_summary = "I absolutely loved reading the Hunger Games"
    reference_summary = "I loved reading the Hunger Games"
    generated, reference = generated_summary.lower().split(), reference_summary.lower().split()
    overlap = len(set(generated) & set(reference))
    print(f"\nsummary   {generated_summary}\nreference {reference_summary}")
    print(f"recall    {overlap}/{len(reference)} words of the reference are in the summary")
    print(f"precision {overlap}/{len(generated)} words of the summary are in the reference")
    longer = "I really really loved reading the Hunger Games all night".lower().split()
    print(f"precision {len(set(longer) & set(reference))}/{len(longer)} of: {' '.join(longer)}")
    for name, counted in RougeScorer(["rouge1"]).score(reference_summary, generated_summary).items():
        print(f"{name}: {counted}")
    print(Rouge().compute(predictions=[generated_summary], references=[reference_summary]))

    # 2. Lead-3 on one training example
    example = books["train"][0]
    print(f"\ntitle  {example['review_title']}\nlead-3 ", end="")
    print(three_sentence_summary(example["review_body"], example["language"]))

    # 3. Lead-3 on the validation split
    scores = evaluate_baseline(books["validation"], args.rouge)
    print_scores(scores, "validation")
    with new_files(args.output_dir) as folder:
        write_results(folder, args, scores)


if __name__ == "__main__":
    main()
