"""What the scripts share: flags and errors, files, data, checkpoints, ROUGE, results.

The lesson itself stands in the scripts. They call these functions as ``common.name``.
"""

import argparse
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
import unicodedata
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError

import datasets
import evaluate
import huggingface_hub
import numpy as np
import pandas as pd
import punkt
import torch
import transformers
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets.exceptions import DatasetsError
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from nltk.stem import SnowballStemmer
from rouge_score.rouge_scorer import RougeScorer
from safetensors import SafetensorError

# ---- Flags ---------------------------------------------------------------------------------------


def argument_parser(description, presets):
    """Return an argparse parser with --preset and --data, to which a script adds its own flags.

    ``presets`` is {name of a preset: {flag: its default}}. --help lists them.
    """
    lines = ["what the presets set:"]
    for name, defaults in presets.items():
        values = ", ".join(f"{flag} {value}" for flag, value in defaults.items())
        lines.append(f"  {name}: {values}")
    parser = argparse.ArgumentParser(
        description=description,
        epilog="\n".join(lines),
        usage="%(prog)s [flags]; --help lists them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--preset", choices=list(presets), default="sample", help="see below")
    parser.add_argument("--data", help="prepared data (default: data/prepared/<preset>)")
    return parser


def add_generation_arguments(parser):
    """Add the flags of the scripts in which a model writes titles."""
    add = parser.add_argument
    add("--model", help="checkpoint: a folder or Hub id")
    add("--max-input-length", type=int, default=512, help="tokens of a review (512)")
    add("--max-target-length", type=int, default=30, help="tokens of a title (30)")
    add("--num-beams", type=int, help="beams of the search (as the checkpoint says)")
    add("--batch-size", type=int, help="rows per batch and process")
    bf16_help = "compute in bfloat16 (if the GPU or the CPU has it)"
    add("--bf16", action=argparse.BooleanOptionalAction, help=bf16_help)
    add_rouge_argument(parser)


def add_rouge_argument(parser):
    """Add the flag that says which words count."""
    parser.add_argument(
        "--rouge",
        choices=["language", "rouge_score", "rouge_score_stemmer"],
        default="language",
        help="words of each row's language and their stems (language), or those of the package "
        "rouge_score, which knows a-z only, without or with its English stemmer",
    )


def training_parser(description, presets):
    """Return the parser with the flags that both training scripts share."""
    parser = argument_parser(description, presets)
    add_generation_arguments(parser)
    add = parser.add_argument
    add("--output-dir", help="folder to write to")
    add("--epochs", type=int, help="passes over the training split")
    add("--learning-rate", type=float, help="of the first step; falls to 0 linearly")
    add("--weight-decay", type=float, help="of AdamW")
    add("--max-train-samples", type=int, help="train on so many rows only, as a trial")
    add("--seed", type=int, default=42, help="of the order of rows and of dropout (42)")
    add("--resume", action="store_true", help="go on from the newest checkpoint of --output-dir")
    add("--push-to-hub", metavar="USER/NAME", help="Hub repository to upload the model to")
    return parser


def parse_args(parser, presets):
    """Return the parsed flags, with the defaults of --preset for those that are not given."""
    preset = parser.parse_args().preset
    parser.set_defaults(data=f"data/prepared/{preset}", **presets[preset])
    args = parser.parse_args()
    for name, value in vars(args).items():
        flag = f"--{name.replace('_', '-')}"
        if value == "":
            parser.error(f"{flag} must not be empty")
        if type(value) is int and value < 1 and name != "seed":
            parser.error(f"{flag} {value} is less than 1")
        if type(value) is float and not 0 <= value < float("inf"):
            parser.error(f"{flag} {value} is not a number from 0 up")
    check_launcher()
    if "model" in args and args.model == "tiny":
        args.model = f"{args.data}/tiny-mt5"
    if "bf16" in args and args.bf16 is None:
        args.bf16 = device_has_bf16()
    return args


def check_launcher():
    """End the run if a launcher chose what the scripts do not support."""
    for engine in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false") == "true":
            fail(f"{engine} is not supported; launch without it")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        fail(f"--mixed_precision {precision} is not supported, as mT5 overflows in it; use bf16")


def device_has_bf16():
    """Return whether the GPU, or without a GPU the CPU, multiplies in bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def process_state():
    """Return Accelerate's ``PartialState``, which knows the processes that a launcher started."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


# ---- Errors --------------------------------------------------------------------------------------


def printable(text):
    """Return ``text`` with control characters escaped: a review must not steer the terminal."""
    shown = []
    for character in text:
        if character != "\n" and unicodedata.category(character).startswith("C"):
            character = f"\\u{ord(character):04x}"
        shown.append(character)
    return "".join(shown)


def fail(message):
    """End the process with one line on standard error and exit code 2."""
    message = " ".join(str(message).split())
    message = re.sub(r"//[^/@\s]*@", "//", message)  # no password of an address
    rank = os.environ.get("RANK")  # of this process, if a launcher started several
    process = f" on process {rank}" if rank else ""
    print(printable(f"{Path(sys.argv[0]).name}: error{process}: {message}"), file=sys.stderr)
    sys.exit(2)


# Errors of a file, the network or a value. Others are bugs and keep their traceback.
EXPLAINED = (OSError, ValueError, KeyError, RuntimeError)
EXPLAINED += (DatasetsError, SafetensorError, UnpicklingError)


@contextmanager
def explain_errors(what, remedy):
    """Turn an error of the block into one line: what failed, the reason, the remedy."""
    try:
        yield
    except EXPLAINED as error:
        while error.__cause__ and not isinstance(error, OSError):
            error = error.__cause__  # says what is wrong with a file
        reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
        response = getattr(error, "response", None)  # of the Hub
        if response is not None and (response.status_code == 429 or response.status_code >= 500):
            remedy = "the Hub is busy, try again later"
        fail(f"{what}: {reason}; {remedy}")


@contextmanager
def command_line():
    """Run the ``main()`` of a script without the libraries' hints, and end it in one line.

    Ctrl-C, a full disk or a closed pipe are no bugs. All other errors keep their traceback.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # of loading weights
    datasets.disable_progress_bars()
    for library in ("accelerate", "datasets", "huggingface_hub", "torch"):
        logging.getLogger(library).setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as after Ctrl-C
    sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal without accents
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, SafetensorError, RuntimeError) as error:
        # On a full disk safetensors has its own error, and torch.save that of its C++ writer.
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        fail(f"{error}; check the path, its permissions and the space on the disk")


# ---- Files ---------------------------------------------------------------------------------------

# Each folder that this program wrote has this file. Others are neither written to nor replaced.
MARK = "arguments.json"
# Without one of these files nothing is loaded from a folder.
KEYS = ("config.json", "dataset_dict.json")


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path, content):
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    Path(path).write_text(text, encoding="utf-8")


def check_folder(folder, *sources):
    """End the run unless ``folder`` is absent, empty or ours, and apart from what is read."""
    target = Path(folder).resolve()
    for source in sources:
        path = Path(source).resolve()
        if path.exists() and (target.is_relative_to(path) or path.is_relative_to(target)):
            fail(f"{folder} would overwrite {source}, which is read; name another folder")
    if target.exists() and not target.is_dir():
        fail(f"{folder} is a file; name a folder")
    if target.exists() and any(target.iterdir()) and not (target / MARK).is_file():
        fail(f"{folder} was not written by this program; name another folder")


@contextmanager
def new_files(folder):
    """Yield an empty folder whose files replace those in ``folder`` when the block has ended well.

    Other files in ``folder`` stay. The file without which nothing loads is removed first and comes
    back last, so that a folder is not taken for whole when the process is killed in between.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as temporary:
        yield Path(temporary)
        new = sorted(Path(temporary).iterdir(), key=lambda path: path.name in KEYS)
        for path in new:
            target = folder / path.name
            if target.is_symlink() or (target.exists() and target.is_dir() != path.is_dir()):
                fail(f"{target} is in the way: it is a link, a folder or a device; move it")
        for path in new:
            if path.name in KEYS:
                (folder / path.name).unlink(missing_ok=True)
        for path in new:
            if path.is_dir() and (folder / path.name).exists():
                shutil.rmtree(folder / path.name)
            path.replace(folder / path.name)


def find_checkpoints(output_dir):
    """Return the folders checkpoint-N that are whole, the oldest first.

    The last file of a checkpoint is trainer_state.json or, in train_accelerate.py, progress.json.
    """
    found = {}
    for path in Path(output_dir).glob("checkpoint-*/*.json"):
        number = path.parent.name.removeprefix("checkpoint-")
        if path.name in ("trainer_state.json", "progress.json") and number.isdigit():
            with suppress(ValueError):  # the run was killed while it wrote the file
                read_json(path)
                found[int(number)] = path.parent
    return [found[number] for number in sorted(found)]


def start_run(args):
    """Make --output-dir and the Hub repository ours; return the checkpoint to go on from, or None.

    A finished run is replaced by a new one, and --resume only prints its scores. A run that has not
    ended must be resumed with the same flags, or its folder deleted.
    """
    state = process_state()
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != state.num_processes:
        fail(f"the launcher started {started} processes that do not know of each other; see README")
    if "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        # `accelerate launch` gives each process one core, even if there is only one process.
        torch.set_num_threads(max(1, os.cpu_count() // started))

    check_folder(args.output_dir, args.model, args.data)
    mark = Path(args.output_dir, MARK)
    earlier = read_json(mark) if mark.exists() else {}
    checkpoints = find_checkpoints(args.output_dir)
    state.wait_for_everyone()  # until each process has looked
    if args.resume and earlier.get("finished"):
        scores = read_json(Path(args.output_dir, "results.json"))["scores"]
        state.print(f"{args.output_dir} holds a finished run")
        state.print(format_scores(scores, "validation"))
        sys.exit(0)
    if args.resume and checkpoints:
        for name, value in run_arguments(args).items():
            may_change = name in ("output_dir", "resume", "push_to_hub", "report_to")
            if earlier[name] != value and not may_change:
                fail(f"--resume: the run was started with {name} {earlier[name]}, not {value}")
        state.print(f"Going on from {checkpoints[-1]}")
        return checkpoints[-1]
    if checkpoints and not earlier["finished"]:
        fail(f"{args.output_dir} holds a run that has not ended; use --resume, or delete it")

    if state.is_main_process:
        if args.push_to_hub:
            with explain_push_errors(args):  # a wrong token is seen now and not after the training
                huggingface_hub.create_repo(args.push_to_hub, exist_ok=True)
        for checkpoint in checkpoints:
            shutil.rmtree(checkpoint)
        with new_files(args.output_dir) as folder:
            write_json(folder / MARK, {**run_arguments(args), "finished": False})
    return None


def run_arguments(args):
    """Return the flags of a training and, beside them, its script and its number of processes."""
    processes = process_state().num_processes
    return {"script": Path(sys.argv[0]).name, "processes": processes, **vars(args)}


# ---- Data ----------------------------------------------------------------------------------------

# load_dataset() keeps what it has read; in a folder that stays, it would give back older content.
CACHE = tempfile.TemporaryDirectory()


def dataset_source(path, flag, language=""):
    """Return the arguments with which ``load_dataset`` reads a file, a folder or a Hub data set.

    If the folder has a folder for the ``language``, that one is read.
    """
    if Path(path).is_file():
        file = Path(path).absolute()
        files = glob.escape(str(file))
        return {"path": str(file.parent), "data_files": files, "cache_dir": CACHE.name}
    exists, folder = os.path.isdir, path
    if not exists(path) and re.fullmatch(r"[\w.-]+/[\w-]+", path):
        check_hub(f"without a network give {flag} a file or folder instead of {path}")
        exists, folder = huggingface_hub.HfFileSystem().isdir, f"datasets/{path}"
    if not exists(folder):
        fail(f"{flag} {path} does not exist; name a file, a folder or a Hub data set (user/name)")
    data_dir = language if language and exists(f"{folder}/{language}") else None
    return {"path": path, "data_dir": data_dir, "cache_dir": CACHE.name}


def load_prepared(args, splits):
    """Return the ``DatasetDict`` in --data, which must have the ``splits``.

    If the folder of the preset is missing, prepare_data.py makes it first. On several processes the
    first one does so while the others wait.
    """
    with process_state().main_process_first():
        own = args.data == f"data/prepared/{args.preset}"
        if not Path(args.data, "dataset_dict.json").exists() and own:
            print(
                f"{args.data} is missing, so first: python prepare_data.py --preset {args.preset}"
            )
            script = Path(__file__).with_name("prepare_data.py")
            command = [sys.executable, script, "--preset", args.preset]
            if code := subprocess.run(command).returncode:
                sys.exit(code)
    if not Path(args.data, "dataset_dict.json").exists():
        fail(f"{args.data} holds no prepared data; make it: prepare_data.py --data {args.data}")
    with explain_errors(f"cannot read --data {args.data}", "make it again with prepare_data.py"):
        books = datasets.load_from_disk(args.data)
    for split in splits:
        if split not in books:
            fail(f"--data {args.data} has no split {split}, only {', '.join(books)}")
    if samples := getattr(args, "max_train_samples", None):
        books["train"] = books["train"].select(range(min(samples, len(books["train"]))))
    return books


# ---- Checkpoints ---------------------------------------------------------------------------------


def check_hub(remedy):
    """End the run at once if the Hub cannot be reached; its client would try for half a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return  # it fails at once by itself
    endpoint = huggingface_hub.constants.ENDPOINT
    with explain_errors(f"cannot reach {endpoint}", remedy):
        huggingface_hub.utils.get_session().head(endpoint, timeout=5)


@contextmanager
def explain_checkpoint_errors(model):
    """Turn errors about the checkpoint --model into one line."""
    with explain_errors(
        f"cannot load --model {model}", "name the folder or Hub id of a checkpoint"
    ):
        if not Path(model).is_dir():
            cached = huggingface_hub.try_to_load_from_cache(model, "config.json")
            if not isinstance(cached, str):
                check_hub(f"without a network give --model a folder instead of {model}")
        yield


def adapt_checkpoint(args, tokenizer, model, loading_info):
    """Check a loaded checkpoint and set it up, in place, to be trained here and to write titles."""
    name = f"--model {args.model}"
    if missing := sorted(loading_info["missing_keys"]):
        fail(f"{name} lacks {len(missing)} weights, which would be random, such as {missing[0]}")
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        fail(
            f"{name} holds no tokenizer; copy the files of the one that it was trained with into it"
        )

    # mT5 has a head (lm_head) apart from its embeddings, but its configuration says that the two
    # are tied. Whatever ties them again, as resizing does, would overwrite the head.
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    model.config.tie_word_embeddings = head.weight is embeddings.weight

    # The length counts new tokens. The default max_length is 20 and counts the start token too.
    generation_config = model.generation_config
    generation_config.max_length = None
    generation_config.max_new_tokens = args.max_target_length
    if args.num_beams:
        generation_config.num_beams = args.num_beams
    # <extra_id_0> and the like belong to pre-training. So do the rows of the head without a token.
    pieces = tokenizer.convert_ids_to_tokens(range(head.weight.shape[0]))
    unwanted = [i for i, piece in enumerate(pieces) if piece is None or "<extra_id_" in piece]
    generation_config.suppress_tokens = unwanted or None
    adapt_other_families(args, tokenizer, model)


# ---- Checkpoints of other families than mT5 ------------------------------------------------------


def adapt_other_families(args, tokenizer, model):
    """Set up what BART, PEGASUS, mBART-50 and GPT-2 need beyond mT5."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and args.max_input_length > positions:
        fail(f"{args.model} has {positions} positions; give --max-input-length {positions}")
    for module in model.modules():
        if "Sinusoidal" in type(module).__name__:  # PEGASUS: constants that do not learn
            module.requires_grad_(False)
    generation_config = model.generation_config
    generation_config.min_length = 0  # BART's 56 is for summaries of news
    if args.num_beams == 1:  # a configuration with settings for beams could not be saved
        generation_config.early_stopping, generation_config.length_penalty = None, None
    if language_ids(tokenizer):  # a trained mBART-50 writes the code of the language by itself
        generation_config.forced_bos_token_id = None
    if not model.config.is_encoder_decoder:  # GPT-2 continues a text, so padding stands before it
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token


def task_prefix(model):
    """Return what T5 wants before a text to be summarized, "summarize: "; "" for other models."""
    parameters = getattr(model.config, "task_specific_params", None) or {}
    return parameters.get("summarization", {}).get("prefix", "")


def language_ids(tokenizer):
    """Return {"en": id of en_XX, ...} if the tokenizer marks texts with languages, as mBART-50."""
    codes = getattr(tokenizer, "lang_code_to_id", {})
    return {code.split("_")[0]: number for code, number in codes.items()}


def set_language_codes(model_inputs, languages, tokenizer):
    """Return ``model_inputs`` with the language as the first token of each row, for mBART-50.

    Other tokenizers do not mark languages, and their ``model_inputs`` are returned as they are.
    """
    ids = language_ids(tokenizer)
    if not ids:
        return model_inputs
    for language in set(languages):
        if language not in ids:
            fail(f"the checkpoint knows no language {language}, only {', '.join(sorted(ids))}")
    for name in {"input_ids", "labels"} & set(model_inputs):
        for row, language in zip(model_inputs[name], languages, strict=True):
            row[0] = ids[language]
    return model_inputs


# ---- ROUGE ---------------------------------------------------------------------------------------

ROUGE_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
# The languages whose sentences and stems are known, by the names that Punkt and Snowball use.
LANGUAGES = {
    "en": "english",
    "es": "spanish",
    "de": "german",
    "fr": "french",
    "it": "italian",
    "pt": "portuguese",
    "ja": "japanese",
    "zh": "chinese",
}
NO_SPACES = ("ja", "zh")  # each character counts as a word


def count_words(text, language):
    """Return the number of words in ``text``; in Japanese and Chinese, of characters."""
    return len(re.findall(r"\S" if language in NO_SPACES else r"\S+", text))


def sent_tokenize(text, language):
    """Split ``text`` into sentences, as ``nltk.sent_tokenize``, which would download its model."""
    return punkt.sent_tokenize(text.strip(), LANGUAGES.get(language, "english"))


class WordTokenizer:
    """A tokenizer for ``rouge_score``: words of Unicode's letters and digits, Snowball's stems.

    As in ``rouge_score``, English words have Porter's stems, and words up to three letters stay.
    """

    def __init__(self, language, use_stemmer):
        self.word = re.compile(r"[^\W_]" if language in NO_SPACES else r"[^\W_]+")
        self.stem = str  # leaves a word as it is
        name = "porter" if language == "en" else LANGUAGES.get(language)
        if use_stemmer and name in SnowballStemmer.languages:
            self.stem = cache(SnowballStemmer(name).stem)

    def tokenize(self, text):
        words = self.word.findall(unicodedata.normalize("NFC", text).lower())
        return [self.stem(word) if len(word) > 3 else word for word in words]


class Rouge(evaluate.Metric):
    """ROUGE (Lin 2004, aclanthology.org/W04-1013), as ``evaluate.load("rouge")``.

    It needs no download, and it is right beyond English: rouge_score drops letters outside a-z.
    ``rouge`` is the value of --rouge. ``compute()`` also takes ``languages``, one code per row. It
    returns mean F1 scores in [0, 1] or, with ``use_aggregator=False``, lists of those of each row.
    """

    def __init__(self, rouge="language"):
        super().__init__(config_name=rouge, keep_in_memory=True)

    def _info(self):
        strings = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        features = datasets.Features(strings)
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=features)

    def _compute(
        self, predictions, references, languages=None, use_stemmer=None, use_aggregator=True
    ):
        languages = languages or ["en"] * len(predictions)
        if use_stemmer is None:
            use_stemmer = self.config_name != "rouge_score"
        scorers = {}
        for language in set(languages):
            tokenizer = (
                WordTokenizer(language, use_stemmer) if self.config_name == "language" else None
            )
            scorers[language] = RougeScorer(ROUGE_TYPES, use_stemmer, tokenizer=tokenizer)
        scores = {name: [] for name in ROUGE_TYPES}
        for prediction, reference, language in zip(predictions, references, languages, strict=True):
            row = scorers[language].score(reference, prediction)
            for name in ROUGE_TYPES:
                scores[name].append(row[name].fmeasure)
        if not use_aggregator:
            return scores
        return {name: float(np.mean(f1)) for name, f1 in scores.items()}


def score_rows(rouge, summaries, rows):
    """Return a ``DataFrame`` with the F1 scores × 100 of each row in the columns ROUGE_TYPES."""
    languages = list(rows["language"])
    texts = {"predictions": summaries, "references": rows["review_title"]}
    for name, column in texts.items():  # ROUGE-Lsum expects one sentence per line
        texts[name] = ["\n".join(text) for text in map(sent_tokenize, column, languages)]
    return 100 * pd.DataFrame(rouge.compute(**texts, languages=languages, use_aggregator=False))


def bootstrap(values, resamples=1000, seed=42):
    """Return a ``DataFrame`` with f1, low, high, p: the mean of each column, its interval, its p.

    The rows are drawn again, with replacement, ``resamples`` times. The interval holds 95% of the
    means. p is two-sided, for a mean of zero. Efron and Tibshirani 1993, chapters 13 and 16.
    """
    rng = np.random.default_rng(seed)
    draws = [values.sample(frac=1, replace=True, random_state=rng).mean() for _ in range(resamples)]
    means = pd.DataFrame(draws)
    tail = np.minimum((means <= 0).sum(), (means >= 0).sum())
    p = np.minimum(1, 2 * (tail + 1) / (resamples + 1))
    low, high = means.quantile(0.025), means.quantile(0.975)
    return pd.DataFrame({"f1": values.mean(), "low": low, "high": high, "p": p})


def score_beside_lead_3(rouge, rows, summaries=None):
    """Score lead-3 and, beside it, a model's ``summaries`` of the ``rows``, by language and in all.

    Returns {language: {"rows": n, system: {rouge: {"f1", "low", "high"}}}} with the systems
    "model", "lead-3" and "difference". The difference is paired, row by row, and has its "p" too.
    """
    first_sentences = map(sent_tokenize, rows["review_body"], rows["language"])
    lead_3 = ["\n".join(sentences[:3]) for sentences in first_sentences]
    systems = {"lead-3": score_rows(rouge, lead_3, rows)}
    if summaries is not None:
        model = score_rows(rouge, summaries, rows)
        systems = {"model": model, **systems, "difference": model - systems["lead-3"]}
    groups = [("all", np.full(len(rows), True))]
    codes = np.array(rows["language"][:])
    groups = [*((code, codes == code) for code in np.unique(codes).tolist()), *groups]
    scores = {}
    for language, chosen in groups:
        scores[language] = {"rows": int(chosen.sum())}
        for name, values in systems.items():
            columns = ["f1", "low", "high", "p"] if name == "difference" else ["f1", "low", "high"]
            scores[language][name] = bootstrap(values[chosen])[columns].to_dict("index")
    return scores


def format_scores(scores, split):
    """Return the table of ``score_beside_lead_3`` as text of at most 100 columns."""

    def line(name, cells):
        return f"{name:>8}" + "".join(f"{cell:>23}" for cell in cells)

    lines = [f"{split} split: ROUGE F1 × 100 [95% interval]", line("", ROUGE_TYPES)]
    for language, systems in scores.items():
        lines.append(f"{language}, {systems['rows']:,} rows")
        for name in ("model", "lead-3", "difference"):
            if name in systems:
                cells = systems[name].values()
                intervals = ["{f1:.2f} [{low:.2f},{high:.2f}]".format(**cell) for cell in cells]
                lines.append(line(name.replace("difference", "diff."), intervals))
        if "difference" in systems:
            cells = systems["difference"].values()
            lines.append(line("p", [format_p(cell["p"]) for cell in cells]))
            lines.append(line("", [which_is_better(cell) for cell in cells]))
    return "\n".join(lines)


def format_p(p):
    """Return p as text; with 1,000 resamples none is smaller than 2/1001."""
    return "≤ 0.002" if p < 0.002 else f"{p:.3f}"


def which_is_better(difference):
    """Return in words what a difference and its p show, at the level of 0.05."""
    if difference["p"] > 0.05:
        return "no difference shown"
    return "model better" if difference["f1"] > 0 else "lead-3 better"


# ---- Results -------------------------------------------------------------------------------------


def save_results(folder, args, scores, log_history, finished=False):
    """Write results.json, log.csv, training.png and README.md, the model card, to ``folder``.

    ``log_history`` is a list of dictionaries with the names that the Trainer gives: epoch, loss,
    eval_loss, eval_rouge1, ... ``finished`` says whether the run has ended.
    """
    write_json(folder / MARK, {**run_arguments(args), "finished": finished})
    packages = (
        "torch",
        "transformers",
        "accelerate",
        "datasets",
        "evaluate",
        "rouge_score",
        "nltk",
    )
    versions = {"python": sys.version.split()[0], **{name: version(name) for name in packages}}
    results = {"arguments": run_arguments(args), "versions": versions, "scores": scores}
    write_json(folder / "results.json", results)
    log = pd.DataFrame(log_history)
    log.to_csv(folder / "log.csv", index=False)
    draw_training(folder / "training.png", log, scores["all"]["lead-3"])
    write_model_card(folder / "README.md", args, scores)


def draw_training(path, log, lead_3):
    """Draw the losses and ROUGE by epoch, and lead-3's ROUGE as broken lines."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("eval_loss", "validation")):
        rows = log[log[name].notna()]
        left.plot(rows["epoch"], rows[name], marker="o", label=label)
    left.set(title="Loss per token of a title", xlabel="epochs")
    rows = log[log["eval_rouge1"].notna()]
    for rouge, marker in (("rouge1", "o"), ("rouge2", "s"), ("rougeL", "x")):
        (line,) = right.plot(rows["epoch"], rows[f"eval_{rouge}"], marker=marker, label=rouge)
        f1 = lead_3[rouge]["f1"]
        right.axhline(f1, color=line.get_color(), linestyle="--", label=f"{rouge} of lead-3")
    right.set(title="ROUGE of the validation split, F1 × 100", xlabel="epochs")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    figure.savefig(path)


def write_model_card(path, args, scores):
    """Write what the Hub shows of a model: languages, data, scores, hyperparameters."""
    dataset = read_json(Path(args.data, MARK))["dataset"]
    data = huggingface_hub.ModelCardData(
        language=[language for language in scores if language != "all"],
        base_model=None if Path(args.model).exists() else args.model,
        datasets=None if Path(dataset).exists() else [dataset],
        library_name="transformers",
        pipeline_tag="summarization",
        tags=["summarization"],
        metrics=["rouge"],
    )
    hyperparameters = "\n".join(f"- {name}: {value}" for name, value in vars(args).items())
    card = f"""---
{data}
---

# {Path(args.output_dir).name}

{args.model} fine-tuned on {dataset} to write the title of a review.

![losses and scores of the training](training.png)

```
{format_scores(scores, "validation")}
```

## Hyperparameters

{hyperparameters}
"""
    path.write_text(card, encoding="utf-8")


@contextmanager
def explain_push_errors(args):
    """Turn an error of the Hub into one line with the command that uploads the model later."""
    check_hub("train without --push-to-hub, and upload later")
    later = f"hf upload {args.push_to_hub} {args.output_dir} . --exclude 'checkpoint-*'"
    remedy = f"log in with `hf auth login`; upload a saved model later with: {later}"
    with explain_errors(f"cannot push to {args.push_to_hub}", remedy):
        yield


def wait_for_upload(args, upload):
    """Wait until an ``upload``, a future or None, has ended, and report it if it has failed."""
    if upload and upload.exception():
        reason = str(upload.exception()).strip().split("\n")[0]
        print(f"An upload to {args.push_to_hub} failed: {reason}", file=sys.stderr)
