"""The course: its notebooks run, its exercises can be solved, the numbers of its quizzes are true."""

import doctest
import re
import shutil

import nbformat
import pytest
from conftest import ROOT
from course_solutions import SOLUTIONS
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "course").glob("*.ipynb"))
QUIZZES = sorted((ROOT / "course").glob("quiz_*.md"))
NUMBER = re.compile(
    r"(?<![\w.])(?<![A-Za-z]-)\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?(?!\w)"
)  # not the one of rouge1 or mt5


def tags(cell):
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 40
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (
            not cell.outputs and cell.execution_count is None
        ), "run: jupyter nbconvert --clear-output --inplace course/*.ipynb"
    exercises = [
        tag for cell in notebook.cells for tag in tags(cell) if tag.startswith("exercise-")
    ]
    assert exercises == list(SOLUTIONS[path.stem]) and 2 <= len(exercises) <= 3
    checks = [tag for cell in notebook.cells for tag in tags(cell) if tag.startswith("check-")]
    assert checks == [tag.replace("exercise", "check") for tag in exercises]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of what a student needs; the notebooks write into it, and the later ones find what the earlier ones made."""
    folder = tmp_path_factory.mktemp("project")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("prepared"))
    (folder / "course").mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_exercises_can_be_solved(path, project, monkeypatch):
    """Each check fails for the blank and for wrong answers, and passes for the right one; all else runs throughout."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    answers = dict(SOLUTIONS[path.stem])
    cells, checks = (
        [],
        [],
    )  # a check and what it must say: "Right", or an AssertionError with this in it
    for cell in notebook.cells:
        cells.append(cell)
        if "exercise" in tags(cell):
            answer = answers[tags(cell)[1]]
        elif "check" in tags(cell):
            checks.append((cell, "None"))
            right, wrong = answer
            for source, said in [*wrong, (right, "Right")]:
                cells.append(nbformat.v4.new_code_cell(source.strip()))
                cells.append(nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata))
                checks.append((cells[-1], said))
    notebook.cells = cells
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(project / "course")}},
    ).execute()  # raises where a cell fails that is no check
    for check, said in checks:
        printed = "".join(output.get("text", "") for output in check.outputs)
        errors = [
            f"{output.ename}: {output.evalue}"
            for output in check.outputs
            if output.output_type == "error"
        ]
        if said == "Right":
            assert not errors and "Right" in printed, (errors, printed)
        else:
            assert (
                len(errors) == 1 and errors[0].startswith("AssertionError: ") and said in errors[0]
            ), (said, errors)


def numbers(text):
    return {float(re.sub("[,_]", "", number)) for number in NUMBER.findall(text)}


def questions(path):
    """Return (title, question, answer) of each question of a quiz."""
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        question, answer = body.split("<details>")
        yield title, question, answer


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_quizzes_say_what_their_code_gives(path, monkeypatch):
    """The examples in an answer give what is printed there, and every number outside them comes from them."""
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
            missing = numbers(text) - known
            assert not missing, f"{path.name}, {title}: nothing proves {missing}"
    assert not runner.failures, "see the examples above"


@pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *sorted((ROOT / "course").glob("*.md"))], ids=lambda path: path.name
)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name}: {target} is not there"
