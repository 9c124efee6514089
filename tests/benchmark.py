"""Measure what README.md and tests/README.md say about speed and memory.

    python tests/benchmark.py train      # one mt5-small, trained and evaluated in five ways
    python tests/benchmark.py profile    # where the steps of train_accelerate.py's loop go
    python tests/benchmark.py start      # seconds from the shell to the answer
    python tests/benchmark.py predict    # predict.py beside CTranslate2 (pip install ctranslate2)
    python tests/benchmark.py scale      # seconds and memory with 1, 10 and 100 times the rows

The scripts run as commands, on a GPU if there is one. `train`, `profile` and `predict` use a model
of mt5-small's shape with random weights and the sample's reviews, so nothing needs a network.
"""

import argparse
import json
import os
import platform
import pty
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import torch
import transformers
from accelerate import Accelerator
from rouge_score.rouge_scorer import RougeScorer
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq
from transformers.trainer_pt_utils import LengthGroupedSampler

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data/prepared/sample"
CUDA = torch.cuda.is_available()
PIECES, KEPT_PIECES = 250_112, 20_000  # of mt5-small, and about what the chapter's corpus uses
LAST_LINE = "Epoch 1: |Epoch 1.*loss|eval_runtime"  # of a training of one epoch
WAYS = {
    "a": "the chapter's loop, fp32",
    "b": "stock `Seq2SeqTrainer`, fp32",
    "c": "`train_trainer.py`",
    "d": "`train_accelerate.py`",
    "e": f"(d), trimmed to {KEPT_PIECES:,} pieces",
}
# On a GPU, the allocator of the CPU does not matter.
TCMALLOC = [] if CUDA else sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))
ALLOCATORS = {"": None, ", tcmalloc": TCMALLOC[0]} if TCMALLOC else {"": None}

# ---- The checkpoints and the data ----------------------------------------------------------------


def prepare(folder, train_rows=1, validation_rows=1):
    """Save in ``folder`` so many of the sample's rows and full/, a model of mt5-small's shape.

    The tokenizer is the sample's, filled up with pieces that no review has.
    """
    if not (DATA / "dataset_dict.json").exists():
        subprocess.run([sys.executable, "prepare_data.py"], cwd=ROOT, check=True)
    books = datasets.load_from_disk(DATA)
    for split, size in (("train", train_rows), ("validation", validation_rows)):
        books[split] = books[split].select(range(size))
    books.save_to_disk(folder / "data")
    shutil.copy(DATA / "arguments.json", folder / "data")

    torch.manual_seed(0)
    config = transformers.MT5Config(initializer_factor=0.05, vocab_size=PIECES)
    model = transformers.MT5ForConditionalGeneration(config)
    config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(0.05 * torch.randn_like(model.shared.weight))
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-mt5")
    model.save_pretrained(folder / "full")
    tokenizer.save_pretrained(folder / "full")
    content = json.loads((folder / "full/tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary += [[f"▁unused{i}", -9.0] for i in range(len(vocabulary), PIECES - 12)]
    (folder / "full/tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def trim(folder):
    """Make trimmed/ of full/ with data/trim_vocab.py, from a corpus with so many pieces."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "full")
    pieces = tokenizer.convert_ids_to_tokens(range(KEPT_PIECES))
    texts = [piece.removeprefix("▁") for piece in pieces]
    words = datasets.Dataset.from_dict({"review_body": texts, "review_title": texts})
    datasets.DatasetDict({"train": words}).save_to_disk(folder / "words")
    watch(["data/trim_vocab.py", folder / "full", folder / "words", folder / "trimmed"])


def load(folder):
    """Return the tokenizer, the model in fp32 and the rows, tokenized as the chapter does."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "full")
    books = datasets.load_from_disk(folder / "data")

    def preprocess_function(examples):
        model_inputs = tokenizer(examples["review_body"], max_length=512, truncation=True)
        labels = tokenizer(examples["review_title"], max_length=30, truncation=True)
        model_inputs["labels"] = labels["input_ids"]
        return model_inputs

    columns = books["train"].column_names
    books = books.map(preprocess_function, batched=True, remove_columns=columns)
    return tokenizer, AutoModelForSeq2SeqLM.from_pretrained(folder / "full"), books


# ---- Ways (a) and (b), and the loop to profile ---------------------------------------------------


def compute_rouge(tokenizer, *ids):
    """Return the mean ROUGE-1 of titles and summaries, given as ids, padded with 0 or -100."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    texts = [tokenizer.batch_decode(np.maximum(rows, 0), skip_special_tokens=True) for rows in ids]
    return np.mean([scorer.score(*pair)["rouge1"].fmeasure for pair in zip(*texts, strict=True)])


def run_chapter(folder, batch_size):
    """Train and evaluate for one epoch with the chapter's loop, as it is written there."""
    tokenizer, model, books = load(folder)
    books.set_format("torch")
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    train_dataloader = DataLoader(
        books["train"], shuffle=True, collate_fn=collator, batch_size=batch_size
    )
    eval_dataloader = DataLoader(books["validation"], collate_fn=collator, batch_size=batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    accelerator = Accelerator()
    model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader
    )
    steps = len(train_dataloader)
    lr_scheduler = transformers.get_scheduler("linear", optimizer, 0, steps)
    progress_bar = tqdm(range(steps))
    model.train()
    for batch in train_dataloader:
        outputs = model(**batch)
        loss = outputs.loss
        accelerator.backward(loss)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        progress_bar.update(1)

    model.eval()
    for batch in eval_dataloader:
        with torch.no_grad():
            generated_tokens = accelerator.unwrap_model(model).generate(
                batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            generated_tokens = accelerator.gather(generated_tokens).cpu().numpy()
            labels = accelerator.gather(batch["labels"]).cpu().numpy()
            result = compute_rouge(tokenizer, labels, generated_tokens)
    print("\nEpoch 1:", result)


def run_stock(folder, batch_size):
    """Train and evaluate for one epoch with ``Seq2SeqTrainer`` and its default arguments."""
    tokenizer, model, books = load(folder)
    args = {f"per_device_{name}_batch_size": batch_size for name in ("train", "eval")}
    args |= {"num_train_epochs": 1, "predict_with_generate": True, "report_to": "none"}
    args["save_strategy"] = "no"  # saving is not measured
    trainer = transformers.Seq2SeqTrainer(
        model,
        transformers.Seq2SeqTrainingArguments(tempfile.mkdtemp(), **args),
        train_dataset=books["train"],
        eval_dataset=books["validation"],
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_metrics=lambda x: {"rouge1": compute_rouge(tokenizer, x.label_ids, x.predictions)},
    )
    trainer.train()
    print("\nEpoch 1:", trainer.evaluate())


def benchmark_profile(args, folder):
    """Print what takes the time in the steps of a loop like that of train_accelerate.py."""
    bf16 = args.bf16
    if bf16 is None:  # as the scripts decide it
        able = {} if CUDA else torch.cpu.get_capabilities()
        bf16 = CUDA or bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
    prepare(folder, (3 + 2 * args.steps) * args.batch_size)
    tokenizer, model, books = load(folder)
    rows = books["train"].to_list()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01, fused=True)
    dataloader = DataLoader(
        rows,
        sampler=LengthGroupedSampler(args.batch_size, rows),
        collate_fn=DataCollatorForSeq2Seq(tokenizer, model=model),
        batch_size=args.batch_size,
    )
    model, optimizer, dataloader = accelerator.prepare(model.train(), optimizer, dataloader)
    batches = iter(dataloader)

    def train(steps):
        """Train for so many steps; return the seconds of one of them."""
        started = time.perf_counter()
        for _ in range(steps):
            accelerator.backward(model(**next(batches)).loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if CUDA:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / steps

    train(3)  # takes memory and starts the GPU
    plain = train(args.steps)
    with torch.profiler.profile() as profiler:  # of the CPU and, if there is one, the GPU
        profiled = train(args.steps)
    print(f"{describe_machine()}; batch {args.batch_size}, {'bf16' if bf16 else 'fp32'}")
    print(f"A step takes {plain:.4f} s, with the profiler {profiled:.4f} s. {args.steps} steps:")
    rows = profiler.key_averages()
    # The time of a GPU is listed twice, for an operation and for its kernel.
    for column, count in (("self_cuda_time_total", 20), ("self_cpu_time_total", 10))[not CUDA :]:
        print(f"\nThe largest rows by {column}")
        print(rows.table(sort_by=column, row_limit=count, max_name_column_width=60))


# ---- Running commands ----------------------------------------------------------------------------


def memory(pid):
    """Return the GiB in use: of the whole GPU or, without one, by a process, files left out."""
    if CUDA:
        free, total = torch.cuda.mem_get_info()
        return (total - free) / 2**30
    status = Path(f"/proc/{pid}/status").read_text()
    size = re.search(r"RssAnon:\s+(\d+)", status)  # not there when the process is about to end
    return int(size[1]) / 2**20 if size else 0.0


def watch(command, steps=0, last_line="", library=None):
    """Run a Python command to its end or until it prints ``last_line``, a pattern.

    It gets a terminal, so that it shows progress bars. Returns the seconds from its start at which
    the bar of so many ``steps`` was at each of them, at which the command ended ("end"), those of
    the CPU ("cpu"), and the most memory in GiB ("peak").
    """
    command = [sys.executable, *map(str, command)]
    environment = {**os.environ, "TQDM_MININTERVAL": "0", "HF_HUB_OFFLINE": "1"}
    if library:
        environment["LD_PRELOAD"] = str(library)
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, 100))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as environment["TMPDIR"]:
        measured, output, code, peak, started = {}, "", 0, 0.0, time.perf_counter()
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=inner, stdout=inner, stderr=inner
        )
        os.close(inner)
        before = memory(process.pid)  # others may use some of the GPU
        try:
            while not (last_line and re.search(last_line, output)):
                if select.select([terminal], [], [], 0.02)[0]:
                    output += os.read(terminal, 2**16).decode(errors="replace")
                for step in re.findall(rf"\b(\d+)/{steps} \[", output):
                    measured.setdefault(int(step), time.perf_counter() - started)
                peak = max(peak, memory(process.pid) - before)
        except OSError:  # the terminal is closed when the command has ended
            code = -1 if last_line else process.wait()
        finally:
            measured["end"] = time.perf_counter() - started
            process.kill()
            process.wait()
            os.close(terminal)
    if code:
        raise RuntimeError(f"{' '.join(command)} ended:\n{output[-3000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    return measured | {"cpu": seconds, "peak": peak}


def print_table(titles, rows):
    """Print a table in Markdown, each row as soon as it is there."""
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def describe_machine(size=4096):
    """Return the device, what a large matrix product reaches there, and the versions."""
    cpu = Path("/proc/cpuinfo").read_text()
    name = re.search("model name.*: (.*)", cpu)[1]
    device = f"{len(os.sched_getaffinity(0))} cores of {name}"
    parts = [torch.cuda.get_device_name() if CUDA else device]
    has_bf16 = CUDA or re.search("_bf16", cpu)  # a product takes minutes on a CPU without bf16
    for dtype in (torch.float32, torch.bfloat16)[: 2 if has_bf16 else 1]:
        matrix, seconds = torch.randn(size, size, device="cuda" if CUDA else "cpu").to(dtype), []
        for _ in range(5):
            started = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            seconds.append(time.perf_counter() - started)
        parts.append(f"{2 * size**3 / min(seconds) / 1e9:,.0f} GFLOP/s in {dtype}")
    parts.append(f"Python {platform.python_version()}")
    parts += [f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")]
    return "; ".join(parts)


# ---- The measurements ----------------------------------------------------------------------------


def benchmark_train(args, folder):
    """Measure each way in a process of its own, in turn, and print the table of the medians."""
    size, precision = args.batch_size, {None: [], True: ["--bf16"], False: ["--no-bf16"]}[args.bf16]
    steps = args.rows // size if args.rows else 100 if CUDA else 30
    prepare(folder, steps * size, args.eval_rows)
    if "e" in args.ways:
        trim(folder)
    own = [__file__, "way", "--folder", folder, "--batch-size", size, "--ways"]
    flags = ["--preset", "amazon", "--data", folder / "data", "--output-dir", folder / "output"]
    flags += ["--batch-size", size, "--epochs", 1, *precision, "--model"]
    commands = {
        "a": [*own, "a"],
        "b": [*own, "b"],
        "c": ["train_trainer.py", *flags, folder / "full"],
        "d": ["train_accelerate.py", *flags, folder / "full"],
        "e": ["train_accelerate.py", *flags, folder / "trimmed"],
    }
    results = {(way, name): [] for name in ALLOCATORS for way in args.ways}
    for way, name in [key for _ in range(args.rounds or (1 if CUDA else 2)) for key in results]:
        try:
            row = watch(commands[way], steps, LAST_LINE, ALLOCATORS[name])
        except RuntimeError as error:
            print(f"({way}){name} failed: {error}", file=sys.stderr)
            continue
        shutil.rmtree(folder / "output", ignore_errors=True)
        # The first step is left out: it takes memory and starts the GPU.
        rate = size * (steps - 1) / (row[steps] - row[1])
        results[way, name].append((rate, row["end"] - row[steps], row["peak"]))
        print(f"({way}){name}", results[way, name][-1], file=sys.stderr, flush=True)
    rows = []
    medians = {key: np.median(values, axis=0) for key, values in results.items() if values}
    for (way, name), row in medians.items():
        # With tcmalloc, the second ratio is to (a) without it.
        ratios = (row / [medians["a", other] for other in dict.fromkeys((name, ""))]).T
        rate, speed, peak = (", ".join(f"{x:.2f}" for x in y) for y in ratios ** [[1], [-1], [1]])
        cells = [f"({way}) {WAYS[way]}{name}", f"{row[0]:.2f}", rate, f"{row[1]:.2f} s", speed]
        rows.append([*cells, f"{row[2]:.2f} GiB", peak])
    work = [f"{steps} steps of {size} rows, {args.eval_rows} rows evaluated", *precision]
    print(f"\n{describe_machine()}; {' '.join(work)}")
    print_table(["way", "examples/s", "× (a)", "evaluation", "× (a)", "memory", "of (a)"], rows)


def benchmark_start(args, folder):
    """Print how long a user waits for the answer of short commands, the best of three."""
    print(describe_machine())
    few = ["--max-train-samples", 32, "--epochs", 1]
    watch(["train_trainer.py", *few, "--output-dir", folder / "model"])
    commands = {
        'predict.py "A good book."': ["predict.py", "--model", folder / "model", "A good book."],
        "baseline.py": ["baseline.py", "--output-dir", folder / "baseline"],
        "train_trainer.py --help": ["train_trainer.py", "--help"],
    }
    for package in ("torch", "transformers", "datasets"):
        commands[f'-c "import {package}"'] = ["-c", f"import {package}"]

    def measure(name):
        runs = [watch(commands[name]) for _ in range(3)]
        return [f"`python {name}`", *(f"{min(r[x] for r in runs):.1f}" for x in ("end", "cpu"))]

    print_table(["command", "seconds", "of the CPU"], map(measure, commands))


def benchmark_predict(args, folder):
    """Print the best seconds for the reviews of a file, from the first batch to the last one."""
    from ctranslate2 import Translator
    from ctranslate2.converters import TransformersConverter

    rows, size = args.rows or 128, args.batch_size
    batches, best = -(-rows // size), {}  # of one batch, predict.py shows no bar
    prepare(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "full")
    reviews = datasets.load_from_disk(DATA)["test"].select(range(rows))
    reviews.select_columns("review_body").to_json(folder / "reviews.jsonl")
    command = ["predict.py", "--preset", "amazon", "--model", folder / "full", "--batch-size", size]
    command += ["--input", folder / "reviews.jsonl", "--output", folder / "titles.csv"]
    for kind in ("float32", "int8"):
        TransformersConverter(str(folder / "full")).convert(folder / kind, quantization=kind)

    def translate(kind):
        device = {"device": "cuda"} if CUDA else {"intra_threads": os.cpu_count()}
        translator = Translator(str(folder / kind), compute_type=kind, **device)
        started = time.perf_counter()
        ids = tokenizer(reviews["review_body"][:])["input_ids"]
        pieces = [tokenizer.convert_ids_to_tokens(row) for row in ids]
        titles = translator.translate_batch(
            pieces, beam_size=1, max_decoding_length=30, max_batch_size=size
        )
        ids = [tokenizer.convert_tokens_to_ids(title.hypotheses[0]) for title in titles]
        tokenizer.batch_decode(ids, skip_special_tokens=True)
        return time.perf_counter() - started

    for _ in range(args.rounds or 2):
        seconds = {f"CTranslate2, {kind}": translate(kind) for kind in ("float32", "int8")}
        for flag in ("--no-bf16", "--bf16"):
            for name, library in ALLOCATORS.items():
                row = watch([*command, flag], batches, "titles.csv", library)
                seconds[f"`predict.py {flag}`{name}"] = row[batches] - row[0]
        best = {way: min(best.get(way, x), x) for way, x in seconds.items()}
    print(f"\n{describe_machine()}; {rows} reviews in batches of {size}")
    rows = [[k, f"{x:.2f}", f"{x / best['CTranslate2, int8']:.2f}"] for k, x in best.items()]
    print_table(["way", "seconds", "of CTranslate2 int8"], rows)


def benchmark_scale(args, folder):
    """Print CPU seconds and memory of each script for the sample's rows, repeated with new ids."""

    def measure(times):
        here = folder / str(times)
        data, short, model = here / "data", here / "short", here / "train_trainer"
        (here / "reviews").mkdir(parents=True)
        for path in sorted((ROOT / "data/sample").glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            with open(here / "reviews" / path.name, "w", encoding="utf-8") as file:
                for number in range(times):
                    for row in rows:
                        row = row | {"review_id": f"{row['review_id']}_{number}"}
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        runs = [watch(["prepare_data.py", "--dataset", here / "reviews", "--data", data])]
        runs.append(watch(["baseline.py", "--data", data, "--output-dir", here / "baseline"]))
        books = datasets.load_from_disk(data)
        cells = [f"{sum(map(len, books.values())):,}"]
        # The trainings evaluate few rows, since predict.py takes the whole split.
        books["validation"] = books["validation"].select(range(64))
        books.save_to_disk(short)
        shutil.copy(data / "arguments.json", short)
        flags = ["--data", short, "--model", data / "tiny-mt5", "--epochs", 1]
        flags += ["--max-train-samples", args.rows or 4800, "--output-dir"]
        for script in ("train_accelerate", "train_trainer"):
            runs.append(watch([f"{script}.py", *flags, here / script]))
        flags = ["--model", model, "--batch-size", 128]
        runs.append(watch(["predict.py", *flags, "--data", data, "--split", "validation"]))
        flags += ["--input", here / "reviews/en_validation.jsonl"]
        runs.append(watch(["predict.py", *flags, "--output", here / "titles.csv"]))
        shutil.rmtree(here)
        return [*cells, *(f"{run['cpu']:.0f} s, {run['peak']:.2f} GiB" for run in runs)]

    titles = ["prepare_data.py", "baseline.py", "train_accelerate.py", "train_trainer.py"]
    titles = ["books", *titles, "predict.py --split", "predict.py --input"]
    print_table(titles, map(measure, args.scales))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=["train", "profile", "start", "predict", "scale", "way"])
    add("--batch-size", type=int, help="8, for predict 64")
    add("--bf16", action=argparse.BooleanOptionalAction, help="for the scripts (if they can)")
    add("--rounds", type=int, help="of train and predict (2; for train on a GPU 1)")
    add("--rows", type=int, help="to train on (30 batches; on a GPU 100) or to predict (128)")
    add("--eval-rows", type=int, default=64, help="to evaluate (64)")
    add("--steps", type=int, default=20, help="to profile (20)")
    add("--scales", type=int, nargs="+", default=[1, 10, 100], help="of scale (1 10 100)")
    add("--ways", default="abcde", help="to train; (a) must be among them (abcde)")
    add("--folder", type=Path, help="for way, which train starts")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    args.batch_size = args.batch_size or (64 if args.what == "predict" else 8)
    if args.what == "way":
        {"a": run_chapter, "b": run_stock}[args.ways](args.folder, args.batch_size)
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        globals()[f"benchmark_{args.what}"](args, Path(folder))


if __name__ == "__main__":
    main()
