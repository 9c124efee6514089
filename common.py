"""The plumbing of the scripts, called as ``common.name``; the lesson itself stands in them."""

import argparse
import ctypes
import functools
import glob
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
import zlib
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import datasets
import evaluate
import filelock
import huggingface_hub
import numpy as np
import pandas as pd
import punkt
import torch
import transformers
from accelerate import PartialState
from matplotlib.figure import Figure
from nltk.stem import SnowballStemmer
from rouge_score.rouge_scorer import RougeScorer
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

logging.disable(logging.WARNING)  # hints of the libraries; what the user must know is said by fail()
transformers.logging.disable_progress_bar()  # of loading weights; the long work has bars of its own

HUB = huggingface_hub.constants.ENDPOINT
LOCK = ".summarization.lock"  # in each folder that this program wrote
CACHE = tempfile.TemporaryDirectory()  # of load_dataset; one that stays would give back files as they were before


# ---- Flags and errors --------------------------------------------------------------------------
def number(kind, low, high=10**9):
    """Return the option of a flag that is an int or float from ``low`` to ``high``."""

    def parse(value):
        if not low <= kind(value) <= high:  # nan is in no range
            raise argparse.ArgumentTypeError(f"{value} is not from {low} to {high}")
        return kind(value)

    return {"type": parse}


TEXT, SWITCH = {}, {"action": argparse.BooleanOptionalAction}
PRESETS = {"choices": ["sample", "amazon"]}
SCORINGS = {"choices": ["language", "rouge_score", "rouge_score_stemmer"]}
TRAINING_FLAGS = {  # flag: (options of add_argument, default where the script's presets have none, help)
    "preset": (PRESETS, "sample", "defaults: sample, a tiny mT5 on bundled reviews, or amazon, the chapter itself"),
    "data": (TEXT, None, "folder of the prepared data"),
    "model": (TEXT, None, "folder or Hub id of a checkpoint; tiny: the one that prepare_data.py made"),
    "output_dir": (TEXT, None, "folder to write to"),
    "max_input_length": (number(int, 1), 512, "tokens of a review; more are cut off"),
    "max_target_length": (number(int, 1), 30, "tokens of a title; more are cut off or not written"),
    "epochs": (number(int, 1), 10, "passes over the training split"),
    "batch_size": (number(int, 1), 8, "rows a device and batch"),
    "learning_rate": (number(float, 1e-30, 1e30), None, "of the first step; falls to 0 linearly"),
    "weight_decay": (number(float, 0), 0.01, "of AdamW, for matrices only"),
    "gradient_accumulation_steps": (number(int, 1), 1, "batches an optimizer step"),
    "max_steps": (number(int, 1), None, "stop after so many optimizer steps, whatever --epochs says"),
    "save_steps": (number(int, 1), None, "save a checkpoint every so many steps, not only after each epoch"),
    "resume": (SWITCH, False, "continue from the newest whole checkpoint"),
    "trim_vocab": (SWITCH, False, "cut the vocabulary to what the training split uses (T5, mT5)"),
    "num_beams": (number(int, 1), None, "beams of the search for a title; None: the checkpoint's own"),
    "group_by_length": (SWITCH, True, "rows of about one length in a step, so that little is padded"),
    "bf16": (SWITCH, None, "products in bfloat16; None: where the device has them"),
    "seed": (number(int, 0, 2**32 - 1), 42, "of shuffling, dropout and random weights"),
    "rouge": (SCORINGS, "language", "whose words count: the language's or those of rouge_score (a-z)"),
    "report_to": (TEXT, None, "tracker of the losses and scores (tensorboard, wandb, ...); it must be installed"),
    "push_to_hub": (TEXT, None, "Hub repository (user/name) to push the model to"),
}
FLAGS = TRAINING_FLAGS | {
    "dataset": (TEXT, None, "file, folder or Hub data set (user/name) with the reviews"),
    "languages": ({"nargs": "+"}, ["en", "es"], "codes of the languages to keep"),
    "text_column": (TEXT, "review_body", "column with the review"),
    "title_column": (TEXT, "review_title", "column with its title"),
    "categories": ({"nargs": "*"}, ["book", "digital_ebook_purchase"], "product categories to keep; none named: all"),
    "validation_share": (number(float, 0, 0.9), 0.0, "share of train that becomes validation where there is none"),
    "split": ({"choices": ["validation", "test"]}, None, "split to score, a model beside lead-3"),
    "examples": (number(int, 0) | {"nargs": "+"}, None, "rows of the test split to show"),
    "language": (TEXT, None, "code of the reviews' language, where no column 'language' has it"),
    "input": (TEXT, None, "file to summarize: CSV, JSON, JSONL, Parquet or TXT (a review a line)"),
    "output": (TEXT, None, "file for the summaries: .csv, else JSONL"),
    "scores": (TEXT, None, "file for the table of --split, as JSON"),
    "text": ({"nargs": "*"}, [], "reviews to summarize; - reads one from standard input"),
}


def parse_args(doc, flags, presets):
    """Read the ``flags`` of a script; ``presets`` is {preset: {flag: default}}, where these differ from FLAGS."""
    script = Path(sys.argv[0]).stem.removeprefix("train_")
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, allow_abbrev=False, formatter_class=style)
    parser.error = lambda message: fail(f"{message} (see --help)")
    folders = {name: {"data": f"data/prepared/{name}", "output_dir": f"results/{name}-{script}"} for name in presets}
    presets = {name: folders[name] | defaults for name, defaults in presets.items()}
    for flag in flags:
        options, default, explanation = FLAGS[flag]
        shown = " or ".join(dict.fromkeys(str(defaults.get(flag, default)) for defaults in presets.values()))
        name = "text" if flag == "text" else f"--{flag.replace('_', '-')}"
        parser.add_argument(name, default=default, help=f"{explanation} (default: {shown})", **options)
    parser.set_defaults(**presets[parser.parse_args().preset])
    if launched := os.environ.get("ACCELERATE_MIXED_PRECISION"):  # `accelerate launch --mixed_precision`
        parser.set_defaults(bf16=launched == "bf16")
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # the Trainer would put it before --no-bf16
    args = parser.parse_args()
    if launched in ("fp16", "fp8"):
        fail(f"--mixed_precision {launched}: mT5 overflows in it (its loss becomes nan); leave it out or use bf16")
    tracker = vars(args).get("report_to")
    if tracker and tracker not in transformers.integrations.get_available_reporting_integrations():
        fail(f"--report-to {tracker} is not installed; pip install it, or leave the flag out")
    if empty := [flag.replace("_", "-") for flag, value in vars(args).items() if value == ""]:
        fail(f"--{empty[0]} must not be empty")
    return args


def print_main(message):
    """Print on the main process only, past the progress bars."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(message, file=sys.stderr)


def printable(text):
    """Return ``text`` with its control characters escaped: a review must not steer the terminal."""
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else f"\\u{ord(c):04x}" for c in text)


def fail(message):
    """End the run with one line, on the main process only, and exit code 2."""
    message = re.sub(r"//[^/@\s]*@", "//", " ".join(str(message).split()))  # no password of an address
    print_main(printable(f"{Path(sys.argv[0]).name}: error: {message}"))
    sys.exit(2)


@contextmanager
def expected(what, remedy):
    """Turn whatever a library raises in the block into the one line: what failed, its root cause, what to do."""
    try:
        yield
    except Exception as error:
        while error.__cause__ and not isinstance(error, OSError):  # the cause says what is wrong with a file
            error = error.__cause__
        status = getattr(getattr(error, "response", None), "status_code", 0)
        remedy = "the Hub is busy: try again later" if status == 429 or status >= 500 else remedy
        fail(f"{what}: {str(error).strip().split(chr(10))[0][:300] or type(error).__name__}; {remedy}")


@contextmanager
def command():
    """Guard the ``main`` of a script: files, signals and pipes that fail end in one line, a bug in its traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.stdout.reconfigure(errors="backslashreplace")  # on a terminal without accents
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        print_main(f"{Path(sys.argv[0]).name}: stopped; a training goes on with the same command and --resume")
        sys.exit(130)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if isinstance(error, OSError) or "(os error" in str(error):  # as the libraries in Rust say it
            fail(f"{error}; check the path, its permissions and the space on the disk")
        raise


# ---- Files -------------------------------------------------------------------------------------
def claim(folder, source=""):
    """Make ``folder`` ours until the script ends: it must be absent, empty or hold our lock, which is free.

    It and ``source``, what the script reads, must not lie in one another. What a killed ``new_files`` left in it goes.
    """
    ours, theirs = Path(folder).resolve(), Path(source).resolve()
    if source and theirs.exists() and (ours.is_relative_to(theirs) or theirs.is_relative_to(ours)):
        fail(f"{folder} would overwrite {source}, which is read; name a folder that is not in it and does not hold it")
    Path(folder).mkdir(parents=True, exist_ok=True)
    held = os.listdir(folder)
    if held and LOCK not in held:
        fail(f"{folder} holds {held[0]} and was not written by this program; name another folder")
    claim.lock = filelock.FileLock(Path(folder, LOCK))  # held until the process ends; the file stays, as our mark
    with expected(f"cannot write to {folder}", "another run writes to it, or you may not: name another folder"):
        claim.lock.acquire(timeout=0)
    for left in Path(folder).glob(f"{LOCK}-*"):
        shutil.rmtree(left)


def write_json(file, content):
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_free(path, is_file=True):
    """End the run if something other than a file (or a folder, without ``is_file``) lies where one is to be written."""
    if path.is_symlink() or (path.exists() and path.is_file() != is_file):
        fail(f"{path} is in the way: it is a link, a folder or a device; move it, or name another file")


@contextmanager
def new_files(file):
    """Yield an empty folder; when the block has ended well, move its entries beside ``file``, one of them.

    What else lies there stays. ``file``, without which nothing loads, goes first and comes last: a torn folder is never
    taken for a whole one.
    """
    folder, key = Path(file).parent, Path(file).name
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{LOCK}-") as new:
        yield Path(new)
        entries = sorted(Path(new).iterdir(), key=lambda entry: entry.name == key)
        for entry in entries:
            check_free(folder / entry.name, entry.is_file())
        if len(entries) > 1:
            (folder / key).unlink(missing_ok=True)
        for entry in entries:
            if entry.is_dir():  # a file is replaced without
                shutil.rmtree(folder / entry.name, ignore_errors=True)
            entry.replace(folder / entry.name)


# ---- Preparing a multilingual corpus -----------------------------------------------------------
def check_hub(remedy):
    """End the run at once where the Hub cannot be reached; its clients would retry for half a minute."""
    with expected(f"cannot reach {HUB}", remedy):
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            huggingface_hub.utils.get_session().head(HUB, timeout=5)


def locate(path, flag, language=""):
    """Return what ``load_dataset`` needs to read a file, a folder, its folder of the ``language`` or a Hub data set."""
    if Path(path).is_file():
        file = Path(path).absolute()
        return {"path": str(file.parent), "data_files": glob.escape(str(file)), "cache_dir": CACHE.name}
    exists, folder = os.path.isdir, path
    if not exists(path) and re.fullmatch(r"[\w.-]+/[\w-]+", path):
        check_hub(f"without a network give {flag} a file or folder instead of {path}")
        exists, folder = huggingface_hub.HfFileSystem().isdir, f"datasets/{path}"
    if not exists(folder):
        fail(f"{flag} {path} does not exist; name a file, a folder or a Hub data set (user/name)")
    own = language if language and exists(f"{folder}/{language}") else None
    return {"path": path, "data_dir": own, "cache_dir": CACHE.name}


def start_run(args, state):
    """Say how many processes train, make --output-dir and --push-to-hub ours before the work, and set the seed."""
    if int(os.environ.get("WORLD_SIZE", 1)) != state.num_processes:
        fail(f"the launcher started {os.environ['WORLD_SIZE']} processes that do not know of each other; see README")
    print_main(f"{state.num_processes} process(es) on {state.device.type}")
    launched = sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ and state.num_processes == 1
    if launched and os.environ.get("OMP_NUM_THREADS") == "1":  # by `accelerate launch`; python would take all
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    if state.is_main_process:
        claim(args.output_dir, args.model)
    if state.is_main_process and args.push_to_hub:  # now, so that a bad token shows at once
        check_hub("train without --push-to-hub and push later")
        with expected(f"cannot push to {args.push_to_hub}", "log in with `hf auth login`"):
            huggingface_hub.create_repo(args.push_to_hub, exist_ok=True)
    transformers.set_seed(args.seed)


def load_prepared(args, *splits):
    """Return the ``DatasetDict`` in ``--data``; where it is missing, prepare_data.py makes it first."""
    with PartialState().local_main_process_first():
        if not Path(args.data, "dataset_dict.json").exists():
            if Path(args.data).exists() and args.data != f"data/prepared/{args.preset}":  # of other reviews, but torn
                fail(f"--data {args.data} holds no prepared data; make it with prepare_data.py --data {args.data}")
            flags = ["--preset", args.preset, "--data", args.data]
            print_main(f"{args.data} is missing, so first: python prepare_data.py {' '.join(flags)}")
            if code := subprocess.call([sys.executable, Path(__file__).with_name("prepare_data.py"), *flags]):
                sys.exit(code)
    file = Path(args.data, "arguments.json")
    with expected(f"cannot read {args.data} with {file}", "name another folder, or delete it: it is made anew"):
        books = datasets.load_from_disk(args.data)
        args.dataset = json.loads(file.read_text(encoding="utf-8"))["dataset"]
    if missing := [split for split in splits if split not in books]:
        remedy = "prepare_data.py makes a validation split with --validation-share"
        fail(f"{args.data} has no split {missing[0]}, only {', '.join(books)}; {remedy}")
    return books


def longest_first(rows):
    """Return ``rows`` from the longest review to the shortest, so that a batch has little padding."""
    return rows.select(np.argsort([-len(review) for review in rows["review_body"]], kind="stable"))


# ---- Models and preprocessing ------------------------------------------------------------------
def load(auto_class, name, **options):
    """Return ``auto_class.from_pretrained(name)``, or end the run with a line on --model."""
    if not Path(name).is_dir():
        check_hub(f"without a network give --model the folder of a checkpoint instead of {name}")
    with expected(f"cannot load --model {name}", "name a folder that a training script wrote or a Hub id"):
        return auto_class.from_pretrained(name, trust_remote_code=False, **options)


def load_checkpoint(args, rows=None):
    """Return tokenizer and model of --model (T5 to GPT-2), in fp32 and set up to write titles or to train on ``rows``."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        # glibc keeps large freed blocks: each step needs as many again, and new pages take as long as AdamW.
        library.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        library.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    if not torch.cuda.is_available():
        torch.nn.functional.dropout = dropout
    name = str(Path(args.data, "tiny-mt5")) if args.model == "tiny" else args.model
    config, tokenizer = load(transformers.AutoConfig, name), load(transformers.AutoTokenizer, name)
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}  # GPT-2's class does not name the first
    if Path(name).is_dir() and not any(Path(name, file).exists() for file in files):
        fail(f"--model {name} holds no tokenizer; copy the files of the one it was trained with into it")
    auto_class = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    if not config.is_encoder_decoder:  # GPT-2
        if rows:
            fail(f"{config.model_type} has no encoder and is not trained here; predict.py takes it as it is")
        tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
    # In bf16 on a CPU, PyTorch's fused attention is slower than plain products, above all for a token at a time.
    attention = "eager" if mixed_precision(args.bf16) == "bf16" and not torch.cuda.is_available() else None
    options = {"dtype": torch.float32, "attn_implementation": attention, "output_loading_info": True}
    model, report = load(auto_class, name, **options)
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]}):
        fail(f"--model {name}: {len(wrong)} weights are missing (they would be random) or unknown, such as {wrong[0]}")
    # mT5's head is separate from its embeddings, but MT5Config says that they are tied, and then whatever ties
    # weights again overwrites the head. In the other families it is tied, and saved without the head.
    model.config.tie_word_embeddings = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if hasattr(model, "shared"):  # T5 has its embeddings as three modules of one weight, which FSDP refuses
        model.encoder.embed_tokens = model.decoder.embed_tokens = model.shared
    for module in model.modules():
        if "Sinusoidal" in type(module).__name__:  # PEGASUS: constants, for which DDP would await gradients
            module.requires_grad_(False)
    if rows and args.trim_vocab:
        trim_vocab(tokenizer, model, rows)
    generation = model.generation_config
    generation.max_new_tokens, generation.max_length = args.max_target_length, None  # that counts the start token too
    generation.min_length = 0  # BART's is one for summaries of news
    generation.num_beams = args.num_beams or generation.num_beams
    if args.num_beams == 1:  # settings for beams alone could not be saved
        generation.early_stopping, generation.length_penalty = None, None
    if language_ids(tokenizer):
        generation.forced_bos_token_id = None  # one language for all rows of a batch
    # mT5's vocabulary ends with <extra_id_N>, pieces that only pre-training uses, and with rows of no piece.
    pieces = enumerate(tokenizer.convert_ids_to_tokens(range(model.config.vocab_size)))  # get_vocab() has twins once
    generation.suppress_tokens = [id_ for id_, piece in pieces if piece is None or "<extra_id_" in piece] or None
    return tokenizer, model


def language_ids(tokenizer):
    """Return {"en": id of en_XX, ...} if the tokenizer marks each text with its language (mBART-50), else {}."""
    return {code.split("_")[0]: number for code, number in getattr(tokenizer, "lang_code_to_id", {}).items()}


def preprocess_function(examples, tokenizer, config, max_input_length=512, max_target_length=30):
    """Tokenize a batch of reviews and titles into input_ids, attention_mask and labels; without titles, no labels."""
    task = (getattr(config, "task_specific_params", None) or {}).get("summarization") or {}
    reviews = [task.get("prefix", "") + review for review in examples["review_body"]]  # T5: "summarize: "
    positions, prompts = getattr(config, "max_position_embeddings", max_input_length), None
    if not config.is_encoder_decoder:  # GPT-2 writes on from a prompt, into the same positions
        positions, prompts = positions - max_target_length, ["\nTL;DR:"] * len(reviews)
    model_inputs = tokenizer(reviews, prompts, max_length=min(max_input_length, positions), truncation="only_first")
    if "review_title" in examples:
        labels = tokenizer(examples["review_title"], max_length=max_target_length, truncation=True)
        model_inputs["labels"] = labels["input_ids"]
    if codes := language_ids(tokenizer):
        if not set(examples.get("language", [None])) <= set(codes):
            fail(f"the checkpoint knows texts of {', '.join(sorted(codes))}; name one of them with --language")
        for name in {"input_ids", "labels"} & set(model_inputs):
            for ids, language in zip(model_inputs[name], examples["language"], strict=True):
                ids[0] = codes[language]
    return model_inputs


def generation_inputs(tokenizer, batch, outputs=None):
    """Return the arguments of ``generate`` for a batch; the model's ``outputs`` for it save encoding it again."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if outputs is not None:
        inputs["encoder_outputs"] = transformers.modeling_outputs.BaseModelOutput(outputs.encoder_last_hidden_state)
    if language_ids(tokenizer):  # mBART-50 starts a title with its language, which is that of the review
        inputs["decoder_input_ids"] = batch["input_ids"][:, :1]
    return inputs


def trim_vocab(tokenizer, model, rows):
    """Cut a T5 or mT5 model and its tokenizer, in place, to the pieces that ``rows`` use.

    Also kept are special tokens and, to write other texts, single characters: Latin letters, digits and all signs. The
    scores stay, so that ``rows`` are cut into the same pieces as before.
    """
    specification = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    unigram = specification["model"]
    if unigram.get("type") != "Unigram" or not hasattr(model, "shared"):
        fail(f"--trim-vocab is for T5 and mT5, not for {model.config.model_type}; leave it out")
    used = np.zeros(len(tokenizer), dtype=bool)
    for batch in rows.iter(batch_size=1000):
        inputs = preprocess_function(batch, tokenizer, model.config, max_input_length=10**9, max_target_length=10**9)
        used[np.concatenate(inputs["input_ids"] + inputs["labels"])] = True
    pieces = [piece.removeprefix("▁") for piece in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    used |= [len(piece) < 2 and (piece < "\u0250" or not piece.isalpha()) for piece in pieces]  # there Latin ends
    used[[*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder]] = True
    used[: max(tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)] = True  # keep their numbers
    used[np.argmin([score for _, score in unigram["vocab"]])] = True  # what unknown characters cost goes by it
    kept = used.nonzero()[0].tolist()

    unigram["vocab"] = [unigram["vocab"][number] for number in kept if number < len(unigram["vocab"])]
    tokenizer._tokenizer = tokenizer.backend_tokenizer.from_str(json.dumps(specification))
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight = torch.nn.Parameter(layer.weight.data[kept])
    model.shared.num_embeddings = model.lm_head.out_features = model.config.vocab_size = len(kept)
    model.tie_weights()  # T5's head is its embeddings
    print_main(f"Vocabulary: kept {len(kept):,} of {len(used):,} pieces, {model.num_parameters():,} parameters")


# ---- Order of rows, losses, precision ----------------------------------------------------------
class LengthGroupedSampler(torch.utils.data.Sampler):
    """Order the rows of an epoch so that those of one optimizer step have about the same length.

    However a step is cut into batches, its rows are the same. The few that fill no step are others in each epoch.
    """

    def __init__(self, rows, args, processes):
        self.step_rows = args.batch_size * args.gradient_accumulation_steps * processes
        self.steps_per_epoch = len(rows) // self.step_rows
        if not self.steps_per_epoch:
            fail(f"the training split has {len(rows)} rows, one step takes {self.step_rows}; lower --batch-size")
        self.lengths = np.array([len(ids) for ids in rows["input_ids"]])
        self.seed, self.group_by_length, self.epochs = args.seed, args.group_by_length, []  # Run lists those done

    def __len__(self):
        return self.steps_per_epoch * self.step_rows

    def __iter__(self):
        rng = np.random.default_rng([self.seed, len(self.epochs)])
        order = rng.permutation(len(self.lengths))[: len(self)]
        if self.group_by_length:  # sort within 50 steps: all else stays random
            order = order[np.lexsort([-self.lengths[order], np.arange(len(order)) // (50 * self.step_rows)])]
        return iter(rng.permutation(order.reshape(-1, self.step_rows)).flatten().tolist())


def summed_loss(outputs, labels, num_items_in_batch):
    """Sum the cross entropy and divide by the label tokens of the whole optimizer step.

    A mean of the batches' means weighs short titles too much; the Trainer does not even divide mT5's by their number.
    """
    loss = cross_entropy(outputs.logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    return loss / num_items_in_batch


def row_losses(outputs, labels):
    """Return each row's summed cross entropy and label tokens; summed over rows, their ratio is the evaluation loss."""
    rows = zip(outputs.logits, labels, strict=True)  # one by one: in fp32, the logits of a batch take gigabytes
    losses = [cross_entropy(logits.float(), row, reduction="sum") for logits, row in rows]  # none for label -100
    return torch.stack([torch.stack(losses), (labels != -100).sum(dim=1)], dim=1)


def dropout(hidden, p=0.5, training=True, inplace=False):
    """Do what PyTorch's does, with 16 random bits a value; that draws doubles, which takes longer on a CPU."""
    if not training or not p:
        return hidden
    bits = torch.empty(hidden.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[: hidden.numel()].view(hidden.shape) >= round(p * 2**16) - 2**15
    return hidden * (kept * torch.tensor(1 / (1 - p), dtype=hidden.dtype))


def mixed_precision(bf16):
    """Return "bf16" or "no" as ``--bf16`` says; by default what the GPU or the CPU has."""
    if bf16 is None:
        cpu = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else cpu
    return "bf16" if bf16 else "no"


# ---- A run and its checkpoints -----------------------------------------------------------------
class Run:
    """What a training has done so far, and its checkpoints --output-dir/checkpoints/checkpoint-<step>.

    One is written in the folder .new and renamed when whole; to be removed, it is renamed back first, so that no part of
    one is ever taken for it. The file .saved says that the model of the run is saved.
    """

    def __init__(self, args, books, tokenizer, sampler):
        """Set ``newest`` to the checkpoint to resume from (else None) and ``state`` to what it was saved with."""
        self.started, self.measured = time.time(), {"processes": PartialState().num_processes, "train_seconds": 0}
        self.folder = Path(args.output_dir, "checkpoints")
        self.new, self.saved = self.folder / ".new", self.folder / ".saved"
        # All but these must be the same when the run is resumed.
        free = ["data", "dataset", "output_dir", "push_to_hub", "report_to", "save_steps", "resume"]
        self.run = {name: value for name, value in vars(args).items() if name not in free}
        files = [file["filename"] for rows in books.values() for file in rows.cache_files]
        self.run["corpus"] = [zlib.crc32(np.memmap(file, mode="r")) for file in files]
        self.run["vocabulary"] = zlib.crc32(repr(sorted(tokenizer.get_vocab().items())).encode())
        self.run |= {"processes": self.measured["processes"], "script": Path(sys.argv[0]).name}
        max_steps = args.max_steps or args.epochs * sampler.steps_per_epoch
        self.newest, self.state = None, {"step": 0, "max_steps": max_steps, "log": [], "epochs": []}
        with PartialState().main_process_first():
            shutil.rmtree(self.new, ignore_errors=True)  # left by a run that was killed
            whole = self.whole()
            if whole and args.resume:
                self.newest, saved = whole[-1], json.loads((whole[-1] / "run.json").read_text(encoding="utf-8"))
                self.state = saved["state"]
                for name, value in self.run.items():
                    if (old := saved["run"].get(name)) != value:
                        fail(f"--resume: {self.newest} was written with {name} {old}, not {value}; give the same")
                if lost := [name for name, _ in saved["files"].items() - self.files(self.newest).items()]:
                    fail(f"--resume: {self.newest} lacks {lost[0]}; delete that folder to resume from the one before")
                print_main(f"Resuming from {self.newest}, step {self.state['step']} of {self.state['max_steps']}")
            elif PartialState().is_main_process:
                if whole and not self.saved.exists():
                    fail(f"{whole[-1]} is of a run that stopped; go on with --resume or delete {self.folder}")
                for path in whole:
                    shutil.rmtree(path.replace(self.new))
            self.saved.unlink(missing_ok=True)
        sampler.epochs = self.state["epochs"]  # each has an order of its own

    def whole(self):
        """Return the checkpoints, oldest first."""
        files = [file for file in self.folder.glob("checkpoint-*/run.json") if b'"preset": ' in file.read_bytes()]
        folders = [file.parent for file in files if re.fullmatch(r"checkpoint-\d+", file.parent.name)]
        return sorted(folders, key=lambda folder: int(folder.name.removeprefix("checkpoint-")))

    def files(self, folder):
        """Return the size of each file of a checkpoint by its name."""
        return {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}

    def best(self):
        """Return the checkpoint of the epoch with the highest ROUGE-L."""
        return self.folder / f"checkpoint-{max(self.state['epochs'], key=lambda epoch: epoch['rougeL'])['step']}"

    def save(self, write):
        """Call ``write`` with the folder of a new checkpoint, then keep that, the best and the one before."""
        new = self.new / f"checkpoint-{self.state['step']}"
        with expected(f"cannot write {new}", "the checkpoints before it are whole: free space, then use --resume"):
            write(new)
            PartialState().wait_for_everyone()  # each process has written its random states
            if PartialState().is_main_process:
                write_json(new / "run.json", {"run": self.run, "files": self.files(new), "state": self.state})
                new.replace(self.folder / new.name)
                for path in self.whole()[:-2]:
                    if not self.state["epochs"] or path != self.best():
                        shutil.rmtree(path.replace(self.new))
        PartialState().wait_for_everyone()

    def log_step(self, loss, grad_norm, learning_rate):
        """Add the next step to the log: loss a label token, norm of the gradients before clipping."""
        self.state["step"] += 1
        row = {"step": self.state["step"], "loss": loss, "grad_norm": grad_norm, "learning_rate": learning_rate}
        if not np.isfinite(list(row.values())).all():  # its weights are lost
            fail(f"loss {loss}, gradient norm {grad_norm} at step {row['step']}; give a lower --learning-rate")
        self.state["log"].append(row)

    def end_epoch(self, eval_loss, scores):
        """Add a row to the epochs and print it; ``scores`` are means of F1 × 100."""
        epochs, log = self.state["epochs"], self.state["log"]
        loss = np.mean([row["loss"] for row in log[epochs[-1]["step"] if epochs else 0 :]]).item()
        row = {"epoch": len(epochs) + 1, "step": self.state["step"], "loss": loss, "eval_loss": eval_loss, **scores}
        epochs.append(row)
        texts = "  ".join(f"{name} {scores[name]:5.2f}" for name in ROUGE_TYPES)
        self.measured["train_seconds"] = time.time() - self.started
        print_main(f"epoch {len(epochs):2}  loss {loss:.3f}  eval_loss {eval_loss:.3f}  {texts}")


# ---- Metrics for text summarization ------------------------------------------------------------
ROUGE_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
LANGUAGES = {"en": "english", "es": "spanish", "de": "german", "fr": "french", "it": "italian", "pt": "portuguese",
             "ja": "japanese", "zh": "chinese"}  # fmt: skip
NO_SPACES = ("ja", "zh")  # here each character counts as a word
punkt.load_model("spanish").abbrev_types |= {"sra", "dra", "srta", "ee"}  # "EE. UU."; Punkt has not learned them


def count_words(text, language):
    """Return the number of words between spaces in ``text``; in Japanese and Chinese, of characters."""
    return len(re.findall(r"\S" if language in NO_SPACES else r"\S+", text))


def sent_tokenize(text, language):
    """Split ``text`` into sentences; like ``nltk.sent_tokenize``, which would download its models."""
    return punkt.sent_tokenize(text, LANGUAGES.get(language, "english"))


def three_sentence_summary(text, language):
    """Return the first three sentences, one a line: the baseline lead-3."""
    return "\n".join(sent_tokenize(text, language)[:3])


def postprocess_text(texts, languages):
    """Put each sentence on a line of its own, as rougeLsum expects."""
    return ["\n".join(sent_tokenize(text.strip(), lang)) for text, lang in zip(texts, languages, strict=True)]


class WordTokenizer:
    """The tokenizer of ``rouge_score`` with Unicode's letters and digits, not only a-z and 0-9, and Snowball's stems.

    English ones are Porter's, and words up to three letters stay, as there.
    """

    def __init__(self, language, use_stemmer):
        self.stem, self.word = str, re.compile(r"[^\W_]" if language in NO_SPACES else r"[^\W_]+")
        name = "porter" if language == "en" else LANGUAGES.get(language)
        if use_stemmer and name in SnowballStemmer.languages:
            self.stem = functools.cache(SnowballStemmer(name).stem)

    def tokenize(self, text):
        words = self.word.findall(unicodedata.normalize("NFC", text).lower())
        return [self.stem(word) if len(word) > 3 else word for word in words]


class Rouge(evaluate.Metric):
    """ROUGE (Lin 2004, aclanthology.org/W04-1013) as ``evaluate.load("rouge")``, but offline and right beyond English.

    ``languages`` are codes, one a row (default: all English; None: ``rouge_score``'s own words, cut at every letter
    outside a-z); without ``use_aggregator`` come the F1 scores of each row, in [0, 1], instead of their means.
    """

    def _info(self):
        strings = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=datasets.Features(strings))

    def _compute(self, predictions, references, languages=None, use_stemmer=False, use_aggregator=True):
        languages, scorers = languages or ["en"] * len(predictions), {}
        for language in set(languages):
            tokenizer = language and WordTokenizer(language, use_stemmer)
            scorers[language] = RougeScorer(ROUGE_TYPES, use_stemmer, tokenizer=tokenizer)
        rows = zip(predictions, references, languages, strict=True)
        rows = [scorers[language].score(reference, prediction) for prediction, reference, language in rows]
        scores = {rouge: [row[rouge].fmeasure for row in rows] for rouge in ROUGE_TYPES}
        return {rouge: float(np.mean(f1)) for rouge, f1 in scores.items()} if use_aggregator else scores


def rouge_rows(predictions, rows, scoring):
    """Return a ``DataFrame`` with the F1 scores × 100 of each row, columns ROUGE_TYPES; ``scoring`` is --rouge."""
    languages = list(rows["language"])
    scores = Rouge().compute(
        predictions=postprocess_text(predictions, languages),
        references=postprocess_text(rows["review_title"], languages),
        languages=languages if scoring == "language" else [None] * len(languages),  # the package's own words
        use_stemmer=scoring != "rouge_score",
        use_aggregator=False,
    )
    return 100 * pd.DataFrame(scores)


def bootstrap(values, resamples=1000, seed=42):
    """Resample the rows of ``values`` and return a ``DataFrame`` with f1, low, high and p of each column's mean.

    That is the 95% percentile interval and a two-sided p of zero; Efron and Tibshirani 1993, chapters 13 and 16.
    """
    rng = np.random.default_rng(seed)
    means = pd.DataFrame([values.sample(frac=1, replace=True, random_state=rng).mean() for _ in range(resamples)])
    tail = np.minimum((means <= 0).sum(), (means >= 0).sum())
    p = np.minimum(1, 2 * (tail + 1) / (resamples + 1))
    return pd.DataFrame({"f1": values.mean(), "low": means.quantile(0.025), "high": means.quantile(0.975), "p": p})


def score(rows, scoring, summaries=None):
    """Score lead-3 on ``rows``, beside it a model's ``summaries`` and the paired difference; by language and for all.

    Returns {language: {"rows": n, system: {rouge: {"f1", "low", "high"}}}}; a difference has its "p" too.
    """
    lead_3 = list(map(three_sentence_summary, rows["review_body"], rows["language"]))
    systems = {"lead-3": rouge_rows(lead_3, rows, scoring)}
    if summaries is not None:
        systems = {"model": rouge_rows(summaries, rows, scoring), **systems}
        systems["difference"] = systems["model"] - systems["lead-3"]
    table, scores = pd.concat(systems, axis=1), {}
    for language, group in [*table.groupby(list(rows["language"])), ("all", table)]:
        scores[language] = {"rows": len(group)}
        for name in systems:
            kept = ["f1", "low", "high", "p"] if name == "difference" else ["f1", "low", "high"]
            scores[language][name] = bootstrap(group[name])[kept].to_dict("index")
    return scores


def score_table(scores, title):
    """Return the table of ``score``: F1 × 100 with its 95% interval, p under the differences."""
    table = {}
    for language, systems in scores.items():
        rows = f"{language}, {systems['rows']:,} rows"
        for name, cells in list(systems.items())[1:]:  # the first is the number of rows
            table[rows, name] = ["{f1:.2f} [{low:.2f}, {high:.2f}]".format(**cell) for cell in cells.values()]
            if name == "difference":
                table[rows, "p"] = [f"{cell['p']:.3f}" + " (n. s.)" * (cell["p"] > 0.05) for cell in cells.values()]
    return f"{title}: ROUGE F1 × 100 [95% interval]\n{pd.DataFrame(table, ROUGE_TYPES).T.to_string()}"


# ---- Results and the Hub -----------------------------------------------------------------------
def write_results(folder, args, scores, **measured):
    """Write results.json: arguments, versions, scores and what was measured."""
    packages = ("torch", "transformers", "accelerate", "datasets", "evaluate", "rouge_score", "nltk", "numpy")
    versions = {"python": sys.version.split()[0]} | {name: version(name) for name in packages}
    write_json(folder / "results.json", {"arguments": vars(args), "versions": versions, "scores": scores, **measured})


def save_model(args, tokenizer, model, scores, run, state_dict=None):
    """Write model, tokenizer, results, logs, picture and model card to ``--output-dir``; print the scores."""
    with new_files(f"{args.output_dir}/config.json") as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder, state_dict=state_dict)
        write_results(folder, args, scores, **run.measured)
        log, epochs = pd.DataFrame(run.state["log"]), pd.DataFrame(run.state["epochs"])
        log.to_csv(folder / "log.csv", index=False)
        epochs.to_csv(folder / "epochs.csv", index=False)
        draw_training(folder / "training.png", log, epochs, scores["all"]["lead-3"])
        write_model_card(folder, args, scores)
    run.saved.touch()
    print("\n" + score_table(scores, "validation"))
    print(f'\nSaved in {args.output_dir}. Try: python predict.py --model {args.output_dir} "I loved it!"')


def draw_training(path, log, epochs, lead_3):
    """Draw the losses by step and ROUGE by epoch, with lead-3's as broken lines."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    log.plot("step", "loss", ax=left, label="training, each step", color="C0", alpha=0.3)
    epochs.plot("step", ["loss", "eval_loss"], ax=left, style="o-", label=["training, mean of an epoch", "validation"])
    left.set(title="Loss of a label token", xlabel="optimizer steps", ylim=0)
    epochs.plot("epoch", ROUGE_TYPES[:3], ax=right, style="o-")
    for line, rouge in zip(right.get_lines(), ROUGE_TYPES, strict=False):
        right.axhline(lead_3[rouge]["f1"], color=line.get_color(), linestyle="--", label=f"{rouge} of lead-3")
    right.set(title="ROUGE of the validation split, F1 × 100", xlabel="epochs", xticks=epochs.epoch, ylim=0)
    right.legend(ncols=2)
    figure.savefig(path)


def write_model_card(folder, args, scores):
    """Write README.md with what the Hub shows of a model: languages, data, scores, hyperparameters."""
    data = huggingface_hub.ModelCardData(
        language=[language for language in scores if language != "all"],
        base_model=None if args.model == "tiny" or Path(args.model).exists() else args.model,
        datasets=None if Path(args.dataset).exists() else [args.dataset],
        library_name="transformers", pipeline_tag="summarization", tags=["summarization"], metrics=["rouge"],
        widget=[{"text": "The cover was torn."}, {"text": "Una novela que engancha desde el principio."}],
    )  # fmt: skip
    paragraphs = [
        f"---\n{data}\n---", f"# {Path(args.output_dir).name}",
        f"{args.model} fine-tuned on {args.dataset} to write the title of a review.",
        "![losses and scores of the training](training.png)",
        f"```\n{score_table(scores, 'validation')}\n```",
        "## Hyperparameters", "\n".join(f"- {name}: {value}" for name, value in vars(args).items()),
    ]  # fmt: skip
    (folder / "README.md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def push_to_hub(args):
    """Push --output-dir where --push-to-hub says so; if that fails, it stays and the command that pushes it is said."""
    if repo := args.push_to_hub:
        upload = {"folder_path": args.output_dir, "ignore_patterns": ["checkpoints/*", ".*"], "run_as_future": True}
        later = f"hf upload {repo} {args.output_dir} . --exclude 'checkpoints/*'"
        with expected(f"cannot push to {repo}", f"the model is safe in {args.output_dir}, later: {later}"):
            # As a job it comes after those of train_accelerate.py; whether they failed does not matter.
            huggingface_hub.upload_folder(repo_id=repo, commit_message="Training complete", **upload).result()
        print(f"Pushed to {HUB}/{repo}")
