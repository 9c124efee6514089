"""Answers to the exercises of the notebooks in course/.

{notebook: {exercise: (right answers, [(wrong answer, what the check says about it), ...])}}. The
first right answer is the one to show to students. test_course.py runs them all.
"""

# Answers whose wrong forms differ from them in a line or two
EXACT_AND_UNFINISHED = """
def exact_and_unfinished(predictions, titles):
    predictions = predictions[: len(titles)]
    ended = (predictions == tokenizer.eos_token_id).any(axis=1)
    tokens = np.where(predictions == -100, tokenizer.pad_token_id, predictions)
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    exact = [text == title for text, title in zip(texts, titles)]
    return np.mean(exact), 1 - np.mean(ended)
"""
HARDER = """
def harder(test, train, form):
    titles = {form(row["review_title"]) for row in train}
    known = {form(part) for row in train for part in sentences(row["review_body"])}
    left = []
    for row in test:
        own = any(form(part) not in known for part in sentences(row["review_body"]))
        new = form(row["review_title"]) not in titles
        if own and new:
            left.append(row)
    return left
"""
MEANS = """
def resampled_means(values):
    generator = np.random.default_rng()
    means = []
    for _ in range(1000):
        drawn = generator.choice(values, size=len(values))
        means.append(drawn.mean())
    return means
"""
INTERVAL = """

def interval(means):
    return np.quantile(means, 0.025), np.quantile(means, 0.975)
"""
P_VALUE = """
def p_value(means):
    tail = min((means <= 0).sum(), (means >= 0).sum())
    p = 2 * (tail + 1) / (len(means) + 1)
    return min(p, 1)
"""
LONG_TITLE = """
def has_long_title(example):
    title = example["review_title"]
    return len({}) > 2
"""
UNDO = """
def undo(row, number):
    sentences = row["review_body"].split(". ")
    if number == 0:
        sentences = common.sent_tokenize(row["review_body"], row["language"])
    line_break = "\\n" if number == 1 else " "
    summary, title = line_break.join(sentences[:3]), row["review_title"]
    the_scorer = scorer if number == 3 else friends_scorer
    if number == 2:
        return the_scorer, title, summary
    return the_scorer, summary, title
"""
SETTINGS = """
settings = {
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 3,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 2,
    "predict_with_generate": True,
    "load_best_model_at_end": True,
    "metric_for_best_model": "unfinished",
    "greater_is_better": False,
}
"""
FAIR_REPORT = """
def fair_report(model):
    rows = books["validation"].select(range(100, 400))
    titles = write_titles(model, rows)
    scores = common.score_beside_lead_3(rouge, rows, titles)
    scores = scores["all"]
    model, lead_3, difference = (scores[key]["rougeL"] for key in ("model", "lead-3", "difference"))
    exact = [title == right for title, right in zip(titles, rows["review_title"])]
    return {
        "model": model["f1"],
        "lead-3": lead_3["f1"],
        "low": difference["low"],
        "high": difference["high"],
        "exact": np.mean(exact),
    }
"""
TRAIN = """
def train(model, optimizer, lr_scheduler, steps, validation_batches, epochs):
    losses = []
    for _ in range(epochs):
        model.train()
        for batches in steps:
            step_tokens = sum((batch["labels"] != -100).sum() for batch in batches)
            for batch in batches:
                tokens = (batch["labels"] != -100).sum()
                accelerator.backward(model(**batch).loss * tokens / step_tokens)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            means = [model(**batch).loss.item() for batch in validation_batches]
        losses.append(step_loss(means, [batch["labels"] for batch in validation_batches]))
    return losses
"""
CLIP = "accelerator.clip_grad_norm_(model.parameters(), 1.0)"


def changed(answer, *changes):
    """Return an answer with other lines: each change is a pair of a text in it and a new one."""
    for old, new in changes:
        assert answer.count(old) == 1, old
        answer = answer.replace(old, new)
    return answer


SOLUTIONS = {
    "stage_1_corpus": {
        "exercise-1": (
            [
                """
def has_long_title(example):
    number = 0
    for run in example["review_title"].split():
        if any(character.isalnum() for character in run):
            number += 1
    return number >= 3
""",
                """
import re


def has_long_title(example):
    return len(re.findall(r"\\S*\\w\\S*", example["review_title"])) > 2
""",
                """
def has_long_title(example):
    title = example["review_title"]
    marks = [mark for mark in title if not mark.isalnum() and mark != " "]
    for mark in marks:
        title = title.replace(mark, "")
    return len(title.split()) > 2
""",
            ],
            [
                (LONG_TITLE.format("title"), "title 'Awful': you say True"),
                (LONG_TITLE.format("title.split(' ')"), "title 'Great  book'"),
                (LONG_TITLE.format("title.split()"), "title 'Great book !'"),  # the chapter's
                (LONG_TITLE.format("words(title)"), 'title "Don\'t buy!"'),
                (LONG_TITLE.format("re.findall('[A-Za-z]+', title)"), 'title "Don\'t buy!"'),
                (  # letters of English only
                    LONG_TITLE.format('re.findall("[A-Za-z0-9][A-Za-z0-9\'’/-]*", title)'),
                    "title 'Año ñoño'",
                ),
                (
                    LONG_TITLE.format('re.findall(r"\\w[\\w\'-]*", title)'),
                    "title 'Didn’t like/finish'",
                ),
                (
                    LONG_TITLE.format("[run for run in title.split() if run.isalnum()]"),
                    "title 'A well-written story'",
                ),
                (
                    LONG_TITLE.format(
                        "[run for run in title.split() if run.lower() != run.upper()]"
                    ),
                    "title '10 out of 10'",
                ),
                (
                    LONG_TITLE.format("[run for run in title.split() if run not in '.,:;!?-']"),
                    "title '¡ Muy bueno !'",
                ),
                (LONG_TITLE.format("title.split()[1:]"), "title 'A good book': you say False"),
                ("def has_long_title(example):\n    return True", "title 'Awful'"),
            ],
        ),
        "exercise-2": (
            [
                """
def is_copied(example):
    left = words(example["review_body"])
    for word in words(example["review_title"]):
        if word not in left:
            return False
        left = left[left.index(word) + 1 :]
    return True
""",
                """
def is_copied(example):
    title = words(example["review_title"])
    found = 0
    for word in words(example["review_body"]):
        if found < len(title) and word == title[found]:
            found += 1
    return found == len(title)
""",
                """
def is_copied(example):
    review = iter(words(example["review_body"]))
    return all(word in review for word in words(example["review_title"]))
""",
            ],
            [
                (
                    """
def is_copied(example):
    return set(words(example["review_title"])) <= set(words(example["review_body"]))
""",
                    "title 'Slow start'",  # the order
                ),
                (
                    """
def is_copied(example):
    return " ".join(words(example["review_title"])) in " ".join(words(example["review_body"]))
""",
                    "title 'A dull, dull end'",  # other words may stand in between
                ),
                (
                    """
def is_copied(example):
    return example["review_title"].lower() in example["review_body"].lower()
""",
                    "title 'A dull, dull end'",
                ),
                (
                    """
def is_copied(example):
    review = words(example["review_body"])
    places = [review.index(word) for word in words(example["review_title"]) if word in review]
    return places == sorted(places)
""",
                    "title 'So so good'",
                ),
                (
                    """
def is_copied(example):
    left = words(example["review_body"])
    for word in words(example["review_title"]):
        if word not in left:
            return False
        left.remove(word)
    return True
""",
                    "title 'Slow start'",
                ),
                (
                    """
def is_copied(example):
    left = words(example["review_body"])
    for word in words(example["review_title"]):
        if word not in left:
            return False
        left = left[left.index(word) :]  # the word itself is still there
    return True
""",
                    "title 'So so good'",
                ),
                (
                    """
def is_copied(example):
    left = example["review_body"].lower()
    for word in words(example["review_title"]):
        if word not in left:
            return False
        left = left[left.index(word) + len(word) :]
    return True
""",
                    "title 'Waste'",  # "waste" is in "wasted"
                ),
                (
                    """
def is_copied(example):
    title, review = words(example["review_title"]), words(example["review_body"])
    if Counter(title) - Counter(review):
        return False
    places = [review.index(word) for word in title]  # only the first place of each word
    return places == sorted(places)
""",
                    "title 'The end drags'",
                ),
                ("def is_copied(example):\n    return True", "title 'Slow start'"),
            ],
        ),
        "exercise-3": (
            [
                """
def harder(test, train, form):
    known = {form(part) for row in train for part in sentences(row["review_body"])}
    titles = {form(row["review_title"]) for row in train}
    left = []
    for row in test:
        own = {form(part) for part in sentences(row["review_body"])} - known
        if own and form(row["review_title"]) not in titles:
            left.append(row)
    return left
""",
                """
def harder(test, train, form):
    def parts(row):
        return map(form, sentences(row["review_body"]))

    known, titles = set(), set()
    for row in train:
        known.update(parts(row))
        titles.add(form(row["review_title"]))
    return [
        row
        for row in test
        if form(row["review_title"]) not in titles and not known.issuperset(parts(row))
    ]
""",
            ],
            [
                (HARDER.replace("own and", "own or"), "is each of the two conditions true"),
                (HARDER.replace("own and new", "own"), "is each of the two conditions true"),
                (HARDER.replace("own and new", "new"), "is each of the two conditions true"),
                (HARDER.replace("any(", "all("), "test ['Good. Dull!'"),
                (
                    HARDER.replace("in titles\n", "in ' '.join(titles)\n"),
                    "test ['slow.', 'good book']",
                ),
                (HARDER.replace("in known for", "in ' '.join(known) for"), "test ['slow.'"),
                (HARDER.replace("known = {", "known = titles | {"), "test ['A bore'"),
                (HARDER.replace("return left", "return len(left)"), "not a list of rows"),
                ("def harder(test, train, form):\n    return test", "test ['Good. Fine.'"),
                (
                    """
def harder(test, train, form):
    known = {form(part) for row in train for part in sentences(row["review_body"])}
    titles = {form(row["review_title"]) for row in train}
    left = []
    for row in test:
        for part in sentences(row["review_body"]):
            if form(part) not in known and form(row["review_title"]) not in titles:
                left.append(row)
    return left
""",
                    "test ['Dull! New! Good.'",
                ),
                (HARDER.replace("    return left", "        return left"), "is each row kept once"),
                (HARDER.replace("(test, train,", "(train, test,"), "return the rows of test"),
                # the form
                (HARDER.replace("form(", "("), "form lower"),
                (HARDER.replace("form(", "plain("), "form str"),
                (HARDER.replace("{form(row", "{(row"), "form lower"),
                (HARDER.replace("{form(part)", "{(part)"), "form lower"),
                (HARDER.replace("any(form(", "any(("), "form lower"),
                (HARDER.replace("new = form(", "new = ("), "form lower"),
                (  # plain() leaves no mark behind which sentences() could cut
                    HARDER.replace("form(part)", "part").replace(
                        'sentences(row["review_body"])', 'sentences(form(row["review_body"]))'
                    ),
                    "form plain",
                ),
                (
                    HARDER.replace("append(row)", "append({key: form(row[key]) for key in row})"),
                    "form lower",
                ),
            ],
        ),
        "exercise-4": (
            [
                """
def pad(rows):
    batch = {}
    for name, filler in {"input_ids": 0, "attention_mask": 0, "labels": -100}.items():
        width = max(len(row[name]) for row in rows)
        batch[name] = [row[name] + [filler] * (width - len(row[name])) for row in rows]
    return batch
""",
                """
from itertools import zip_longest


def pad(rows):
    batch = {}
    for name in rows[0]:
        columns = zip_longest(
            *(row[name] for row in rows), fillvalue=-100 if name == "labels" else 0
        )
        batch[name] = list(zip(*columns))
    return batch
""",
                """
def pad(rows):
    batch = {}
    for name in rows[0]:
        lines = [torch.tensor(row[name]) for row in rows]
        filler = -100 if name == "labels" else 0
        batch[name] = torch.nn.utils.rnn.pad_sequence(lines, True, filler)
    return batch
""",
            ],
            [
                (
                    """
def pad(rows):
    batch = {}
    for name in rows[0]:
        width = max(len(row[name]) for row in rows)
        batch[name] = [row[name] + [0] * (width - len(row[name])) for row in rows]
    return batch
""",
                    "labels of rows that have [2, 4] of them: you have [[31, 32, 0, 0]",
                ),
                (
                    """
def pad(rows):
    batch = {}
    width = max(len(row["input_ids"]) for row in rows)
    for name, filler in {"input_ids": 0, "attention_mask": 0, "labels": -100}.items():
        batch[name] = [row[name] + [filler] * (width - len(row[name])) for row in rows]
    return batch
""",
                    "how long is the longest row of this table?",
                ),
                (
                    """
def pad(rows):
    batch = {}
    for name, filler in {"input_ids": 0, "attention_mask": 0, "labels": -100}.items():
        width = max(len(row[name]) for row in rows)
        for row in rows:
            row[name] += [filler] * (width - len(row[name]))
        batch[name] = [row[name] for row in rows]
    return batch
""",
                    "has changed the rows",
                ),
                (
                    """
def pad(rows):
    batch = {}
    for name, filler in {"input_ids": 0, "attention_mask": 1, "labels": -100}.items():
        width = max(len(row[name]) for row in rows)
        batch[name] = [row[name] + [filler] * (width - len(row[name])) for row in rows]
    return batch
""",
                    "attention_mask of rows",
                ),
                (
                    """
def pad(rows):
    batch = {}
    for name, filler in {"input_ids": 0, "attention_mask": 0, "labels": -100}.items():
        width = max(len(row[name]) for row in rows)
        batch[name] = [[filler] * (width - len(row[name])) + row[name] for row in rows]
    return batch
""",
                    "you have [[0, 0, 11, 12, 13]",
                ),
                (
                    """
def pad(rows):
    return {name: list(zip(*zip(*(row[name] for row in rows)))) for name in rows[0]}
""",
                    "how long is the longest row of this table?",
                ),
                (
                    "def pad(rows):\n"
                    "    return {name: [row[name] for row in rows] for name in rows[0]}",
                    "your lines have the lengths [3, 5]",
                ),
                ("def pad(rows):\n    return collator(rows)", "without it"),
                ("def pad(rows):\n    return dict(collator(rows))", "without it"),
                ("def pad(rows):\n    return rows", "return a dictionary, and not list"),
            ],
        ),
    },
    "stage_2_metrics": {
        "exercise-1": (
            [
                """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = (ours & theirs).total()
    if shared == 0:
        return 0, 0, 0
    recall, precision = shared / theirs.total(), shared / ours.total()
    return recall, precision, 2 * recall * precision / (recall + precision)
""",
                """
def rouge_pairs(summary, reference, gap):
    lists = []
    for text in (summary, reference):
        parts = words(text)
        shifts = range(1, gap + 2)
        lists.append([pair for shift in shifts for pair in zip(parts, parts[shift:])])
    ours, theirs = lists
    sizes = len(ours), len(theirs)
    shared = 0
    for pair in ours:
        if pair in theirs:
            theirs.remove(pair)
            shared += 1
    return [shared / max(1, sizes[1]), shared / max(1, sizes[0]), 2 * shared / max(1, sum(sizes))]
""",
                """
from fractions import Fraction
from itertools import combinations


def rouge_pairs(summary, reference, gap):
    counts = []
    for text in (summary, reference):
        places = combinations(enumerate(words(text)), 2)
        counts.append(Counter((one, two) for (i, one), (j, two) in places if j - i <= gap + 1))
    ours, theirs = counts
    shared = (ours & theirs).total()
    if shared == 0:
        return 0, 0, 0
    recall, precision = Fraction(shared, theirs.total()), Fraction(shared, ours.total())
    return recall, precision, 2 / (1 / recall + 1 / precision)
""",
                # Rounded
                """
from itertools import combinations


def pairs(text, gap):
    places = combinations(enumerate(words(text)), 2)
    return Counter((one, two) for (i, one), (j, two) in places if j - i <= gap + 1)


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = (ours & theirs).total()
    if shared == 0:
        return 0, 0, 0
    sizes = theirs.total(), ours.total(), sum((theirs + ours).values()) / 2
    return tuple(round(shared / size, 4) for size in sizes)
""",
            ],
            [
                (
                    """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = sum(count for pair, count in ours.items() if pair in theirs)
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "count too often, or not often enough",
                ),
                (
                    """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = sum(count for pair, count in theirs.items() if pair in ours)
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "count too often, or not often enough",
                ),
                (
                    """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = len(ours & theirs)
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "'good so so good'",
                ),
                (
                    """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = set(pairs(summary, gap)), set(pairs(reference, gap))
    shared = len(ours & theirs)
    recall, precision = shared / max(1, len(theirs)), shared / max(1, len(ours))
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "count too often, or not often enough",
                ),
                (
                    """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = (ours & theirs).total()
    recall, precision = shared / max(1, ours.total()), shared / max(1, theirs.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "recall comes first",
                ),
                (
                    """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = (ours & theirs).total()
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, (recall + precision) / 2
""",
                    "F1 is their harmonic mean",
                ),
                (
                    """
def pairs(text, gap):
    parts = words(text)
    return Counter(
        (parts[i], parts[j])
        for i in range(len(parts))
        for j in range(i + 1, min(len(parts), i + gap + 2))
    )


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = (ours & theirs).total()
    recall, precision = shared / theirs.total(), shared / ours.total()
    return recall, precision, 2 * recall * precision / (recall + precision)
""",
                    "you divide by 0",
                ),
                (
                    """
def rouge_pairs(summary, reference, gap):
    ours = Counter(zip(words(summary), words(summary)[1:]))
    theirs = Counter(zip(words(reference), words(reference)[1:]))
    shared = (ours & theirs).total()
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "gap 1",
                ),
                (
                    """
def rouge_pairs(summary, reference, gap):
    ours = Counter(zip(words(summary), words(summary)[gap + 1 :]))
    theirs = Counter(zip(words(reference), words(reference)[gap + 1 :]))
    shared = (ours & theirs).total()
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "gap 1",
                ),
                (
                    """
from itertools import combinations


def rouge_pairs(summary, reference, gap):
    ours = Counter(combinations(words(summary), 2))
    theirs = Counter(combinations(words(reference), 2))
    shared = (ours & theirs).total()
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "gap 0",
                ),
                (
                    """
from itertools import combinations


def pairs(text, gap):
    parts = text.split()  # large letters stay
    places = combinations(range(len(parts)), 2)
    return Counter((parts[i], parts[j]) for i, j in places if j - i <= gap + 1)


def rouge_pairs(summary, reference, gap):
    ours, theirs = pairs(summary, gap), pairs(reference, gap)
    shared = (ours & theirs).total()
    recall, precision = shared / max(1, theirs.total()), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "large and small letters are the same",
                ),
                (
                    "def rouge_pairs(summary, reference, gap):\n    return None, None, None",
                    "three numbers",
                ),
                (
                    'def rouge_pairs(summary, reference, gap):\n    return "1", "1", "1"',
                    "three numbers",
                ),
            ],
        ),
        "exercise-2": (
            [
                MEANS + INTERVAL,
                """
import random


def resampled_means(values):
    rows = list(values)
    return [sum(random.choices(rows, k=len(rows))) / len(rows) for _ in range(1000)]


def interval(means):
    means = sorted(means)
    return means[25], means[-26]
""",
                """
def resampled_means(values):
    generator = np.random.default_rng(3)
    draws = generator.integers(0, len(values), size=(1000, len(values)))
    return values[draws].mean(axis=1)


def interval(means):
    return np.percentile(means, [2.5, 97.5])
""",
            ],
            [
                (
                    MEANS.replace("range(1000)", "range(500)") + INTERVAL,
                    "returns 500 means, and not 1000: how often do you draw",
                ),
                (
                    MEANS.replace("generator.choice(values, size=len(values))", "values.copy()")
                    + INTERVAL,
                    "each of your means is 1.00. Draw anew",
                ),
                (
                    MEANS.replace("size=len(values)", "size=len(values), replace=False") + INTERVAL,
                    "some rows have to come more than once",
                ),
                (
                    MEANS.replace("size=len(values)", "size=len(values) // 2, replace=False")
                    + INTERVAL,
                    "may a row come more than once",
                ),
                (
                    MEANS.replace("size=len(values)", "size=100") + INTERVAL,
                    "How many rows does each draw have",
                ),
                (
                    MEANS.replace("size=len(values)", "size=len(values) - 1") + INTERVAL,
                    "How many rows does each draw have",
                ),
                (
                    MEANS.replace("choice(values,", "choice(values[1:],") + INTERVAL,
                    "all your means are 0. Do you draw from all rows",
                ),
                (
                    MEANS.replace("drawn.mean()", "np.median(drawn)") + INTERVAL,
                    "is each number the mean of a draw",
                ),
                (
                    MEANS.replace("choice(values,", "choice(lead_3,") + INTERVAL,
                    "does a mean come from drawn rows alone",
                ),
                (
                    """
def resampled_means(values):
    error = values.std() / len(values) ** 0.5
    return np.random.default_rng(1).normal(values.mean(), error, size=1000)
"""
                    + INTERVAL,
                    "does a mean come from drawn rows alone",
                ),
                (
                    """
def resampled_means(values):
    return values
"""
                    + INTERVAL,
                    "returns 20 means",
                ),
                (
                    """
def resampled_means(values):
    return np.random.default_rng(1).choice(values, size=len(values)).mean()
"""
                    + INTERVAL,
                    "and not 1000 numbers",
                ),
                (MEANS + "\ndef interval(means):\n    return None", "interval() still returns"),
                (
                    MEANS + INTERVAL.replace("0.025", "0.03").replace("0.975", "0.97"),
                    "30 lie below your lower end and 30 above",
                ),
                (
                    MEANS + INTERVAL.replace("0.025", "0.05").replace("0.975", "0.95"),
                    "50 lie below your lower end and 50 above",
                ),
                (
                    MEANS + INTERVAL.replace("quantile", "percentile"),
                    "which quantiles of the means do you take",
                ),
                (
                    MEANS
                    + """
def interval(means):
    reach = 1.96 * np.std(means)
    return np.mean(means) - reach, np.mean(means) + reach
""",
                    "0 lie below your lower end",
                ),
                (
                    MEANS
                    + """
def interval(values):
    return np.quantile(resampled_means(values), [0.025, 0.975])
""",
                    "which quantiles of the means do you take",
                ),
                (
                    MEANS + "\ndef interval(means):\n    return np.quantile(means, [0.975, 0.025])",
                    "the lower end comes first",
                ),
                (
                    MEANS + "\ndef interval(means):\n    return means[25], means[-26]",
                    "sort them in it first",
                ),
                (MEANS + "\ndef interval(means):\n    return np.std(means)", "not two ends"),
                (MEANS + "\ndef interval(means):\n    return None, None", "not two numbers"),
                (MEANS + '\ndef interval(means):\n    return "21.1", "23.1"', "not two numbers"),
            ],
        ),
        "exercise-3": (
            [
                P_VALUE,
                """
from fractions import Fraction


def p_value(means):
    below = sum(mean <= 0 for mean in means.tolist())
    above = sum(mean >= 0 for mean in means.tolist())
    p = Fraction(2 * (min(below, above) + 1), len(means) + 1)
    return p if p < 1 else 1
""",
                """
def p_value(means):
    if means.mean() < 0:
        means = -means
    share = ((means <= 0).sum() + 1) / (means.size + 1)
    return np.clip(2 * share, 0, 1)
""",
            ],
            [
                (P_VALUE.replace("2 * ", ""), "the share is doubled"),
                (P_VALUE.replace(" + 1", ""), "1 is added to the numerator and"),
                (
                    P_VALUE.replace("len(means) + 1", "len(means)"),
                    "to the denominator of the share",
                ),
                (P_VALUE.replace("tail + 1", "tail"), "to the numerator of the share too"),
                (P_VALUE.replace("2 * (tail + 1)", "(2 * tail + 1)"), "and then double"),
                (P_VALUE.replace("<= 0", "< 0").replace(">= 0", "> 0"), "exactly zero count"),
                (P_VALUE.replace("len(means) + 1", "1001"), "there are 200 means here"),
                (P_VALUE.replace("min(p, 1)", "p"), "no probability is above 1"),
                (P_VALUE.replace("min((means <= 0).sum(), ", "("), "with fewer means"),
                (P_VALUE.replace("min((means", "max((means"), "with fewer means"),
                (  # the side of the first mean and not of most means
                    """
def p_value(means):
    side = np.sign(means[0])
    return min(1, 2 * ((means * side <= 0).sum() + 1) / (len(means) + 1))
""",
                    "with fewer means",
                ),
                (
                    "def p_value(means):\n    return np.mean(abs(means) >= abs(means.mean()))",
                    "how many means are zero or lie on the other side",
                ),
                ("def p_value(means):\n    return means <= 0", "and not a number"),
                ('def p_value(means):\n    return "0.002"', "and not a number"),
            ],
        ),
        "exercise-4": (
            [
                UNDO,
                """
def undo(row, number):
    if number == 3:
        sentences = common.sent_tokenize(row["review_body"], row["language"])
    else:
        sentences = row["review_body"].split(". ")
    texts = [("\\n" if number == 0 else " ").join(sentences[:3]), row["review_title"]]
    if number == 1:
        texts.reverse()
    return [RougeScorer(["rouge1"], use_stemmer=number != 2), *texts]
""",
            ],
            [
                (
                    UNDO.replace("if number == 0:", "if number in (0, 1):"),
                    "with the number 1, more than one place",
                ),
                (UNDO.replace('"\\n"', '"  "'), "with the number 1, more than one place"),
                (UNDO.replace("number == 1", "number == 9"), "with the number 1 it is still her"),
                (UNDO.replace("number == 3", "number == 2"), "with the number 2, more than one"),
                (
                    UNDO.replace(
                        "    sentences = row", "    number = min(number, 2)\n    sentences = row"
                    ),
                    "the numbers 2 and 3 undo the same place",
                ),
                ("undo = lambda row, number: friends_program(row)", "not a scorer and two texts"),
                ("undo = lambda row, number: our_program(row)", "not a scorer and two texts"),
                (
                    "def undo(row, number):\n    return None, row['review_title'], ''",
                    "not a scorer and two texts",
                ),
            ],
        ),
    },
    "stage_3_trainer": {
        "exercise-1": (
            [
                """
def loss_by_hand(logits, labels):
    mask = labels != -100
    log_probabilities = logits[mask].log_softmax(dim=-1)
    right = labels[mask]
    return -log_probabilities[range(len(right)), right].mean()
""",
                """
def loss_by_hand(logits, labels):
    total, counted = 0.0, 0
    for row, row_labels in zip(logits.log_softmax(dim=-1), labels.tolist()):
        for place, label in zip(row, row_labels):
            if label != -100:
                total -= place[label].item()
                counted += 1
    return total / counted
""",
            ],
            [
                (
                    """
def loss_by_hand(logits, labels):
    rows = []
    for row, right in zip(logits, labels):
        mask = right != -100
        chosen = row[mask].log_softmax(dim=-1).gather(1, right[mask][:, None])
        rows.append(-chosen.mean())
    return torch.stack(rows).mean()
""",
                    "mean of the rows' means",
                ),
                (
                    """
def loss_by_hand(logits, labels):
    labels = labels.clamp(min=0)  # the padding counts as token 0
    return -logits.log_softmax(dim=-1).gather(2, labels[..., None]).mean()
""",
                    "do not count labels of -100",
                ),
                (
                    """
def loss_by_hand(logits, labels):
    chosen = logits.log_softmax(dim=-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return -(chosen * (labels != -100)).mean()  # divides by the number of all places
""",
                    "do not count labels of -100",
                ),
                (
                    """
def loss_by_hand(logits, labels):
    mask = labels != -100
    return logits[mask].log_softmax(dim=-1).gather(1, labels[mask][:, None]).mean()
""",
                    "take minus the logarithm",
                ),
                (
                    """
def loss_by_hand(logits, labels):
    mask = labels != -100
    return -logits[mask].log_softmax(dim=-1).gather(1, labels[mask][:, None])
""",
                    "return one number",
                ),
                (
                    """
def loss_by_hand(logits, labels):
    return -logits.log_softmax(dim=-1).gather(2, labels[..., None]).mean()
""",
                    "is there an index of -100",
                ),
                (
                    "def loss_by_hand(logits, labels):\n    return untrained(**first_batch).loss",
                    "without .loss and cross_entropy",
                ),
                (
                    """
def loss_by_hand(logits, labels):
    return cross_entropy(logits.flatten(0, 1), labels.flatten())
""",
                    "without .loss and cross_entropy",
                ),
                (
                    """
def loss_by_hand(logits, labels):
    logits, labels = all_logits, first_batch["labels"]  # always the whole batch
    mask = labels != -100
    return -logits[mask].log_softmax(dim=-1).gather(1, labels[mask][:, None]).mean()
""",
                    "3 rows: you have",
                ),
            ],
        ),
        "exercise-2": (
            [
                EXACT_AND_UNFINISHED,
                """
def exact_and_unfinished(predictions, titles):
    exact = unfinished = 0
    for row, title in zip(predictions.tolist(), titles):
        text = tokenizer.decode([token for token in row if token not in (0, 1, -100)])
        exact += text == title
        unfinished += 1 not in row
    return exact / len(titles), unfinished / len(titles)
""",
                # Numbers of other kinds, or rounded
                changed(
                    EXACT_AND_UNFINISHED,
                    ("np.mean(exact), 1", "torch.tensor(exact).float().mean(), 1"),
                ),
                changed(
                    EXACT_AND_UNFINISHED,
                    (
                        "np.mean(exact), 1 - np.mean(ended)",
                        "torch.tensor([np.mean(exact), 1 - np.mean(ended)]).float()",
                    ),
                ),
                changed(
                    EXACT_AND_UNFINISHED,
                    (
                        "np.mean(exact), 1 - np.mean(ended)",
                        "round(np.mean(exact), 3), round(1 - np.mean(ended), 3)",
                    ),
                ),
                changed(
                    EXACT_AND_UNFINISHED,
                    (
                        "    predictions =",
                        "    from fractions import Fraction\n\n    predictions =",
                    ),
                    ("np.mean(exact)", "Fraction(sum(exact), len(titles))"),
                ),
            ],
            [
                (
                    changed(
                        EXACT_AND_UNFINISHED, ("batch_decode(tokens,", "batch_decode(predictions,")
                    ),
                    "is there a number that is no token",
                ),
                (
                    changed(EXACT_AND_UNFINISHED, (", skip_special_tokens=True", "")),
                    "are special tokens in them",
                ),
                (
                    changed(EXACT_AND_UNFINISHED, ("[: len(titles)]", "[-len(titles) :]")),
                    "which rows belong to the titles",
                ),
                (
                    changed(EXACT_AND_UNFINISHED, ("[: len(titles)]", "")),
                    "which rows were to be evaluated",
                ),
                (
                    changed(
                        EXACT_AND_UNFINISHED,
                        (
                            "(predictions == tokenizer.eos_token_id).any(axis=1)",
                            "predictions[:, -1] == 1",
                        ),
                    ),
                    "in which columns may",
                ),
                (
                    changed(EXACT_AND_UNFINISHED, ("1 - np.mean(ended)", "np.mean(ended)")),
                    "are unfinished, and you say 80%",
                ),
                (
                    changed(EXACT_AND_UNFINISHED, ("np.mean(exact)", "100 * np.mean(exact)")),
                    "two shares between 0 and 1",
                ),
                (
                    changed(
                        EXACT_AND_UNFINISHED,
                        (
                            "np.mean(exact), 1 - np.mean(ended)",
                            "1 - np.mean(ended), np.mean(exact)",
                        ),
                    ),
                    "are exactly right, and you say 20%",
                ),
                (
                    changed(
                        EXACT_AND_UNFINISHED, ("np.mean(exact), 1 - np.mean(ended)", "exact, ended")
                    ),
                    "return two numbers",
                ),
                (
                    "def exact_and_unfinished(predictions, titles):\n    return None, None",
                    "return two numbers",
                ),
                ("def exact_and_unfinished(predictions, titles):\n    return 1", "two numbers"),
                *(
                    (changed(EXACT_AND_UNFINISHED, ("text == title", test)), "letter for letter")
                    for test in (
                        "text.lower() == title.lower()",
                        "text.startswith(title)",
                        "title.startswith(text)",
                        "title in text",
                        "text in title",
                        "set(text.split()) == set(title.split())",
                    )
                ),
            ],
        ),
        "exercise-3": (
            [
                SETTINGS,
                """
settings = dict(
    per_device_train_batch_size=1,
    per_device_eval_batch_size=1,
    gradient_accumulation_steps=8,
    max_steps=12,
    eval_strategy="steps",
    eval_steps=0.25,
    save_strategy="best",
    save_total_limit=1,
    predict_with_generate=True,
    load_best_model_at_end=True,
    metric_for_best_model="eval_unfinished",
    greater_is_better=False,
    use_cpu=True,
)
""",
            ],
            [
                ('settings = {"num_train_epochs": 3}', "a batch has 8 rows"),
                ("settings = 3", "should be a dictionary"),
                (changed(SETTINGS, ('"gradient_accumulation_steps": 4,', "")), "a step has 2 rows"),
                (
                    changed(
                        SETTINGS,
                        ('train_batch_size": 2', 'train_batch_size": 8'),
                        ('_steps": 4', '_steps": 1'),
                    ),
                    "a batch has 8 rows",
                ),
                (changed(SETTINGS, ('epochs": 3', 'epochs": 4')), "makes 16 steps"),
                (
                    changed(
                        SETTINGS,
                        ('"eval_strategy": "steps"', '"eval_strategy": "epoch"'),
                        ('"save_strategy": "steps"', '"save_strategy": "epoch"'),
                    ),
                    "evaluated after the steps [4, 8, 12]",
                ),
                (
                    changed(SETTINGS, ('"save_strategy": "steps"', '"save_strategy": "epoch"')),
                    "requires the save and eval strategy to match",
                ),
                (changed(SETTINGS, ('"save_steps": 3', '"save_steps": 6')), "was it saved"),
                (
                    changed(SETTINGS, ('generate": True', 'generate": False')),
                    "by which argument are titles written",
                ),
                (
                    changed(SETTINGS, ('"greater_is_better": False,', "")),
                    "look up greater_is_better",
                ),
                (
                    changed(SETTINGS, ('"metric_for_best_model": "unfinished",', "")),
                    "by which score is it chosen",
                ),
                (
                    changed(SETTINGS, ('at_end": True', 'at_end": False')),
                    "is the best model loaded",
                ),
                (changed(SETTINGS, ('"unfinished"', '"rougeL"')), "the Trainer stops with"),
                (changed(SETTINGS, ('"save_total_limit": 2,', "")), "4 checkpoints are left"),
                *(
                    (
                        changed(SETTINGS, ('"per_device_eval_batch_size": 2,', rows)),
                        "in the evaluation a batch has 4 rows",
                    )
                    for rows in ("", '"per_device_eval_batch_size": 64,')
                ),
                (
                    changed(SETTINGS, ('_steps": 4', '_steps": 3')),
                    "which two arguments say how many rows a step has",
                ),
            ],
        ),
        "exercise-4": (
            [
                FAIR_REPORT,
                """
def fair_report(model):
    rows = books["validation"].select(range(100, 400))
    titles = []
    for start in range(0, 300, 50):
        titles += write_titles(model, rows.select(range(start, start + 50)))
    lead_3 = common.sentence_lines(rows["review_body"], rows["language"], first=3)
    ours, theirs = (
        100
        * np.array(
            rouge.compute(written, rows["review_title"], rows["language"], use_aggregator=False)[
                "rougeL"
            ]
        )
        for written in (titles, lead_3)
    )
    error = 1.96 * (ours - theirs).std() / 300**0.5
    middle = (ours - theirs).mean()
    return {
        "model": round(ours.mean(), 2),
        "lead-3": round(theirs.mean(), 2),
        "low": middle - error,
        "high": middle + error,
        "exact": sum(ours == theirs for ours, theirs in zip(titles, rows["review_title"])) / 300,
    }
""",
            ],
            [
                (changed(FAIR_REPORT, ("range(100, 400)", "range(100, 399)")), "which rows"),
                (changed(FAIR_REPORT, ("range(100, 400)", "range(100)")), "which rows"),
                (changed(FAIR_REPORT, ("range(100, 400)", "range(400)")), "which rows"),
                (changed(FAIR_REPORT, ('books["validation"]', 'books["test"]')), "which rows"),
                (changed(FAIR_REPORT, ('scores["all"]', 'scores["es"]')), "which rows"),
                (changed(FAIR_REPORT, ('"rougeL"', '"rouge1"')), "by which score"),
                (
                    changed(FAIR_REPORT, ('lead_3["f1"]', 'lead_3["f1"] / 100')),
                    "multiply it by 100",
                ),
                (
                    changed(FAIR_REPORT, ("write_titles(model", "write_titles(trainer.model")),
                    "do you use the one you get",
                ),
                (
                    changed(FAIR_REPORT, ('"difference"))', '"model"))')),
                    "take the interval of model minus lead-3",
                ),
                (
                    changed(
                        FAIR_REPORT,
                        ('"low": difference["low"]', '"low": -difference["high"]'),
                        ('"high": difference["high"]', '"high": -difference["low"]'),
                    ),
                    "low should be about",
                ),
                (
                    changed(FAIR_REPORT, ("np.mean(exact)", "100 * np.mean(exact)")),
                    "of the titles are exactly right",
                ),
                (changed(FAIR_REPORT, ("np.mean(exact)", "exact")), "should have one number"),
                (changed(FAIR_REPORT, ('"high": difference["high"],', "")), "with the keys"),
                ("def fair_report(model):\n    return model.titles", "your function stops with"),
            ],
        ),
    },
    "stage_4_accelerate": {
        "exercise-1": (
            [
                """
def step_loss(means, labels):
    tokens = [(batch != -100).sum().item() for batch in labels]
    total = sum(mean * count for mean, count in zip(means, tokens))
    return total / sum(tokens)
""",
                """
def step_loss(means, labels):
    return np.average(means, weights=[int((batch >= 0).sum()) for batch in labels])
""",
            ],
            [
                (
                    """
def step_loss(means, labels):
    return np.mean(means)
""",
                    "this is the mean of means",
                ),
                (
                    """
def step_loss(means, labels):
    return np.average(means, weights=[len(batch) for batch in labels])
""",
                    "each title counts the same",
                ),
                (
                    """
def step_loss(means, labels):
    return np.average(means, weights=[batch.numel() for batch in labels])
""",
                    "that are not -100",
                ),
                (
                    """
def step_loss(means, labels):
    return sum(mean * (batch != -100).sum() for mean, batch in zip(means, labels))
""",
                    "that are not -100",
                ),
                (
                    """
def step_loss(means, labels):
    tokens = sum((batch != -100).sum() for batch in labels)
    return sum(means) / tokens
""",
                    "that are not -100",
                ),
                (
                    # only the first and the last batch
                    """
def step_loss(means, labels):
    tokens = [(batch != -100).sum().item() for batch in (labels[0], labels[-1])]
    return np.average([means[0], means[-1]], weights=tokens)
""",
                    "the five losses should be equal",
                ),
            ],
        ),
        "exercise-2": (
            [
                TRAIN,
                """
from torch.nn.functional import cross_entropy


def summed_loss(model, batch):
    ids, mask, labels = (batch[name] for name in ("input_ids", "attention_mask", "labels"))
    logits = model(ids, attention_mask=mask, labels=labels).logits.flatten(0, 1)
    return cross_entropy(logits, batch["labels"].flatten(), reduction="sum")


def count(batches):
    return torch.cat([batch["labels"].flatten() for batch in batches]).ge(0).sum()


def train(model, optimizer, lr_scheduler, steps, validation_batches, epochs):
    losses = []
    for _ in range(epochs):
        model.train()
        for batches in steps:
            optimizer.zero_grad()
            for batch in batches:
                (summed_loss(model, batch) / count(batches)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
        model.train(False)
        total = 0.0
        for batch in validation_batches:
            with torch.inference_mode():
                total += summed_loss(model, batch).item()
        losses.append(total / count(validation_batches).item())
    return losses
""",
            ],
            [
                (
                    changed(TRAIN, ("            optimizer.step()\n", "")),
                    "should come optimizer.step() of step 1, and in your function comes batch 1",
                ),
                (changed(TRAIN, ("            lr_scheduler.step()\n", "")), "once in each step"),
                (
                    changed(
                        TRAIN,
                        ("optimizer.step()", "LATER"),
                        ("lr_scheduler.step()", "optimizer.step()"),
                        ("LATER", "lr_scheduler.step()"),
                    ),
                    "the rate falls after the step that uses it",
                ),
                (
                    changed(
                        TRAIN, ("lr_scheduler.step()", "lr_scheduler.step(); lr_scheduler.step()")
                    ),
                    "call lr_scheduler.step() once in each step; you call it 2 times in step 1",
                ),
                (
                    changed(
                        TRAIN, ("lr_scheduler.step()", "[lr_scheduler.step() for _ in batches]")
                    ),
                    "you call it 4 times in step 1",
                ),
                (
                    # in the loop over the batches
                    changed(
                        TRAIN,
                        ("            lr_scheduler.step()\n", ""),
                        (
                            "            accelerator.clip",
                            "                lr_scheduler.step()\n            accelerator.clip",
                        ),
                    ),
                    "you call it 4 times in step 1",
                ),
                (
                    changed(
                        TRAIN,
                        ("            lr_scheduler.step()\n", ""),
                        ("model.eval()", "lr_scheduler.step(); model.eval()"),
                    ),
                    "once in each step",
                ),
                (
                    changed(
                        TRAIN,
                        ("            optimizer.zero_grad()\n", ""),
                        ("optimizer.step()", "optimizer.zero_grad(); optimizer.step()"),
                    ),
                    "optimizer.step() finds no gradients",
                ),
                (
                    changed(TRAIN, ("            optimizer.zero_grad()\n", "")),
                    "step 2, epoch 1: the gradients are not those of the same rows in one batch; "
                    "they also hold",
                ),
                (
                    changed(
                        TRAIN,
                        ("            optimizer.zero_grad()\n", ""),
                        ("model.eval()", "optimizer.zero_grad(); model.eval()"),
                    ),
                    "where is optimizer.zero_grad()",
                ),
                (
                    changed(
                        TRAIN,
                        ("accelerator.backward(", "optimizer.zero_grad(); accelerator.backward("),
                    ),
                    "do the gradients of all its batches add up",
                ),
                (changed(TRAIN, (f"            {CLIP}\n", "")), "clip it to 1"),
                (
                    # makes every norm 1, also a smaller one
                    changed(
                        TRAIN,
                        (
                            CLIP,
                            "gradients = [weight.grad for weight in model.parameters()]\n"
                            "            torch._foreach_div_(gradients, "
                            "torch.nn.utils.get_total_norm(gradients))",
                        ),
                    ),
                    "gradients with a norm below 1 stay as they are",
                ),
                (
                    changed(
                        TRAIN,
                        ("optimizer.step()", "LATER"),
                        (CLIP, "optimizer.step()"),
                        ("LATER", CLIP),
                    ),
                    "clip it to 1",
                ),
                (
                    changed(
                        TRAIN, ("            accelerator.clip", "                accelerator.clip")
                    ),
                    "clipped once, after the last batch",
                ),
                (
                    changed(TRAIN, ("        model.train()\n", "")),
                    "batch 1 of step 1, epoch 1: the mode is that of eval",
                ),
                (
                    changed(
                        TRAIN,
                        ("        model.train()\n", ""),
                        ("losses = []", "losses = []; model.train()"),
                    ),
                    "batch 1 of step 1, epoch 2: the mode is that of eval",
                ),
                (changed(TRAIN, ("        model.eval()\n", "")), "where is model.eval()"),
                (
                    changed(TRAIN, ("torch.no_grad()", "torch.enable_grad()")),
                    "where is torch.no_grad()",
                ),
                (
                    changed(TRAIN, ("* tokens / step_tokens", "/ len(batches)")),
                    "do all its label tokens count the same",
                ),
                (
                    changed(TRAIN, (" * tokens / step_tokens", "")),
                    "do all its label tokens count the same",
                ),
                (changed(TRAIN, (" / step_tokens", "")), "clipping only hides a wrong factor"),
                (
                    changed(
                        TRAIN, ("losses.append(step_loss(", "losses.append(np.mean(means))  # (")
                    ),
                    "this is the mean of means",
                ),
                (
                    # All batches stay in the memory until one call of backward.
                    changed(
                        TRAIN,
                        ("for batch in batches:", "loss = 0\n            for batch in batches:"),
                        ("accelerator.backward(model(**batch)", "loss += (model(**batch)"),
                        (
                            "accelerator.clip",
                            "accelerator.backward(loss)\n            accelerator.clip",
                        ),
                    ),
                    "should come backward of batch 1 of step 1",
                ),
                (
                    # a step for each batch
                    changed(
                        TRAIN,
                        ("* tokens / step_tokens)", ")"),
                        ("            accelerator.clip", "                accelerator.clip"),
                        ("            optimizer.step", "                optimizer.step"),
                        ("            lr_scheduler", "                lr_scheduler"),
                        ("            optimizer.zero", "                optimizer.zero"),
                    ),
                    "should come batch 2 of step 1, and in your function comes optimizer.step()",
                ),
                (
                    changed(TRAIN, ("return losses", "return losses[-1]")),
                    "one number for each of the two epochs",
                ),
                (
                    changed(TRAIN, ("(model(**batch).loss *", "(model(batch).loss *")),
                    "your function stops with: TypeError",
                ),
            ],
        ),
        "exercise-3": (
            [
                """
def rows_gathered(rows, batch_size, processes):
    one_round = batch_size * processes
    return -(-rows // one_round) * one_round
""",
                """
def rows_gathered(rows, batch_size, processes):
    gathered = 0
    while gathered < rows:
        gathered += batch_size * processes
    return gathered
""",
            ],
            [
                (
                    "def rows_gathered(rows, batch_size, processes):\n    return rows",
                    "in the last round",
                ),
                (
                    "def rows_gathered(rows, batch_size, processes):\n"
                    "    return -(-rows // batch_size) * batch_size * processes",
                    "in the last round",
                ),
                (
                    "def rows_gathered(rows, batch_size, processes):\n"
                    "    return -(-rows // processes) * processes",
                    "in the last round",
                ),
            ],
        ),
        "exercise-4": (
            [
                """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [(batch != -100).sum().item() for batch in labels]
    step_tokens = all_sum(sum(tokens))
    total = sum(mean * count for mean, count in zip(means, tokens))
    return total * processes / step_tokens
""",
                """
def loss_of_process(means, labels, all_sum, processes):
    tokens = torch.stack([(batch != -100).sum() for batch in labels])
    mean_tokens = all_sum(tokens.sum()) / processes  # as in train_accelerate.py
    return (torch.stack(means) * tokens).sum() / mean_tokens
""",
            ],
            [
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [(batch != -100).sum() for batch in labels]
    total = sum(mean * count for mean, count in zip(means, tokens))
    return all_sum(total) / all_sum(sum(tokens))
""",
                    "its gradients are lost",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [(batch != -100).sum().item() for batch in labels]
    return sum(mean * count for mean, count in zip(means, tokens)) / all_sum(sum(tokens))
""",
                    "but their mean is taken",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [(batch != -100).sum().item() for batch in labels]
    return sum(mean * count for mean, count in zip(means, tokens)) / sum(tokens)
""",
                    "this is the mean of means",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [batch.numel() for batch in labels]
    total = sum(mean * count for mean, count in zip(means, tokens))
    return total * processes / all_sum(sum(tokens))
""",
                    "that are not -100",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    loss = 0
    for mean, batch in zip(means, labels):
        tokens = (batch != -100).sum().item()
        loss += mean * tokens * processes / all_sum(tokens)
    return loss
""",
                    "wait for each other",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    return all_sum(sum(means)) / processes
""",
                    "this is the mean of means",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [(batch != -100).sum().item() for batch in labels]
    total = all_sum(sum(mean * count for mean, count in zip(means, tokens)))
    own = sum(means)
    return total / all_sum(sum(tokens)) + own - own.detach()
""",
                    "but its gradients are not",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [(batch != -100).sum().item() for batch in labels]
    step_tokens = all_sum(sum(tokens))
    first = means[0] * tokens[0]
    rest = sum(mean.item() * count for mean, count in zip(means[1:], tokens[1:]))
    return (first + rest) * processes / step_tokens
""",
                    "but its gradients are not",
                ),
                (
                    """
def loss_of_process(means, labels, all_sum, processes):
    tokens = [(batch != -100).sum().item() for batch in labels]
    return means[2] * tokens[2] * processes / all_sum(sum(tokens))
""",
                    "your function stops with: IndexError",
                ),
            ],
        ),
    },
    "stage_5_prediction": {
        "exercise-1": (
            [
                """
@torch.inference_mode()
def greedy(review):
    inputs = tokenizer(review, return_tensors="pt")
    written = start
    for _ in range(30):
        token = model(**inputs, decoder_input_ids=written).logits[0, -1].argmax()
        if token == tokenizer.eos_token_id:
            break
        written = torch.cat([written, token.view(1, 1)], dim=1)
    return tokenizer.decode(written[0], skip_special_tokens=True)
""",
                """
@torch.inference_mode()
def greedy(review):
    inputs = tokenizer(review, return_tensors="pt")
    tokens = [model.config.decoder_start_token_id]
    while tokens[-1] != tokenizer.eos_token_id and len(tokens) <= 30:
        scores = model(**inputs, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(scores.argmax()))
    return tokenizer.decode(tokens, skip_special_tokens=True)
""",
            ],
            [
                (
                    'def greedy(review):\n    return review[:30] + "..."',
                    "the end sign or 30 tokens",
                ),
                (
                    """
def greedy(review):
    written = model.generate(**tokenizer(review, return_tensors="pt"))
    return tokenizer.decode(written[0], skip_special_tokens=True)
""",
                    "write it without generate",
                ),
                (
                    """
@torch.inference_mode()
def greedy(review):
    inputs = tokenizer(review, return_tensors="pt")
    written = start
    for _ in range(12):
        token = model(**inputs, decoder_input_ids=written).logits[0, -1].argmax()
        if token == tokenizer.eos_token_id:
            break
        written = torch.cat([written, token.view(1, 1)], dim=1)
    return tokenizer.decode(written[0], skip_special_tokens=True)
""",
                    "the end sign or 30 tokens",
                ),
                (
                    """
@torch.inference_mode()
def greedy(review):
    inputs = tokenizer(review, return_tensors="pt")
    written = start
    for _ in range(30):
        token = model(**inputs, decoder_input_ids=written).logits[0, -1].argmax()
        written = torch.cat([written, token.view(1, 1)], dim=1)
    return tokenizer.decode(written[0])
""",
                    "are the special tokens left out",
                ),
                (
                    """
@torch.inference_mode()
def greedy(review):
    inputs = tokenizer(review, return_tensors="pt")
    tokens = [model.config.decoder_start_token_id]
    while tokens[-1] != tokenizer.eos_token_id and len(tokens) <= 30:
        scores = model(**inputs, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(scores.argmax()))
    return tokenizer.batch_decode([tokens], skip_special_tokens=True)
""",
                    "returns a list, and should return the title as text",
                ),
            ],
        ),
        "exercise-2": (
            [
                """
def summarize(reviews, write, budget):
    order = sorted(range(len(reviews)), key=lambda row: len(reviews[row]), reverse=True)
    titles = [None] * len(reviews)
    while order:
        number = max(1, budget // max(1, len(reviews[order[0]])))
        batch, order = order[:number], order[number:]
        for row, title in zip(batch, write([reviews[row] for row in batch])):
            titles[row] = title
    return titles
""",
                """
def summarize(reviews, write, budget):
    order = np.argsort([-len(review) for review in reviews])
    batches = []
    for row in order:
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0]) <= budget:
            batches[-1].append(reviews[row])
        else:
            batches.append([reviews[row]])
    written = [title for batch in batches for title in write(batch)]
    return [written[place] for place in np.argsort(order)]
""",
                """
def summarize(reviews, write, budget):
    left, title_of = sorted(reviews, key=len)[::-1], {}
    while left:
        number = max(1, budget // len(left[0]))
        title_of.update(zip(left[:number], write(left[:number])))
        left = left[number:]
    return [title_of[review] for review in reviews]
""",
            ],
            [
                (
                    """
def summarize(reviews, write, budget):
    left, titles = sorted(reviews, key=len, reverse=True), []
    while left:
        number = max(1, budget // len(left[0]))
        titles += write(left[:number])
        left = left[number:]
    return titles
""",
                    "in which row of your answer",
                ),
                (
                    """
def summarize(reviews, write, budget):
    order = np.argsort([-len(review) for review in reviews])
    left, written = [reviews[row] for row in order], []
    while left:
        number = max(1, budget // len(left[0]))
        written += write(left[:number])
        left = left[number:]
    return [written[row] for row in order]  # the order applied a second time
""",
                    "in which row of your answer",
                ),
                (
                    """
def summarize(reviews, write, budget):
    order = np.argsort([-len(review) for review in reviews])
    batches = []
    for row in order:  # without the padding
        if batches and sum(map(len, batches[-1])) + len(reviews[row]) <= budget:
            batches[-1].append(reviews[row])
        else:
            batches.append([reviews[row]])
    written = [title for batch in batches for title in write(batch)]
    return [written[place] for place in np.argsort(order)]
""",
                    "the size of a batch counts its padding",
                ),
                (
                    """
def summarize(reviews, write, budget):
    order = np.argsort([-len(review) for review in reviews])
    written = write([reviews[row] for row in order])
    return [written[place] for place in np.argsort(order)]
""",
                    "your batches have reviews of the lengths [[17, 10, 7, 5, 4, 3]]",
                ),
                (
                    """
def summarize(reviews, write, budget):
    return [write([review])[0] for review in reviews]
""",
                    "the longest first",
                ),
                (
                    """
def summarize(reviews, write, budget):
    left = sorted(reviews, key=len, reverse=True)
    while left:
        number = max(1, budget // len(left[0]))
        write(left[:number])
        left = left[number:]
    return list(reviews)
""",
                    "what write() returns, and nothing else",
                ),
            ],
        ),
        "exercise-3": (
            [
                """
kinds = ["good", "wrong topic", "invented detail", "wrong opinion"]
kinds += ["invented detail", "good", "wrong opinion", "wrong topic"]


def agreement(first, second):
    rows = len(first)
    share = sum(one == other for one, other in zip(first, second)) / rows
    chance = 0
    for kind in set(first):
        chance += first.count(kind) / rows * second.count(kind) / rows
    return share, (share - chance) / (1 - chance)
""",
                """
kinds = ["good", "wrong topic", "invented detail", "wrong opinion"]
kinds += ["good", "good", "wrong topic", "wrong opinion"]
kinds[1], kinds[3] = "wrong opinion", "wrong topic"  # five of them are arguable


def agreement(first, second):
    table = pd.crosstab(pd.Series(first), pd.Series(second), normalize=True)
    names = sorted(set(first) | set(second))
    table = table.reindex(index=names, columns=names, fill_value=0).to_numpy()
    chance = table.sum(axis=0) @ table.sum(axis=1)
    return [table.trace(), (table.trace() - chance) / (1 - chance)]
""",
            ],
            [
                (
                    """
def agreement(first, second):
    share = np.mean([one == other for one, other in zip(first, second)])
    return share, (share - 1 / len(KINDS)) / (1 - 1 / len(KINDS))
""",
                    "how often does each reader give it",
                ),
                (
                    """
def agreement(first, second):
    share = np.mean([one == other for one, other in zip(first, second)])
    chance = sum((first.count(kind) / len(first)) ** 2 for kind in set(first))
    return share, (share - chance) / (1 - chance)
""",
                    "your kappa is",
                ),
                (
                    """
def agreement(first, second):
    share = np.mean([one == other for one, other in zip(first, second)])
    chance = sum(
        first.count(kind) / len(first) * second.count(kind) / len(second) for kind in first
    )
    return share, (share - chance) / (1 - chance)
""",
                    "your kappa is",  # each kind as often as it occurs
                ),
                (
                    """
def agreement(first, second):
    share = len(set(first) & set(second)) / len(set(first))
    return share, share
""",
                    "your share is",
                ),
                (
                    """
def agreement(first, second):
    return np.mean([one == other for one, other in zip(first, second)])
""",
                    "not two numbers",
                ),
                (
                    """
kinds = ["good"] * 8


def agreement(first, second):
    rows = len(first)
    share = sum(one == other for one, other in zip(first, second)) / rows
    chance = sum(first.count(kind) / rows * second.count(kind) / rows for kind in set(first))
    return share, (share - chance) / (1 - chance)
""",
                    "you and we differ in 6 of the 8 titles",
                ),
                ("kinds = ['cut off'] * 8", "kinds should hold eight of"),
                ("kinds = None", "kinds is still None"),
            ],
        ),
        "exercise-4": (
            [
                """
unfaithful = [row in (0, 1, 2, 3, 4, 6, 8, 9, 11, 12, 16, 19) for row in range(20)]


def interval(count, n):
    def probability(p, counts):
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    possible = []
    for thousandth in range(1001):
        p = thousandth / 1000
        or_more = probability(p, range(count, n + 1))
        or_fewer = probability(p, range(count + 1))
        if or_more >= 0.025 and or_fewer >= 0.025:
            possible.append(p)
    return possible[0], possible[-1]
""",
                """
unfaithful = [False] * 13 + [True] * 7


def interval(count, n):  # the formula of Wilson
    share, z = count / n, 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    return [middle - reach, middle + reach]
""",
            ],
            [
                (
                    """
def interval(count, n):
    share = count / n
    reach = 1.96 * (share * (1 - share) / n) ** 0.5
    return share - reach, share + reach
""",
                    "0 of 20: you have 0.000 to 0.000",
                ),
                (
                    """
def interval(count, n):
    draws = np.random.default_rng(42).binomial(n, count / n, size=10_000) / n
    return np.quantile(draws, 0.025), np.quantile(draws, 0.975)
""",
                    "0 of 20: you have 0.000 to 0.000",
                ),
                (
                    """
def interval(count, n):
    def probability(p, counts):
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    possible = [
        p
        for p in np.linspace(0, 1, 1001)
        if probability(p, range(count, n + 1)) >= 0.05
        and probability(p, range(count + 1)) >= 0.05
    ]
    return possible[0], possible[-1]
""",
                    "with a probability of 2.5% each",
                ),
                (
                    """
def interval(count, n):
    possible = [
        p
        for p in np.linspace(0, 1, 1001)
        if math.comb(n, count) * p**count * (1 - p) ** (n - count) >= 0.025
    ]
    return possible[0], possible[-1]
""",
                    "which is not right",  # exactly this count, and not this count or more
                ),
                (
                    """
def interval(count, n):
    return count / n
""",
                    "not two rates",
                ),
                (
                    """
unfaithful = [True] * 19


def interval(count, n):
    share, z = count / n, 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    return [middle - reach, middle + reach]
""",
                    "unfaithful should hold 20 times True or False",
                ),
                (
                    """
unfaithful = [False] * 20


def interval(count, n):
    share, z = count / n, 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    return [middle - reach, middle + reach]
""",
                    "you judge all 20 titles alike, as False",
                ),
            ],
        ),
    },
}
