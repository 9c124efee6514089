"""Fine-tune mT5 to write the title of a review, with a loop of our own on Accelerate.

Chapter section: "Fine-tuning mT5 with 🤗 Accelerate".

    accelerate launch train_accelerate.py                       # the sample, on any machine
    accelerate launch train_accelerate.py --preset amazon       # the chapter: google/mt5-small, wants a GPU
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train_accelerate.py    # two processes on a CPU

Reads   data/prepared/<preset>/ (made if it is missing) and the checkpoint --model
Writes  results/<preset>-accelerate/: model, tokenizer, results.json, log.csv (loss and gradient norm of each
        step); in checkpoints/ the best and the last two, from which --resume goes on
Takes   about two minutes for the sample on two cores; expect rouge1 about 53, lead-3 about 20
"""

import math
import shutil
import time
from concurrent.futures import wait
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from huggingface_hub import HfApi
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import DataCollatorForSeq2Seq, get_scheduler, set_seed
from transformers.modeling_outputs import BaseModelOutput

from common import (
    ROUGE_TYPES,
    TRAINING_DEFAULTS,
    LengthGroupedSampler,
    check_finite,
    compare_with_lead_3,
    complete_checkpoints,
    create_repo,
    describe_run,
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

OUTPUT = {"output_dir": "results/{preset}-accelerate"}
DEFAULTS = {  # the sample is trained in fp32 so that its numbers are the same on every device
    "sample": {"model": "tiny", "epochs": 10, "batch_size": 16, "learning_rate": 2e-3, "weight_decay": 0.3,
               "bf16": False, **OUTPUT, **TRAINING_DEFAULTS},
    "amazon": {"model": "google/mt5-small", "epochs": 10, "batch_size": 8, "learning_rate": 2e-5, "weight_decay": 0.01,
               "bf16": None, **OUTPUT, **TRAINING_DEFAULTS},
}  # fmt: skip


def main():
    args = parse_args(__doc__, DEFAULTS)
    accelerator = Accelerator(mixed_precision=mixed_precision(args.bf16))
    print_main(f"{accelerator.num_processes} process(es) on {accelerator.device.type}")
    set_seed(args.seed)

    if args.push_to_hub and accelerator.is_main_process:
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
    step_rows = args.batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    sampler = LengthGroupedSampler(tokenized_datasets["train"], step_rows, args.seed, args.group_by_length)
    order = longest_first(tokenized_datasets["validation"])
    tokenized_datasets = tokenized_datasets.remove_columns("length")
    train_dataloader = DataLoader(
        tokenized_datasets["train"], args.batch_size, sampler=sampler, collate_fn=data_collator,
        generator=torch.Generator(),  # else each epoch draws from the random states that a checkpoint holds
    )  # fmt: skip
    eval_dataset = tokenized_datasets["validation"].select(order)
    eval_dataloader = DataLoader(eval_dataset, 4 * args.batch_size, collate_fn=data_collator)

    # 4. Metric
    rows = books["validation"]

    def evaluate():
        """Return the summaries of the validation rows in their order and the loss of a label token."""
        summaries, losses = [], []
        for batch in tqdm(eval_dataloader, "Evaluate", leave=False, disable=not accelerator.is_main_process):
            labels = batch.pop("labels")
            with torch.no_grad(), accelerator.autocast():
                outputs = model(**batch)
                batch_losses = row_losses(outputs, labels)
                generated_tokens = accelerator.unwrap_model(model).generate(
                    encoder_outputs=BaseModelOutput(outputs.encoder_last_hidden_state),
                    attention_mask=batch["attention_mask"],
                    synced_gpus=accelerator.distributed_type == DistributedType.FSDP,
                )
            # Processes generate summaries of different lengths: pad before gathering
            generated_tokens = accelerator.pad_across_processes(
                generated_tokens, dim=1, pad_index=tokenizer.pad_token_id
            )
            generated_tokens, batch_losses = accelerator.gather_for_metrics((generated_tokens, batch_losses))
            summaries += tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
            losses.append(batch_losses)
        loss, label_tokens = torch.cat(losses).sum(dim=0, dtype=torch.double).tolist()
        return [summaries[i] for i in np.argsort(order)], loss / label_tokens

    # 5. Train
    decay, no_decay = [], []
    for name, weights in model.named_parameters():
        (no_decay if "norm" in name or "bias" in name else decay).append(weights)
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": args.weight_decay}, {"params": no_decay, "weight_decay": 0.0}],
        lr=args.learning_rate,
        fused=True,
    )
    model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader
    )
    register_fsdp_forward_method(model, "generate")  # does nothing without FSDP
    steps_per_epoch = len(train_dataloader) // args.gradient_accumulation_steps
    max_steps = args.max_steps if args.max_steps > 0 else args.epochs * steps_per_epoch
    lr_scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=max_steps)
    accelerator.register_for_checkpointing(lr_scheduler)

    log, best_score, best_checkpoint, stopping, upload = [], -1, None, False, None
    run = describe_run(args, books, tokenizer, accelerator.num_processes)
    checkpoint, written = find_checkpoint(args, run)
    if checkpoint:
        accelerator.load_state(checkpoint)
        log, best_score, best_checkpoint = (written[name] for name in ("log", "best_score", "best_checkpoint"))
    step = first_step = len(log)
    checkpoints = Path(args.output_dir, "checkpoints")

    def save_checkpoint():
        """Save all that --resume needs; keep the best and the two newest."""
        folder = checkpoints / f"checkpoint-{step}"
        state = {"step": step, "max_steps": max_steps, "log": log}
        state |= {"best_score": best_score, "best_checkpoint": best_checkpoint}
        with new_checkpoint(folder, run, **state):
            accelerator.save_state(folder)
        for old in complete_checkpoints(args)[:-2]:
            if old.name != best_checkpoint and accelerator.is_main_process:
                shutil.rmtree(old)
        if stopping:
            stop(folder)

    save_on_signal(accelerator)
    started = time.time()
    progress_bar = tqdm(total=max_steps, initial=step, desc="Train", disable=not accelerator.is_main_process)
    for epoch in range(step // steps_per_epoch, math.ceil(max_steps / steps_per_epoch)):
        # Training
        model.train()
        train_dataloader.set_epoch(epoch)
        done = step % steps_per_epoch * args.gradient_accumulation_steps  # batches, before the run was stopped
        batches = iter(accelerator.skip_first_batches(train_dataloader, done))
        last_step = min((epoch + 1) * steps_per_epoch, max_steps)
        while step < last_step:
            # Differs from the chapter: each label token of an optimizer step weighs the same, however the
            # step is cut into batches and processes.
            step_batches = list(islice(batches, args.gradient_accumulation_steps))
            num_items = accelerator.reduce(sum((batch["labels"] != -100).sum() for batch in step_batches))
            step_loss = 0
            for batch in step_batches:
                labels = batch.pop("labels")
                last = batch is step_batches[-1]
                with nullcontext() if last else accelerator.no_sync(model):  # exchange gradients once a step
                    loss = summed_loss(model(**batch), labels, num_items) * accelerator.num_processes
                    accelerator.backward(loss)
                step_loss += loss.detach()
            grad_norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
            row = {"step": step + 1, "loss": accelerator.reduce(step_loss, "mean").item(),
                   "grad_norm": grad_norm.item(), "learning_rate": lr_scheduler.get_last_lr()[0]}  # fmt: skip
            check_finite(row["step"], row["loss"], row["grad_norm"])
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            log.append(row)
            step += 1
            progress_bar.update(1)
            stopping = accelerator.check_trigger()
            if step < last_step and (stopping or (args.save_steps and step % args.save_steps == 0)):
                save_checkpoint()

        # Evaluation
        model.eval()
        summaries, eval_loss = evaluate()
        scores = rouge_rows(summaries, rows, args.rouge, use_stemmer=args.rouge == "language")
        scores = dict(zip(ROUGE_TYPES, scores.mean(axis=0).tolist(), strict=True))
        if accelerator.is_main_process:
            loss = sum(row["loss"] for row in log[epoch * steps_per_epoch :]) / (step - epoch * steps_per_epoch)
            print_epoch(epoch + 1, loss, eval_loss, scores)

        # Checkpoint, after the evaluation and with its score
        if scores["rougeL"] > best_score:
            best_score, best_checkpoint = scores["rougeL"], f"checkpoint-{step}"
        save_checkpoint()

        # Push while the next epoch trains, unless the last upload still runs
        state_dict = accelerator.get_state_dict(model) if args.push_to_hub else None  # whole also under FSDP
        if args.push_to_hub and accelerator.is_main_process and (upload is None or upload.done()):
            tokenizer.save_pretrained(checkpoints / "upload")
            accelerator.unwrap_model(model).save_pretrained(checkpoints / "upload", state_dict=state_dict)
            upload = HfApi().upload_folder(
                repo_id=args.push_to_hub,
                folder_path=checkpoints / "upload",
                commit_message=f"Training in progress epoch {epoch}",
                run_as_future=True,
            )
    progress_bar.close()
    seconds = time.time() - started
    if upload:
        wait([upload])  # whether it failed does not matter: the best model is pushed below

    # 6. Score the best model against lead-3
    if best_checkpoint != f"checkpoint-{step}":
        accelerator.load_state(checkpoints / best_checkpoint)
    model.eval()
    summaries, eval_loss = evaluate()
    state_dict = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        scores = compare_with_lead_3(summaries, rows, args.rouge, use_stemmer=args.rouge == "language")
        print_scores(scores, "validation")

        # 7. Save and push
        tokens = sampler.lengths.mean() * step_rows * (step - first_step)
        measured = {"train_seconds": seconds, "tokens_per_second": tokens / seconds, "eval_loss": eval_loss}
        model = accelerator.unwrap_model(model)
        save_model(args, tokenizer, model, scores, log, state_dict, processes=accelerator.num_processes, **measured)
    # The wrapped model goes before the process group that it uses; else a process may hang at its exit.
    model, optimizer = accelerator.free_memory(model, optimizer)
    accelerator.end_training()


if __name__ == "__main__":
    main()
