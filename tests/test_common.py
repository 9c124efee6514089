"""What common.py and the functions of the scripts compute, in tables to be checked by hand."""

import argparse
import random
import string
import time
from types import SimpleNamespace

import datasets
import evaluate
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from rouge_score.rouge_scorer import RougeScorer

import common
import train_accelerate
import train_trainer
from baseline import three_sentence_summary
from common import ROUGE_TYPES, Rouge, bootstrap, sent_tokenize

# ---- sentences ---------------------------------------------------------------------------------

SENTENCES = [
    ("en", "Dr. Hill liked it. I did not.", ["Dr. Hill liked it.", "I did not."]),
    ("en", "Loved it! Would I buy it again? Yes.", ["Loved it!", "Would I buy it again?", "Yes."]),
    ("en", "It cost 9.99 at Mrs. Moore's. Fine.", ["It cost 9.99 at Mrs. Moore's.", "Fine."]),
    (
        "es",
        "La Sra. Peña lo leyó. A mí no me gustó.",
        ["La Sra. Peña lo leyó.", "A mí no me gustó."],
    ),
    ("es", "El Dr. Vidal lo cita. ¡Qué año!", ["El Dr. Vidal lo cita.", "¡Qué año!"]),
    ("es", "Cuesta 9,50 en pág. 3. Bien.", ["Cuesta 9,50 en pág. 3.", "Bien."]),
    (
        "de",
        "Herr Dr. Maier las es z.B. im Bett. Gut!",
        ["Herr Dr. Maier las es z.B. im Bett.", "Gut!"],
    ),
    ("fr", "M. Dupont l'a lu. C'est bien.", ["M. Dupont l'a lu.", "C'est bien."]),
    (
        "ja",
        "面白い。もう一度読みたい！そう？はい",
        ["面白い。", "もう一度読みたい！", "そう？", "はい"],
    ),
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
    # 6 words of 7 and 6 are shared, and 4 pairs of 6 and 5.
    (
        "en",
        "I absolutely loved the Hunger Games again",
        "I loved the Hunger Games again",
        False,
        12 / 13,
        8 / 11,
    ),
    # An accent makes another word, so one of two matches. It does not cut a word in two.
    ("es", "muy fácil", "muy facil", False, 1 / 2, 0),
    ("es", "fácil", "f cil", False, 0, 0),
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
    # Each character is a word: 3 of 4 and 3 of 3 are shared, and of the pairs 2 of 3 and 2 of 2.
    ("ja", "面白い本", "面白い", False, 6 / 7, 4 / 5),
    ("zh", "好书", "书好", False, 1, 0),
    ("th", "ดีมาก", "ดี", False, 2 / 5, 0),  # ดี, ม, า, ก: one of four and one of one
    ("hi", "हिन्दी", "हिन्दी किताब", False, 2 / 3, 0),  # the marks belong to their letters
    ("hi", "की", "का", False, 0, 0),  # words of one letter with two marks, "of"
    # Shared are बहुत, अच्छी and किताब, three words of four and of four, and one pair of three.
    ("hi", "बहुत अच्छी किताब है", "किताब बहुत अच्छी लगी", False, 3 / 4, 1 / 3),
    ("fa", "می\u200cخوانم", "می", False, 0, 0),  # a join without width does not end a word
    ("km", "ល្អ", "អ", False, 2 / 3, 0),  # ល្ and អ: one of two, and one of one
]


HAND_CHECKED_COLUMNS = ["language", "prediction", "reference", "use_stemmer", "rouge1", "rouge2"]


@pytest.mark.parametrize(HAND_CHECKED_COLUMNS, HAND_CHECKED)
def test_rouge_by_hand(language, prediction, reference, use_stemmer, rouge1, rouge2):
    scores = Rouge().compute(
        predictions=[prediction],
        references=[reference],
        languages=[language],
        use_stemmer=use_stemmer,
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
            rng.choice(letters)
            if rng.random() < 0.8
            else rng.choice(["read", "book", "lov"]) + rng.choice(endings)
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


DEFAULTS = [  # --rouge, prediction, reference, rouge1 without another argument
    ("language", "boring books", "bored book", 1),  # with stems
    ("rouge_score", "boring books", "bored book", 0),  # as the chapter's loop
    ("rouge_score_stemmer", "boring books", "bored book", 1),  # as the chapter's Trainer
    ("language", "fácil", "f cil", 0),
    ("rouge_score", "fácil", "f cil", 1),  # the package cuts words at accents
    ("rouge_score_stemmer", "fácil", "f cil", 1),
]


@pytest.mark.parametrize(("rouge", "prediction", "reference", "rouge1"), DEFAULTS)
def test_the_flag_rouge_says_which_words_count(rouge, prediction, reference, rouge1):
    scores = Rouge(rouge).compute(predictions=[prediction], references=[reference])
    assert scores["rouge1"] == rouge1


class LibraryRouge(evaluate.Metric):
    """What ``evaluate.load("rouge")`` downloads, in short."""

    def _info(self):
        texts = datasets.Value("string")
        features = datasets.Features({"predictions": texts, "references": texts})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references, use_stemmer=False, use_aggregator=True):
        scorer = RougeScorer(ROUGE_TYPES, use_stemmer)
        scores = [scorer.score(*texts) for texts in zip(references, predictions, strict=True)]
        f1 = {name: [score[name].fmeasure for score in scores] for name in ROUGE_TYPES}
        return {name: np.mean(f1[name]) for name in f1} if use_aggregator else f1


def test_rouge_is_used_like_a_metric_of_evaluate():
    predictions, references = ["good book", "bad"], ["a good book", "good"]
    # rouge1 of the rows: 2 of 2 and 2 of 3 words, so 4/5; and 0.
    expected = {"rouge1": 0.4, "rouge2": pytest.approx(1 / 3), "rougeL": 0.4, "rougeLsum": 0.4}
    for metric in (Rouge(), LibraryRouge(keep_in_memory=True)):
        assert metric.compute(predictions=predictions, references=references) == expected
        for prediction, reference in zip(predictions, references, strict=True):
            metric.add_batch(predictions=[prediction], references=[reference])
        assert metric.compute(use_stemmer=True) == expected
        assert metric.compute(predictions=["x"], references=["x"])["rouge1"] == 1
        options = {"predictions": predictions, "references": references, "use_aggregator": False}
        assert metric.compute(**options)["rouge1"] == [0.8, 0]


def test_rouge_scores_very_long_texts():
    scores = Rouge().compute(predictions=["word " * 10_000], references=["one word"])
    assert scores["rouge1"] == pytest.approx(2 / 10_002)


@pytest.mark.parametrize(("language", "text", "count"), [
    ("en", "Don't buy it!", 3), ("en", " two  words ", 2), ("es", "¡Qué año!", 2),
    ("ja", "面白い 本！", 4), ("zh", "好书", 2), ("th", "สนุกมาก", 6), ("lo", "ດີ", 1),
    ("my", "ကို", 1), ("hi", "बहुत अच्छी", 2), ("ko", "정말 좋은 책", 3), ("ja", "👩\u200d🚀", 0),
])  # fmt: skip
def test_count_words(language, text, count):
    assert common.count_words(text, language) == count


# ---- intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "p"), [(1, 1), (2, 0.5), (3, 0.25), (20, 2 / 1001)])
def test_few_rows_of_one_sign_show_little(rows, p):
    assert bootstrap(pd.DataFrame({"rouge1": [5.0] * rows}))["rouge1"]["p"] == pytest.approx(p)


def test_bootstrap_finds_the_interval_of_a_mean():
    values = pd.DataFrame({"rouge1": np.random.default_rng(1).normal(loc=5, scale=2, size=400)})
    cell = bootstrap(values)["rouge1"]
    assert cell["low"] < cell["f1"] == values["rouge1"].mean() < cell["high"]
    # The interval is the mean ± 1.96 deviations / √n.
    width = 2 * 1.96 * values["rouge1"].std() / 20
    assert cell["high"] - cell["low"] == pytest.approx(width, rel=0.1)
    assert cell["p"] == pytest.approx(2 / 1001)


BOOTSTRAPS = [  # values of the rows, the mean, whether the mean differs from zero
    ([1.0, -1.0] * 50, 0, False),
    ([1.0, 1.0, -1.0] * 50, 1 / 3, True),
    ([-1.0, -1.0, 1.0] * 50, -1 / 3, True),
    ([2.0] * 50, 2, True),
    ([0.0] * 50, 0, False),
]


@pytest.mark.parametrize(("values", "mean", "differs"), BOOTSTRAPS)
def test_bootstrap_sees_a_difference_where_there_is_one(values, mean, differs):
    cell = bootstrap(pd.DataFrame({"rouge1": values}))["rouge1"]
    assert cell == bootstrap(pd.DataFrame({"rouge1": values}))["rouge1"]  # it is seeded
    assert cell["f1"] == pytest.approx(mean)
    assert (cell["low"] > 0 or cell["high"] < 0) is differs
    assert cell["p"] < 0.01 if differs else cell["p"] > 0.5


def test_bootstrap_draws_whole_rows():
    values = pd.DataFrame({"rouge1": [1.0, 5, 2, 8], "rouge2": [11.0, 15, 12, 18]})
    cells = bootstrap(values)
    for name in ("f1", "low", "high"):
        assert cells["rouge2"][name] == pytest.approx(cells["rouge1"][name] + 10)


COMPARISONS = [  # titles, what lead-3 has, what the model has, the words of the table
    ("good book", "Yes. No.", "good book", "model better"),
    ("good book", "Good book.", "no", "lead-3 better"),
]


@pytest.mark.parametrize(("title", "review", "summary", "words"), COMPARISONS)
def test_the_table_says_which_is_better(title, review, summary, words):
    rows = {"review_title": [title], "review_body": [review], "language": ["en"]}
    rows = Dataset.from_dict({name: 20 * column for name, column in rows.items()})
    scores = common.score_beside_lead_3(Rouge(), rows, [summary] * 20)
    assert scores["all"]["rows"] == 20
    f1 = {name: scores["all"][name]["rouge1"]["f1"] for name in ("model", "lead-3", "difference")}
    assert f1["difference"] == f1["model"] - f1["lead-3"] == (100 if "model" in words else -100)
    table = common.format_scores(scores, "test")
    assert table.splitlines()[-1].split("  ")[-1].strip() == words
    assert "≤ 0.002" in table and "no difference shown" not in table
    # All rows are English, so the table has them once.
    assert "en, 20 rows" in table and "all, 20 rows" not in table


def test_the_table_says_that_no_difference_is_shown():
    # The model and lead-3 are right in half of the rows each, but in other rows.
    titles, reviews = ["good book", "bad book"] * 10, ["Bad book."] * 20
    rows = {"review_title": titles, "review_body": reviews, "language": ["en"] * 20}
    scores = common.score_beside_lead_3(Rouge(), Dataset.from_dict(rows), ["good book"] * 20)
    cell = scores["all"]["difference"]["rouge2"]
    assert cell["f1"] == 0 and cell["low"] < 0 < cell["high"] and cell["p"] > 0.5
    last_line = common.format_scores(scores, "test").splitlines()[-1]
    assert last_line.count("no difference shown") == 4 and "better" not in last_line


def test_scores_are_by_language_and_of_all_rows():
    rows = Dataset.from_dict(
        {
            "review_title": ["good book", "good book", "muy fácil"],
            "review_body": ["One. Two. Three. Good book.", "Good book.", "Muy fácil."],
            "language": ["en", "en", "es"],
        }
    )
    scores = common.score_beside_lead_3(Rouge(), rows, ["good book", "bad", "muy difícil"])
    assert [(name, part["rows"]) for name, part in scores.items()] == [
        ("en", 2),
        ("es", 1),
        ("all", 3),
    ]
    for system, en, es in (("model", 50, 50), ("lead-3", 50, 100), ("difference", 0, -50)):
        means = [scores[name][system]["rouge1"]["f1"] for name in ("en", "es", "all")]
        assert means == pytest.approx([en, es, (2 * en + es) / 3])
    lead_3 = common.score_beside_lead_3(Rouge(), rows)  # as baseline.py has it
    assert lead_3["es"] == {"rows": 1, "lead-3": scores["es"]["lead-3"]}
    table = common.format_scores(scores, "validation")
    assert "en, 2 rows" in table and "es, 1 rows" in table and "all, 3 rows" in table
    assert "lead-3 100.00 [100.00,100.00]" in table


@pytest.mark.parametrize(
    ("p", "text"), [(2 / 1001, "≤ 0.002"), (4 / 1001, "0.004"), (0.05, "0.050"), (1, "1.000")]
)
def test_format_p(p, text):
    assert common.format_p(p) == text


BETTER = [
    (1.5, 0.05, "model better"),
    (1.5, 0.051, "no difference shown"),
    (-1.5, 0.002, "lead-3 better"),
    (-1.5, 0.6, "no difference shown"),
]


@pytest.mark.parametrize(("f1", "p", "words"), BETTER)
def test_which_is_better(f1, p, words):
    assert common.which_is_better({"f1": f1, "p": p}) == words


# ---- loss --------------------------------------------------------------------------------------

# A step of two rows with 3 and 1 label tokens. Each row is also a batch of its own.
LABELS = torch.tensor([[1, 2, 3], [4, -100, -100]])


def test_compute_loss_weighs_each_label_token_of_the_step_the_same():
    outputs = SimpleNamespace(logits=torch.zeros(2, 3, 7))  # the cross entropy of a token is ln 7
    loss = train_trainer.compute_loss(outputs, LABELS, num_items_in_batch=4)
    assert loss.item() == pytest.approx(np.log(7))
    for row, share in ((0, 3 / 4), (1, 1 / 4)):
        outputs = SimpleNamespace(logits=torch.zeros(1, 3, 7))
        loss = train_trainer.compute_loss(outputs, LABELS[row : row + 1], num_items_in_batch=4)
        assert loss.item() == pytest.approx(share * np.log(7))


def test_weight_by_label_tokens_gives_each_token_of_all_processes_the_same_weight():
    accelerator = SimpleNamespace(reduce=lambda tokens, reduction: torch.tensor(2.0))  # of 3 and 1
    weighed = [
        train_accelerate.weight_by_label_tokens(accelerator, torch.tensor(mean_loss), labels).item()
        for mean_loss, labels in ((5.0, LABELS[0]), (1.0, LABELS[1]))
    ]
    assert weighed == [7.5, 0.5]
    assert sum(weighed) / 2 == (5 + 5 + 5 + 1) / 4  # Accelerate takes the mean of the processes


@pytest.mark.parametrize("script", [train_trainer, train_accelerate])
def test_postprocess_text_puts_each_sentence_on_a_line(script):
    texts = ["Good. Dr. Hill agrees.", "¡Bien! Sí.", "Good"]
    expected = ["Good.\nDr. Hill agrees.", "¡Bien!\nSí.", "Good"]
    assert script.postprocess_text(texts, ["en", "es", "en"]) == expected


# ---- precision and printing --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "expected"), [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False)]
)
def test_whether_a_cpu_has_bf16(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert common.device_has_bf16() is expected


def test_a_training_on_the_cpu_does_not_ask_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert common.device_has_bf16()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert not common.device_has_bf16()


@pytest.mark.parametrize(
    ("reviews", "command"),
    [
        (["I liked it.", "Fine."], "predict.py --model out Fine."),
        (["Un libro", "-5 stars"], "predict.py --model out 'Un libro'"),  # -5 looks like a flag
    ],
)
def test_the_command_to_try_has_a_review_that_is_no_flag(reviews, command, capsys):
    score = {"f1": 1.0, "low": 0.0, "high": 2.0}
    scores = {"all": {"rows": 2, "lead-3": dict.fromkeys(ROUGE_TYPES, score)}}
    args = argparse.Namespace(output_dir="out")
    common.print_scores(args, scores, Dataset.from_dict({"review_body": reviews}))
    assert capsys.readouterr().out.endswith(f"python {command}\n")


def test_examples_have_titles_that_are_new(capsys):
    titles = {"train": ["a", "b"], "validation": ["b", "c", "a", "d", "e"]}
    books = {
        split: Dataset.from_dict(
            {"review_title": names, "review_body": [f"I read {n}" for n in names]}
        )
        for split, names in titles.items()
    }
    common.print_unseen_examples(books, ["1", "2", "3", "4", "5"], number=2)
    expected = "\n>>> I read c\nTitle: c\nSummary: 2\n\n>>> I read d\nTitle: d\nSummary: 4\n"
    assert capsys.readouterr().out == expected


def test_an_error_leaves_no_new_folder(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with pytest.raises(OSError, match="full"), common.new_files(tmp_path / name) as folder:
            (folder / "file").write_text("half")
            raise OSError("the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]  # this one was there before
    assert not list((tmp_path / "old").iterdir())
    with common.new_files(tmp_path / "a/b") as folder:
        (folder / "file").write_text("whole")
    assert (tmp_path / "a/b/file").read_text() == "whole"


PRINTED = [
    ("¡Qué año! 面白い 😀", "¡Qué año! 面白い 😀"),
    ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ("👩\u200d🚀", "👩\u200d🚀"),  # two emojis joined to one
    ("\x1b[31mred", "\\u001b[31mred"),  # would colour the terminal
    ("\rover", "\\u000dover"),
    ("one\r\ntwo", "one\ntwo"),  # written on Windows
    ("\u202eback", "\\u202eback"),  # would turn the direction of writing
    ("half \ud83d", "half \\ud83d"),  # half of an emoji, which cannot be written
]


@pytest.mark.parametrize(("text", "printed"), PRINTED)
def test_a_review_does_not_steer_the_terminal(text, printed, capsys):
    assert common.printable(text) == printed
    common.print_text(text)
    assert capsys.readouterr().out == f"{printed}\n"


def test_the_checksum_of_the_data_is_that_of_its_rows(tmp_path):
    """A notebook that calls ``map()`` leaves its cache beside the rows."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train/data-00000-of-00001.arrow").write_bytes(b"rows")
    before = common.checksum.__wrapped__(tmp_path)
    (tmp_path / "train/cache-1f.arrow").write_bytes(b"cache")
    assert common.checksum.__wrapped__(tmp_path) == before
    (tmp_path / "train/data-00000-of-00001.arrow").write_bytes(b"other")
    assert common.checksum.__wrapped__(tmp_path) != before


def test_map_pickles_a_function_that_uses_common_at_once():
    """``map()`` pickles all that the cached functions of common.py call."""
    started = time.process_time()
    Hasher.hash(lambda text: common.sent_tokenize(text, "en"))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("number", "launched", "ends"), [(1, False, False), (2, True, False), (2, False, True)]
)
def test_several_gpus_need_a_launcher(number, launched, ends, monkeypatch, capsys):
    args = argparse.Namespace(bf16=True)
    processes = number if launched else 1
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    state = SimpleNamespace(
        device=torch.device("cuda"), use_distributed=launched, num_processes=processes
    )
    monkeypatch.setattr(common, "process_state", lambda: state)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    if not ends:
        common.connect_processes(args, with_trainer=True)
        return
    with pytest.raises(SystemExit):
        common.connect_processes(args, with_trainer=True)
    line = capsys.readouterr().err
    assert "torchrun --nproc_per_node 2 train_trainer.py" in line
    assert "CUDA_VISIBLE_DEVICES=0" in line
