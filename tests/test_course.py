"""The notebooks run as stored, their exercises can be solved, and every number is recomputed."""

import csv
import doctest
import json
import re
import shlex
import shutil
from itertools import pairwise

import nbformat
import pytest
from conftest import ROOT, read_json, run, sample
from course_solutions import SOLUTIONS
from nbclient import NotebookClient

COURSE = ROOT / "course"
NOTEBOOKS = sorted(COURSE.glob("*.ipynb"))
QUIZZES = sorted(COURSE.glob("quiz_*.md"))
PAGES = sorted(COURSE.glob("*.md"))
GIVEN = {"stage_3_trainer": {50, 101}}  # the languages of mBART-50 and mT5, as the chapter says
# A number, but not the one in rouge1 or mt5.
NUMBER = re.compile(r"(?<![\w.])(?<![A-Za-z]-)\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?(?!\w)")


def name(path):
    return path.stem


def tags(cell):
    return cell.metadata.get("tags", [])


def numbers(text):
    return {float(re.sub("[,_]", "", number)) for number in NUMBER.findall(text)}


def shown(cell):
    """Return {kind: text} of the outputs of a cell. A kind is such as stdout or image/png."""
    texts = {}
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            kind, text = output.name, output.text
        elif output.output_type == "error":
            kind, text = "error", f"{output.ename}: {output.evalue}"
        else:
            kind, text = " ".join(sorted(output.data)), output.data.get("text/plain", "")
        texts[kind] = texts.get(kind, "") + text
    return texts


# ---- Notebooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_are_stored_as_they_ran(path):
    """Each has two predictions, a failure on purpose and checks without outputs."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 50
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.count("**Predict, then run.**") >= 2
    assert "roken on purpose" in text or "it is broken" in text
    found = [tag for cell in notebook.cells for tag in tags(cell)]
    exercises = [tag for tag in found if tag.startswith("exercise-")]
    assert exercises == list(SOLUTIONS[path.stem]) and len(exercises) in (3, 4)
    checks = [tag for tag in found if tag.startswith("check-")]
    assert checks == [tag.replace("exercise", "check") for tag in exercises]
    for cell in notebook.cells:
        if "check" in tags(cell):
            assert not cell.outputs, "what a check says depends on the student"
        elif cell.cell_type == "code":
            assert cell.execution_count, "store the outputs"
            assert not {"stderr", "error"} & set(shown(cell))
            assert "/home/" not in str(cell.outputs) and "/tmp/" not in str(cell.outputs)


def prose_of_cell(source):
    """Return a text cell without code and without numbers that only name or count its parts."""
    source = re.sub(r"```.*?```|^    .*?$|`[^`]*`", "", source, flags=re.S | re.M)
    source = re.sub(r"\]\([^)]*\)", "]", source)  # addresses
    source = re.sub(r"^(#+|\d+\.) .*?(?=\s)", "", source, flags=re.M)  # headings, lists
    return re.sub(r"(?i)\b(stage|section|exercise) \d+", "", source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_numbers_in_the_text_of_notebooks_stand_in_code_or_in_outputs(path):
    """The outputs that count are those that are the same on each machine.

    What a paragraph says about the stored run may also stand in its other outputs.
    """
    cells = nbformat.read(path, as_version=4).cells
    known, stored = set(), set()
    for cell in cells:
        if cell.cell_type == "code":
            known |= numbers(re.sub(r"[%*()\[\]]", " ", cell.source))
            stored |= numbers(" ".join(shown(cell).values()))
            if "varies" not in tags(cell):
                known |= numbers(" ".join(shown(cell).values()))
    for cell in cells:
        if cell.cell_type == "markdown":
            for paragraph in prose_of_cell(cell.source).split("\n\n"):
                proven = known | GIVEN.get(path.stem, set())
                if "stored run" in paragraph:
                    proven |= stored
                missing = numbers(paragraph) - proven
                assert not missing, f"nothing proves {missing}: {cell.source}"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of what a student needs, into which the notebooks write.

    The later notebooks find there what the earlier ones made.
    """
    folder = tmp_path_factory.mktemp("project")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("prepared"))
    (folder / "course").mkdir()
    shutil.copy(COURSE / "lab.py", folder / "course")
    return folder


def with_answers(notebook, solutions):
    """Return the cells of a notebook with answers, and [(check, what it must say), ...].

    Each check runs on the blank and on the right answer in its place, and when the whole notebook
    has run, on the other answers.
    """
    cells, checks, later = [], [], []
    for cell in notebook.cells:
        cells.append(cell)
        if "exercise" in tags(cell):
            right, wrong = solutions[tags(cell)[1]]
        elif "check" in tags(cell):
            checks.append((cell, "None"))
            for answers, source, said in [
                (cells, right[0], "Right"),
                *((later, source, said) for source, said in wrong),
                *((later, source, "Right") for source in right),
            ]:
                answers.append(nbformat.v4.new_code_cell(source.strip()))
                answers.append(nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata))
                checks.append((answers[-1], said))
    return cells + later, checks


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_gives_its_stored_outputs_and_its_exercises_can_be_solved(
    path, project, monkeypatch
):
    """Each check refuses the blank and wrong answers, and accepts two forms of the right one.

    What does not depend on the machine is compared with the stored outputs. Where a cell is tagged
    "varies", such as after a training, only the kinds of outputs are compared.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    stored = [shown(cell) for cell in notebook.cells]
    originals = list(notebook.cells)
    notebook.cells, checks = with_answers(notebook, SOLUTIONS[path.stem])
    resources = {"metadata": {"path": str(project / "course")}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
    client.execute()  # raises where a cell fails that is no check
    for check, said in checks:
        texts = shown(check)
        if said == "Right":
            assert "error" not in texts and "Right" in texts["stdout"], texts
        else:
            error = texts.get("error", "")
            assert error.startswith("AssertionError: ") and said in error, (said, texts)
    for cell, before in zip(originals, stored, strict=True):
        if cell.cell_type == "code" and "check" not in tags(cell):
            now = shown(cell)
            if "varies" in tags(cell):
                assert set(now) == set(before), cell.source
            else:
                assert now == before, f"run the notebook and store it again: {cell.source}"
    compare_quotes_of_checks(originals, checks)


def compare_quotes_of_checks(cells, checks):
    """Compare what a text cell quotes of the check before it with what that check has printed.

    After a training the numbers differ between machines, so they need only be near.
    """
    for check, text in pairwise(cells):
        quote = re.search(r"^```\n(.*?)^```$", text.source, flags=re.M | re.S)
        if "check" in tags(check) and quote:
            place = [cell is check for cell, _ in checks].index(True)
            right, _ = checks[place + 1]  # the check of the right answer, which ran next
            printed = shown(right)["stdout"].removesuffix("Right\n")
            assert re.sub(r"\d+", "0", printed) == re.sub(r"\d+", "0", quote[1])
            assert [int(number) for number in re.findall(r"\d+", printed)] == pytest.approx(
                [int(number) for number in re.findall(r"\d+", quote[1])], abs=15
            )


# ---- Quizzes -------------------------------------------------------------------------------------


def questions(path):
    """Return (title, question, answer) of each question of a quiz."""
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        question, answer = body.split("<details>")
        yield title, question, answer


@pytest.mark.parametrize("path", QUIZZES, ids=name)
def test_quizzes_say_what_their_code_gives(path, monkeypatch):
    """The examples in an answer give what is printed there, and prove every number outside them."""
    monkeypatch.chdir(ROOT)
    names, parser = {}, doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert 5 <= len(list(questions(path))) <= 8
    for title, question, answer in questions(path):
        proofs = re.findall(r"^```pycon\n(.*?)^```$", answer, flags=re.M | re.S)
        assert proofs, f"{title}: no proof"
        given, printed = "", ""
        for proof in proofs:
            test = parser.get_doctest(proof, names, title, path.name, 0)
            runner.run(test, clear_globs=False)
            names = test.globs
            given += "".join(example.source for example in test.examples)
            printed += "".join(example.want for example in test.examples)
        prose = re.sub(r"`[^`]*`", "", re.sub(r"^```.*?^```$", "", answer, flags=re.M | re.S))
        bold = re.findall(r"\*\*([^*]+)\*\*", prose)
        assert bold, f"{title}: the answer itself should stand in bold"
        for text, known in (
            (" ".join(bold), numbers(printed)),
            (prose, numbers(printed + given)),
            (re.sub(r"`[^`]*`", "", question), numbers(printed + given)),
        ):
            text = re.sub(r"(?i)\b(stage|section|exercise) \d+", "", text)
            missing = numbers(text) - known
            assert not missing, f"{path.name}, {title}: nothing proves {missing}"
    assert not runner.failures, "see the examples above"


# ---- Projects and other pages --------------------------------------------------------------------


def commands(page):
    """Return the commands of a page, which are indented by four spaces, one per line."""
    text = (COURSE / page).read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    found = re.findall(r"^    (\S.*)$", text, flags=re.M)
    return [shlex.split(line) for line in found]


def write_my_data(folder, **rows):
    """Write train.csv and the like as the projects describe them, from the sample.

    English and Spanish are called de and fr, as in the commands of the projects.
    """
    folder.mkdir()
    for split, number in rows.items():
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["language", "text", "heading"])
            for language, code in (("en", "de"), ("es", "fr")):
                for row in sample(language, split)[:number]:
                    writer.writerow([code, row["review_body"], row["review_title"]])


def follow(page, folder, tiny):
    """Run the commands of a page with data and results in ``folder``; return what they print.

    Trainings have one epoch. ``tiny`` stands in for google/mt5-small.
    """
    printed = []
    for words in commands(page):
        words = [
            str(folder / word) if re.match("(my|data/prepared|results)(/|$)", word) else word
            for word in words
        ]
        words = [str(tiny) if word == "google/mt5-small" else word for word in words]
        if words[0] == "tar":
            continue
        assert words[0] == "python", words
        if words[1].startswith("train_"):
            words += ["--epochs", "1"]
        # compare.py imports lab.py, which lies beside it, so it needs a process of its own.
        environment = {"PYTHONUTF8": "1"} if words[1] == "course/compare.py" else {}
        printed.append(run(*words[1:], **environment).stdout)
    return printed


@pytest.mark.slow
def test_premier_project_can_be_followed_command_by_command(tmp_path):
    write_my_data(tmp_path / "my", train=60, test=20)
    prepared = tmp_path / "data/prepared/mine"
    printed = follow("premier_project.md", tmp_path, prepared / "tiny-mt5")
    assert (prepared / "title_lengths.png").exists()
    assert "test: 0 reviews and" in printed[0]  # are also in train
    assert (tmp_path / "results/mine/training.png").exists()
    assert read_json(tmp_path / "results/mine-pretrained/arguments.json")["preset"] == "amazon"
    assert "mine-titles.csv\ntest split: ROUGE F1 × 100" in printed[-1]
    titles = (tmp_path / "results/mine-titles.csv").read_text(encoding="utf-8")
    assert titles.startswith("review_body,") and "summary" in titles.splitlines()[0]


@pytest.mark.full
def test_capstone_recipes_fix_the_tokenizer_and_the_rows_and_vary_the_weights(
    tmp_path, monkeypatch
):
    write_my_data(tmp_path / "my", train=40, validation=30, test=10)
    page = (COURSE / "capstone_project.md").read_text(encoding="utf-8")
    before, recipe = page.split("```python")[0], page.split("```python")[1].split("```")[0]
    assert "data/prepared/start-" in recipe
    # The commands after the recipe start from what it makes, so make that first.
    prepare = [words for words in commands("capstone_project.md") if "prepare_data.py" in words]
    first = [str(tmp_path / word) if word[:2] in ("my", "da") else word for word in prepare[0]]
    run(*first[1:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    exec(recipe, {})  # our own page
    starts = [tmp_path / f"data/prepared/start-{seed}" for seed in (1, 2, 3)]
    weights = [(start / "model.safetensors").read_bytes() for start in starts]
    assert len(set(weights)) == 3
    tiny = tmp_path / "data/prepared/both/tiny-mt5"
    vocabularies = [(start / "tokenizer.json").read_bytes() for start in [*starts, tiny]]
    assert len(set(vocabularies)) == 1
    assert "--validation-share" not in before.split("## Recipes")[1].split("###")[1]

    printed = follow("capstone_project.md", tmp_path, tiny)[-1]
    assert re.findall(r"^(\w+), \d+ rows: first minus second", printed, flags=re.M) == ["de", "all"]
    assert "rougeLsum" in printed
    used = read_json(tmp_path / "results/one/arguments.json")["model"]
    assert used == str(tiny)


def test_schedules_and_marks_add_up():
    def column(page, pattern):
        text = (COURSE / page).read_text(encoding="utf-8")
        return [int(number) for number in re.findall(pattern, text, flags=re.M)]

    rubric = r"^\| (\d+) \| [A-Z]\w.* \|.*\|.*\|.*\|$"
    premier, capstone = column("premier_project.md", rubric), column("capstone_project.md", rubric)
    assert sum(premier) == 100 and sum(capstone) == 100
    assert 100 - premier[0] == 80  # "80 points at most" without data of one's own
    assert sum(column("premier_project.md", r"^### \d\. .*\((\d+) minutes")) == 6 * 60
    hours = column("capstone_project.md", r"^\| (\d+)–\d+ \|")
    ends = column("capstone_project.md", r"^\| \d+–(\d+) \|")
    assert hours == [0, *ends[:-1]] and ends[-1] == 20
    assert 4 * 3 * 5 == 60 and round(60 * 0.05) == 3  # "sixty tests, of which three"
    marks = column("teachers.md", r"\| \**(\d+)\** \|$")
    assert marks[:3] == [6, 2, 2] and marks[3] == 10 and marks[4] == 5 * 10
    per_quiz = [len(list(questions(path))) for path in QUIZZES]
    assert per_quiz == column("teachers.md", r"(?<=[:+] )(\d)(?= [+|])") and marks[5] == 36
    assert sum(per_quiz) == 36 and 20 + 10 + 30 + 40 == 100


@pytest.mark.parametrize("page", ["sample_report.md", "sample_card.md", "teachers.md"])
def test_results_in_pages_stand_in_the_stored_outputs(page):
    """Numbers with a decimal point or a % are results, but for the grade's shares."""
    known = "\n".join(
        "\n".join(shown(cell).values())
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
    )
    text = (COURSE / page).read_text(encoding="utf-8")
    text = re.sub(r"let the labs count.*", "", re.sub(r"```.*?```|`.*?`", "", text, flags=re.S))
    results = re.findall(r"(?<![\w.-])\d+(?:\.\d+|%)", text)
    assert results
    for result in results:
        assert re.search(rf"(?<![\d.]){re.escape(result)}(?!\d)", known), f"{result} in {page}"


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), f"{path.name}: {target} is not there"
