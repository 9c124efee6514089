"""What every notebook begins with, ``import lab`` and ``lab.start()``, and some helpers."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def start():
    """Go to the root of the project, so that a notebook can import and run its scripts."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ |= {
        "HF_HUB_OFFLINE": "1",  # nothing is downloaded
        "HF_DATASETS_CACHE": str(ROOT / "results/cache"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # of loading weights
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "true",
    }
    warnings.filterwarnings("ignore", "IProgress not found")  # bars drawn as text are enough


def run(*command, **environment):
    """Run a script of the project, as in a terminal, and return what it printed."""
    result = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return result.stdout


def training_step(accelerator, model, optimizer, lr_scheduler, batch):
    """Train on one batch, return its loss. This gives away a part of exercise 2 of stage 4."""
    loss = model(**batch).loss
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    lr_scheduler.step()
    optimizer.zero_grad()
    return loss.item()


# ---- Stages 2 and 5 -------------------------------------------------------------------------

GENERATOR = np.random.default_rng(42)


def resampled_means(values):
    """Return the means of 10,000 samples, each drawn from the values with replacement.

    This gives away exercise 2 of stage 2.
    """
    draws = GENERATOR.integers(len(values), size=(10_000, len(values)))
    return values[draws].mean(axis=1)


def with_interval(values):
    """Return the mean of some values with its 95% interval (bootstrap)."""
    low, high = np.quantile(resampled_means(values), [0.025, 0.975])
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def gap_with_interval(first, second):
    """Return the first mean minus the second one, of different rows, with its 95% interval."""
    means = resampled_means(first) - resampled_means(second)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{first.mean() - second.mean():.2f} [{low:.2f}, {high:.2f}]"


# The rest gives away exercise 3 of stage 5 and its predictions.
# Our kind of each title, with a reason.
OUR_KINDS = (
    ("good", "the review says that the pages come loose"),
    ("wrong topic", "the review does not speak of an app"),
    ("invented detail", "the aunt loved the gift, and no wife is mentioned"),
    ("wrong opinion", "the review recommends it"),
    ("invented detail", "the review does not say that it was a novel"),
    ("good", "the review says the same"),
    ("wrong opinion", "the grandson was bored"),
    ("wrong topic", "the boxes are too small, and nothing is said to be boring"),
)
NINE_OF_TEN_GOOD = ("aaaaaaaaab", "aaaaaaaaba")
# Kinds of two readers, and the share and kappa that they have.
AGREEMENTS = (
    ("aabb", "aabb", (1, 1)),
    ("aabb", "abab", (0.5, 0)),
    (*NINE_OF_TEN_GOOD, (0.8, -1 / 9)),
    ("abca", "abac", (0.5, 0.2)),
    ("aab", "acb", (2 / 3, 0.5)),
)
