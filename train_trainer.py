"""Fine-tune mT5 to write the title of a review, with the Trainer.

Chapter section: "Fine-tuning mT5 with the Trainer API".

    python train_trainer.py                       # the sample, on any machine
    python train_trainer.py --preset amazon       # the chapter: google/mt5-small, wants a GPU
    torchrun --nproc_per_node 4 train_trainer.py --preset amazon

Reads   data/prepared/<preset>/ (made if it is missing) and the checkpoint --model
Writes  results/<preset>-trainer/: model, tokenizer, results.json; in checkpoints/ the best and the last
Takes   about two minutes for the sample on two cores; expect rouge1 about 50, lead-3 about 20
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from transformers import DataCollatorForSeq2Seq, ProgressCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

from common import (
    ROUGE_TYPES,
    compare_with_lead_3,
    create_repo,
    load_checkpoint,
    load_prepared,
    parse_args,
    print_epoch,
    print_scores,
    rouge_rows,
    save_model,
    summed_loss,
    tokenize,
)

SHARED = {
    "data": "data/prepared/{preset}",
    "output_dir": "results/{preset}-trainer",
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
    "seed": 42,
    "rouge": "language",
    "push_to_hub": None,
}
DEFAULTS = {
    "sample": {"model": "tiny", "epochs": 10, "batch_size": 16, "learning_rate": 2e-3, "weight_decay": 0.3},
    "amazon": {
        "model": "google/mt5-small",
        "epochs": 8,
        "batch_size": 8,
        "learning_rate": 5.6e-5,
        "weight_decay": 0.01,
    },
}


class SummarizationTrainer(Seq2SeqTrainer):
    """``Seq2SeqTrainer`` that orders the rows as train_accelerate.py does and evaluates each row once."""

    def _get_train_sampler(self, train_dataset):
        rows = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return DistributedLengthGroupedSampler(
            rows, lengths=list(self.train_dataset["length"]), num_replicas=1, rank=0, seed=self.args.seed
        )

    def evaluation_loop(self, *args, **kwargs):
        # The Trainer gathers with the rows that fill up the last batch of several processes.
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)


class OneLineAnEpoch(ProgressCallback):
    """The Trainer's progress bars, with one line an epoch instead of its dictionaries."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        super().on_evaluate(args, state, control, **kwargs)
        if state.is_world_process_zero:
            loss = next(log["loss"] for log in reversed(state.log_history) if "loss" in log)
            print_epoch(round(state.epoch), loss, {name: metrics[f"eval_{name}"] for name in ROUGE_TYPES})


def main():
    args = parse_args(__doc__, {preset: {**DEFAULTS[preset], **SHARED} for preset in DEFAULTS})
    set_seed(args.seed)

    if args.push_to_hub and PartialState().is_main_process:
        create_repo(args.push_to_hub)

    # 1. Data
    books = load_prepared(args, "train", "validation")

    # 2. Checkpoint
    tokenizer, model = load_checkpoint(args)

    # 3. Tokenize
    tokenized_datasets = tokenize(books, tokenizer)
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)

    # 4. Metric
    rows = books["validation"]

    def decode(predictions):
        predictions = np.where(predictions < 0, tokenizer.pad_token_id, predictions)  # -100 fills up batches
        return tokenizer.batch_decode(predictions, skip_special_tokens=True)

    def compute_metrics(eval_pred):
        # Differs from the chapter: the references are the titles themselves, not labels cut at 30 tokens.
        scores = rouge_rows(decode(eval_pred.predictions), rows, args.rouge, use_stemmer=True)
        return dict(zip(ROUGE_TYPES, scores.mean(axis=0).tolist(), strict=True))

    # 5. Train
    checkpoints = Path(args.output_dir) / "checkpoints"
    if PartialState().is_main_process:
        shutil.rmtree(checkpoints, ignore_errors=True)  # of an earlier run
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()  # mT5 overflows in fp16
    trainer = SummarizationTrainer(
        model,
        Seq2SeqTrainingArguments(
            output_dir=str(checkpoints),
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_strategy="epoch",
            save_total_limit=3,
            load_best_model_at_end=True,
            metric_for_best_model="rougeL",
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            learning_rate=args.learning_rate,
            weight_decay=args.weight_decay,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=4 * args.batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            optim="adamw_torch_fused",
            bf16=bf16,
            predict_with_generate=True,
            disable_tqdm=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            log_level_replica="error",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=tokenized_datasets["train"],
        eval_dataset=tokenized_datasets["validation"],
        data_collator=data_collator,
        processing_class=tokenizer,
        compute_loss_func=summed_loss,
        compute_metrics=compute_metrics,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(OneLineAnEpoch)
    seconds = trainer.train().metrics["train_runtime"]

    # 6. Score the best model against lead-3
    summaries = decode(trainer.predict(tokenized_datasets["validation"]).predictions)
    if trainer.is_world_process_zero():
        scores = compare_with_lead_3(summaries, rows, args.rouge, use_stemmer=True)
        print_scores(scores, "validation")

        # 7. Save and push
        tokens = sum(tokenized_datasets["train"]["length"]) * trainer.state.epoch
        measured = {"train_seconds": seconds, "tokens_per_second": tokens / seconds}
        save_model(args, tokenizer, model, scores, processes=trainer.args.world_size, **measured)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
