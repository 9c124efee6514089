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
import select
import shutil
import statistics
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
PIECES, KEPT_PIECES = 250_112, 20_000  # of mt5-small, and about what a trimmed one keeps
WAYS = {
    "a": "the chapter's loop, fp32",
    "b": "stock `Seq2SeqTrainer`, fp32",
    "c": "`train_trainer.py`",
    "d": "`train_accelerate.py`",
    "e": f"(d), {KEPT_PIECES:,} pieces",
}

# ---- The checkpoints and the data ----------------------------------------------------------------


def prepare(folder, train_rows=1, validation_rows=1):
    """Save in ``folder`` so many of the sample's rows and two checkpoints, full/ and trimmed/.

    The first has mt5-small's shape, the second has only the first of its pieces. The tokenizer is
    the sample's, filled up with pieces that no review has.
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
    for name, pieces in (("full", PIECES), ("trimmed", KEPT_PIECES)):
        model.resize_token_embeddings(pieces)  # keeps the first rows of embeddings and head
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        content = json.loads((folder / name / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        vocabulary += [[f"▁unused{i}", -20.0] for i in range(len(vocabulary), pieces - 12)]
        (folder / name / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


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


def compute_rouge(tokenizer, predictions, labels):
    """Return the mean ROUGE-1 of ids, padded with the pad token or -100."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    ids = [np.where(rows < 0, tokenizer.pad_token_id, rows) for rows in (labels, predictions)]
    texts = [tokenizer.batch_decode(rows, skip_special_tokens=True) for rows in ids]
    scores = [scorer.score(*pair)["rouge1"].fmeasure for pair in zip(*texts, strict=True)]
    return {"rouge1": statistics.mean(scores)}


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
            result = compute_rouge(tokenizer, generated_tokens, labels)
    print("\nEpoch 1:", result)


def run_stock(folder, batch_size):
    """Train and evaluate for one epoch with ``Seq2SeqTrainer`` and its default arguments."""
    tokenizer, model, books = load(folder)
    args = transformers.Seq2SeqTrainingArguments(
        tempfile.mkdtemp(),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        predict_with_generate=True,
        save_strategy="no",  # saving is not measured
        report_to="none",
    )
    trainer = transformers.Seq2SeqTrainer(
        model,
        args,
        train_dataset=books["train"],
        eval_dataset=books["validation"],
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_metrics=lambda pair: compute_rouge(tokenizer, pair.predictions, pair.label_ids),
    )
    trainer.train()
    print("\nEpoch 1:", trainer.evaluate())


def benchmark_profile(args):
    """Print what takes the time in the steps of a loop like that of train_accelerate.py."""
    bf16 = args.bf16
    if bf16 is None:  # as the scripts decide it
        able = torch.cpu.get_capabilities()
        bf16 = CUDA or bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        prepare(Path(folder), (3 + 2 * args.steps) * args.batch_size)
        tokenizer, model, books = load(Path(folder))
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


def resident_memory(pid):
    """Return the GiB that a process holds, pages of mapped files left out."""
    status = Path(f"/proc/{pid}/status").read_text()
    size = re.search(r"RssAnon:\s+(\d+)", status)  # not there when the process is about to end
    return int(size[1]) / 2**20 if size else 0.0


def memory(pid):
    """Return the GiB in use: of the whole GPU or, without one, by a process."""
    if not CUDA:
        return resident_memory(pid)
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def watch(command, steps, last_line, preload=None):
    """Run a command until it prints ``last_line``, a pattern, and end it then.

    It gets a terminal, so that it shows progress bars. Returns when the bar of so many ``steps``
    was at each of them, when the line came, both in seconds, and the most memory in GiB.
    """
    environment = {**os.environ, "TQDM_MININTERVAL": "0", "HF_HUB_OFFLINE": "1"}
    if preload:
        environment["LD_PRELOAD"] = str(preload)
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, 100))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as environment["TMPDIR"]:
        command = [sys.executable, *map(str, command)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=inner, stdout=inner, stderr=inner
        )
        os.close(inner)
        output, seconds = "", {}
        peak = before = memory(process.pid)  # of a GPU, others may use some
        try:
            while not re.search(last_line, output):
                if select.select([terminal], [], [], 0.02)[0]:
                    output += os.read(terminal, 2**16).decode(errors="replace")
                now = time.perf_counter()
                for step in re.findall(rf"\b(\d+)/{steps} \[", output):
                    seconds.setdefault(int(step), now)
                peak = max(peak, memory(process.pid))
        except OSError:  # the terminal was closed, as the command has ended
            raise RuntimeError(f"{' '.join(command)} ended:\n{output[-3000:]}") from None
        finally:
            process.kill()
            process.wait()
            os.close(terminal)
    return seconds, now, peak - before


def find_allocators():
    """Return {name: its library or None}; on a GPU the allocator of the CPU does not matter."""
    found = sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))
    return {"": None, **({", tcmalloc": found[0]} if found and not CUDA else {})}


def describe_machine(size=4096):
    """Return the device, what a large matrix product reaches there, and the versions."""
    cores, names = len(os.sched_getaffinity(0)), Path("/proc/cpuinfo").read_text()
    device = f"{cores} cores of {re.search('model name.*: (.*)', names)[1]}"
    device = torch.cuda.get_device_name() if CUDA else device
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size, device="cuda" if CUDA else "cpu").to(dtype)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            seconds.append(time.perf_counter() - started)
        rates.append(f"{2 * size**3 / min(seconds) / 1e9:,.0f}")
    packages = [f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate")]
    return (
        f"{device} (matrix products: {rates[0]} GFLOP/s in fp32, {rates[1]} in bf16), "
        f"Python {platform.python_version()}, {', '.join(packages)}"
    )


def precision(args):
    """Return --bf16 or --no-bf16 as they were given, for a script."""
    return [] if args.bf16 is None else ["--bf16" if args.bf16 else "--no-bf16"]


# ---- train ---------------------------------------------------------------------------------------


def benchmark_train(args):
    """Measure each way in a process of its own, in turn, and print the table of the medians."""
    steps = args.rows // args.batch_size if args.rows else 100 if CUDA else 30
    rounds = args.rounds or (1 if CUDA else 2)
    allocators = find_allocators()
    results = {(way, name): [] for name in allocators for way in args.ways}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        folder = Path(folder)
        prepare(folder, steps * args.batch_size, args.eval_rows)
        flags = ["--preset", "amazon", "--data", folder / "data", "--output-dir", folder / "output"]
        flags += ["--batch-size", args.batch_size, "--epochs", 1, *precision(args)]
        own = [__file__, "way", "--folder", folder, "--batch-size", args.batch_size, "--ways"]
        commands = {
            "a": [*own, "a"],
            "b": [*own, "b"],
            "c": ["train_trainer.py", *flags, "--model", folder / "full"],
            "d": ["train_accelerate.py", *flags, "--model", folder / "full"],
            "e": ["train_accelerate.py", *flags, "--model", folder / "trimmed"],
        }
        for way, name in [key for _ in range(rounds) for key in results]:
            try:
                seconds, end, peak = watch(
                    commands[way], steps, "Epoch 1:|eval_runtime", allocators[name]
                )
            except RuntimeError as error:
                print(f"({way}){name} failed: {error}", file=sys.stderr)
                continue
            shutil.rmtree(folder / "output", ignore_errors=True)
            # The first step is left out: it takes memory and starts the GPU.
            rate = args.batch_size * (steps - 1) / (seconds[steps] - seconds[1])
            results[way, name].append((rate, end - seconds[steps], peak))
            numbers = "{:.2f} examples/s, {:.2f} s, {:.2f} GiB".format(*results[way, name][-1])
            print(f"({way}){name}: {numbers}", file=sys.stderr, flush=True)
    work = f"{steps} steps of {args.batch_size} rows, {args.eval_rows} rows evaluated"
    print(f"\n{describe_machine()}; {' '.join([work, *precision(args)])}\n")
    print(
        "| way | examples/s | × (a) | evaluation | × (a) | memory | of (a) |\n" + "|---" * 7 + "|"
    )
    medians = {key: np.median(values, axis=0) for key, values in results.items() if values}
    for (way, name), row in medians.items():
        # With tcmalloc, the second ratio is to (a) without it.
        base = [medians["a", other] for other in dict.fromkeys((name, ""))]
        training, evaluation, peak = (
            ", ".join(f"{value:.2f}" for value in column)
            for column in (row / base).T ** [[1], [-1], [1]]
        )
        cells = [f"({way}) {WAYS[way]}{name}", f"{row[0]:.2f}", training, f"{row[1]:.2f} s"]
        print(f"| {' | '.join(cells)} | {evaluation} | {row[2]:.2f} GiB | {peak} |")


# ---- start, predict, scale -----------------------------------------------------------------------


def run(*command):
    """Run a Python command to its end; return its CPU seconds and the most GiB that it held."""
    command = [sys.executable, *map(str, command)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        peak, ended = 0.0, 0
        while not ended:
            peak = max(peak, resident_memory(process.pid))
            time.sleep(0.02)
            ended, code, used = os.wait4(process.pid, os.WNOHANG)
        output.seek(0)
        if code:
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()[-3000:]}")
    return used.ru_utime + used.ru_stime, peak


def benchmark_start(args):
    """Print how long a user waits for the answer of short commands, the best of three."""
    print(f"{describe_machine()}\n\n| command | seconds |\n|---|---|")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        run("train_trainer.py", "--max-train-samples", 32, "--epochs", 1, "--output-dir", folder)
        commands = {
            'predict.py "A good book."': ["predict.py", "--model", folder, "A good book."],
            "baseline.py": ["baseline.py", "--output-dir", f"{folder}/baseline"],
            "train_trainer.py --help": ["train_trainer.py", "--help"],
        }
        for package in ("torch", "transformers", "datasets", "evaluate"):
            commands[f"-c 'import {package}'"] = ["-c", f"import {package}"]
        for name, command in commands.items():
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                run(*command)
                seconds.append(time.perf_counter() - started)
            print(f"| `python {name}` | {min(seconds):.1f} |", flush=True)


def benchmark_predict(args):
    """Print the best seconds for the reviews of a file, from the first batch to the last one."""
    from ctranslate2 import Translator
    from ctranslate2.converters import TransformersConverter

    rows, size = args.rows or 128, args.batch_size or 64
    reviews = datasets.load_from_disk(DATA)["test"].select(range(rows))
    batches, results = -(-rows // size), {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        folder = Path(folder)
        prepare(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder / "full")
        reviews.select_columns("review_body").to_json(folder / "reviews.jsonl")
        command = ["predict.py", "--preset", "amazon", "--model", folder / "full", "--batch-size"]
        command += [size, "--input", folder / "reviews.jsonl", "--output", folder / "titles.csv"]
        for kind in ("float32", "int8"):
            TransformersConverter(str(folder / "full")).convert(folder / kind, quantization=kind)
        for _ in range(args.rounds or 2):
            for flag in ("--no-bf16", "--bf16"):
                for name, library in find_allocators().items():
                    seconds, _, _ = watch([*command, flag], batches, "Saved in", library)
                    times = results.setdefault(f"`predict.py {flag}`{name}", [])
                    times.append(seconds[batches] - seconds[0])
            for kind in ("float32", "int8"):
                device = "cuda" if CUDA else "cpu"
                translator = Translator(
                    str(folder / kind), device, compute_type=kind, intra_threads=os.cpu_count()
                )
                started = time.perf_counter()
                ids = tokenizer(reviews["review_body"][:])["input_ids"]
                titles = translator.translate_batch(
                    [tokenizer.convert_ids_to_tokens(row) for row in ids],
                    beam_size=1,
                    max_decoding_length=30,
                    max_batch_size=size,
                )
                ids = [tokenizer.convert_tokens_to_ids(title.hypotheses[0]) for title in titles]
                tokenizer.batch_decode(ids, skip_special_tokens=True)
                times = results.setdefault(f"CTranslate2, {kind}", [])
                times.append(time.perf_counter() - started)
                del translator
    best = {way: min(times) for way, times in results.items()}
    print(f"\n{describe_machine()}; {rows} reviews in batches of {size}\n")
    print("| way | seconds | of CTranslate2 int8 |\n|---|---|---|")
    for way, seconds in best.items():
        print(f"| {way} | {seconds:.2f} | {seconds / best['CTranslate2, int8']:.2f} |")


def benchmark_scale(args):
    """Print CPU seconds and memory of each script for the sample's rows, repeated with new ids."""
    titles = ["books", "`prepare_data.py`", "`baseline.py`", "`train_accelerate.py`"]
    titles += ["`train_trainer.py`", "`predict.py --split`", "`predict.py --input`"]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for times in args.scales:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            folder = Path(folder)
            reviews, data, short = folder / "reviews", folder / "data", folder / "short"
            reviews.mkdir()
            for path in sorted((ROOT / "data/sample").glob("*.jsonl")):
                rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                with open(reviews / path.name, "w", encoding="utf-8") as file:
                    for number in range(times):
                        for row in rows:
                            row = row | {"review_id": f"{row['review_id']}_{number}"}
                            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            measured = [run("prepare_data.py", "--dataset", reviews, "--data", data)]
            measured.append(run("baseline.py", "--data", data, "--output-dir", folder / "baseline"))
            # predict.py takes the whole validation split, a training only some of its rows.
            books = datasets.load_from_disk(data)
            count = sum(map(len, books.values()))
            books["validation"] = books["validation"].select(range(64))
            books.save_to_disk(short)
            shutil.copy(data / "arguments.json", short)
            flags = ["--data", short, "--model", data / "tiny-mt5", "--epochs", 1]
            flags += ["--max-train-samples", args.rows or 4800, "--output-dir"]
            for script in ("train_accelerate", "train_trainer"):
                measured.append(run(f"{script}.py", *flags, folder / script))
            command = ["predict.py", "--model", folder / "train_trainer", "--batch-size", 128]
            measured.append(run(*command, "--data", data, "--split", "validation"))
            files = ["--input", reviews / "en_validation.jsonl", "--output", folder / "titles.csv"]
            measured.append(run(*command, *files))
        cells = [f"{count:,}", *(f"{seconds:.0f} s, {peak:.2f} GiB" for seconds, peak in measured)]
        print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=["train", "profile", "start", "predict", "scale", "way"])
    add("--batch-size", type=int, help="8; for predict 64")
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
    if args.what != "predict":
        args.batch_size = args.batch_size or 8
    if args.what == "way":
        {"a": run_chapter, "b": run_stock}[args.ways](args.folder, args.batch_size)
    else:
        globals()[f"benchmark_{args.what}"](args)


if __name__ == "__main__":
    main()
