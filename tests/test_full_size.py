"""A random mt5-small of full size trains with both scripts inside 16 GiB."""

import resource
import shutil

import pytest
from benchmark import save_full_size_model
from conftest import read_json, run
from datasets import load_from_disk
from transformers import AutoTokenizer

GIB = 2**30


@pytest.fixture(scope="module")
def mt5_small(prepared, tmp_path_factory):
    """The shape of google/mt5-small with random weights."""
    folder = tmp_path_factory.mktemp("mt5-small")
    model = save_full_size_model(folder)
    assert model.num_parameters() == 300_176_768 and model.config.vocab_size == 250_112
    AutoTokenizer.from_pretrained(prepared[0] / "tiny-mt5").save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_full_size_mt5_small_trains_in_16_gib(mt5_small, prepared, script, tmp_path):
    books = load_from_disk(prepared[0])
    books["validation"] = books["validation"].select(range(32))  # one batch
    books.save_to_disk(tmp_path / "data")
    shutil.copy(prepared[0] / "arguments.json", tmp_path / "data")
    flags = ["--model", mt5_small, "--data", tmp_path / "data", "--output-dir", tmp_path / "model", "--max-steps", 5]
    run(f"train_{script}.py", "--preset", "amazon", *flags, OMP_NUM_THREADS="2")
    assert read_json(tmp_path / "model/results.json")["train_seconds"] > 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest process so far
    assert 4 * GIB < peak < 16 * GIB  # weights, gradients and AdamW's two moments are 4.5 GiB
    print(f"peak memory {peak / GIB:.1f} GiB")
