"""README: its commands run as printed, and the flags, files and messages that it names exist."""

import ast
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys

import huggingface_hub
import pandas as pd
import pytest
from conftest import ROOT, copy_data, read_json, run
from datasets import load_dataset
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, pipeline

from common import ROUGE_TYPES

README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCE.findall(README)  # (language, text)
PROSE = FENCE.sub("", README)

# The commands that the tests do not run, by their beginning.
NOT_RUN = {
    "git clone": "the address is the user's",
    "python3 -m venv": "the packages of the tests are used",
    "pip install": "needs a network",
    "python prepare_data.py --preset amazon": "needs the Hub; test_hub.py has a stand-in",
    "python baseline.py --preset amazon": "needs the Hub",
    "python train_trainer.py --preset amazon": "needs the Hub",
    "python train_accelerate.py --preset amazon": "needs the Hub",
    "python predict.py --preset amazon": "needs the model of the line before",
    "python predict.py --model huggingface-course": "needs the Hub",
    "torchrun": "needs the Hub and four GPUs",
}
REVIEW = "The story was so boring that I gave up after three chapters."  # README's own
# These are not from the sample. A title of them should have one of the beginnings of words.
MY_REVIEWS = [
    (REVIEW, {"boring", "gave", "finish", "slow"}),
    (
        "The cover was torn and the corners were bent when the parcel came.",
        {"torn", "damage", "bent", "cover"},
    ),
    (
        "Me aburrí muchísimo, la novela es muy lenta y no pude acabarla.",
        {"aburrid", "lent", "acabar", "terminar"},
    ),
    (
        "El libro llegó con la tapa rota y las páginas dobladas.",
        {"rota", "dañad", "portada", "tapa", "estado", "doblad"},
    ),
]


# ---- What README says ----------------------------------------------------------------------------


def commands():
    """Yield the words of each command that starts one of the scripts."""
    lines = re.findall("`(python [^`]+)`", PROSE)
    for language, text in BLOCKS:
        lines += text.replace("\\\n", " ").splitlines() if language == "bash" else []
    for line in lines:
        words = shlex.split(line, comments=True)
        if any(word.endswith(".py") for word in words):
            yield words


@pytest.fixture(scope="module")
def flags():
    """{name of a script: the flags that its --help lists}."""
    scripts = [path.name for path in ROOT.glob("*.py") if path.name != "common.py"]
    scripts.append("data/trim_vocab.py")
    helps = {script: run(script, "--help").stdout for script in scripts}
    return {script: set(re.findall(r"--[\w-]+", text)) for script, text in helps.items()}


def test_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 180
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


def test_each_command_has_flags_that_its_script_knows(flags):
    found = 0
    for words in commands():
        script = next(word for word in words if word.endswith(".py"))
        given = {word for word in words[words.index(script) :] if word.startswith("--")}
        assert given <= flags[script], words
        found += len(given)
    assert found > 20


def test_torch_has_the_version_of_the_requirements():
    line = re.search(r"pip install (torch==\S+) --index-url", README)[1]
    assert line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()


def test_each_flag_in_the_text_exists(flags):
    known = set.union(*flags.values())
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PROSE))
    assert {"--resume", "--batch-size", "--categories"} <= named <= known


def test_each_file_and_link_exists():
    files = re.findall(r"`([\w./-]+\.(?:py|csv|txt|png|md))`", PROSE)
    assert "baseline.py" in files
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PROSE) if "://" not in link]
    assert "course/training.png" in links
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    anchors = {"#" + heading.lower().replace(" ", "-") for heading in headings}
    made = {"titles.csv", *anchors}  # by the commands, and in README itself
    names = {name.split(".md#")[0] + ".md" if ".md#" in name else name for name in (*files, *links)}
    assert [name for name in names - made if not (ROOT / name).exists()] == []


def test_each_quoted_message_stands_in_a_script():
    table = PROSE.split("## If something goes wrong")[1]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("*.py"))
    assert len(quoted) > 1
    assert [message for message in quoted if message.removesuffix(" ...") not in code] == []


# ---- "I only want my notebook fixed" -------------------------------------------------------------


def test_what_the_notebook_table_gives_to_paste_is_python():
    table = PROSE.split("## I only want my notebook fixed")[1].split("##")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines[1:]]
    pasted = [code for row in rows for code in re.findall("`([^`]+)`", row[2])]
    assert len(rows) == 10 and len(pasted) > len(rows)
    for code in pasted:
        ast.parse(code)


def test_the_packages_for_a_notebook_are_those_of_the_requirements():
    (block,) = [text for language, text in BLOCKS if language == "ipython"]
    command = block.replace("\\\n", "").removeprefix("%pip install ").split()
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^[\w.-]+==[\w.]+", requirements, re.MULTILINE))
    assert len([package for package in command if "==" in package]) == 4
    for package in command:
        assert package in pinned if "==" in package else f"\n{package}==" in requirements


def test_what_the_notebook_needs_instead_of_the_lost_data():
    """The made-up reviews can stand for the lost ones: the chapter's filters leave some of them."""
    (block,) = [text for language, text in BLOCKS if language == "py"]
    code = block.replace('# url = "summarization/', f'url = "{ROOT}/')
    assert code != block
    names = {"load_dataset": load_dataset}
    exec(code, names)
    for language in ("spanish", "english"):
        reviews = names[f"{language}_dataset"]
        assert set(reviews) == {"train", "validation", "test"}
        books = reviews.filter(
            lambda example: example["product_category"] in ("book", "digital_ebook_purchase")
        )
        books = books.filter(lambda example: len(example["review_title"].split()) > 2)
        assert all(len(rows) > 100 for rows in books.values())


GONE = [
    (lambda: Seq2SeqTrainingArguments("out", evaluation_strategy="epoch"), TypeError),
    (lambda: Seq2SeqTrainer(tokenizer=None), TypeError),
    (lambda: huggingface_hub.Repository, AttributeError),
    (lambda: pipeline("summarization"), KeyError),
]


@pytest.mark.parametrize(("call", "error"), GONE)
def test_what_the_notebook_table_calls_gone_is_gone(call, error):
    with pytest.raises(error, match="evaluation_strategy|tokenizer|Repository|summarization"):
        call()


# ---- The commands as printed ---------------------------------------------------------------------


def run_in(folder, *command):
    """Run a command in ``folder`` with the Python of the tests, and return what it printed."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    options = {"capture_output": True, "text": True, "timeout": 1800}
    result = subprocess.run(command, cwd=folder, env=environment, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def outline(text):
    """Return ``text`` without what may differ on another processor: numbers and summaries."""
    text = re.sub(r"(?<=Summary: ).*", "", text)
    return re.sub(r" +", " ", re.sub(r"(≤ )?-?[\d.]+", "0", text))


def left_out(line):
    return line.startswith(tuple(NOT_RUN))


def copy_project(folder):
    """Copy the project without what its scripts have written."""
    made = shutil.ignore_patterns(".*", "results", "prepared", "__pycache__")
    return shutil.copytree(ROOT, folder, ignore=made)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """Run all blocks in a copy of the project; return its folder and what was printed.

    Both trainings of the sample have an eighth of its rows, and validate on fewer.
    """
    folder = copy_project(tmp_path_factory.mktemp("newcomer") / "summarization")
    run_in(folder, "python", "prepare_data.py", "--data", "whole", "--dataset", "data/sample")
    copy_data(folder / "whole", folder / "data/prepared/sample", train=900, validation=100)
    printed = ""
    for language, text in BLOCKS:
        if language == "bash":
            for command in text.replace("\\\n", " ").splitlines():
                if left_out(command):
                    continue
                printed += run_in(folder, "bash", "-ec", command)
        if language == "python":
            lines = [
                "output_dir = 'results/sample-trainer'",
                text,
                f"print(summarizer({REVIEW!r}))",
            ]
            printed += run_in(folder, "python", "-c", "\n".join(lines))
    return folder, printed


def test_only_commands_of_readme_are_left_out():
    lines = [line for language, text in BLOCKS for line in text.splitlines() if language == "bash"]
    for beginning in NOT_RUN:
        assert any(line.startswith(beginning) for line in lines), beginning
    assert [
        line.split("#")[0].strip() for line in lines if "train_" in line and not left_out(line)
    ] == [
        "python train_trainer.py",
        "python train_accelerate.py",
        "python train_trainer.py --data data/prepared/own --output-dir results/own",
        "python train_trainer.py --resume",
    ]


@pytest.mark.slow
def test_each_review_of_ones_own_gets_its_title(newcomer):
    folder, printed = newcomer
    with open(folder / "titles.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert [row["summary"] for row in rows] == [row["headline"] for row in rows]


@pytest.mark.slow
def test_the_python_lines_write_the_summary_of_predict(newcomer):
    summary = re.search(re.escape(f"Review: {REVIEW}'\n'>>> Summary: ") + "(.*)'", newcomer[1])[1]
    assert str([{"summary_text": summary}]) in newcomer[1]


@pytest.mark.slow
def test_what_is_shown_is_printed(newcomer):
    shown = [text for language, text in BLOCKS if language == "text"]
    assert len(shown) == 1
    for text in shown:
        for line in outline(text).splitlines():
            assert line in outline(newcomer[1]).splitlines()


def check_scores(folder, low, high):
    """The model is better than lead-3 in all languages and scores; rouge1 is from low to high."""
    scores = read_json(folder / "results.json")["scores"]
    for language in ("en", "es", "all"):
        for rouge in ROUGE_TYPES:
            assert scores[language]["difference"][rouge]["low"] > 0, (language, rouge)
    assert low < scores["all"]["model"]["rouge1"]["f1"] < high


@pytest.mark.slow
@pytest.mark.parametrize("script", ["trainer", "accelerate"])
def test_a_model_of_an_eighth_of_the_sample_learns(newcomer, script):
    log = pd.read_csv(newcomer[0] / f"results/sample-{script}/log.csv")
    losses = log["eval_loss"].dropna().tolist()
    assert len(losses) == 10 and losses[-1] < losses[0] - 1


@pytest.mark.full
def test_the_model_of_the_whole_sample_beats_lead_3_and_titles_my_reviews(tmp_path):
    folder = copy_project(tmp_path / "summarization")
    run_in(folder, "python", "train_trainer.py")  # prepares the sample first
    check_scores(folder / "results/sample-trainer", 60, 72)
    run_in(folder, "python", "train_accelerate.py")
    check_scores(folder / "results/sample-accelerate", 60, 72)
    printed = run_in(folder, "python", "predict.py", *(text for text, _ in MY_REVIEWS))
    lines = [line for line in printed.splitlines() if line.startswith("'>>> Summary: ")]
    for (text, words), line in zip(MY_REVIEWS, lines, strict=True):
        assert any(word in line.lower() for word in words), (text, line)
