"""Measure what the README claims about speed.

python tests/benchmark.py rouge      # our ROUGE beside rouge_score's on 10,000 title pairs
python tests/benchmark.py train      # one mt5-small, trained and evaluated in five ways; 24 GiB
python tests/benchmark.py predict    # predict.py in fp32 and bf16 beside CTranslate2 (pip install ctranslate2==4.8.5)
python tests/benchmark.py quality    # ROUGE of five seeds with and without grouping and trimming, 20 minutes
python tests/benchmark.py pieces     # what --trim-vocab costs in pieces
python tests/benchmark.py scale      # CPU time and memory at 1, 10 and 100 times the sample's rows
python tests/benchmark.py train --data data/prepared/amazon --model google/mt5-small    # with the real ones
"""

import argparse
import functools
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets, load_from_disk
from rouge_score.rouge_scorer import RougeScorer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    MT5Config,
    MT5ForConditionalGeneration,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    get_scheduler,
)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import common  # noqa: E402
import predict  # noqa: E402
import train_accelerate  # noqa: E402
from common import ROUGE_TYPES, Rouge, load_checkpoint, postprocess_text, preprocess_function, trim_vocab  # noqa: E402

KEPT_PIECES = 20_000  # about what the real corpus would keep


def benchmark_rouge(pairs=10_000, rounds=3):
    """Return the best seconds of ours (sentences, Unicode words, stems by language) and of rouge_score."""
    rng, titles = random.Random(0), []
    for language in ("en", "es"):
        with open(ROOT / f"data/sample/{language}_train.jsonl", encoding="utf-8") as lines:
            titles += [(json.loads(line)["review_title"], language) for line in lines]
    references = rng.choices(titles, k=pairs)
    languages = [language for _, language in references]
    references = [title for title, _ in references]
    predictions = [rng.choice(titles)[0] for _ in references]
    ours, theirs = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        Rouge().compute(
            predictions=postprocess_text(predictions, languages),
            references=postprocess_text(references, languages),
            languages=languages,
            use_stemmer=True,
            use_aggregator=False,
        )
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
        for prediction, reference in zip(predictions, references, strict=True):
            scorer.score(reference, prediction)
        theirs.append(time.perf_counter() - started)
    return min(ours), min(theirs)


# ---- a full-size checkpoint without a network --------------------------------------------------


def save_full_size_tokenizer(tiny, folder, pieces=250_100):
    """Save the tokenizer of ``tiny``, filled up to mt5-small's size with letters and Chinese words."""
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    specification = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary, rng = specification["model"]["vocab"], random.Random(0)
    characters = [chr(number) for number in range(0x4E00, 0x9FA0)]
    single = [*map(chr, range(0x21, 0x180)), *"“”’—€"]  # as mT5 has
    known = {piece for piece, _ in vocabulary}
    vocabulary += [[character, -14.0] for character in single if character not in known]
    words = dict.fromkeys("▁" + "".join(rng.choices(characters, k=3)) for _ in range(pieces))
    vocabulary += [[word, rng.uniform(-20, -15)] for word in list(words)[: pieces - len(vocabulary)]]
    (folder / "tokenizer.json").write_text(json.dumps(specification), encoding="utf-8")


def save_full_size_model(folder, vocab_size=250_112):
    """Save and return a model of mt5-small's shape (``MT5Config``'s defaults, a head of its own), random weights."""
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(MT5Config(initializer_factor=0.05, vocab_size=vocab_size))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight).normal_(std=0.05))
    model.save_pretrained(folder)
    return model


def save_full_size_checkpoint(data, folder):
    save_full_size_tokenizer(Path(data, "tiny-mt5"), folder)
    save_full_size_model(folder)
    return str(folder)


# ---- five ways to train ------------------------------------------------------------------------

WAYS = {
    "a": "the chapter's loop",
    "b": "stock Seq2SeqTrainer",
    "c": "ours",
    "d": "ours, --trim-vocab",
    "e": "(d) with --no-bf16",
}
STEPS = {"a": 8, "b": 8, "c": 12, "d": 40, "e": 40}


def chapter_loop(model_name, data, steps):
    """The chapter's loop as written, with what its imports and names became; return evaluation seconds."""
    books, tokenizer = load_from_disk(data), AutoTokenizer.from_pretrained(model_name)
    model = AutoModelForSeq2SeqLM.from_pretrained(model_name)
    tokenized = books.map(
        preprocess_function, batched=True, fn_kwargs={"tokenizer": tokenizer, "config": model.config}
    )
    tokenized = tokenized.remove_columns(books["train"].column_names)
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    train_dataloader = DataLoader(tokenized["train"], shuffle=True, collate_fn=collator, batch_size=8)
    eval_dataloader = DataLoader(tokenized["validation"], collate_fn=collator, batch_size=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader
    )
    scheduler = get_scheduler("linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=steps)
    model.train()
    for _, batch in zip(range(steps), train_dataloader, strict=False):
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    started = time.perf_counter()
    model.eval()
    rouge = Rouge()
    for batch in eval_dataloader:
        with torch.no_grad():
            generated = accelerator.unwrap_model(model).generate(
                batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            generated = accelerator.pad_across_processes(generated, dim=1, pad_index=tokenizer.pad_token_id)
            labels = accelerator.pad_across_processes(batch["labels"], dim=1, pad_index=tokenizer.pad_token_id)
            generated = accelerator.gather(generated).cpu().numpy()
            labels = accelerator.gather(labels).cpu().numpy()
            labels = np.where(labels != -100, labels, tokenizer.pad_token_id)
            predictions = tokenizer.batch_decode(generated, skip_special_tokens=True)
            references = tokenizer.batch_decode(labels, skip_special_tokens=True)
            english = ["en"] * len(predictions)
            rouge.add_batch(
                predictions=postprocess_text(predictions, english), references=postprocess_text(references, english)
            )
    rouge.compute()
    return time.perf_counter() - started


def stock_trainer(model_name, data, steps):
    """``Seq2SeqTrainer`` with default arguments; return evaluation seconds."""
    books, tokenizer = load_from_disk(data), AutoTokenizer.from_pretrained(model_name)
    model = AutoModelForSeq2SeqLM.from_pretrained(model_name)
    tokenized = books.map(
        preprocess_function, batched=True, fn_kwargs={"tokenizer": tokenizer, "config": model.config}
    )

    def compute_metrics(eval_pred):
        predictions, labels = (np.where(ids < 0, tokenizer.pad_token_id, ids) for ids in eval_pred)
        predictions = tokenizer.batch_decode(predictions, skip_special_tokens=True)
        return Rouge().compute(
            predictions=predictions, references=tokenizer.batch_decode(labels, skip_special_tokens=True)
        )

    with tempfile.TemporaryDirectory() as folder:
        trainer = Seq2SeqTrainer(
            model,
            Seq2SeqTrainingArguments(folder, max_steps=steps, predict_with_generate=True, report_to="none",
                                     save_strategy="no", bf16=torch.cuda.is_available()),
            train_dataset=tokenized["train"],
            eval_dataset=tokenized["validation"],
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
        )  # fmt: skip
        trainer.train()
        started = time.perf_counter()
        trainer.evaluate()
        return time.perf_counter() - started


def ours(model_name, data, steps, flags, filler, times):
    """train_accelerate.py with the preset amazon; return evaluation seconds, from the last of the steps' ``times``."""
    evaluated = []

    def trim_to_twenty_thousand(tokenizer, model, rows):
        words = Dataset.from_dict({"review_body": filler, "review_title": filler})
        columns = ["review_body", "review_title"]
        trim_vocab(tokenizer, model, concatenate_datasets([rows.select_columns(columns), words]))

    common.trim_vocab = trim_to_twenty_thousand
    end_epoch = common.Run.end_epoch
    common.Run.end_epoch = lambda *args: (evaluated.append(time.perf_counter()), end_epoch(*args))
    common.save_model = lambda *args, **kwargs: None  # 2 GB that are not measured
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["train_accelerate.py", "--preset", "amazon", "--model", model_name, "--data", data,
                    "--output-dir", folder, "--max-steps", str(steps), *flags]  # fmt: skip
        train_accelerate.main()
    return evaluated[0] - times[-1]


def measure(way, model_name, data, filler):
    """Train and evaluate one ``way`` in this process; return what was measured."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    times = []

    def note_time(*args):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    register_optimizer_step_post_hook(note_time)
    if way == "a":
        seconds = chapter_loop(model_name, data, STEPS[way])
    elif way == "b":
        seconds = stock_trainer(model_name, data, STEPS[way])
    else:
        flags = {"c": [], "d": ["--trim-vocab"], "e": ["--trim-vocab", "--no-bf16"]}
        seconds = ours(model_name, data, STEPS[way], flags[way], filler, times)
    rate = 8 * (len(times) - 2) / (times[-1] - times[1])  # the first two steps allocate
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {"examples_per_second": rate, "evaluation_seconds": seconds, "peak_gib": peak}


def matrix_product_rate(dtype, size=4096):
    """Return floating-point operations a second of a large matrix product, the best of five."""
    matrix = torch.randn(size, size, device="cuda" if torch.cuda.is_available() else "cpu", dtype=dtype)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        (matrix @ matrix).sum().item()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def operations_an_example(model_name, data, head_rows):
    """Return the useful operations of a training example: 6 a weight and token, without padding."""
    model, rows = AutoModelForSeq2SeqLM.from_pretrained(model_name), load_from_disk(data)["train"].select(range(1000))
    tokens = preprocess_function(rows[:], AutoTokenizer.from_pretrained(model_name), model.config)
    encoder, decoder = (sum(weights.numel() for weights in stack.block.parameters())
                        for stack in (model.encoder, model.decoder))  # fmt: skip
    inputs = statistics.mean(len(ids) for ids in tokens["input_ids"])
    targets = statistics.mean(len(labels) for labels in tokens["labels"])
    return 6 * (encoder * inputs + (decoder + head_rows * model.config.d_model) * targets)


def benchmark_train(data, model_name, rounds, eval_rows):
    """Measure the five ways in turn, each in a process of its own; return {way: the medians}."""
    results = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        books = load_from_disk(data)
        books["validation"] = books["validation"].select(range(min(eval_rows, len(books["validation"]))))
        books.save_to_disk(folder / "data")
        shutil.copy(Path(data, "arguments.json"), folder / "data")
        filler = []
        if not model_name:
            model_name = save_full_size_checkpoint(data, folder / "model")
            tiny = AutoTokenizer.from_pretrained(Path(data, "tiny-mt5"))
            tokenizer = AutoTokenizer.from_pretrained(model_name)
            filler = tokenizer.convert_ids_to_tokens(range(len(tiny), KEPT_PIECES))
            filler = [word.removeprefix("▁") for word in filler]
        (folder / "filler.json").write_text(json.dumps(filler))
        for round_number in range(rounds):
            for way in WAYS:
                _, peak = time_and_memory(__file__, "way", "--way", way, "--model", model_name, "--data",
                                          folder / "data", "--output", folder / "out.json")  # fmt: skip
                results[way].append(json.loads((folder / "out.json").read_text()))
                results[way][-1]["peak_gib"] = results[way][-1]["peak_gib"] or peak
                print(f"round {round_number + 1}, ({way}) {results[way][-1]}", file=sys.stderr)
        medians = {}
        whole, trimmed = (operations_an_example(model_name, data, rows) for rows in (250_112, KEPT_PIECES))
        for way, rows in results.items():
            medians[way] = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
            operations = trimmed if way in "de" else whole
            medians[way]["gflops"] = medians[way]["examples_per_second"] * operations / 1e9
    return medians


def print_table(results):
    rates = [matrix_product_rate(dtype) / 1e9 for dtype in (torch.float32, torch.bfloat16)]
    print("\nmatrix product: {:,.0f} GFLOP/s in fp32, {:,.0f} in bf16\n".format(*rates))
    print("|   | examples/s | × (a) | evaluation | × (a) | peak memory | of (a) | GFLOP/s |")
    print("|---|---|---|---|---|---|---|---|")
    a = results["a"]
    for way, row in results.items():
        print(f"| ({way}) {WAYS[way]} | {row['examples_per_second']:.2f} "
              f"| {row['examples_per_second'] / a['examples_per_second']:.1f} | {row['evaluation_seconds']:.1f} s "
              f"| {a['evaluation_seconds'] / row['evaluation_seconds']:.1f} | {row['peak_gib']:.2f} GiB "
              f"| {row['peak_gib'] / a['peak_gib']:.2f} | {row['gflops']:.0f} |")  # fmt: skip


# ---- predict.py and CTranslate2 ----------------------------------------------------------------


def benchmark_predict(data, model_name, rounds, rows=128):
    """Print the best seconds for ``rows`` reviews in fp32 and bf16, and CTranslate2's on the same checkpoint."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    reviews = load_from_disk(data)["test"].select(range(rows)).select_columns("review_body")
    batch_size, ways = predict.PRESETS["amazon"]["batch_size"], {}

    def translate(translator, tokenizer):
        tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(reviews["review_body"][:])["input_ids"]]
        results = translator.translate_batch(tokens, beam_size=1, max_decoding_length=30, max_batch_size=batch_size)
        pieces = [result.hypotheses[0] for result in results]
        tokenizer.batch_decode([tokenizer.convert_tokens_to_ids(title) for title in pieces], skip_special_tokens=True)

    with tempfile.TemporaryDirectory() as folder:
        model_name = model_name or save_full_size_checkpoint(data, Path(folder, "model"))
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            args = argparse.Namespace(model=model_name, data=data, num_beams=1, max_input_length=512,
                                      max_target_length=30, batch_size=batch_size, bf16=name == "bf16")  # fmt: skip
            tokenizer, model = load_checkpoint(args)
            model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu", dtype)
            ways[f"predict.py, {name}"] = functools.partial(predict.summarize, tokenizer, model, reviews, args)
        for name in ("float32", "int8"):
            TransformersConverter(model_name).convert(f"{folder}/{name}", quantization=name)
            translator = ctranslate2.Translator(f"{folder}/{name}", compute_type=name, intra_threads=os.cpu_count())
            ways[f"CTranslate2, {name}"] = functools.partial(translate, translator, tokenizer)
        seconds = {way: [] for way in ways}
        for _ in range(rounds):
            for way, titles in ways.items():
                started = time.perf_counter()
                titles()
                seconds[way].append(time.perf_counter() - started)
    print(f"| {rows} reviews in batches of {batch_size} | seconds |\n|---|---|")
    for way, times in seconds.items():
        print(f"| {way} | {min(times):.2f} |")


# ---- quality -----------------------------------------------------------------------------------


def save_with_more_pieces(tiny, folder, pieces=KEPT_PIECES):
    """Save the checkpoint ``tiny`` with further pieces that the sample does not use, and random rows for them."""
    save_full_size_tokenizer(tiny, folder, pieces)
    _, model = load_checkpoint(
        argparse.Namespace(model=str(tiny), data="", num_beams=None, max_target_length=30, bf16=False)
    )
    torch.manual_seed(0)
    more = pieces - model.config.vocab_size
    for layer in (model.shared, model.lm_head):
        rows = torch.randn(more, model.config.d_model) * layer.weight.std()
        layer.weight = torch.nn.Parameter(torch.cat([layer.weight.data, rows]))
    model.config.vocab_size = pieces
    model.save_pretrained(folder)


def benchmark_quality(data, seeds=5, epochs=5):
    """Print the mean and standard deviation of ROUGE over ``seeds`` runs of each setting."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_with_more_pieces(Path(data, "tiny-mt5"), folder / "more")
        settings = {
            "default": [],
            "--no-group-by-length": ["--no-group-by-length"],
            f"{KEPT_PIECES:,} pieces": ["--model", folder / "more"],
            f"{KEPT_PIECES:,} pieces, --trim-vocab": ["--model", folder / "more", "--trim-vocab"],
        }

        def score(job):
            (name, flags), seed = job
            output = folder / f"{name} {seed}"
            command = [sys.executable, "train_accelerate.py", "--data", data, "--output-dir", output, "--seed", seed,
                       "--epochs", epochs, *flags]  # fmt: skip
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True, env=environment)
            scores = json.loads((output / "results.json").read_text())["scores"]["all"]["model"]
            shutil.rmtree(output)
            return [scores[rouge]["f1"] for rouge in ROUGE_TYPES[:3]]

        print("| | rouge1 | rouge2 | rougeL |\n|---|---|---|---|")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = list(itertools.product(settings.items(), range(1, seeds + 1)))
            scores = np.array(list(pool.map(score, jobs))).reshape(len(settings), seeds, 3)
        for name, values in zip(settings, scores, strict=True):
            cells = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(values.mean(0), values.std(0, ddof=1), strict=True)]
            print(f"| {name} | {' | '.join(cells)} |")


def benchmark_pieces(data, shares=(1.0, 0.1, 0.01)):
    """Print how many more pieces each split needs if the vocabulary is cut to a share of the training rows."""
    books = load_from_disk(data)
    print("| training rows | pieces kept | validation | test |\n|---|---|---|---|")
    for share in shares:
        args = argparse.Namespace(model="tiny", data=data, num_beams=None, max_target_length=30, bf16=False,
                                  trim_vocab=True)  # fmt: skip
        whole, _ = load_checkpoint(args)
        rows = books["train"].select(range(int(share * len(books["train"]))))
        kept, model = load_checkpoint(args, rows)
        more = []
        for split in ("validation", "test"):
            texts = books[split]["review_body"][:] + books[split]["review_title"][:]
            after, before = (sum(map(len, tokenizer(texts)["input_ids"])) for tokenizer in (kept, whole))
            more.append(f"+{100 * (after / before - 1):.2f}%")
        print(f"| {len(rows):,} | {len(kept):,} of {len(whole):,} | {' | '.join(more)} |")


# ---- more rows ---------------------------------------------------------------------------------


def repeat_sample(folder, times):
    """Write each file of the sample ``times`` times over, with new ids."""
    for path in sorted((ROOT / "data/sample").glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        with open(folder / path.name, "w", encoding="utf-8") as repeated:
            for number in range(times):
                for line in lines:
                    row = json.loads(line)
                    repeated.write(json.dumps(row | {"review_id": f"{row['review_id']}_{number}"}, ensure_ascii=False))
                    repeated.write("\n")


def time_and_memory(*command):
    """Run a script; return its CPU seconds and the GiB that it held at most, pages of mapped files left out."""
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    peak = 0
    while True:
        ended, code, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            assert code == 0, command
            return used.ru_utime + used.ru_stime, peak / 2**20
        status = Path(f"/proc/{process.pid}/status").read_text()
        if "RssAnon:" in status:  # not when it is about to end
            peak = max(peak, int(status.split("RssAnon:")[1].split()[0]))
        time.sleep(0.02)


def benchmark_scale(scales=(1, 10, 100), steps=300):
    """Print a row of the README's table for each scale."""
    print(f"| books | prepare | tokenize, {steps} steps | lead-3 of validation | titles of validation and scores "
          "| titles of English validation reviews in a file |\n|---|---|---|---|---|---|")  # fmt: skip
    for times in scales:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "reviews").mkdir()
            repeat_sample(folder / "reviews", times)
            data, model = folder / "data", folder / "model"
            cells = [time_and_memory("prepare_data.py", "--dataset", folder / "reviews", "--data", data)]
            books = load_from_disk(data)
            rows = sum(map(len, books.values()))
            validation = books["validation"]
            books["validation"] = validation.select(range(64))  # scored at full length below
            books.save_to_disk(folder / "short")
            shutil.copy(data / "arguments.json", folder / "short")
            shutil.copytree(data / "tiny-mt5", folder / "short/tiny-mt5")
            cells.append(time_and_memory("train_accelerate.py", "--data", folder / "short", "--output-dir", model,
                                         "--max-steps", steps))  # fmt: skip
            cells.append(time_and_memory("baseline.py", "--data", data, "--output-dir", folder / "baseline"))
            cells.append(time_and_memory("predict.py", "--model", model, "--data", data, "--split", "validation",
                                         "--batch-size", 128))  # fmt: skip
            cells.append(time_and_memory("predict.py", "--model", model, "--input", folder / "reviews/en_validation.jsonl",
                                         "--output", folder / "titles.csv", "--batch-size", 128))  # fmt: skip
            cells = [f"{rows:,}", *(f"{seconds:.0f} s, {peak:.2f} GiB" for seconds, peak in cells)]
            print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rouge", "train", "predict", "quality", "pieces", "scale", "way"])
    parser.add_argument("--data", default=str(ROOT / "data/prepared/sample"), help="prepared data")
    parser.add_argument("--model", help="a checkpoint; none: a random mt5-small of full size")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--eval-rows", type=int, default=64)
    parser.add_argument("--way", choices=WAYS, help="what `train` starts for each way")
    parser.add_argument("--output", help="file for the measurements as JSON")
    args = parser.parse_args()
    if args.what == "rouge":
        ours_, theirs = benchmark_rouge()
        print(f"10,000 title pairs: ours {ours_:.2f} s, rouge_score {theirs:.2f} s, ratio {ours_ / theirs:.2f}")
        return
    if args.what == "predict":
        benchmark_predict(args.data, args.model, args.rounds)
        return
    if args.what == "quality":
        benchmark_quality(args.data)
        return
    if args.what == "pieces":
        benchmark_pieces(args.data)
        return
    if args.what == "scale":
        benchmark_scale()
        return
    if args.what == "way":
        filler = json.loads((Path(args.data).parent / "filler.json").read_text())
        results = measure(args.way, args.model, args.data, filler)
    else:
        results = benchmark_train(args.data, args.model, args.rounds, args.eval_rows)
        print_table(results)
    if args.output:
        Path(args.output).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
