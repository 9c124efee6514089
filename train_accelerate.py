"""Fine-tune mT5 to write the title of a review, with a loop of our own on Accelerate.

Chapter section: "Fine-tuning mT5 with 🤗 Accelerate".

    accelerate launch train_accelerate.py                       # the sample, on any machine
    accelerate launch train_accelerate.py --preset amazon       # the chapter: google/mt5-small, wants a GPU
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train_accelerate.py    # two processes on a CPU

Reads   data/prepared/<preset>/ (made if it is missing) and the checkpoint --model
Writes  results/<preset>-accelerate/: model, tokenizer, results.json, log.csv (loss and gradient norm of each
        step); in checkpoints/ the best and the last two, from which --resume goes on
Takes   two to four minutes for the sample on two cores; expect rouge1 about 65, lead-3 about 22
"""

import math
from contextlib import nullcontext
from itertools import islice

import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from huggingface_hub import upload_folder
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, get_scheduler

import common

PRESETS = {  # the sample: a tiny mT5 with random weights, in fp32 even where the device has bf16
    "sample": dict(model="tiny", epochs=10, batch_size=16, learning_rate=2e-3, weight_decay=0.3, bf16=False),
    "amazon": dict(model="google/mt5-small", epochs=10, batch_size=8, learning_rate=2e-5, weight_decay=0.01),
}


def get_optimizer(model, learning_rate, weight_decay):
    """Return AdamW as the Trainer sets it up; differs from the chapter: norms and biases do not decay."""
    decay, no_decay = [], []
    for name, weights in model.named_parameters():
        (no_decay if "norm" in name or "bias" in name else decay).append(weights)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def backward(accelerator, model, step_batches):
    """Add up and clip the gradients of the batches of one optimizer step; return its loss and their norm unclipped.

    Differs from the chapter: each label token of the step weighs the same, however it is cut into batches and processes.
    """
    label_tokens = sum((batch["labels"] != -100).sum() for batch in step_batches)
    label_tokens = accelerator.reduce(label_tokens, "sum")  # of all processes
    step_loss = 0
    for batch in step_batches:
        labels = batch.pop("labels")  # with them the model would compute its own loss, a mean of the batch
        # Processes exchange their gradients once a step, with those of the last batch.
        with nullcontext() if batch is step_batches[-1] else accelerator.no_sync(model):
            outputs = model(**batch)  # the collator has shifted the labels right, as decoder_input_ids
            # Processes average their gradients; times their number, that is the sum.
            loss = common.summed_loss(outputs, labels, label_tokens) * accelerator.num_processes
            accelerator.backward(loss)
        step_loss += loss.detach()
    grad_norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)  # Differs from the chapter: as the Trainer does
    # For the same reason, the mean over processes is the loss of the step.
    return accelerator.reduce(step_loss, "mean").item(), grad_norm.item()


def evaluate(accelerator, model, dataloader, tokenizer):
    """Return the summaries of all rows, in their order, and the mean loss of a label token."""
    model.eval()
    summaries, losses = [], []
    for batch in tqdm(dataloader, desc="Evaluate", leave=False):
        labels = batch.pop("labels")
        with torch.no_grad(), accelerator.autocast():  # here, so that weights are cast once a batch, not once a token
            outputs = model(**batch)
            # Differs from the chapter: reviews are encoded once for both, the loss and the summary.
            generated_tokens = accelerator.unwrap_model(model).generate(
                **common.generation_inputs(tokenizer, batch, outputs),
                synced_gpus=accelerator.is_fsdp2,  # under FSDP each process must take as many steps as the others
            )
        # Processes generate summaries of different lengths: pad before gathering. gather_for_metrics drops the
        # rows that fill up the last batch; plain gather would score them twice.
        generated_tokens = accelerator.pad_across_processes(generated_tokens, dim=1, pad_index=tokenizer.pad_token_id)
        row_losses = common.row_losses(outputs, labels)  # of each row the summed loss and the number of label tokens
        generated_tokens, row_losses = accelerator.gather_for_metrics((generated_tokens, row_losses))
        summaries += tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        losses.append(row_losses)
    loss, label_tokens = torch.cat(losses).sum(dim=0, dtype=torch.double).tolist()
    return summaries, loss / label_tokens


def push(accelerator, model, tokenizer, args, epoch, upload):
    """Push the model while the next epoch trains, unless the last ``upload`` still runs; return the one under way."""
    state_dict = accelerator.get_state_dict(model)  # on each process: under FSDP they hold parts of it
    if not accelerator.is_main_process or (upload and not upload.done()):
        return upload
    folder, message = f"{args.output_dir}/checkpoints/upload", f"Training in progress epoch {epoch}"
    tokenizer.save_pretrained(folder)
    accelerator.unwrap_model(model).save_pretrained(folder, state_dict=state_dict)
    return upload_folder(repo_id=args.push_to_hub, folder_path=folder, commit_message=message, run_as_future=True)


@common.command()
def main():
    args = common.parse_args(__doc__, common.TRAINING_FLAGS, PRESETS)
    cpu = torch.backends.mps.is_available()  # not Apple's GPU, which lacks double precision
    precision = common.mixed_precision(args.bf16)
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, log_with=args.report_to, project_dir=args.output_dir)
    common.start_run(args, accelerator)

    # 1. Data
    books = common.load_prepared(args, "train", "validation")
    books["validation"] = common.longest_first(books["validation"])  # so that a batch has little padding

    # 2. Checkpoint
    # The chapter's two from_pretrained(); the rows say what --trim-vocab keeps
    tokenizer, model = common.load_checkpoint(args, books["train"])

    # 3. Tokenize
    with accelerator.local_main_process_first():  # the others find its result in the cache
        tokenized_datasets = books.map(
            common.preprocess_function,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer, "config": model.config, "max_input_length": args.max_input_length,
                       "max_target_length": args.max_target_length},
            remove_columns=books["train"].column_names,  # texts, which the collator could not pad
        )  # fmt: skip
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    sampler = common.LengthGroupedSampler(tokenized_datasets["train"], args, accelerator.num_processes)
    train_dataloader = DataLoader(
        tokenized_datasets["train"],
        batch_size=args.batch_size,
        sampler=sampler,  # Differs from the chapter: rows of about one length in a step, so that little is padded
        collate_fn=data_collator,
        generator=torch.Generator(),  # of its own, else it draws from dropout's, which would differ after --resume
    )
    # Without gradients, batches of four times the size fit.
    eval_dataloader = DataLoader(tokenized_datasets["validation"], 4 * args.batch_size, collate_fn=data_collator)

    # 4. Optimizer and schedule
    optimizer = get_optimizer(model, args.learning_rate, args.weight_decay)
    model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader
    )
    register_fsdp_forward_method(model, "generate")  # under FSDP, gathers the weights for it; else nothing
    # Step, epochs, log and checkpoints, as --resume finds them; max_steps: --epochs times sampler.steps_per_epoch.
    run = common.Run(args, books, tokenizer, sampler)
    max_steps = run.state["max_steps"]
    lr_scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=max_steps)

    # 5. Train
    if run.newest:  # only with --resume
        accelerator.load_state(run.newest)
        lr_scheduler.last_epoch = run.state["step"]  # a step, in spite of its name
    accelerator.init_trackers("runs")
    upload = None
    for epoch in range(len(run.state["epochs"]), math.ceil(max_steps / sampler.steps_per_epoch)):
        # Training
        model.train()
        done = run.state["step"] % sampler.steps_per_epoch  # not 0 where --resume goes on inside an epoch
        batches = iter(accelerator.skip_first_batches(train_dataloader, done * args.gradient_accumulation_steps))
        steps = range(run.state["step"] + 1, min((epoch + 1) * sampler.steps_per_epoch, max_steps) + 1)
        for step in tqdm(steps, total=max_steps, initial=run.state["step"], leave=False):
            loss, grad_norm = backward(accelerator, model, list(islice(batches, args.gradient_accumulation_steps)))
            run.log_step(loss, grad_norm, optimizer.param_groups[0]["lr"])  # the rate of this step
            accelerator.log(run.state["log"][-1], step=step)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            if args.save_steps and step % args.save_steps == 0 and step < steps[-1]:
                run.save(accelerator.save_state)  # the last one of an epoch is saved after its evaluation

        # Evaluation
        summaries, eval_loss = evaluate(accelerator, model, eval_dataloader, tokenizer)
        # Differs from the chapter: the references are the titles themselves, not labels cut at 30 tokens
        f1 = common.rouge_rows(summaries, books["validation"], args.rouge).mean()  # of rouge1, rouge2, ... × 100
        run.end_epoch(eval_loss, f1)
        accelerator.log({"eval_loss": eval_loss, **f1}, step=run.state["step"])

        # Save and upload
        run.save(accelerator.save_state)  # keeps the best and the last two
        if args.push_to_hub:
            upload = push(accelerator, model, tokenizer, args, epoch, upload)

    # 6. Summaries of the best model by ROUGE-L, as it was saved
    # Differs from the chapter: there the last model is the result
    accelerator.load_state(run.best())
    summaries, run.measured["eval_loss"] = evaluate(accelerator, model, eval_dataloader, tokenizer)
    state_dict = accelerator.get_state_dict(model)

    # 7. Score it beside lead-3, save and push
    if accelerator.is_main_process:
        scores = common.score(books["validation"], args.rouge, summaries)
        common.save_model(args, tokenizer, accelerator.unwrap_model(model), scores, run, state_dict)
        common.push_to_hub(args)  # if --push-to-hub names a repository
    # Free the model before the process group that its wrapper uses is closed; else a process may hang at its exit.
    model, optimizer = accelerator.free_memory(model, optimizer)
    accelerator.end_training()


if __name__ == "__main__":
    main()
