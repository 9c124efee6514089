"""Fine-tune mT5 to write the title of a review, with a loop of our own on Accelerate.

Chapter section: "Fine-tuning mT5 with 🤗 Accelerate".

    accelerate launch train_accelerate.py                       # the sample, on any machine
    accelerate launch train_accelerate.py --preset amazon       # the chapter: google/mt5-small, wants a GPU
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train_accelerate.py    # two processes on a CPU

Reads   data/prepared/<preset>/ (made if it is missing) and the checkpoint --model
Writes  results/<preset>-accelerate/: model, tokenizer, results.json; in checkpoints/ the best and the last
Takes   about two minutes for the sample on two cores; expect rouge1 about 50, lead-3 about 20
"""

import math
import shutil
import time
from concurrent.futures import wait
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from huggingface_hub import HfApi
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import DataCollatorForSeq2Seq, get_scheduler, set_seed
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
    "output_dir": "results/{preset}-accelerate",
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
        "epochs": 10,
        "batch_size": 8,
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
    },
}


def main():
    args = parse_args(__doc__, {preset: {**DEFAULTS[preset], **SHARED} for preset in DEFAULTS})
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()  # mT5 overflows in fp16
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
    accelerator.print(f"{accelerator.num_processes} process(es) on {accelerator.device.type}")
    set_seed(args.seed)

    if args.push_to_hub and accelerator.is_main_process:
        create_repo(args.push_to_hub)

    # 1. Data
    books = load_prepared(args, "train", "validation")

    # 2. Checkpoint
    tokenizer, model = load_checkpoint(args)

    # 3. Tokenize
    tokenized_datasets = tokenize(books, tokenizer)
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    sampler = DistributedLengthGroupedSampler(
        args.batch_size * args.gradient_accumulation_steps * accelerator.num_processes,
        lengths=list(tokenized_datasets["train"]["length"]), num_replicas=1, rank=0, seed=args.seed,
    )  # fmt: skip
    tokenized_datasets = tokenized_datasets.remove_columns("length")
    train_dataloader = DataLoader(
        tokenized_datasets["train"], args.batch_size, sampler=sampler, collate_fn=data_collator
    )
    eval_dataloader = DataLoader(tokenized_datasets["validation"], 4 * args.batch_size, collate_fn=data_collator)

    # 4. Metric
    rows = books["validation"]

    def generate_summaries():
        summaries = []
        for batch in tqdm(eval_dataloader, "Evaluate", leave=False, disable=not accelerator.is_main_process):
            with torch.no_grad():
                generated_tokens = accelerator.unwrap_model(model).generate(
                    batch["input_ids"], attention_mask=batch["attention_mask"]
                )
            # Processes generate summaries of different lengths: pad before gathering
            generated_tokens = accelerator.pad_across_processes(
                generated_tokens, dim=1, pad_index=tokenizer.pad_token_id
            )
            generated_tokens = accelerator.gather_for_metrics(generated_tokens)
            summaries += tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        return summaries

    # 5. Train
    decay = [weights for name, weights in model.named_parameters() if "norm" not in name]
    no_decay = [weights for name, weights in model.named_parameters() if "norm" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": args.weight_decay}, {"params": no_decay, "weight_decay": 0.0}],
        lr=args.learning_rate,
        fused=True,
    )
    model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader
    )
    steps_per_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
    max_steps = args.max_steps if args.max_steps > 0 else args.epochs * steps_per_epoch
    lr_scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=max_steps)
    accelerator.register_for_checkpointing(lr_scheduler)

    checkpoints = Path(args.output_dir) / "checkpoints"
    if accelerator.is_main_process:
        shutil.rmtree(checkpoints, ignore_errors=True)  # of an earlier run
    best_score, best_checkpoint, kept, upload = -1, None, [], None
    step, started = 0, time.time()
    progress_bar = tqdm(total=max_steps, desc="Train", disable=not accelerator.is_main_process)
    for epoch in range(math.ceil(max_steps / steps_per_epoch)):
        # Training
        model.train()
        train_dataloader.set_epoch(epoch)
        batches, total_loss, first_step = iter(train_dataloader), 0, step
        while step < max_steps and (step_batches := list(islice(batches, args.gradient_accumulation_steps))):
            # Differs from the chapter: each label token of an optimizer step weighs the same, however the
            # step is cut into batches and processes.
            num_items = accelerator.reduce(sum((batch["labels"] != -100).sum() for batch in step_batches))
            for batch in step_batches:
                labels = batch.pop("labels")
                last = batch is step_batches[-1]
                with nullcontext() if last else accelerator.no_sync(model):  # exchange gradients once a step
                    loss = summed_loss(model(**batch), labels, num_items) * accelerator.num_processes
                    accelerator.backward(loss)
                total_loss += loss.detach()
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            step += 1
            progress_bar.update(1)
        total_loss = accelerator.reduce(total_loss, "mean").item() / (step - first_step)

        # Evaluation
        model.eval()
        scores = rouge_rows(generate_summaries(), rows, args.rouge, use_stemmer=args.rouge == "language")
        scores = dict(zip(ROUGE_TYPES, scores.mean(axis=0).tolist(), strict=True))
        if accelerator.is_main_process:
            print_epoch(epoch + 1, total_loss, scores)

        # Checkpoint: keep the best and the two newest
        checkpoint = checkpoints / f"checkpoint-{step}"
        accelerator.save_state(checkpoint)
        accelerator.wait_for_everyone()  # the main process writes; the others must not read too early
        kept.append(checkpoint)
        if scores["rougeL"] > best_score:
            best_score, best_checkpoint = scores["rougeL"], checkpoint
        for old in [old for old in kept[:-2] if old != best_checkpoint]:
            kept.remove(old)
            if accelerator.is_main_process:
                shutil.rmtree(old)

        # Push while the next epoch trains, unless the last upload still runs
        if args.push_to_hub and accelerator.is_main_process and (upload is None or upload.done()):
            tokenizer.save_pretrained(checkpoints / "upload")
            accelerator.unwrap_model(model).save_pretrained(checkpoints / "upload")
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
    accelerator.load_state(best_checkpoint)
    model.eval()
    summaries = generate_summaries()
    if accelerator.is_main_process:
        scores = compare_with_lead_3(summaries, rows, args.rouge, use_stemmer=args.rouge == "language")
        print_scores(scores, "validation")

        # 7. Save and push
        tokens = sum(sampler.lengths) * step / steps_per_epoch
        measured = {"train_seconds": seconds, "tokens_per_second": tokens / seconds}
        save_model(
            args, tokenizer, accelerator.unwrap_model(model), scores, processes=accelerator.num_processes, **measured
        )
    accelerator.end_training()


if __name__ == "__main__":
    main()
