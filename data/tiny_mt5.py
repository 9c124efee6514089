"""Make the tiny mT5 of the preset sample: a tokenizer of prepared reviews and random weights.

    python data/tiny_mt5.py data/prepared/sample     # writes tiny-mt5/, as prepare_data.py does

Nothing here is the chapter's, whose checkpoint was trained for weeks on a hundred languages.
"""

import io
import sys
from pathlib import Path

import torch
import transformers
from datasets import load_from_disk
from sentencepiece import SentencePieceTrainer


def make_tiny_checkpoint(books, seed, folder):
    """Save an mT5 with random weights and a Unigram tokenizer learned from the training split."""
    rows = books["train" if "train" in books else next(iter(books))]
    rows = rows.select(range(min(len(rows), 50_000)))  # sentencepiece holds them in memory
    # sentencepiece would turn Ctrl-C in a generator into an error of its own, so this is a list.
    texts = iter([*rows["review_body"], *rows["review_title"]])
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=written, vocab_size=4_000, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    folder.mkdir()
    (folder / "spiece.model").write_bytes(written.getvalue())
    tokenizer = transformers.T5Tokenizer.from_pretrained(folder, extra_ids=0)
    transformers.set_seed(seed)
    config = transformers.MT5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = transformers.MT5ForConditionalGeneration(config)
    # mT5's initial values suit weeks of training. To learn in minutes this model has a small head
    # of its own, so that the first loss is ln(vocabulary). It also has smaller embeddings, and
    # encoder layers that hardly change their input yet.
    config.tie_word_embeddings = False
    model.shared.weight.data.normal_(std=0.5)
    model.lm_head.weight = torch.nn.Parameter(
        torch.empty_like(model.shared.weight).normal_(std=0.05)
    )
    for name, weights in model.encoder.named_parameters():
        if name.endswith("o.weight"):  # o and wo, the outputs of attention and feed-forward
            weights.data *= 0.03
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    print(f"\ntiny-mt5: {len(tokenizer):,} pieces, {model.num_parameters():,} random weights")


if __name__ == "__main__":
    make_tiny_checkpoint(load_from_disk(sys.argv[1]), seed=42, folder=Path(sys.argv[1], "tiny-mt5"))
