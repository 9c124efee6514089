"""The two pictures show the numbers that they are drawn from."""

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from matplotlib.figure import Figure

import common
import prepare_data


@pytest.fixture
def drawn(monkeypatch):
    """A list of the figures that are saved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    return figures


def texts(words):
    return ["word " * number for number in words]


def test_title_lengths_has_one_bar_per_word():
    english = {
        "review_body": texts([10, 10, 11, 12, 12, 12]),
        "review_title": texts([1, 2, 3, 3, 5, 5]),
        "language": ["en"] * 6,
    }
    other = {"review_body": texts([7, 8]), "review_title": texts([2, 4]), "language": ["es"] * 2}
    splits = {"train": Dataset.from_dict(english), "test": Dataset.from_dict(other)}
    figure = common.draw_lengths(DatasetDict(splits), prepare_data.MIN_TITLE_WORDS)
    titles = {axis.get_title(): axis for axis in figure.axes}
    assert list(titles) == [
        "Words in a review, en",
        "Words in a title, en",
        "Words in a review, es",
        "Words in a title, es",
    ]
    bars = {title: [bar.get_height() for bar in axes.patches] for title, axes in titles.items()}
    assert bars["Words in a title, en"] == [0, 1, 1, 2, 0, 2]  # titles of 0 to 5 words
    assert [bar.get_x() for bar in titles["Words in a title, en"].patches] == [0, 1, 2, 3, 4, 5]
    assert bars["Words in a review, en"] == [0] * 10 + [2, 1, 3]
    for title, axes in titles.items():
        lines = [line.get_label() for line in axes.get_lines()]
        is_title = title.startswith("Words in a title")
        assert lines == ["Reviews with shorter titles are dropped."] * is_title


def test_title_lengths_says_nothing_of_dropped_titles_if_there_are_none():
    rows = {"review_body": texts([7]), "review_title": texts([3]), "language": ["es"]}
    splits = DatasetDict({"train": Dataset.from_dict(rows)})
    figure = common.draw_lengths(splits, prepare_data.MIN_TITLE_WORDS)
    assert [line for axes in figure.axes for line in axes.get_lines()] == []


def test_training_shows_losses_and_rouge_by_epoch_beside_lead_3(drawn):
    row = {f"eval_{rouge}": 30.0 for rouge in common.ROUGE_TYPES}
    # The Trainer logs the loss of an epoch and its evaluation in two rows, and a last one of times.
    log = [
        {"epoch": 1.0, "loss": 3.5},
        {"epoch": 1.0, "eval_loss": 3.0, **row},
        {"epoch": 2.0, "loss": 1.5},
        {"epoch": 2.0, "eval_loss": 2.0, **row, "eval_rouge1": 40.0},
        {"epoch": 2.0, "train_loss": 2.5, "train_runtime": 9.0},
    ]
    # train_accelerate.py logs both in one row.
    in_one_row = [{**log[0], **log[1]}, {**log[2], **log[3]}]
    lead_3 = {rouge: {"f1": 20.0 + number} for number, rouge in enumerate(common.ROUGE_TYPES)}
    for rows in (log, in_one_row):
        common.draw_training("training.png", pd.DataFrame(rows), lead_3)
        losses, rouge = (
            {line.get_label(): line for line in axis.get_lines()} for axis in drawn.pop().axes
        )
        for name, heights in (("training", [3.5, 1.5]), ("validation", [3, 2])):
            assert list(losses[name].get_xdata()) == [1, 2]
            assert list(losses[name].get_ydata()) == heights
        assert list(rouge["rouge1"].get_xdata()) == [1, 2]
        assert list(rouge["rouge1"].get_ydata()) == [30, 40]
        # The two may have the same heights. rouge1 is drawn first and stays visible on both sides.
        assert rouge["rouge1"].get_linewidth() > 2 * rouge["rougeL"].get_linewidth()
        for name, height in (("rouge1", 20), ("rouge2", 21), ("rougeL", 22)):
            of_lead_3 = rouge[f"{name} of lead-3"]
            assert list(of_lead_3.get_ydata()) == [height, height]
            assert rouge[name].get_color() == of_lead_3.get_color()
            assert rouge[name].get_linestyle() == "-" and of_lead_3.get_linestyle() == "--"
