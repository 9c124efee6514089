"""Fine-tune mT5 to write the title of a review, with the Trainer.

Chapter section: "Fine-tuning mT5 with the Trainer API".

    python train_trainer.py                       # the sample, on any machine
    python train_trainer.py --preset amazon       # the chapter: google/mt5-small, wants a GPU
    torchrun --nproc_per_node 4 train_trainer.py --preset amazon

Reads   data/prepared/<preset>/ (made if it is missing) and the checkpoint --model
Writes  results/<preset>-trainer/: model, tokenizer, results.json, log.csv (loss and gradient norm of each
        step); in checkpoints/ the best and the last two, from which --resume goes on
Takes   about two minutes for the sample on two cores; expect rouge1 about 53, lead-3 about 20
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import (
    DataCollatorForSeq2Seq,
    ProgressCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerState,
    set_seed,
)
from transformers.modeling_outputs import BaseModelOutput

from common import (
    ROUGE_TYPES,
    TRAINING_DEFAULTS,
    LengthGroupedSampler,
    check_finite,
    compare_with_lead_3,
    create_repo,
    describe_run,
    fail,
    find_checkpoint,
    load_checkpoint,
    load_prepared,
    longest_first,
    mixed_precision,
    new_checkpoint,
    parse_args,
    print_epoch,
    print_main,
    print_scores,
    rouge_rows,
    row_losses,
    save_model,
    save_on_signal,
    stop,
    summed_loss,
    tokenize,
    trim_vocab,
)

OUTPUT = {"output_dir": "results/{preset}-trainer"}
DEFAULTS = {  # the sample is trained in fp32 so that its numbers are the same on every device
    "sample": {"model": "tiny", "epochs": 10, "batch_size": 16, "learning_rate": 2e-3, "weight_decay": 0.3,
               "bf16": False, **OUTPUT, **TRAINING_DEFAULTS},
    "amazon": {"model": "google/mt5-small", "epochs": 8, "batch_size": 8, "learning_rate": 5.6e-5, "weight_decay": 0.01,
               "bf16": None, **OUTPUT, **TRAINING_DEFAULTS},
}  # fmt: skip


class SummarizationTrainer(Seq2SeqTrainer):
    """``Seq2SeqTrainer`` with the rows, evaluation and checkpoints of train_accelerate.py."""

    def _get_train_sampler(self, train_dataset):
        return self.sampler

    def evaluation_loop(self, *args, **kwargs):
        # The Trainer gathers with the rows that fill up the last batch of several processes.
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, *args, **kwargs):
        # The Trainer averages the mean losses of the batches, so that they depend on how rows are batched.
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels")
        with torch.no_grad(), self.accelerator.autocast():
            outputs = model(**inputs)
            losses = row_losses(outputs, labels)
            generated_tokens = self.model.generate(
                encoder_outputs=BaseModelOutput(outputs.encoder_last_hidden_state),
                attention_mask=inputs["attention_mask"],
            )
        return None, (generated_tokens, losses), labels

    def _save_checkpoint(self, model, trial):
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        with new_checkpoint(folder, self.run, step=self.state.global_step, max_steps=self.state.max_steps):
            super()._save_checkpoint(model, trial)


class TrainingCallback(ProgressCallback):
    """The Trainer's progress bars with one line an epoch; checkpoints inside an epoch and on Ctrl-C."""

    def __init__(self, accelerator, sampler, save_steps):
        super().__init__()
        self.accelerator, self.sampler, self.save_steps, self.stopping = accelerator, sampler, save_steps, False

    def on_epoch_begin(self, args, state, control, **kwargs):
        # The Trainer's own call does not reach the sampler of an epoch resumed on several processes.
        self.sampler.set_epoch(int(state.epoch))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" in logs:
            check_finite(state.global_step, logs["loss"], logs["grad_norm"])

    def on_step_end(self, args, state, control, train_dataloader=None, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        self.stopping = self.stopping or self.accelerator.check_trigger()
        save = self.stopping or (self.save_steps and state.global_step % self.save_steps == 0)
        steps_per_epoch = len(train_dataloader) // args.gradient_accumulation_steps
        if state.global_step % steps_per_epoch and state.global_step < state.max_steps:
            control.should_save = save  # the last step of an epoch is saved after its evaluation

    def on_save(self, args, state, control, **kwargs):
        if self.stopping:
            stop(f"{args.output_dir}/checkpoint-{state.global_step}")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        super().on_evaluate(args, state, control, **kwargs)
        if state.is_world_process_zero:
            losses = [log["loss"] for log in state.log_history if "loss" in log and log["epoch"] > state.epoch - 1]
            scores = {name: metrics[f"eval_{name}"] for name in ROUGE_TYPES}
            print_epoch(math.ceil(state.epoch), np.mean(losses), metrics["eval_loss"], scores)


def main():
    args = parse_args(__doc__, DEFAULTS)
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        fail("the Trainer cannot generate under FSDP; use train_accelerate.py")
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # which the Trainer reads only later
    print_main(f"{state.num_processes} process(es) on {state.device.type}")
    set_seed(args.seed)

    if args.push_to_hub and state.is_main_process:
        create_repo(args.push_to_hub)

    # 1. Data
    books = load_prepared(args, "train", "validation")

    # 2. Checkpoint
    tokenizer, model = load_checkpoint(args)
    if args.trim_vocab:
        tokenizer = trim_vocab(tokenizer, model, books["train"])

    # 3. Tokenize
    tokenized_datasets = tokenize(books, tokenizer)
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    order = longest_first(tokenized_datasets["validation"])
    eval_dataset = tokenized_datasets["validation"].select(order)
    step_rows = args.batch_size * args.gradient_accumulation_steps * state.num_processes
    sampler = LengthGroupedSampler(tokenized_datasets["train"], step_rows, args.seed, args.group_by_length)

    # 4. Metric
    rows = books["validation"]

    def decode(predictions):
        predictions = predictions[np.argsort(order)]
        predictions = np.where(predictions < 0, tokenizer.pad_token_id, predictions)  # -100 fills up batches
        return tokenizer.batch_decode(predictions, skip_special_tokens=True)

    def compute_metrics(eval_pred):
        # Differs from the chapter: the references are the titles themselves, not labels cut at 30 tokens.
        generated_tokens, losses = eval_pred.predictions
        loss, label_tokens = losses.sum(axis=0, dtype=float).tolist()
        scores = rouge_rows(decode(generated_tokens), rows, args.rouge, use_stemmer=True)
        return {"loss": loss / label_tokens} | dict(zip(ROUGE_TYPES, scores.mean(axis=0).tolist(), strict=True))

    # 5. Train
    trainer = SummarizationTrainer(
        model,
        Seq2SeqTrainingArguments(
            output_dir=f"{args.output_dir}/checkpoints",
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_steps=1,
            logging_nan_inf_filter=False,  # it would hide a loss that is not finite
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
            use_cpu=not torch.cuda.is_available(),
            bf16=mixed_precision(args.bf16) == "bf16",
            predict_with_generate=True,
            ddp_find_unused_parameters=False,
            disable_tqdm=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            log_level_replica="error",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=tokenized_datasets["train"],
        eval_dataset=eval_dataset,
        data_collator=data_collator,
        processing_class=tokenizer,
        compute_loss_func=summed_loss,
        compute_metrics=compute_metrics,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TrainingCallback(trainer.accelerator, sampler, args.save_steps))
    trainer.sampler = sampler
    trainer.run = describe_run(args, books, tokenizer, trainer.args.world_size)
    checkpoint, written = find_checkpoint(args, trainer.run)
    first_step = written.get("step", 0)
    save_on_signal(trainer.accelerator)
    started = time.time()
    if checkpoint and first_step == written["max_steps"]:
        # All steps are done; the Trainer would do one more where they end inside an epoch.
        trainer.state = TrainerState.load_from_json(checkpoint / "trainer_state.json")
        trainer._load_best_model()
    else:
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    seconds = time.time() - started

    # 6. Score the best model against lead-3
    predicted = trainer.predict(eval_dataset, metric_key_prefix="eval")
    summaries = decode(predicted.predictions[0])
    if trainer.is_world_process_zero():
        scores = compare_with_lead_3(summaries, rows, args.rouge, use_stemmer=True)
        print_scores(scores, "validation")

        # 7. Save and push
        tokens = sampler.lengths.mean() * step_rows * (trainer.state.global_step - first_step)
        eval_loss = predicted.metrics["eval_loss"]
        measured = {"train_seconds": seconds, "tokens_per_second": tokens / seconds, "eval_loss": eval_loss}
        log = [row for row in trainer.state.log_history if "grad_norm" in row]
        save_model(args, tokenizer, model, scores, log, processes=trainer.args.world_size, **measured)
    # The wrapped model goes before the process group that it uses; else a process may hang at its exit.
    accelerator = trainer.accelerator
    del trainer, model
    accelerator.free_memory()
    accelerator.end_training()


if __name__ == "__main__":
    main()
