"""Fine-tune mT5 to write the title of a review, with the Trainer.

Chapter section: "Fine-tuning mT5 with the Trainer API".

    python train_trainer.py                       # the sample, on any machine
    python train_trainer.py --preset amazon       # the chapter: google/mt5-small, wants a GPU
    torchrun --nproc_per_node 4 train_trainer.py --preset amazon

Reads   data/prepared/<preset>/ (made if it is missing) and the checkpoint --model
Writes  results/<preset>-trainer/: model, tokenizer, results.json, log.csv (loss and gradient norm of each
        step); in checkpoints/ the best and the last two, from which --resume goes on
Takes   two to four minutes for the sample on two cores; expect rouge1 about 65, lead-3 about 22
"""

import torch
from accelerate.utils import parse_flag_from_env
from transformers import DataCollatorForSeq2Seq, ProgressCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments

import common

PRESETS = {  # the sample: a tiny mT5 with random weights, in fp32 even where the device has bf16
    "sample": dict(model="tiny", epochs=10, batch_size=16, learning_rate=2e-3, weight_decay=0.3, bf16=False),
    "amazon": dict(model="google/mt5-small", epochs=8, batch_size=8, learning_rate=5.6e-5, weight_decay=0.01),
}


class SummarizationTrainer(Seq2SeqTrainer):
    """``Seq2SeqTrainer`` that does what train_accelerate.py does; on a first reading, go on to ``main()``."""

    def _get_train_sampler(self, train_dataset):
        return self.sampler  # main() sets it and self.run

    def prediction_step(self, model, inputs, *args, **kwargs):
        # The Trainer averages the mean losses of the batches, and so the loss depends on how rows are batched. This
        # gives compute_metrics the summaries, and of each row the summed loss and the number of label tokens.
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels")
        with torch.no_grad(), self.accelerator.autocast():  # here: weights are cast once a batch, not once a token
            outputs = model(**inputs)  # the collator has shifted the labels right, as decoder_input_ids
            # Differs from the chapter: reviews are encoded once for both, the loss and the summary.
            generated_tokens = self.model.generate(**common.generation_inputs(self.processing_class, inputs, outputs))
        # Seq2SeqTrainer would pad with -100, which cannot be decoded.
        longest = self.model.generation_config.max_new_tokens + 2  # the start token and mBART-50's language
        generated_tokens = self._pad_tensors_to_max_len(generated_tokens, longest)
        self.gather_function = self.accelerator.gather_for_metrics  # its own counts what fills up the last batch
        return None, (generated_tokens, common.row_losses(outputs, labels)), labels  # without labels, no metrics

    def _save_checkpoint(self, model, trial):
        write = super()._save_checkpoint
        self.args.output_dir = str(self.run.new)  # there it makes checkpoint-<step>, which Run moves when it is whole
        self.run.save(lambda folder: write(model, trial))


class TrainingCallback(ProgressCallback):
    """The Trainer's progress bars; beside them the log, a line an epoch and checkpoints inside an epoch."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" in logs:  # of a step
            self.run.log_step(logs["loss"], logs["grad_norm"], logs["learning_rate"])
            if state.epoch % 1 and state.global_step < state.max_steps:  # inside an epoch
                # After this the Trainer saves, if told to; the last step of an epoch is saved after its evaluation.
                control.should_save = state.global_step % args.save_steps == 0
        elif "eval_loss" in logs:  # of an epoch
            self.run.end_epoch(logs["eval_loss"], {name: logs[f"eval_{name}"] for name in common.ROUGE_TYPES})


@common.command()
def main():
    args = common.parse_args(__doc__, common.TRAINING_FLAGS, PRESETS)
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        common.fail("the Trainer cannot generate under FSDP; use train_accelerate.py")
    training_args = Seq2SeqTrainingArguments(
        output_dir=args.output_dir,
        eval_strategy="epoch",  # the chapter's evaluation_strategy
        save_strategy="epoch",
        # Differs from the chapter: no save_total_limit, common.Run keeps the best and the last two checkpoints
        save_steps=args.save_steps or 10**9,  # 10**9: never; with "epoch", only TrainingCallback looks at it
        logging_steps=1,  # for log.csv; the chapter's are an epoch
        logging_nan_inf_filter=False,  # it would hide a loss that is not finite
        num_train_epochs=args.epochs,
        max_steps=args.max_steps or -1,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=4 * args.batch_size,  # without gradients, so many fit
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        predict_with_generate=True,  # prediction_step above does it
        use_cpu=not torch.cuda.is_available(),  # not Apple's GPU, which lacks double precision
        bf16=common.mixed_precision(args.bf16) == "bf16",
        ddp_find_unused_parameters=False,  # all are used; the default looks for others in each step
        report_to=args.report_to or "none",
        seed=args.seed,
    )
    training_args._n_gpu = 1  # else one process drives all GPUs by DataParallel, with larger steps and a wrong loss
    common.start_run(args, training_args.distributed_state)

    # 1. Data
    books = common.load_prepared(args, "train", "validation")
    books["validation"] = common.longest_first(books["validation"])  # so that a batch has little padding

    # 2. Checkpoint
    # The chapter's two from_pretrained(); the rows say what --trim-vocab keeps
    tokenizer, model = common.load_checkpoint(args, books["train"])

    # 3. Tokenize
    with training_args.main_process_first():  # the others find its result in the cache
        tokenized_datasets = books.map(
            common.preprocess_function,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer, "config": model.config, "max_input_length": args.max_input_length,
                       "max_target_length": args.max_target_length},
            remove_columns=books["train"].column_names,  # texts, which the collator could not pad
        )  # fmt: skip
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    sampler = common.LengthGroupedSampler(tokenized_datasets["train"], args, training_args.world_size)

    # 4. Metric
    def compute_metrics(eval_pred):
        # Differs from the chapter: the references are the titles themselves, not labels cut at 30 tokens
        generated_tokens, losses = eval_pred.predictions  # from prediction_step; losses: (rows, 2)
        loss, label_tokens = losses.sum(axis=0, dtype=float).tolist()
        summaries = tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        scores = common.rouge_rows(summaries, books["validation"], args.rouge)
        return {"loss": loss / label_tokens} | scores.mean().to_dict()  # the Trainer makes it "eval_loss"

    # 5. Train
    trainer = SummarizationTrainer(
        model,
        training_args,
        train_dataset=tokenized_datasets["train"],
        eval_dataset=tokenized_datasets["validation"],
        data_collator=data_collator,
        processing_class=tokenizer,  # the chapter's tokenizer
        compute_loss_func=common.summed_loss,  # Differs from the chapter: each label token of a step weighs the same
        compute_metrics=compute_metrics,
    )
    run = common.Run(args, books, tokenizer, sampler)  # step, epochs, log and checkpoints, as --resume finds them
    trainer.sampler, trainer.run = sampler, run  # Differs from the chapter: rows of about one length in a step
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TrainingCallback(run))
    if run.state["step"] != run.state["max_steps"]:  # else all steps are done, and only the model is to be saved
        trainer.train(resume_from_checkpoint=run.newest and str(run.newest))  # None: from the start

    # 6. Summaries of the best model by ROUGE-L, as it was saved
    # Differs from the chapter: there the last model is the result
    trainer.state.best_model_checkpoint = str(run.best())
    trainer._load_best_model()  # what load_best_model_at_end does, also where all steps were done before
    predicted = trainer.predict(tokenized_datasets["validation"])
    summaries = tokenizer.batch_decode(predicted.predictions[0], skip_special_tokens=True)
    run.measured["eval_loss"] = predicted.metrics["test_loss"]  # what predict() calls a test split

    # 7. Score it beside lead-3, save and push
    if trainer.is_world_process_zero():
        scores = common.score(books["validation"], args.rouge, summaries)
        common.save_model(args, tokenizer, model, scores, run)
        common.push_to_hub(args)  # if --push-to-hub names a repository
    # Free the model before the process group that its wrapper uses is closed; else a process may hang at its exit.
    (trainer.model_wrapped,) = trainer.accelerator.free_memory(trainer.model_wrapped)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
