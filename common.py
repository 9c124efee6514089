"""What two or more of the scripts need and what is not their lesson; sections are named as in the chapter."""

import argparse
import ctypes
import functools
import hashlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections import Counter
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import evaluate
import numpy as np
import punkt
import torch
import transformers
from accelerate import PartialState
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
from huggingface_hub.utils import get_session
from nltk.stem import PorterStemmer, SnowballStemmer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()  # of loading weights; the long work has bars of its own
datasets.logging.set_verbosity_error()
logging.getLogger("accelerate").setLevel(logging.ERROR)

ROOT = Path(__file__).parent
MAX_INPUT_LENGTH = 512  # tokens of a review; the chapter's
MAX_TARGET_LENGTH = 30  # tokens of a title; the chapter's

# ------------------------------------------------------------------------------------------------
# Presets, flags and errors
# ------------------------------------------------------------------------------------------------

PRESETS = {
    "sample": "the bundled synthetic reviews and a tiny mT5 with random weights",
    "amazon": "the chapter itself: google/mt5-small and the Multilingual Amazon Reviews Corpus",
}
FLAGS = {  # what argparse is told of each flag; the defaults stand in the scripts
    "dataset": {"metavar": "PATH_OR_HUB_ID", "help": "file, folder or Hub data set with the reviews"},
    "languages": {"nargs": "+", "metavar": "CODE", "help": "languages to keep"},
    "text_column": {"metavar": "NAME", "help": "column with the review"},
    "title_column": {"metavar": "NAME", "help": "column with its title"},
    "categories": {"nargs": "*", "metavar": "NAME", "help": "product categories to keep; none named: all"},
    "data": {"metavar": "DIR", "help": "folder of the prepared data"},
    "model": {"metavar": "CHECKPOINT", "help": "folder or Hub id; tiny: the one that prepare_data.py made"},
    "output_dir": {"metavar": "DIR", "help": "folder for the model and results.json"},
    "epochs": {"type": int, "metavar": "N"},
    "batch_size": {"type": int, "metavar": "N", "help": "rows a device and step"},
    "learning_rate": {"type": float, "metavar": "RATE"},
    "weight_decay": {"type": float, "metavar": "RATE"},
    "gradient_accumulation_steps": {"type": int, "metavar": "N", "help": "batches an optimizer step"},
    "max_steps": {"type": int, "metavar": "N", "help": "stop after so many optimizer steps; -1: never"},
    "save_steps": {"type": int, "metavar": "N", "help": "save every N steps; 0: after each epoch only"},
    "resume": {"action": "store_true", "help": "continue from the newest complete checkpoint"},
    "trim_vocab": {"action": "store_true", "help": "cut the vocabulary to what the training split uses (T5, mT5)"},
    "group_by_length": {"action": argparse.BooleanOptionalAction, "help": "batches of about one length"},
    "bf16": {"action": argparse.BooleanOptionalAction, "help": "bfloat16 products; None: where the device has them"},
    "seed": {"type": int, "metavar": "N", "help": "of shuffling, dropout and random weights"},
    "rouge": {"choices": ["language", "chapter"], "help": "stems and splits by language, or as the chapter"},
    "push_to_hub": {"metavar": "REPO", "help": "Hub repository (user/name) to push the model to"},
    "validation_share": {"type": float, "metavar": "SHARE", "help": "of train, where there is no validation split"},
    "split": {"choices": ["validation", "test"], "help": "score the model on this split against lead-3"},
    "examples": {"type": int, "nargs": "+", "metavar": "ROW", "help": "rows of the test split to show"},
    "input": {"metavar": "FILE", "help": "CSV, JSONL or TXT (a review a line) to summarize"},
    "output": {"metavar": "FILE", "help": "file for the summaries of --input (JSONL) or the scores of --split (JSON)"},
}


TRAINING_DEFAULTS = {  # of both training scripts, in both presets
    "data": "data/prepared/{preset}",
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
    "save_steps": 0,
    "resume": False,
    "trim_vocab": False,
    "group_by_length": True,
    "seed": 42,
    "rouge": "language",
    "push_to_hub": None,
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keep the docstring's lines and show every default."""


def fail(message):
    """End the run with one line, on the main process only, and exit code 2."""
    print_main(f"{Path(sys.argv[0]).name}: error: {' '.join(str(message).split())}")
    sys.exit(2)


def print_main(message):
    """Print on the main process only, past the progress bars."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(message, file=sys.stderr)


def first_line(error):
    """Return what an exception of a library says first; the rest is for its developers."""
    return str(error).strip().split("\n")[0][:200]


def parse_args(doc, defaults, positional=None):
    """Read the flags of a script, print its first line and return an ``argparse.Namespace``.

    ``defaults`` maps each preset to {flag: default}; a script takes the flags that stand there.
    """
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--preset", choices=PRESETS, default="sample", help="which defaults to use")
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=HelpFormatter, parents=[chooser], allow_abbrev=False
    )
    chooser.error = parser.error = lambda message: fail(f"{message} (see --help)")
    preset = chooser.parse_known_args()[0].preset
    for flag, default in defaults[preset].items():
        if isinstance(default, str):
            default = default.format(preset=preset)
        spec = {"help": "one of the training arguments", **FLAGS[flag]}
        parser.add_argument(f"--{flag.replace('_', '-')}", default=default, **spec)
    if positional:
        parser.add_argument(positional, nargs="*", help="reviews to summarize; - reads standard input")
    args = parser.parse_args()
    for flag in ("epochs", "batch_size", "learning_rate", "gradient_accumulation_steps"):
        if getattr(args, flag, 1) <= 0:
            fail(f"--{flag.replace('_', '-')} must be above 0")
    other = next(name for name in PRESETS if name != preset)
    print_main(f"Preset {preset}: {PRESETS[preset]}. (--preset {other}: {PRESETS[other]}.)")
    return args


def write(file, text):
    """Write ``text`` to ``file``, whole or not at all."""
    Path(f"{file}.new").write_text(text, encoding="utf-8")
    os.replace(f"{file}.new", file)


@contextmanager
def new_files(folder):
    """Yield an empty folder beside ``folder`` and move its entries there when the block has ended well.

    Until then nothing in ``folder`` changes; other entries of it are kept.
    """
    folder, new = Path(folder), Path(f"{folder}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        folder.mkdir(exist_ok=True)
        for entry in new.iterdir():
            if (folder / entry.name).is_dir():
                shutil.rmtree(folder / entry.name)
            entry.replace(folder / entry.name)
    except Exception as error:
        if not isinstance(error, OSError) and "(os error" not in str(error):  # as the libraries in Rust say it
            raise
        fail(f"cannot write {folder}: {first_line(error)}; free space or name another folder")
    finally:
        shutil.rmtree(new, ignore_errors=True)


# ------------------------------------------------------------------------------------------------
# Preparing a multilingual corpus
# ------------------------------------------------------------------------------------------------


def run_stage(script, missing, *flags):
    """Run the script that makes what is ``missing``, as a process of its own, and say so."""
    print(f"{missing} is missing: running {script} first", file=sys.stderr)
    code = subprocess.run([sys.executable, str(ROOT / script), *flags]).returncode
    if code:
        sys.exit(code)


def load_prepared(args, *splits):
    """Return the ``DatasetDict`` in ``--data``, made by prepare_data.py (run here if it is missing)."""
    with PartialState().local_main_process_first():
        if not (Path(args.data) / "dataset_dict.json").exists():
            run_stage("prepare_data.py", args.data, "--preset", args.preset, "--data", args.data)
    try:
        books = datasets.load_from_disk(args.data)
    except Exception as error:  # whatever is wrong with it, the remedy is the same
        fail(f"cannot read {args.data} ({error}); delete it and run prepare_data.py again")
    for split in splits:
        if split not in books:
            fail(f"{args.data} has no split {split}, only {', '.join(books)}; see prepare_data.py --validation-share")
    return books


# ------------------------------------------------------------------------------------------------
# Preprocessing the data
# ------------------------------------------------------------------------------------------------


def check_hub(remedy):
    """End the run at once where the Hub cannot be reached; its clients would retry for half a minute."""
    try:
        if not HF_HUB_OFFLINE:
            get_session().head(ENDPOINT, timeout=5)
    except Exception as error:  # whichever network library the client uses
        fail(f"cannot reach {ENDPOINT} ({error}); {remedy}")


def load(auto_class, name, **options):
    """Return ``auto_class.from_pretrained(name)``, or end the run with a line on --model."""
    if not Path(name).is_dir():
        check_hub(f"without a network give --model the folder of a checkpoint instead of {name}")
    try:
        return auto_class.from_pretrained(name, **options)
    except Exception as error:  # the libraries raise anything from OSError to KeyError here
        fail(
            f"cannot load --model {name}: {first_line(error)}; name a folder that a training script wrote or a Hub id"
        )


def keep_freed_memory():
    """Let glibc keep large freed blocks: each step needs as many again, and new pages take as long as AdamW."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        library.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def load_checkpoint(args):
    """Return tokenizer and model of --model, a folder or a Hub repository, in fp32."""
    keep_freed_memory()
    name = str(Path(args.data) / "tiny-mt5") if args.model == "tiny" else args.model
    tokenizer, model = load(AutoTokenizer, name), load(AutoModelForSeq2SeqLM, name, dtype=torch.float32)
    # mT5's head is separate from its embeddings, but MT5Config says that they are tied, and then
    # whatever ties weights again overwrites the head.
    model.config.tie_word_embeddings = False
    if hasattr(model, "shared"):  # T5 has its embeddings as three modules of one weight, which FSDP refuses
        model.encoder.embed_tokens = model.decoder.embed_tokens = model.shared
    model.generation_config.max_new_tokens = MAX_TARGET_LENGTH
    model.generation_config.max_length = None  # would count the start token too
    # mT5's vocabulary ends with <extra_id_N>, pieces that only pre-training uses, and with rows of no piece.
    pieces = tokenizer.convert_ids_to_tokens(range(model.config.vocab_size))  # get_vocab() may hide a twin
    sentinels = [number for number, piece in enumerate(pieces) if piece is None or "<extra_id_" in piece]
    model.generation_config.suppress_tokens = sentinels or None
    return tokenizer, model


def trim_vocab(tokenizer, model, rows):
    """Cut a T5 or mT5 model, in place, to the pieces that ``rows`` use; return the tokenizer of them.

    Also kept are special tokens and each single-character piece that is a digit, a sign or a letter of a script
    that makes up a hundredth of the letters, so that other texts can still be written. The scores stay, so
    that ``rows`` are cut into the same pieces as before.
    """
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    specification = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    if specification["model"].get("type") != "Unigram" or not hasattr(model, "shared"):
        fail(f"--trim-vocab is for T5 and mT5, not for {model.config.model_type}; leave it out")
    counts = np.zeros(len(pieces), dtype=int)
    for batch in rows.select_columns(["review_body", "review_title"]).iter(batch_size=1000):
        for texts in batch.values():
            counts += np.bincount(np.concatenate(tokenizer(texts)["input_ids"]), minlength=len(pieces))

    def script(letter):
        return unicodedata.name(letter, "").split(" ")[0]  # LATIN SMALL LETTER A

    scripts = Counter()
    for number in counts.nonzero()[0]:
        scripts.update({script(char): int(counts[number]) for char in pieces[number] if char.isalpha()})
    scripts = {name for name, letters in scripts.items() if letters > scripts.total() / 100}
    vocabulary = specification["model"]["vocab"]
    kept = {*counts.nonzero()[0].tolist(), *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    kept.add(min(range(len(vocabulary)), key=lambda number: vocabulary[number][1]))  # unknown characters cost by it
    for number, piece in enumerate(pieces):
        char = piece.removeprefix("▁")
        if len(char) == 0 or len(char) == 1 and (script(char) in scripts or unicodedata.category(char)[0] in "NPS"):
            kept.add(number)
    kept = sorted(kept)
    new = {old: number for number, old in enumerate(kept)}

    specification["model"]["vocab"] = [vocabulary[number] for number in kept if number < len(vocabulary)]
    specification["model"]["unk_id"] = new[specification["model"]["unk_id"]]
    for token in specification["added_tokens"]:
        token["id"] = new[token["id"]]
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        Path(folder, "tokenizer.json").write_text(json.dumps(specification), encoding="utf-8")
        name, tokenizer = tokenizer.name_or_path, AutoTokenizer.from_pretrained(folder)
    tokenizer.name_or_path = tokenizer.init_kwargs["name_or_path"] = name  # the cache of tokenize() goes by it
    tokenizer.init_kwargs.pop("vocab_file", None)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight = torch.nn.Parameter(layer.weight.data[kept])
    model.shared.num_embeddings = model.lm_head.out_features = model.config.vocab_size = len(kept)
    for config in (model.config, model.generation_config):
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            setattr(config, name, new.get(getattr(config, name)))
    suppressed = model.generation_config.suppress_tokens or []
    model.generation_config.suppress_tokens = [new[number] for number in suppressed if number in new] or None
    print_main(f"Vocabulary: kept {len(kept):,} of {len(pieces):,} pieces, {model.num_parameters():,} parameters")
    return tokenizer


def preprocess_function(examples, tokenizer):
    """Tokenize a batch of reviews and titles into input_ids, attention_mask and labels.

    Differs from the chapter: two calls, because ``text_target`` would share ``max_length``.
    """
    model_inputs = tokenizer(examples["review_body"], max_length=MAX_INPUT_LENGTH, truncation=True)
    labels = tokenizer(examples["review_title"], max_length=MAX_TARGET_LENGTH, truncation=True)
    model_inputs["labels"] = labels["input_ids"]
    model_inputs["length"] = [len(input_ids) for input_ids in model_inputs["input_ids"]]
    return model_inputs


def tokenize(books, tokenizer):
    """Return ``books`` as input_ids, attention_mask, labels and length; the result is cached on disk."""
    with PartialState().local_main_process_first():
        return books.map(
            preprocess_function,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer},
            remove_columns=books["train"].column_names,
            desc="Tokenize",
        )


def longest_first(rows):
    """Return the numbers of tokenized ``rows``, the longest first, so that a batch has little padding."""
    return np.argsort(-rows.with_format("numpy")["length"][:], kind="stable")


class LengthGroupedSampler(Sampler):
    """Order the rows of an epoch so that those of one optimizer step have about the same length.

    ``step_rows`` is batch size × batches a step × processes: however a step is cut, it has the same rows.
    The few rows that fill no whole step are left out, others in each epoch.
    """

    def __init__(self, rows, step_rows, seed, group_by_length=True):
        if len(rows) < step_rows:
            fail(f"the training split has {len(rows)} rows, one step takes {step_rows}; lower --batch-size")
        self.lengths = rows.with_format("numpy")["length"][:]
        self.step_rows, self.seed, self.group_by_length, self.epoch = step_rows, seed, group_by_length, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.lengths) // self.step_rows * self.step_rows

    def __iter__(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))[: len(self)]
        if not self.group_by_length:
            return iter(order.tolist())
        for start in range(0, len(order), 50 * self.step_rows):  # sort within 50 steps: all else stays random
            part = order[start : start + 50 * self.step_rows]
            part[:] = part[np.argsort(-self.lengths[part], kind="stable")]
        return iter(rng.permutation(order.reshape(-1, self.step_rows)).flatten().tolist())


def summed_loss(outputs, labels, num_items_in_batch):
    """Sum the cross entropy and divide by the label tokens of the whole optimizer step.

    The model's own loss is a mean over its batch; a mean of means weighs short titles too much, and
    with mT5 the Trainer does not even divide it by the number of batches.
    """
    loss = cross_entropy(outputs.logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    return loss / num_items_in_batch


def row_losses(outputs, labels):
    """Return each row's summed cross entropy and its number of label tokens, shape (rows, 2).

    Summed over all rows, first / second is the evaluation loss, however the rows came in batches.
    """
    losses = cross_entropy(outputs.logits.float().transpose(1, 2), labels, reduction="none")  # 0 for label -100
    return torch.stack([losses.sum(dim=1), (labels != -100).sum(dim=1)], dim=1)


# ------------------------------------------------------------------------------------------------
# Checkpoints
# ------------------------------------------------------------------------------------------------


def mixed_precision(bf16):
    """Return "bf16" or "no" as ``--bf16`` says; by default what the device has, a GPU or a CPU.

    mT5's activations exceed what fp16 can hold.
    """
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "fp16":
        fail(
            "--mixed_precision fp16: mT5 overflows in it (its loss becomes nan); leave it out, bf16 is chosen by itself"
        )
    if bf16 is None and torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported()
    elif bf16 is None:
        bf16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if bf16 else "no"


def check_finite(step, loss, grad_norm):
    """End the run if a step's loss or gradients are not finite: its weights are lost."""
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        fail(f"loss {loss}, gradient norm {grad_norm} at step {step}; begin anew with a lower --learning-rate")


def describe_run(args, books, tokenizer, processes):
    """Return what a resumed run must have in common with the run that wrote the checkpoint."""
    corpus, vocabulary = hashlib.sha256(), json.dumps(tokenizer.get_vocab(), sort_keys=True)
    for rows in books.values():
        for file in rows.cache_files:
            with open(file["filename"], "rb") as content:
                corpus.update(hashlib.file_digest(content, "sha256").digest())
    run = {"preset": args.preset, "model": args.model, "corpus": corpus.hexdigest()[:12]}
    run |= {"vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest()[:12], "processes": processes}
    free = ("data", "output_dir", "push_to_hub", "save_steps", "resume")  # may change
    return run | {name: value for name, value in vars(args).items() if name not in free}


def complete_checkpoints(args):
    """Return the checkpoints of ``--output-dir`` that are whole (run.json is written last), oldest first."""
    whole = [path.parent for path in Path(args.output_dir, "checkpoints").glob("checkpoint-*/run.json")]
    return sorted(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def find_checkpoint(args, run):
    """Return the checkpoint to resume from and its run.json, or None and {} for a new run.

    What is no whole checkpoint of the run is removed.
    """
    with PartialState().main_process_first():
        whole = complete_checkpoints(args)
        written = json.loads((whole[-1] / "run.json").read_text(encoding="utf-8")) if whole else {}
        if args.resume and whole:
            for name, value in run.items():
                if (old := written["run"].get(name)) != value:
                    fail(f"--resume: {whole[-1]} was written with {name} {old}, this run has {name} {value}; "
                         "give the same, or another --output-dir without --resume")  # fmt: skip
            print_main(f"Resuming from {whole[-1]}, step {written['step']} of {written['max_steps']}")
        elif whole and written["step"] < written["max_steps"]:
            fail(f"{args.output_dir} holds a run that stopped at step {written['step']} of {written['max_steps']}; "
                 f"go on with --resume, or delete {whole[-1].parent}")  # fmt: skip
        elif args.resume:
            print_main(f"No complete checkpoint in {args.output_dir}: training from the beginning")
        if not args.resume:
            whole = []
        if PartialState().is_main_process:
            for path in Path(args.output_dir, "checkpoints").glob("checkpoint-*"):
                if path not in whole:  # of an earlier run, or torn
                    shutil.rmtree(path)
    return (whole[-1], written) if whole else (None, {})


@contextmanager
def new_checkpoint(folder, run, **state):
    """Write a checkpoint in the block, then run.json, which says that it is whole."""
    try:
        yield
        PartialState().wait_for_everyone()  # each process has written its random states
        if PartialState().is_main_process:
            write(folder / "run.json", json.dumps({"run": run, **state}))
    except Exception as error:  # torch and safetensors have exceptions of their own for a full disk
        if PartialState().is_main_process:  # for another process it may be whole by now
            shutil.rmtree(folder, ignore_errors=True)
        fail(f"cannot write {folder}: {first_line(error)}; the checkpoints before it are whole: free space, "
             "then go on with --resume")  # fmt: skip
    PartialState().wait_for_everyone()


def save_on_signal(accelerator):
    """Let Ctrl-C and SIGTERM set the trigger that a training asks for after each step."""

    def set_trigger(number, frame):
        print_main("Stopping: saving after this step")
        accelerator.set_trigger()
        signal.signal(number, signal.SIG_DFL)  # a second one ends the run at once

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, set_trigger)


def stop(checkpoint):
    """End a run that a signal stopped, as the shell expects it, and say how to go on."""
    print_main(f"Stopped; saved in {checkpoint}. Go on with the same command and --resume")
    sys.exit(128 + signal.SIGINT)


# ------------------------------------------------------------------------------------------------
# Metrics for text summarization
# ------------------------------------------------------------------------------------------------

ROUGE_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
LANGUAGES = {"en": "english", "es": "spanish", "de": "german", "fr": "french", "it": "italian", "pt": "portuguese"}
ABBREVIATIONS = {"spanish": {"sra", "dra", "srta", "ee"}}  # which Punkt's own parameters miss


@functools.cache
def sentence_tokenizer(language):
    """Return NLTK's Punkt with the parameters of ``language`` (of English where there are none)."""
    name = LANGUAGES.get(language, "english")
    learned, parameters = punkt.load_model(name), PunktParameters()
    for field in ("abbrev_types", "collocations", "sent_starters", "ortho_context"):
        getattr(parameters, field).update(getattr(learned, field))
    parameters.abbrev_types |= ABBREVIATIONS.get(name, set())
    return PunktSentenceTokenizer(parameters)


def sent_tokenize(text, language):
    """Split ``text`` into sentences; like ``nltk.sent_tokenize``, which would download its models."""
    return sentence_tokenizer(language).tokenize(text)


def postprocess_text(texts, languages):
    """Put each sentence on a line of its own, as rougeLsum expects."""
    return ["\n".join(sent_tokenize(text.strip(), lang)) for text, lang in zip(texts, languages, strict=True)]


@functools.cache
def stem(word, language):
    """Stem as ``rouge_score`` does in English (Porter, above three letters), else by Snowball."""
    if len(word) <= 3 or language not in LANGUAGES:
        return word
    return stemmer(language).stem(word)


@functools.cache
def stemmer(language):
    return PorterStemmer() if language == "en" else SnowballStemmer(LANGUAGES[language])


class WordTokenizer(Tokenizer):
    """The tokenizer of ``rouge_score`` with the letters and digits of Unicode instead of a-z and 0-9."""

    def __init__(self, language, use_stemmer):
        self.language, self.use_stemmer = language, use_stemmer

    def tokenize(self, text):
        words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower())
        return [stem(word, self.language) for word in words] if self.use_stemmer else words


class Rouge(evaluate.Metric):
    """ROUGE with the interface of ``evaluate.load("rouge")``, but offline and right beyond English.

    ``compute`` takes ``languages`` (a code a row; default: all English), ``use_stemmer`` and
    ``use_aggregator`` (the means, or a list of F1 scores in [0, 1] a row). ``chapter=True`` gives
    ``rouge_score``'s own tokenizer, which cuts words at every letter outside a-z.
    Source: Lin 2004, https://aclanthology.org/W04-1013; counted by the package ``rouge_score``.
    """

    def _info(self):
        strings = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=datasets.Features(strings))

    def _compute(self, predictions, references, languages=None, use_stemmer=False, use_aggregator=True, chapter=False):
        languages = languages or ["en"] * len(predictions)
        scorers = {
            language: RougeScorer(
                ROUGE_TYPES, use_stemmer, tokenizer=None if chapter else WordTokenizer(language, use_stemmer)
            )
            for language in set(languages)
        }
        rows = zip(predictions, references, languages, strict=True)
        rows = [scorers[language].score(reference, prediction) for prediction, reference, language in rows]
        scores = {rouge: [row[rouge].fmeasure for row in rows] for rouge in ROUGE_TYPES}
        return {rouge: float(np.mean(f1)) for rouge, f1 in scores.items()} if use_aggregator else scores


def row_languages(rows, style):
    """Return the language of each row; with ``--rouge chapter`` all text counts as English."""
    return ["en" if style == "chapter" else language for language in rows["language"]]


def rouge_rows(predictions, rows, style, use_stemmer, baseline=False):
    """Return the F1 scores × 100 of each row, shape (rows, 4), in the ``--rouge`` style."""
    languages, titles = row_languages(rows, style), list(rows["review_title"])
    as_chapter = baseline and style == "chapter"  # which neither stems nor splits there
    scores = Rouge().compute(
        predictions=postprocess_text(predictions, languages),
        references=titles if as_chapter else postprocess_text(titles, languages),
        languages=languages,
        use_stemmer=use_stemmer and not as_chapter,
        use_aggregator=False,
        chapter=style == "chapter",
    )
    return 100 * np.array([scores[rouge] for rouge in ROUGE_TYPES]).T


def bootstrap(values, resamples=1000, seed=42):
    """Resample the rows of ``values`` (rows, columns) and return low, high and p of each column's mean.

    Low and high bound the 95% percentile interval; p is two-sided, of the mean being zero.
    Source: Efron and Tibshirani 1993, chapters 13 and 16.
    """
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean(axis=0) for _ in range(resamples)]
    means = np.array(means)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    tail = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    return low, high, np.minimum(1, 2 * (tail + 1) / (resamples + 1))


def score(systems, rows, style="language", use_stemmer=True):
    """Score {name: summaries} on the same rows, for each language and for all.

    Returns {language: {"rows": n, name: {rouge: {"f1", "low", "high"}}}}; with two systems also
    "difference" (first minus second, paired) with its p.
    """
    values = {
        name: rouge_rows(texts, rows, style, use_stemmer, baseline=name == "lead-3") for name, texts in systems.items()
    }
    if len(values) == 2:
        first, second = values.values()
        values["difference"] = first - second
    languages = np.array(list(rows["language"]))
    scores = {}
    for group in [*sorted(set(languages.tolist())), "all"]:
        chosen = (languages == group) | (group == "all")
        scores[group] = {"rows": int(chosen.sum())}
        for name, column in values.items():
            low, high, p = (bounds.tolist() for bounds in bootstrap(column[chosen]))
            mean = column[chosen].mean(axis=0).tolist()
            scores[group][name] = {
                rouge: {"f1": mean[i], "low": low[i], "high": high[i]} | ({"p": p[i]} if name == "difference" else {})
                for i, rouge in enumerate(ROUGE_TYPES)
            }
    return scores


def compare_with_lead_3(summaries, rows, style, use_stemmer=True):
    """Return ``score`` of a model's summaries beside the first three sentences of each review."""
    lead_3 = [
        "\n".join(sent_tokenize(text, language)[:3])
        for text, language in zip(rows["review_body"], row_languages(rows, style), strict=True)
    ]
    return score({"model": summaries, "lead-3": lead_3}, rows, style, use_stemmer)


def score_table(scores):
    """Return the lines of a table of ``score``: F1 × 100 with its 95% interval, p under the differences."""
    lines = [f"{'':17}" + "".join(f"{rouge:<25}" for rouge in ROUGE_TYPES)]
    for group, systems in scores.items():
        lines.append(f"{group}, {systems['rows']:,} rows")
        for name in [name for name in systems if name != "rows"]:
            row, sign = systems[name], "+" if name == "difference" else ""
            cells = [f"{row[r]['f1']:{sign}6.2f} [{row[r]['low']:.2f}, {row[r]['high']:.2f}]" for r in ROUGE_TYPES]
            lines.append(f"  {name:<14}" + "".join(f"{cell:<25}" for cell in cells))
            if name == "difference":
                cells = [f"p = {row[r]['p']:.3f}" + (" (n. s.)" if row[r]["p"] > 0.05 else "") for r in ROUGE_TYPES]
                lines.append(f"{'':17}" + "".join(f"{cell:<25}" for cell in cells))
    return [line.rstrip() for line in lines]


def print_scores(scores, title):
    """Print the table of ``score``."""
    print(f"\n{title}: ROUGE F1 × 100 [95% interval]", *score_table(scores), sep="\n")


# ------------------------------------------------------------------------------------------------
# Results
# ------------------------------------------------------------------------------------------------


def print_epoch(epoch, loss, eval_loss, scores):
    """Print the one line of an epoch, past the progress bars; ``scores`` are means of F1 × 100."""
    scores = "  ".join(f"{name} {scores[name]:5.2f}" for name in ROUGE_TYPES)
    tqdm.write(f"epoch {epoch:2}  loss {loss:.3f}  eval_loss {eval_loss:.3f}  {scores}")


def write_results(folder, args, scores, **measured):
    """Write results.json: arguments, versions, scores and what was measured."""
    packages = ("torch", "transformers", "accelerate", "datasets", "evaluate", "rouge_score", "nltk", "numpy")
    results = {
        "arguments": vars(args),
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in packages},
        "scores": scores,
        **measured,
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_model(args, tokenizer, model, scores, log, state_dict=None, **measured):
    """Write model, tokenizer, results.json, log.csv and model card to ``--output-dir`` and push them if asked to.

    ``log`` has a dictionary with step, loss (a label token), grad_norm (before clipping) and learning_rate a step.
    """
    with new_files(args.output_dir) as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder, state_dict=state_dict)
        write_results(folder, args, scores, **measured)
        columns = ("step", "loss", "grad_norm", "learning_rate")
        rows = [",".join(columns)] + [",".join(str(row[column]) for column in columns) for row in log]
        (folder / "log.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        write_model_card(folder, args, scores)
    print(f'\nSaved in {args.output_dir}. Try: python predict.py --model {args.output_dir} "I loved it!"')
    if args.push_to_hub:
        push_to_hub(args.output_dir, args.push_to_hub)


# ------------------------------------------------------------------------------------------------
# The Hub
# ------------------------------------------------------------------------------------------------

WIDGET = [  # examples to try on the model's page
    {"example_title": "English", "text": "The cover was torn and two pages were missing. Very careless packing."},
    {"example_title": "Español", "text": "Una novela que engancha desde el principio, la leí en dos días."},
]


def create_repo(repo):
    """Create the repository of ``--push-to-hub`` before the training, so that a bad token shows at once."""
    check_hub("train without --push-to-hub and push later")
    try:
        HfApi().create_repo(repo, exist_ok=True)
    except Exception as error:  # no token, a refused one, no permission, a bad name
        fail(f"cannot push to {repo}: {first_line(error)}; log in with `hf auth login`")


def push_to_hub(folder, repo):
    """Push a saved folder; where that fails, it stays and the command that pushes it later is printed."""
    try:
        HfApi().upload_folder(repo_id=repo, folder_path=folder, ignore_patterns="checkpoints/*",
                              commit_message="Training complete")  # fmt: skip
    except Exception as error:  # the Hub may fail in any way
        fail(f"the model is safe in {folder}, but not pushed ({first_line(error)}); later: "
             f"hf upload {repo} {folder} . --exclude 'checkpoints/*'")  # fmt: skip
    print(f"Pushed to {ENDPOINT}/{repo}")


def write_model_card(folder, args, scores):
    """Write README.md with what the Hub shows of a model: languages, data, hyperparameters, scores."""
    languages = [name for name in scores if name != "all"]
    dataset = json.loads((Path(args.data) / "arguments.json").read_text(encoding="utf-8"))["dataset"]
    on_hub = not Path(dataset).exists()
    data = ModelCardData(
        language=languages,
        base_model=None if args.model == "tiny" or Path(args.model).exists() else args.model,
        datasets=[dataset] if on_hub else None,
        library_name="transformers",
        pipeline_tag="summarization",
        tags=["summarization", "generated_from_trainer"],
        metrics=["rouge"],
        widget=WIDGET,
        model_name=Path(args.output_dir).name,
        eval_results=[
            EvalResult("summarization", dataset if on_hub else "json", dataset, "rouge", row["f1"], metric_name=rouge)
            for rouge, row in scores["all"]["model"].items()
        ],
    )
    lines = ["---", data.to_yaml(), "---", "", f"# {Path(args.output_dir).name}", ""]
    lines += [f"{args.model} fine-tuned on {dataset} to write the title of a review.", ""]
    lines += ["## Scores on validation (ROUGE F1 × 100 [95% interval])", "", "```", *score_table(scores), "```"]
    lines += ["", "## Hyperparameters", "", *(f"- {name}: {value}" for name, value in vars(args).items()), ""]
    (Path(folder) / "README.md").write_text("\n".join(lines), encoding="utf-8")
