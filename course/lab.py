"""What every notebook begins with: ``import lab`` and ``lab.start()``."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

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
