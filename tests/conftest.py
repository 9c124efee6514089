"""Run the scripts as a user does, on a slice of the sample."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SLICE = {"train": 300, "validation": 75, "test": 75}  # rows a language, before the filters
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def sample(language, split):
    """Return the rows of a file of the sample."""
    lines = (ROOT / f"data/sample/{language}_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def run(*command, processes=1, check=True, stdin=None, **environment):
    """Run ``python script.py ...``, on several CPU processes if asked to, and return what it printed."""
    if processes == 1:
        command = [sys.executable, *map(str, command)]
    else:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}",
                   "--standalone", *map(str, command)]  # fmt: skip
        environment["ACCELERATE_USE_CPU"] = "true"
    environment = {**ENVIRONMENT, **environment}
    result = subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """A folder with the first rows of each file of the sample."""
    folder = tmp_path_factory.mktemp("reviews")
    for path in (ROOT / "data/sample").glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / path.name).write_text("".join(lines[: SLICE[path.stem.split("_")[1]]]), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def prepared(reviews, tmp_path_factory):
    """The prepared slice, and what prepare_data.py printed."""
    folder = tmp_path_factory.mktemp("prepared") / "slice"
    result = run("prepare_data.py", "--dataset", reviews, "--data", folder)
    return folder, result.stdout


@pytest.fixture(scope="session")
def trained(prepared, tmp_path_factory):
    """Folders of a model that each training script trained on the slice."""
    folders = {}
    for script, steps in (("trainer", 400), ("accelerate", 30)):
        folders[script] = tmp_path_factory.mktemp(script) / "model"
        run(f"train_{script}.py", "--data", prepared[0], "--output-dir", folders[script], "--max-steps", steps)
    return folders
