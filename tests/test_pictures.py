"""The two pictures show the numbers that they are drawn from."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

import common
import prepare_data


@pytest.fixture
def drawn(monkeypatch):
    """A list of the figures that are saved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    return figures


def test_title_lengths_has_a_bar_a_word_and_no_title_twice(drawn):
    words = pd.DataFrame({
        "language": ["en"] * 6 + ["es"] * 2,
        "review": [10, 10, 11, 12, 12, 12, 7, 8],
        "title": [1, 2, 3, 3, 5, 5, 2, 4],
    })  # fmt: skip
    prepare_data.draw_title_lengths(words, "title_lengths.png")
    (figure,) = drawn
    titles = {axis.get_title(): axis for axis in figure.axes}
    assert list(titles) == [
        "Words in a review, en",
        "Words in a title, en",
        "Words in a review, es",
        "Words in a title, es",
    ]
    kept, dropped = ([bar.get_height() for bar in bars] for bars in titles["Words in a title, en"].containers)
    assert kept == [0, 0, 0, 2, 0, 2]  # titles of 0 to 5 words
    assert dropped == [0, 1, 1, 0, 0, 0]
    edges = [bar.get_x() for bar in titles["Words in a title, en"].containers[0]]
    assert edges == pytest.approx([-0.5, 0.5, 1.5, 2.5, 3.5, 4.5])


def test_training_shows_losses_by_step_and_rouge_by_epoch_beside_lead_3(drawn):
    log = [{"step": step, "loss": 5.0 - step} for step in (1, 2, 3, 4)]
    row = dict.fromkeys(common.ROUGE_TYPES, 30.0)
    epochs = [{"epoch": 1, "step": 2, "loss": 3.5, "eval_loss": 3.0, **row},
              {"epoch": 2, "step": 4, "loss": 1.5, "eval_loss": 2.0, **row, "rouge1": 40.0}]  # fmt: skip
    lead_3 = {rouge: {"f1": 20.0 + number} for number, rouge in enumerate(common.ROUGE_TYPES)}
    common.draw_training("training.png", pd.DataFrame(log), pd.DataFrame(epochs), lead_3)
    losses, rouge = ({line.get_label(): line for line in axis.get_lines()} for axis in drawn[0].axes)
    assert list(losses["training, each step"].get_ydata()) == [4, 3, 2, 1]
    assert list(losses["training, mean of an epoch"].get_xdata()) == [2, 4]
    assert list(losses["validation"].get_ydata()) == [3, 2]
    assert list(rouge["rouge1"].get_ydata()) == [30, 40]
    for name, height in (("rouge1", 20), ("rouge2", 21), ("rougeL", 22)):
        assert list(rouge[f"{name} of lead-3"].get_ydata()) == [height, height]
        assert rouge[name].get_color() == rouge[f"{name} of lead-3"].get_color()
