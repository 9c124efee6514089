"""Measure what the README claims about speed.

python tests/benchmark.py rouge      # our ROUGE beside rouge_score's on 10,000 title pairs
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from common import ROUGE_TYPES, Rouge, postprocess_text, stem  # noqa: E402


def benchmark_rouge(pairs=10_000, rounds=3):
    """Return the best seconds of ours (sentences, Unicode words, stems by language) and of rouge_score."""
    rng, titles = random.Random(0), []
    for language in ("en", "es"):
        with open(ROOT / f"data/sample/{language}_train.jsonl", encoding="utf-8") as lines:
            titles += [(json.loads(line)["review_title"], language) for line in lines]
    references = rng.choices(titles, k=pairs)
    languages = [language for _, language in references]
    references = [title for title, _ in references]
    predictions = [rng.choice(titles)[0] for _ in references]
    ours, theirs = [], []
    for _ in range(rounds):
        stem.cache_clear()
        started = time.perf_counter()
        Rouge().compute(
            predictions=postprocess_text(predictions, languages),
            references=postprocess_text(references, languages),
            languages=languages,
            use_stemmer=True,
            use_aggregator=False,
        )
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
        for prediction, reference in zip(predictions, references, strict=True):
            scorer.score(reference, prediction)
        theirs.append(time.perf_counter() - started)
    return min(ours), min(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rouge"])
    parser.parse_args()
    ours, theirs = benchmark_rouge()
    print(f"10,000 title pairs: ours {ours:.2f} s, rouge_score {theirs:.2f} s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
