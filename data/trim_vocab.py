"""Cut the vocabulary of a T5 or mT5 checkpoint to the pieces that prepared reviews use.

    python data/trim_vocab.py google/mt5-small data/prepared/amazon trimmed
    python train_trainer.py --preset amazon --model trimmed

mt5-small has 250,112 pieces for 101 languages, and most of its weights are their embeddings and the
head. Reviews in two languages need about a tenth of them. The new folder is an ordinary checkpoint.

Kept are the pieces of the training split, special tokens, digits, signs and single Latin letters,
so that other texts can still be written, in more and shorter pieces. The scores of the pieces stay,
so that the training split is cut into the same pieces as before.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


def check_checkpoint(tokenizer, model, loading_info):
    """Return why the checkpoint cannot be trimmed, or None if it can."""
    if model.config.model_type not in ("t5", "mt5"):
        return f"is a {model.config.model_type}; name a T5 or an mT5"
    if loading_info["missing_keys"]:
        return f"lacks weights, such as {min(loading_info['missing_keys'])}"
    # Without files, transformers makes a tokenizer of special tokens and the sign for a space.
    if not set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, "▁"}:
        return "holds no tokenizer; copy its files into it"
    kind = "slow"  # one in Python, without a specification
    if tokenizer.is_fast:
        kind = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"]
    return None if kind == "Unigram" else f"has a {kind} tokenizer; T5 and mT5 have Unigram"


def find_used_pieces(tokenizer, model, rows):
    """Return the sorted ids to keep; ``rows`` has the columns review_body and review_title."""
    used = np.zeros(len(tokenizer), dtype=bool)
    parameters = getattr(model.config, "task_specific_params", None) or {}
    prefix = parameters.get("summarization", {}).get("prefix", "")  # T5's "summarize: "
    for batch in tqdm(rows.iter(batch_size=1000), total=len(rows) // 1000 + 1, disable=None):
        texts = [prefix + review for review in batch["review_body"]] + batch["review_title"]
        for ids in tokenizer(texts)["input_ids"]:
            used[ids] = True
    for number, piece in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        character = piece.removeprefix("▁")
        # Latin letters end before U+0250. A sign is a character that is no letter.
        if len(character) < 2 and (character < "\u0250" or not character.isalpha()):
            used[number] = True
    used[[*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder]] = True
    # The first pieces keep their numbers, as the configuration names some of them.
    used[: max(tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)] = True
    # The cost of an unknown character is computed from the lowest score of all.
    pieces = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    used[np.argmin([score for _, score in pieces])] = True
    return np.flatnonzero(used).tolist()


def trim_tokenizer(tokenizer, kept):
    """Return the tokenizer with the pieces of the numbers ``kept``, which become 0, 1, 2, ..."""
    specification = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = specification["model"]["vocab"]
    specification["model"]["vocab"] = [pieces[number] for number in kept if number < len(pieces)]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        # Added tokens are numbered anew, after the pieces.
        for token in specification["added_tokens"]:
            token["id"] = kept.index(token["id"])
        Path(folder, "tokenizer.json").write_text(json.dumps(specification), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def trim_model(model, kept):
    """Cut the embeddings and the head, in place, to the rows ``kept``.

    resize_token_embeddings() would tie mT5's head to its embeddings, so both layers are replaced.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight is embeddings.weight  # in T5, but not in mT5
    new_embeddings = torch.nn.Embedding.from_pretrained(embeddings.weight.detach()[kept], False)
    new_head = torch.nn.Linear(head.in_features, len(kept), bias=False)
    new_head.weight = torch.nn.Parameter(head.weight.detach()[kept])
    model.set_input_embeddings(new_embeddings)
    model.set_output_embeddings(new_head)
    model.config.vocab_size = len(kept)
    model.config.tie_word_embeddings = tied
    if tied:
        model.tie_weights()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder or Hub id of a T5 or mT5 checkpoint")
    parser.add_argument("data", help="folder that prepare_data.py made")
    parser.add_argument("output", help="new folder for the smaller checkpoint")
    args = parser.parse_args()
    unfinished = Path(f"{args.output}.unfinished")  # renamed when it is whole
    for folder in (Path(args.output), unfinished):
        if folder.exists():
            parser.error(f"{folder} exists; name a new folder")

    # 1. Load
    try:
        rows = load_from_disk(args.data)["train"]
        # Code that comes with a checkpoint is not executed.
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        model, loading_info = AutoModelForSeq2SeqLM.from_pretrained(
            args.model, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        parser.error(f"cannot load {args.model} and the training split of {args.data}: {reason}")
    if problem := check_checkpoint(tokenizer, model, loading_info):
        parser.error(f"{args.model} {problem}")

    # 2. Trim
    kept = find_used_pieces(tokenizer, model, rows)
    before, pieces = model.num_parameters(), len(tokenizer)
    tokenizer = trim_tokenizer(tokenizer, kept)
    trim_model(model, kept)
    print(f"{len(kept):,} of {pieces:,} pieces, {model.num_parameters():,} of {before:,} weights")

    # 3. Save
    unfinished.mkdir(parents=True)
    tokenizer.save_pretrained(unfinished)
    model.save_pretrained(unfinished)
    unfinished.rename(args.output)
    print(f"Saved in {args.output}")


if __name__ == "__main__":
    main()
