"""Compare two models on the same rows: mean difference in ROUGE, its 95% interval and p.

    python course/compare.py results/with.csv results/without.csv

Reads two files that predict.py wrote with --split and --output, for the same split of the same
data. Prints a table for each language and for all rows. A positive difference means that the
first model is better.
"""

import argparse

import lab
import numpy as np
import pandas as pd

RESAMPLES = 1000


def score_rows(rouge, rows, sent_tokenize):
    """Return a ``DataFrame`` with the F1 scores × 100 of each row."""

    def lines(column):  # one sentence per line, as ROUGE-Lsum expects
        pairs = zip(rows[column], rows["language"], strict=True)
        return ["\n".join(sent_tokenize(text, language)) for text, language in pairs]

    scores = rouge.compute(
        predictions=lines("summary"),
        references=lines("review_title"),
        languages=rows["language"].tolist(),
        use_aggregator=False,
    )
    return 100 * pd.DataFrame(scores)


def paired_test(differences):
    """Return the mean difference, its interval and p of each column, by the bootstrap."""
    generator = np.random.default_rng(42)
    values = differences.to_numpy()
    draws = generator.integers(len(values), size=(RESAMPLES, len(values)))
    means = values[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    tail = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    p = np.minimum(1, 2 * (tail + 1) / (RESAMPLES + 1))
    table = {"difference": values.mean(axis=0), "low": low, "high": high, "p": p}
    return pd.DataFrame(table, index=differences.columns)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs=2, help="two files of titles (.csv)")
    first, second = (
        pd.read_csv(file, keep_default_na=False) for file in parser.parse_args().files
    )
    keys = ["review_body", "review_title", "language"]
    if not first[keys].equals(second[keys]):
        parser.error("the files do not hold the same rows in the same order")
    lab.start()
    import common

    rouge = common.Rouge()
    ours = score_rows(rouge, first, common.sent_tokenize)
    differences = ours - score_rows(rouge, second, common.sent_tokenize)
    for language in [*sorted(first["language"].unique()), "all"]:
        chosen = (
            differences if language == "all" else differences[first["language"] == language]
        )
        print(f"\n{language}, {len(chosen):,} rows: first minus second, F1 × 100")
        print(paired_test(chosen).round(3).to_string())


if __name__ == "__main__":
    main()
