"""The six families of the chapter's table: T5, mT5, BART, PEGASUS, mBART-50 and GPT-2, tiny, with random weights."""

import json
from argparse import Namespace

import pytest
import torch
import transformers
from conftest import read_json, run, sample
from datasets import Dataset, DatasetDict, load_from_disk
from test_exact import SCRIPTS, error_line, read_log
from tokenizers import ByteLevelBPETokenizer, SentencePieceUnigramTokenizer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq, GenerationConfig
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

from common import generation_inputs, load_checkpoint, longest_first, preprocess_function, row_losses, summed_loss
from predict import summarize as predict_summarize

# ---- tiny checkpoints, whose configurations differ as those on the Hub do ----------------------

T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0,
      "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "initializer_factor": 1.0}  # fmt: skip
BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0,
        "max_position_embeddings": 64, "init_std": 0.3}  # fmt: skip
PREFIX = {"task_specific_params": {"summarization": {"prefix": "summarize: ", "num_beams": 4}}}

FAMILIES = {  # family: (class names, pieces before those that are learned, configuration, generation settings)
    "t5": ("T5", ["<pad>", "</s>", "<unk>"], T5 | PREFIX, {}),
    "mt5": ("MT5", ["<pad>", "</s>", "<unk>"], T5, {}),
    "bart": ("Bart", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
             BART | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
             {"num_beams": 4, "min_length": 56, "max_length": 142, "no_repeat_ngram_size": 3, "length_penalty": 2.0,
              "early_stopping": True, "forced_bos_token_id": 0, "forced_eos_token_id": 2}),
    "pegasus": ("Pegasus", ["<pad>", "</s>", "<mask_1>", "<mask_2>", *[f"<unk_{i}>" for i in range(2, 103)], "<unk>"],
                BART | {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
                {"num_beams": 8, "max_length": 64, "length_penalty": 0.6, "forced_eos_token_id": 1}),
    "mbart": ("MBart", ["<s>", "<pad>", "</s>", "<unk>", *FAIRSEQ_LANGUAGE_CODES, "<mask>"],
              BART | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
                      "scale_embedding": True},
              {"num_beams": 5, "max_length": 200, "early_stopping": True, "forced_bos_token_id": 4,
               "forced_eos_token_id": 2}),
    "gpt2": ("GPT2", ["<|endoftext|>"],
             {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "initializer_range": 0.3, "bos_token_id": 0,
              "eos_token_id": 0, "task_specific_params": {"text-generation": {"do_sample": True}}}, {}),
}  # fmt: skip
TRAINED = [family for family in FAMILIES if family != "gpt2"]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """{family: folder of its checkpoint}."""
    texts = [row[name] for language in ("en", "es") for row in sample(language, "train")[:150]
             for name in ("review_body", "review_title")]  # fmt: skip
    unigram, bpe = SentencePieceUnigramTokenizer(), ByteLevelBPETokenizer()
    unigram.train_from_iterator(
        texts, vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    bpe.train_from_iterator(texts, vocab_size=400, show_progress=False)
    scores, merges = (json.loads(learned.to_str())["model"] for learned in (unigram, bpe))
    folders = {}
    for family, (name, first, config, generation) in FAMILIES.items():
        if family in ("bart", "gpt2"):
            numbers = {piece: number for number, piece in enumerate([*first, *merges["vocab"]])}
            options = {"vocab": numbers, "merges": [tuple(pair) for pair in merges["merges"]]}
        else:
            options = {"vocab": [(piece, 0.0) for piece in first] + [tuple(pair) for pair in scores["vocab"][1:]]}
            options |= {"extra_ids": 0} if family in ("t5", "mt5") else {}
        tokenizer_class = {"mt5": "T5", "mbart": "MBart50"}.get(family, name)
        tokenizer = getattr(transformers, f"{tokenizer_class}Tokenizer")(**options)
        rows = len(tokenizer) + 28 * (family in ("t5", "mt5"))  # theirs have more rows than pieces
        torch.manual_seed(0)
        head = "LMHeadModel" if family == "gpt2" else "ForConditionalGeneration"
        config = getattr(transformers, f"{name}Config")(vocab_size=rows, **config)
        model = getattr(transformers, name + head)(config)
        model.get_input_embeddings().weight.data *= 0.1  # else a tied model only writes its last token again
        if family == "mt5":
            model.config.tie_word_embeddings = False
            model.lm_head.weight = torch.nn.Parameter(0.1 * torch.randn_like(model.shared.weight))
        model.generation_config = GenerationConfig.from_dict(model.generation_config.to_dict() | generation)
        folders[family] = tmp_path_factory.mktemp(family) / family
        tokenizer.save_pretrained(folders[family])
        model.save_pretrained(folders[family])
    return folders


def args_of(folder, **flags):
    """Return the flags that say what is opened, and how."""
    flags = {"model": str(folder), "data": "", "num_beams": None, "max_target_length": 30, "bf16": False} | flags
    return Namespace(**flags)


def opened(folder, **flags):
    """Return tokenizer and model of a folder, as predict.py has them."""
    tokenizer, model = load_checkpoint(args_of(folder, **flags))
    return tokenizer, model.eval()


# ---- the rows that a model gets ----------------------------------------------------------------


def summarize(tokenizer, model, rows):
    """Return the titles that predict.py writes, eight reviews a batch."""
    args = Namespace(batch_size=8, max_input_length=512, max_target_length=30)
    return predict_summarize(tokenizer, model, rows.select_columns(["review_body", "language"]), args)


@pytest.fixture(scope="module")
def rows():
    """Eight English and eight Spanish reviews, one of them longer than most models have positions."""
    rows = [row for pair in zip(sample("en", "test")[:8], sample("es", "test")[:8], strict=True) for row in pair]
    rows[3]["review_body"] *= 12
    return Dataset.from_list(rows).select_columns(["review_body", "review_title", "language"])


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.mark.parametrize(
    ("family", "language", "review", "title"),
    [
        ("t5", "es", "summarize: Buen libro.</s>", "Bueno</s>"),
        ("mt5", "es", "Buen libro.</s>", "Bueno</s>"),
        ("bart", "es", "<s>Buen libro.</s>", "<s>Bueno</s>"),
        ("pegasus", "es", "Buen libro.</s>", "Bueno</s>"),
        ("mbart", "es", "es_XX Buen libro.</s>", "es_XX Bueno</s>"),
        ("mbart", "en", "en_XX Buen libro.</s>", "en_XX Bueno</s>"),
        ("mbart", "ja", "ja_XX Buen libro.</s>", "ja_XX Bueno</s>"),
        ("gpt2", "es", "Buen libro.\nTL;DR:", "Bueno"),
    ],
)
def test_what_a_model_reads_and_writes(checkpoints, family, language, review, title):
    tokenizer, model = opened(checkpoints[family])
    texts = {"review_body": ["Buen libro."], "review_title": ["Bueno"], "language": [language]}
    inputs = preprocess_function(texts, tokenizer, model.config)
    assert [tokenizer.decode(inputs[name][0]) for name in ("input_ids", "labels")] == [review, title]
    assert inputs["attention_mask"][0] == [1] * len(inputs["input_ids"][0])


@pytest.mark.parametrize(
    ("family", "longest"), [("t5", 512), ("mt5", 512), ("bart", 64), ("pegasus", 64), ("mbart", 64), ("gpt2", 64 - 30)]
)
def test_a_long_review_is_cut_where_the_positions_end(checkpoints, family, longest):
    tokenizer, model = opened(checkpoints[family])
    texts = {"review_body": ["A long book. " * 500, "A short one."], "language": ["en", "es"]}
    inputs = preprocess_function(texts, tokenizer, model.config)
    assert len(inputs["input_ids"][0]) == longest > len(inputs["input_ids"][1])
    assert tokenizer.decode(inputs["input_ids"][0][-8:]).endswith("TL;DR:" if family == "gpt2" else "</s>")
    assert any(summarize(tokenizer, model, Dataset.from_dict(texts)))


def collated(tokenizer, model, rows):
    """Return the batch that the training scripts make of ``rows``."""
    features = rows.map(
        preprocess_function,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, "config": model.config},
        remove_columns=rows.column_names,
    )
    return DataCollatorForSeq2Seq(tokenizer, model=model)(list(features))


@pytest.mark.parametrize("family", TRAINED)
def test_the_collator_pads_labels_and_shifts_them(checkpoints, rows, family):
    tokenizer, model = opened(checkpoints[family])
    batch = collated(tokenizer, model, rows)
    for labels, decoder_inputs, title, language in zip(
        batch["labels"].tolist(), batch["decoder_input_ids"].tolist(), rows["review_title"], rows["language"], strict=True
    ):  # fmt: skip
        ids = tokenizer(title, max_length=30, truncation=True)["input_ids"]
        if family == "mbart":
            ids[0] = tokenizer.convert_tokens_to_ids(f"{language}_XX")
        assert labels == ids + [-100] * (len(labels) - len(ids))
        shifted = [model.config.decoder_start_token_id, *ids, *[tokenizer.pad_token_id] * len(labels)]
        assert decoder_inputs == shifted[: len(labels)]
    assert (batch["labels"] == -100).any()


def test_gpt2_reads_its_batch_from_the_right(checkpoints, rows):
    tokenizer, model = opened(checkpoints["gpt2"])
    inputs = preprocess_function({"review_body": ["Good.", "A good book."]}, tokenizer, model.config)
    padded = tokenizer.pad(inputs)
    assert [tokenizer.decode(ids) for ids in padded["input_ids"]] == [
        "<|endoftext|>" * padded["attention_mask"][0].count(0) + "Good.\nTL;DR:",
        "A good book.\nTL;DR:",
    ]


# ---- losses and titles -------------------------------------------------------------------------


@pytest.mark.parametrize("family", TRAINED)
def test_the_loss_is_the_models_own(checkpoints, rows, family):
    tokenizer, model = opened(checkpoints[family])
    batch = collated(tokenizer, model, rows)
    labels = batch["labels"]
    with torch.no_grad():
        own = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.item()
        outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
    loss, label_tokens = row_losses(outputs, labels).sum(dim=0, dtype=torch.double).tolist()
    assert label_tokens == (labels != -100).sum()
    assert summed_loss(outputs, labels, label_tokens).item() == pytest.approx(own, rel=1e-6)
    assert loss / label_tokens == pytest.approx(own, rel=1e-6)


def test_titles_in_a_batch_are_those_one_by_one(checkpoints, rows, family):
    tokenizer, model = opened(checkpoints[family])
    titles = summarize(tokenizer, model, rows)
    alone = [summarize(tokenizer, model, rows.select([i]))[0] for i in range(len(rows))]
    assert titles == alone
    assert len(set(titles)) > 4  # they go by the review
    _, plain = opened(checkpoints[family], bf16=True)  # on a CPU, with attention in plain products
    assert plain.config._attn_implementation == "eager" and summarize(tokenizer, plain, rows) == titles


@pytest.mark.parametrize("family", TRAINED)
def test_titles_of_the_evaluation_are_those_of_predict(checkpoints, rows, family):
    tokenizer, model = opened(checkpoints[family])
    batch = collated(tokenizer, model, rows)
    batch.pop("labels")
    with torch.no_grad():
        generated = model.generate(**generation_inputs(tokenizer, batch, model(**batch)))
    assert (generated[:, 0] == model.config.decoder_start_token_id).all()
    if family == "mbart":
        assert tokenizer.convert_ids_to_tokens(generated[:, 1]) == [f"{code}_XX" for code in rows["language"]]
    titles = [title.strip() for title in tokenizer.batch_decode(generated, skip_special_tokens=True)]
    assert titles == summarize(tokenizer, model, rows)


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        ("t5", {"num_beams": None}),
        ("mt5", {"num_beams": None}),
        ("bart", {"num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, "forced_bos_token_id": 0}),
        ("pegasus", {"num_beams": 8, "length_penalty": 0.6}),
        ("mbart", {"num_beams": 5, "forced_bos_token_id": None}),  # one language for all rows of a batch
        ("gpt2", {"num_beams": None}),
    ],
)
def test_generation_settings_of_a_checkpoint(checkpoints, family, kept):
    for beams in (None, 2):
        settings = opened(checkpoints[family], num_beams=beams)[1].generation_config.to_dict()
        kept |= {"max_length": None, "min_length": 0, "max_new_tokens": 30} | ({"num_beams": 2} if beams else {})
        assert {name: settings[name] for name in kept} == kept


def test_beams_given_up_leave_settings_that_can_be_saved(checkpoints, tmp_path):
    settings = opened(checkpoints["bart"], num_beams=1)[1].generation_config
    settings.save_pretrained(tmp_path)
    assert read_json(tmp_path / "generation_config.json")["num_beams"] == 1


# ---- the scripts -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(prepared, tmp_path_factory):
    """A prepared folder of a few rows, some of them long."""
    folder = tmp_path_factory.mktemp("families") / "prepared"
    books = load_from_disk(prepared[0])
    longest = longest_first(books["train"])
    DatasetDict(
        train=longest.select([*range(4), *range(100, 128)]),
        validation=books["validation"].select(range(13)),
        test=books["test"].select(range(5)),
    ).save_to_disk(folder)
    (folder / "arguments.json").write_text((prepared[0] / "arguments.json").read_text())
    return folder


CUTS = [("trainer", 1), ("accelerate", 1), ("trainer", 2), ("accelerate", 2)]  # script, processes


@pytest.fixture(scope="module")
def trained(checkpoints, data, tmp_path_factory):
    """A function that returns {(script, processes): folder of the model of a family after four large steps}."""
    done = {}

    def train(family):
        if family not in done:
            done[family] = {cut: tmp_path_factory.mktemp(family) / f"{cut[0]}-{cut[1]}" for cut in CUTS}
            for (name, processes), folder in done[family].items():
                run(f"train_{name}.py", "--model", checkpoints[family], "--data", data, "--output-dir", folder,
                    "--epochs", 1, "--batch-size", 8 // processes, "--learning-rate", 0.01, "--num-beams", 2,
                    processes=processes)  # fmt: skip
                assert read_json(folder / "results.json")["processes"] == processes
        return done[family]

    return train


@pytest.mark.parametrize("family", TRAINED)
def test_both_scripts_and_two_processes_write_one_log(trained, family):
    folders = trained(family)
    one = folders["trainer", 1]
    for name in ("log.csv", "epochs.csv"):
        assert (one / name).read_bytes() == (folders["accelerate", 1] / name).read_bytes()
    curve = read_log(one)
    assert curve["step"] == [1, 2, 3, 4]
    assert curve["loss"][0] > curve["loss"][-1] + 0.05  # it learns
    for name in SCRIPTS:
        log = read_log(folders[name, 2])
        assert log["loss"] == pytest.approx(curve["loss"], rel=1e-4)
        assert log["grad_norm"] == pytest.approx(curve["grad_norm"], rel=1e-4)


def mean_loss(tokenizer, model, rows):
    """Return the loss of a label token."""
    batch = collated(tokenizer, model, rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        loss, label_tokens = row_losses(model.eval()(**batch), labels).sum(dim=0, dtype=torch.double).tolist()
    return loss / label_tokens


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("family", TRAINED)
def test_a_saved_model_is_the_trained_one(trained, checkpoints, data, tmp_path, family, name):
    folder = trained(family)[name, 1]
    results = read_json(folder / "results.json")
    rows = load_from_disk(data)["validation"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert mean_loss(tokenizer, model, rows) == pytest.approx(results["eval_loss"], rel=1e-6)
    assert abs(mean_loss(*opened(checkpoints[family]), rows) - results["eval_loss"]) > 0.05
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == (family != "mt5")
    run("predict.py", "--model", folder, "--data", data, "--split", "validation", "--scores", tmp_path / "scores.json")
    assert read_json(tmp_path / "scores.json") == results["scores"]
    assert read_json(folder / "generation_config.json")["num_beams"] == 2


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_a_trimmed_head_stays_tied_or_separate(checkpoints, data, tmp_path, family):
    run("train_accelerate.py", "--model", checkpoints[family], "--data", data, "--output-dir", tmp_path / "model",
           "--epochs", 1, "--learning-rate", 0.01, "--trim-vocab")  # fmt: skip
    tokenizer, model = opened(tmp_path / "model")
    assert len(tokenizer) == model.config.vocab_size < 402
    head, embeddings = model.lm_head.weight, model.get_input_embeddings().weight
    assert (head is embeddings, torch.equal(head, embeddings)) == ((True, True) if family == "t5" else (False, False))
    rows = load_from_disk(data)["validation"]
    eval_loss = read_json(tmp_path / "model/results.json")["eval_loss"]
    assert mean_loss(tokenizer, model, rows) == pytest.approx(eval_loss, rel=1e-6)


def test_trimming_keeps_the_pieces_of_the_prefix(checkpoints):
    whole = opened(checkpoints["t5"])[0].tokenize("summarize: ok")
    rows = Dataset.from_dict({"review_body": ["ok"], "review_title": ["ok"]})
    tokenizer, _ = load_checkpoint(args_of(checkpoints["t5"], trim_vocab=True), rows)
    assert tokenizer.tokenize("summarize: ok") == whole


def test_predict_writes_titles_and_scores_of_gpt2(checkpoints, data, tmp_path):
    flags = ["--model", checkpoints["gpt2"], "--data", data]
    printed = run("predict.py", *flags, "I loved it! " * 100).stdout
    assert len(printed.split("'>>> Summary: ")[1]) > 10 and "TL;DR" not in printed
    printed = run("predict.py", *flags, "--split", "test", "--scores", tmp_path / "scores.json").stdout
    assert "test: ROUGE F1" in printed and "lead-3" in printed
    assert read_json(tmp_path / "scores.json")["all"]["rows"] == 5


@pytest.mark.parametrize("name", SCRIPTS)
def test_gpt2_is_not_trained(checkpoints, data, tmp_path, name):
    result = run(f"train_{name}.py", "--model", checkpoints["gpt2"], "--data", data, "--output-dir", tmp_path,
                    check=False)  # fmt: skip
    assert "gpt2 has no encoder and is not trained here; predict.py takes it" in error_line(result)


def test_mbart_needs_the_language_of_a_text(checkpoints):
    flags = ["--model", checkpoints["mbart"], "Me gustó mucho."]
    line = error_line(run("predict.py", *flags, check=False))
    assert "the checkpoint knows texts of af, ar, " in line and " es, " in line and "--language" in line
    assert "error: the checkpoint knows" in error_line(run("predict.py", "--language", "eo", *flags, check=False))
    assert "Summary: " in run("predict.py", "--language", "es", *flags).stdout
