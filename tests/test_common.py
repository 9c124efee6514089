"""What common.py computes, in tables that can be checked by hand."""

import math
import random
import string
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer
from transformers.modeling_outputs import Seq2SeqLMOutput

import common
from common import (
    ROUGE_TYPES,
    LengthGroupedSampler,
    Rouge,
    bootstrap,
    longest_first,
    mixed_precision,
    row_losses,
    sent_tokenize,
    summed_loss,
    three_sentence_summary,
)

# ---- sentences ---------------------------------------------------------------------------------

SENTENCES = [
    ("en", "Dr. Hill liked it. I did not.", ["Dr. Hill liked it.", "I did not."]),
    ("en", "Loved it! Would I buy it again? Yes.", ["Loved it!", "Would I buy it again?", "Yes."]),
    ("en", "It cost 9.99 at Mrs. Moore's. Fine.", ["It cost 9.99 at Mrs. Moore's.", "Fine."]),
    ("es", "La Sra. Peña lo leyó. A mí no me gustó.", ["La Sra. Peña lo leyó.", "A mí no me gustó."]),
    ("es", "El Dr. Vidal lo cita. ¡Qué año!", ["El Dr. Vidal lo cita.", "¡Qué año!"]),
    ("es", "Llegó de EE. UU. en dos días. Bien.", ["Llegó de EE. UU. en dos días.", "Bien."]),
    ("de", "Herr Dr. Maier las es z.B. im Bett. Gut!", ["Herr Dr. Maier las es z.B. im Bett.", "Gut!"]),
    ("fr", "M. Dupont l'a lu. C'est bien.", ["M. Dupont l'a lu.", "C'est bien."]),
    ("ja", "面白い。もう一度読みたい！そう？はい", ["面白い。", "もう一度読みたい！", "そう？", "はい"]),
    ("zh", "很好看。 推荐！！", ["很好看。", "推荐！！"]),
    ("xx", "No such language. Split as English.", ["No such language.", "Split as English."]),
    ("en", "", []),
]


@pytest.mark.parametrize(("language", "text", "sentences"), SENTENCES)
def test_sent_tokenize(language, text, sentences):
    assert sent_tokenize(text, language) == sentences


def test_three_sentence_summary_takes_three():
    assert three_sentence_summary("One. Two. Three. Four.", "en") == "One.\nTwo.\nThree."
    assert three_sentence_summary("Only one", "es") == "Only one"


# ---- ROUGE -------------------------------------------------------------------------------------

HAND_CHECKED = [  # language, prediction, reference, stemmer, rouge1, rouge2
    ("en", "I absolutely loved reading the Hunger Games", "I loved reading the Hunger Games", False, 12 / 13, 8 / 11),
    ("es", "muy fácil", "muy facil", False, 1 / 2, 0),  # an accent makes another word: one of two matches
    ("es", "fácil", "f cil", False, 0, 0),  # and never cuts a word in two
    ("es", "niñez", "niñez", False, 1, 0),
    ("es", "¡Qué año!", "qué año", False, 1, 1),
    ("es", "cafe\u0301", "café", False, 1, 0),  # the accent as a character of its own
    ("es", "libros aburridos", "libro aburrido", True, 1, 1),
    ("es", "libros aburridos", "libro aburrido", False, 0, 0),
    ("es", "mis", "mi", True, 0, 0),  # words of three letters are left alone
    ("en", "boring books", "bored book", True, 1, 1),
    ("en", "", "a title", False, 0, 0),
    ("en", "a title", "", False, 0, 0),
    ("en", "😀😀", "😀", False, 0, 0),  # no word, no match
    ("de", "größe", "größe", False, 1, 0),
    ("de", "langweilige Bücher", "langweiliges Buch", True, 1, 1),
    ("fr", "livres ennuyeux", "livre ennuyeux", True, 1, 1),
    ("fr", "l'été", "été", False, 2 / 3, 0),  # two words against one
    (
        "ja",
        "面白い本",
        "面白い",
        False,
        6 / 7,
        4 / 5,
    ),  # each character is a word: 3 of 4 and 3 of 3, 2 of 3 and 2 of 2
    ("zh", "好书", "书好", False, 1, 0),
]


@pytest.mark.parametrize(("language", "prediction", "reference", "use_stemmer", "rouge1", "rouge2"), HAND_CHECKED)
def test_rouge_by_hand(language, prediction, reference, use_stemmer, rouge1, rouge2):
    scores = Rouge().compute(
        predictions=[prediction], references=[reference], languages=[language], use_stemmer=use_stemmer
    )
    assert scores["rouge1"] == pytest.approx(rouge1)
    assert scores["rouge2"] == pytest.approx(rouge2)
    assert list(scores) == ROUGE_TYPES


@pytest.mark.parametrize("use_stemmer", [False, True])
def test_rouge_equals_rouge_score_on_english_ascii(use_stemmer):
    rng = random.Random(0)
    letters = string.printable + "aeiounst    \n" * 6
    endings = ["ing", "ed", "s", "ly", "ation", "ies", "_x", "'s", "-2"]

    def text():
        return "".join(
            rng.choice(letters) if rng.random() < 0.8 else rng.choice(["read", "book", "lov"]) + rng.choice(endings)
            for _ in range(rng.randrange(60))
        )

    pairs = [(text(), text()) for _ in range(500)]
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=use_stemmer)
    expected = [scorer.score(reference, prediction) for prediction, reference in pairs]
    scores = Rouge().compute(
        predictions=[prediction for prediction, _ in pairs],
        references=[reference for _, reference in pairs],
        use_stemmer=use_stemmer,
        use_aggregator=False,
    )
    for rouge in ROUGE_TYPES:
        assert scores[rouge] == [row[rouge].fmeasure for row in expected]
    assert sum(scores["rouge1"]) > 0


def test_rouge_score_itself_cuts_at_accents():
    scores = Rouge().compute(predictions=["fácil"], references=["f cil"], languages=[None])
    assert scores["rouge1"] == 1


def test_rouge_add_batch_is_compute():
    metric = Rouge()
    for prediction, reference in (("good book", "a good book"), ("bad", "good")):
        metric.add_batch(predictions=[prediction], references=[reference])
    at_once = Rouge().compute(predictions=["good book", "bad"], references=["a good book", "good"])
    assert (
        metric.compute() == at_once == {"rouge1": 0.4, "rouge2": pytest.approx(1 / 3), "rougeL": 0.4, "rougeLsum": 0.4}
    )


def test_rouge_scores_very_long_texts():
    long = "word " * 10_000
    assert Rouge().compute(predictions=[long], references=["one word"])["rouge1"] == pytest.approx(2 / 10_002)


@pytest.mark.parametrize(("language", "text", "count"), [
    ("en", "Don't buy it!", 3), ("en", " two  words ", 2), ("es", "¡Qué año!", 2),
    ("ja", "面白い 本", 4), ("zh", "好书", 2),
])  # fmt: skip
def test_count_words(language, text, count):
    assert common.count_words(text, language) == count


# ---- intervals ---------------------------------------------------------------------------------


def test_bootstrap_finds_the_interval_of_a_mean():
    values = pd.DataFrame({"rouge1": np.random.default_rng(1).normal(loc=5, scale=2, size=400)})
    row = bootstrap(values).loc["rouge1"]
    assert row.low < row.f1 == values.rouge1.mean() < row.high
    assert row.high - row.low == pytest.approx(2 * 1.96 * values.rouge1.std() / 20, rel=0.1)  # ± 1.96 deviations / √n
    assert row.p == pytest.approx(2 / 1001)


def test_bootstrap_is_seeded_and_sees_no_difference_where_there_is_none():
    values = pd.DataFrame({"rouge1": [1.0, -1.0] * 50})
    assert bootstrap(values).p.item() > 0.5
    assert bootstrap(values).equals(bootstrap(values))
    assert not bootstrap(values).equals(bootstrap(values, seed=1))


def test_an_insignificant_difference_is_marked():
    titles = ["good book", "bad book"] * 10
    rows = {"review_title": titles, "review_body": ["Yes. No."] * 20, "language": ["en"] * 20}
    assert "(n. s.)" not in common.score_table(common.score(rows, "language", titles), "test")
    rows["review_body"] = ["bad book"] * 20  # so that the model and lead-3 are right in half of the rows each
    assert "(n. s.)" in common.score_table(common.score(rows, "language", ["good book"] * 20), "test")


# ---- loss --------------------------------------------------------------------------------------


def test_summed_loss_weighs_each_label_token_the_same():
    logits = torch.zeros(2, 3, 7)  # uniform: the cross entropy of any token is ln 7
    labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
    outputs = Seq2SeqLMOutput(logits=logits)
    assert summed_loss(outputs, labels, 4).item() == pytest.approx(np.log(7))
    halves = [summed_loss(Seq2SeqLMOutput(logits=logits[i : i + 1]), labels[i : i + 1], 4).item() for i in (0, 1)]
    assert halves == [pytest.approx(3 / 4 * np.log(7)), pytest.approx(1 / 4 * np.log(7))]


# ---- order of rows and losses ------------------------------------------------------------------


def sampler_of(lengths, step_rows, group_by_length=True):
    rows = Dataset.from_dict({"input_ids": [[7] * length for length in lengths]})
    args = SimpleNamespace(
        batch_size=step_rows, gradient_accumulation_steps=1, seed=1, group_by_length=group_by_length
    )
    return LengthGroupedSampler(rows, args, processes=1)


@pytest.mark.parametrize("group_by_length", [True, False])
def test_an_epoch_has_whole_steps_of_different_rows(group_by_length):
    lengths = np.random.default_rng(0).integers(5, 200, size=1003)
    sampler = sampler_of(lengths, 8, group_by_length)
    first = list(sampler)
    sampler.epochs.append({"epoch": 1})
    second = list(sampler)
    assert len(first) == len(sampler) == 1000 and len(set(first)) == 1000  # 3 rows fill no whole step
    assert first != second and set(first) != set(second)
    widths = lengths[np.array(first)].reshape(-1, 8)
    spread = (widths.max(axis=1) - widths.mean(axis=1)).mean()  # padding of a row
    assert spread < 5 if group_by_length else spread > 50
    sampler.epochs.clear()
    assert list(sampler) == first


def test_too_few_rows_for_one_step_end_the_run(capsys):
    with pytest.raises(SystemExit):
        sampler_of([3, 4, 5], 8)
    assert "has 3 rows, one step takes 8; lower --batch-size" in capsys.readouterr().err


def test_longest_first():
    reviews = ["one", "the longest", "no", "the largest"]
    assert longest_first(Dataset.from_dict({"review_body": reviews}))["review_body"][:] == [
        "the longest", "the largest", "one", "no"]  # fmt: skip


def test_row_losses_sum_the_cross_entropy_of_a_row_and_count_its_tokens():
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.5, 0.5], [0.9, 0.1]]]))
    labels = torch.tensor([[0, 1], [1, -100]])
    outputs = SimpleNamespace(logits=logits)
    expected = [[-math.log(0.5) - math.log(0.75), 2], [-math.log(0.5), 1]]
    torch.testing.assert_close(row_losses(outputs, labels), torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_a_share_and_scales_the_rest(dtype):
    torch.manual_seed(0)
    ones = torch.ones(1001, 999, dtype=dtype, requires_grad=True)
    dropped = common.dropout(ones, 0.25)
    assert set(dropped.unique().tolist()) == {0, torch.tensor(1 / 0.75, dtype=dtype).item()}
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.002)  # a deviation is 0.0004
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped)  # it passes where the value passed
    assert not torch.equal(common.dropout(ones, 0.25), dropped)
    for untouched in (common.dropout(ones, 0.0), common.dropout(ones, 0.25, training=False)):
        assert torch.equal(untouched, ones)


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "no")])
def test_the_flag_bf16_decides(bf16, expected):
    assert mixed_precision(bf16) == expected


@pytest.mark.parametrize(("capability", "expected"), [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx2", "no")])
def test_without_the_flag_the_device_decides(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert mixed_precision(None) == expected
