"""Tiny checkpoints of the chapter's families, with random weights, in layouts of the Hub.

What lies there was saved by older versions and by other classes than those that read it today.
"""

import json
import shutil

import torch
import transformers
from conftest import read_json, sample
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer, SentencePieceUnigramTokenizer
from transformers import GenerationConfig
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

# Configurations differ as those on the Hub do.
T5 = {
    **{"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0},
    **{"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    "initializer_factor": 1.0,
}
BART = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0},
    **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.3},
}
BART_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
GPT2 = {
    **{"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "initializer_range": 0.3},
    **{"bos_token_id": 0, "eos_token_id": 0},
    "task_specific_params": {"text-generation": {"do_sample": True}},
}
PREFIX = {"task_specific_params": {"summarization": {"prefix": "summarize: ", "num_beams": 4}}}

# family: (class names, pieces before those that are learned, configuration, generation settings)
FAMILIES = {
    "t5": ("T5", ["<pad>", "</s>", "<unk>"], T5 | PREFIX, {}),
    "mt5": ("MT5", ["<pad>", "</s>", "<unk>"], T5, {}),
    "bart": (
        "Bart",
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        BART | BART_IDS,
        {
            **{"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
            **{"min_length": 56, "max_length": 142, "no_repeat_ngram_size": 3},
            **{"forced_bos_token_id": 0, "forced_eos_token_id": 2},
        },
    ),
    "pegasus": (
        "Pegasus",
        ["<pad>", "</s>", "<mask_1>", "<mask_2>", *[f"<unk_{i}>" for i in range(2, 103)], "<unk>"],
        BART | {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
        {"num_beams": 8, "max_length": 64, "length_penalty": 0.6, "forced_eos_token_id": 1},
    ),
    "mbart": (
        "MBart",
        ["<s>", "<pad>", "</s>", "<unk>", *FAIRSEQ_LANGUAGE_CODES, "<mask>"],
        BART | BART_IDS | {"scale_embedding": True},
        {
            **{"num_beams": 5, "max_length": 200, "early_stopping": True},
            **{"forced_bos_token_id": 4, "forced_eos_token_id": 2},
        },
    ),
    "gpt2": ("GPT2", ["<|endoftext|>"], GPT2, {}),
}


def learn_pieces():
    """Return a Unigram and a BPE model, each as a dictionary, learned from the sample."""
    rows = sample("en", "train")[:150] + sample("es", "train")[:150]
    texts = [row[name] for row in rows for name in ("review_body", "review_title")]
    unigram, bpe = SentencePieceUnigramTokenizer(), ByteLevelBPETokenizer()
    unigram.train_from_iterator(
        texts, vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    bpe.train_from_iterator(texts, vocab_size=400, show_progress=False)
    return [json.loads(learned.to_str())["model"] for learned in (unigram, bpe)]


def save_checkpoints(parent):
    """Save each family in ``parent``/today and ``parent``/hub; return {family: its hub folder}."""
    scores, merges = learn_pieces()
    folders = {}
    for family, (name, first, config, generation) in FAMILIES.items():
        if family in ("bart", "gpt2"):
            numbers = {piece: number for number, piece in enumerate([*first, *merges["vocab"]])}
            options = {"vocab": numbers, "merges": [tuple(pair) for pair in merges["merges"]]}
        else:
            options = {
                "vocab": [(piece, 0.0) for piece in first]
                + [tuple(pair) for pair in scores["vocab"][1:]]
            }
            options |= {"extra_ids": 0} if family in ("t5", "mt5") else {}
        tokenizer_class = {"mt5": "T5", "mbart": "MBart50"}.get(family, name)
        tokenizer = getattr(transformers, f"{tokenizer_class}Tokenizer")(**options)
        rows = len(tokenizer) + 28 * (family in ("t5", "mt5"))  # theirs have more rows than pieces
        torch.manual_seed(0)
        head = "LMHeadModel" if family == "gpt2" else "ForConditionalGeneration"
        config = getattr(transformers, f"{name}Config")(vocab_size=rows, **config)
        model = getattr(transformers, name + head)(config)
        # Else a tied model would only write its last token again.
        model.get_input_embeddings().weight.data *= 0.1
        if family == "mt5":
            model.config.tie_word_embeddings = False
            model.lm_head.weight = torch.nn.Parameter(0.1 * torch.randn_like(model.shared.weight))
        model.generation_config = GenerationConfig.from_dict(
            model.generation_config.to_dict() | generation
        )
        today, folders[family] = parent / "today" / family, parent / "hub" / family
        tokenizer.save_pretrained(today)
        model.save_pretrained(today)
        shutil.copytree(today, folders[family])
        publish(family, folders[family])
    return folders


def publish(family, folder):
    """Rewrite a checkpoint as its family lies on the Hub."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if family == "gpt2":  # saved by a class without a head, with buffers that are computed today
        weights = {name.removeprefix("transformer."): weights[name] for name in weights}
        weights["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        weights["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    else:
        model = "" if family in ("t5", "mt5") else "model."
        shared = weights[f"{model}shared.weight"]
        for part in ("encoder", "decoder"):
            weights[f"{model}{part}.embed_tokens.weight"] = shared.clone()
            if family in ("bart", "mbart"):
                weights[f"{model}{part}.version"] = torch.tensor([3.0])
            if family == "pegasus":  # these are constants
                del weights[f"{model}{part}.embed_positions.weight"]
        weights.setdefault("lm_head.weight", shared.clone())
    torch.save(weights, folder / "pytorch_model.bin")
    # The settings of generate() once stood among those of the model.
    settings, config = (read_json(folder / f"{name}config.json") for name in ("generation_", ""))
    (folder / "generation_config.json").unlink()
    (folder / "config.json").write_text(json.dumps(settings | config))
