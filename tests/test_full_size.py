"""A random mt5-small of full size trains with both scripts inside 16 GiB."""

import resource

import pytest
from conftest import copy_data, read_json, run, save_full_size_tokenizer, save_mt5

GIB = 2**30


@pytest.fixture(scope="module")
def mt5_small(prepared, tmp_path_factory):
    """The shape of google/mt5-small with random weights."""
    folder = tmp_path_factory.mktemp("mt5-small")
    model = save_mt5(folder)
    assert model.num_parameters() == 300_176_768 and model.config.vocab_size == 250_112
    save_full_size_tokenizer(prepared[0] / "tiny-mt5", folder)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_full_size_mt5_small_trains_in_16_gib(mt5_small, prepared, script, tmp_path):
    data = copy_data(prepared[0], tmp_path / "data", validation=8)
    flags = ["--model", mt5_small, "--data", data, "--output-dir", tmp_path / "model"]
    flags += ["--epochs", 1, "--max-train-samples", 8]  # one step
    # With an environment, the command is a child of this process, whose memory can be asked for.
    run(f"train_{script}.py", "--preset", "amazon", *flags, OMP_NUM_THREADS="1")
    assert read_json(tmp_path / "model/arguments.json")["finished"]
    # This is the peak of the largest process so far.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert 4 * GIB < peak < 16 * GIB  # weights, gradients and AdamW's two moments are 4.5 GiB
    print(f"peak memory {peak / GIB:.1f} GiB")
