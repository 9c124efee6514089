"""What is printed fits a terminal of 100 columns, and progress bars disappear from it."""

import os
import pty
import termios
from contextlib import suppress

import pytest
from conftest import copy_data, run, start, wait

FLAGS = ["--epochs", 2, "--max-train-samples", 64]


@pytest.fixture(scope="module")
def data(prepared, tmp_path_factory):
    return copy_data(prepared[0], tmp_path_factory.mktemp("terminal") / "data", validation=8)


def test_each_epoch_has_a_bar_that_disappears(data, tmp_path):
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (40, 100))
    os.set_blocking(terminal, False)
    files = ["/dev/null", tmp_path / "stdout", os.ttyname(inner)]
    files[1].touch()
    command = ["train_accelerate.py", "--data", data, "--output-dir", tmp_path / "model", *FLAGS]
    assert wait(start(*command, files=files)) == 0
    screen = b""
    with suppress(BlockingIOError):  # raised when all is read
        while True:
            screen += os.read(terminal, 4096)
    screen = screen.decode()
    for epoch in ("Epoch 1 of 2", "Epoch 2 of 2"):
        assert f"{epoch}:   0%|" in screen
    # The last thing that a bar does is to write spaces over itself.
    assert screen.rsplit("\r", 2)[1].isspace() and screen.endswith("\r")
    printed = files[1].read_text(encoding="utf-8").splitlines()
    assert [line.split(":")[0] for line in printed if line.startswith("Epoch ")] == [
        "Epoch 1 of 2",
        "Epoch 2 of 2",
    ]


@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_there_is_no_bar_outside_a_terminal(data, tmp_path, script):
    result = run(f"train_{script}.py", "--data", data, "--output-dir", tmp_path / "model", *FLAGS)
    assert "%|" not in result.stdout + result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize("script", ["baseline.py", "predict.py --split test"])
def test_the_scores_fit_100_columns(prepared, trained, tmp_path, script):
    script, *flags = script.split()
    folder = ["--model", trained["trainer"]] if flags else ["--output-dir", tmp_path / "scores"]
    printed = run(script, "--data", prepared[0], *folder, *flags).stdout
    table = printed[printed.index("split: ROUGE F1") :].splitlines()
    assert len(table) > 5
    assert [line for line in table if len(line) > 100] == []
