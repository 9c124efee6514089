"""Answers to the exercises of the notebooks in course/, and others that the checks must judge.

{notebook: {exercise: (right answer, [(other answer, what the check says about it), ...])}}. The
check says "Right" about another right answer. test_course.py runs them all.
"""

SOLUTIONS = {
    "stage_1_corpus": {
        "exercise-1": (
            """
book_share = {
    language: len(books[language]["train"]) / len(reviews[language]["train"])
    for language in args.languages
}
""",
            [
                ('book_share = {"en": 0.85, "es": 0.86}', "Right"),
                ('book_share = {"en": 4700 / 4016, "es": 4700 / 4027}', "not between 0 and 1"),
                ('book_share = {"en": 0.5, "es": 0.5}', "not quite for en"),
            ],
        ),
        "exercise-2": (
            """
def keep(example):
    return len(example["review_title"].split()) >= 3
""",
            [
                (
                    'def keep(example):\n    return len(example["review_title"].split(" ")) >= 3',
                    "without an argument",
                ),
                (
                    'def keep(example):\n    return len(example["review_title"].split()) > 3',
                    "Just as described",
                ),
            ],
        ),
        "exercise-3": (
            """
max_input_length = next(limit for limit in range(8, 513, 8) if (lengths > limit).mean() <= 0.01)
""",
            [
                (
                    "max_input_length = int(np.quantile(lengths, 0.99)) // 8 * 8 + 1",
                    "no multiple of 8",
                ),
                ("max_input_length = 8", "allow more pieces"),
                ("max_input_length = 512", "find the smallest"),
            ],
        ),
    },
    "stage_2_metrics": {
        "exercise-1": (
            """
def ngrams(text, n):
    parts = words(text)
    return Counter(tuple(parts[i : i + n]) for i in range(len(parts) - n + 1))


def rouge_n(summary, reference, n):
    ours, theirs = ngrams(summary, n), ngrams(reference, n)
    shared = (ours & theirs).total()
    if not shared:
        return 0, 0, 0
    recall, precision = shared / theirs.total(), shared / ours.total()
    return recall, precision, 2 * recall * precision / (recall + precision)
""",
            [
                (
                    """
def rouge_n(summary, reference, n):
    ours, theirs = ngrams(summary, n), ngrams(reference, n)
    shared = sum(count for gram, count in ours.items() if gram in theirs)
    recall, precision = shared / theirs.total(), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "count too often",
                ),
                (
                    """
def rouge_n(summary, reference, n):
    ours, theirs = ngrams(summary, n), ngrams(reference, n)
    shared = sum(count for gram, count in theirs.items() if gram in ours)
    recall, precision = shared / theirs.total(), shared / max(1, ours.total())
    return recall, precision, 2 * recall * precision / max(1e-9, recall + precision)
""",
                    "count too often",
                ),
            ],
        ),
        "exercise-2": (
            "my_rougeL_recall = 4 / 12\nmy_rougeLsum_recall = 8 / 12",
            [
                (
                    "my_rougeL_recall = 8 / 12\nmy_rougeLsum_recall = 8 / 12",
                    "rougeL: all lines in one sequence",
                ),
                (
                    "my_rougeL_recall = 4 / 12\nmy_rougeLsum_recall = 4 / 12",
                    "rougeLsum: for each line",
                ),
            ],
        ),
        "exercise-3": (
            "import math\n\nrows_needed = math.ceil((1.96 * s / 0.23) ** 2)",
            [
                ("rows_needed = (1.96 * s / 0.23) ** 2", "no whole number"),
                ("rows_needed = 238", "too few"),
                ("rows_needed = 10**6", "more than needed"),
            ],
        ),
    },
    "stage_3_trainer": {
        "exercise-1": (
            "loss_of_a_guess = math.log(len(tokenizer))",
            [
                ("loss_of_a_guess = math.log(1 / len(tokenizer))", "the loss is minus that"),
                ("loss_of_a_guess = math.log2(len(tokenizer))", "natural logarithm"),
            ],
        ),
        "exercise-2": (
            """
def steps_per_epoch(rows, batch_size, gradient_accumulation_steps, processes):
    return math.ceil(rows / (batch_size * gradient_accumulation_steps * processes))
""",
            [
                (
                    """
def steps_per_epoch(rows, batch_size, gradient_accumulation_steps, processes):
    return rows // (batch_size * gradient_accumulation_steps * processes)
""",
                    "where do the last rows go",
                ),
                (
                    """
def steps_per_epoch(rows, batch_size, gradient_accumulation_steps, processes):
    return math.ceil(rows / batch_size)
""",
                    "how many rows has a step",
                ),
            ],
        ),
        "exercise-3": (
            """
def learning_rate(step, max_steps, first):
    return first * (max_steps - step + 1) / max_steps
""",
            [
                (
                    "def learning_rate(step, max_steps, first):\n"
                    "    return first * (max_steps - step) / max_steps",
                    "how many steps came before it",
                )
            ],
        ),
    },
    "stage_4_accelerate": {
        "exercise-1": (
            """
def step_loss(batches):
    return sum(map(sum, batches)) / sum(map(len, batches))
""",
            [
                (
                    "def step_loss(batches):\n"
                    "    return np.mean([np.mean(batch) for batch in batches])",
                    "each place should weigh the same",
                ),
                ("def step_loss(batches):\n    return sum(map(sum, batches))", "you say"),
            ],
        ),
        "exercise-2": (
            """
def training_step(model, optimizer, lr_scheduler, step_batches):
    loss, grad_norm = step_gradients(model, step_batches)
    optimizer.step()
    lr_scheduler.step()
    optimizer.zero_grad()
    return loss
""",
            [
                (
                    """
def training_step(model, optimizer, lr_scheduler, step_batches):
    optimizer.zero_grad()
    loss, grad_norm = step_gradients(model, step_batches)
    optimizer.step()
    lr_scheduler.step()
    return loss
""",
                    "Right",
                ),
                (
                    """
def training_step(model, optimizer, lr_scheduler, step_batches):
    return step_gradients(model, step_batches)[0]
""",
                    "where is optimizer.step()",
                ),
                (
                    """
def training_step(model, optimizer, lr_scheduler, step_batches):
    loss, grad_norm = step_gradients(model, step_batches)
    optimizer.step()
    optimizer.zero_grad()
    return loss
""",
                    "where is lr_scheduler.step()",
                ),
                (
                    """
def training_step(model, optimizer, lr_scheduler, step_batches):
    loss, grad_norm = step_gradients(model, step_batches)
    lr_scheduler.step()
    optimizer.step()
    optimizer.zero_grad()
    return loss
""",
                    "optimizer.step() comes first",
                ),
                (
                    """
def training_step(model, optimizer, lr_scheduler, step_batches):
    loss, grad_norm = step_gradients(model, step_batches)
    for _ in range(2):
        optimizer.step()
        lr_scheduler.step()
    optimizer.zero_grad()
    return loss
""",
                    "optimizer.step() was called 2 times",
                ),
                (
                    """
def training_step(model, optimizer, lr_scheduler, step_batches):
    loss, grad_norm = step_gradients(model, step_batches)
    optimizer.zero_grad()
    optimizer.step()
    lr_scheduler.step()
    return loss
""",
                    "optimizer.step() found no gradients",
                ),
                (
                    """
def training_step(model, optimizer, lr_scheduler, step_batches):
    loss, grad_norm = step_gradients(model, step_batches)
    optimizer.step()
    lr_scheduler.step()
    return loss
""",
                    "where is optimizer.zero_grad()",
                ),
            ],
        ),
        "exercise-3": (
            """
def rows_gathered(rows, batch_size, processes):
    round_ = batch_size * processes
    return -(-rows // round_) * round_
""",
            [("def rows_gathered(rows, batch_size, processes):\n    return rows", "is filled up")],
        ),
    },
    "stage_5_prediction": {
        "exercise-1": (
            """
@torch.inference_mode()
def greedy(review):
    inputs = tokenizer(review, return_tensors="pt")
    written = start
    for _ in range(30):
        piece = model(**inputs, decoder_input_ids=written).logits[0, -1].argmax()
        if piece == tokenizer.eos_token_id:
            break
        written = torch.cat([written, piece.view(1, 1)], dim=1)
    return tokenizer.decode(written[0], skip_special_tokens=True)
""",
            [
                (
                    'def greedy(review):\n    return review[:30] + "..."',
                    "append one piece at a time with torch.cat, 30 at most",
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
        piece = model(**inputs, decoder_input_ids=written).logits[0, -1].argmax()
        if piece == tokenizer.eos_token_id:
            break
        written = torch.cat([written, piece.view(1, 1)], dim=1)
    return tokenizer.decode(written[0], skip_special_tokens=True)
""",
                    "append one piece at a time with torch.cat, 30 at most",
                ),
            ],
        ),
        "exercise-2": (
            "worst = np.argsort(model_rows.rouge1 - lead_rows.rouge1)[:5].tolist()",
            [
                (
                    "worst = np.argsort(lead_rows.rouge1 - model_rows.rouge1)[:5].tolist()",
                    "not the five smallest",
                ),
                ("worst = [0, 0, 0, 0, 0]", "five different row numbers"),
            ],
        ),
        "exercise-3": (
            """
def new_words(summary, review):
    known, summary = set(words(review)), words(summary)
    return sum(word not in known for word in summary) / max(1, len(summary))
""",
            [
                (
                    "def new_words(summary, review):\n"
                    "    known, summary = set(words(review)), set(words(summary))\n"
                    "    return len(summary & known) / max(1, len(summary))",
                    "you say",
                ),
                (
                    "def new_words(summary, review):\n"
                    "    known, summary = set(words(review)), set(words(summary))\n"
                    "    return len(summary - known) / max(1, len(summary))",
                    "you say",
                ),
            ],
        ),
    },
}
