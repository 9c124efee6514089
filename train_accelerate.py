"""Fine-tune mT5 to write the title of a review, with a training loop on Accelerate.

Chapter section: "Fine-tuning mT5 with 🤗 Accelerate".

    accelerate launch train_accelerate.py                     # the sample, a tiny untrained mT5
    accelerate launch train_accelerate.py --preset amazon     # the chapter; not tried by us
    accelerate launch train_accelerate.py --resume            # go on after Ctrl-C or a crash
    accelerate launch --config_file tests/launch/several_gpus.yaml train_accelerate.py    # 2 GPUs

Reads   data/prepared/<preset>/, which prepare_data.py makes first if it is missing, and the
        checkpoint --model.
Writes  results/<preset>-accelerate/: model, tokenizer, results.json, log.csv, training.png and a
        model card; checkpoint-<epoch>/, from which --resume goes on.
Takes   two to four minutes for the sample on two CPU cores.
Prints  in the last epoch
            Epoch 10 of 10: loss 0.049 eval_loss 0.478 {'rouge1': 68.8035, 'rouge2': 61.2081, ...
            Review: Gran guía turística, me gustó muchísimo. Pero hay algunas erratas. Nos ...
            Title: Gran guía turística
            Summary: Gran guía de viaje
        Train does not have this title. On another CPU, rouge1 was 66. The baseline lead-3, the
        first three sentences of a review, has a rouge1 of 22.

The sample shows that the script works, and not how good mT5 is:
- Its tiny model starts from random weights, so this is training, and not fine-tuning.
- A program composed its reviews, 6,866 to train on and 496 to validate on, and most titles of the
  validation split are also in the training split.
- A loss so far below eval_loss means that much is memorized.
--preset amazon fine-tunes. It should take hours on a GPU. We could not get the chapter's corpus and
checkpoint, so we have no scores of it.
"""

import shutil
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import tqdm  # shows the bar of the first process only
from huggingface_hub import upload_folder
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

# common.py holds what the scripts share. You can follow the steps without it. Read main() first,
# and each function where main() calls it. These names stand for code of the chapter:
#   load_prepared()         the book reviews of "Preparing a multilingual corpus"
#   Rouge                   evaluate.load("rouge"), with the words and stems of each language
#   sent_tokenize()         nltk.sent_tokenize, by the rules of a language
#   score_beside_lead_3()   evaluate_baseline, beside the scores of the model
#   begin_run()             the part of Repository() that creates a repository
# With the same data and flags, a score can differ from the chapter's because of
#   compute_metrics()       words, stems and sentences by language; whole titles as references
#   load_model()            summaries of up to 30 tokens, not 20; no <extra_id_0> and the like
#   main()                  the best epoch by ROUGE-L, not the last one; clipped gradients
#   get_dataloaders()       rows of similar length in a batch
#   parse_args()            bf16 for --preset amazon, if the device has it
# and on several processes, because of
#   evaluate()              no row is scored twice
#   weight_by_label_tokens()    the same weight for each label token
# All else of common.py is for flags, errors, files, --resume, other models, and the last table.
import common

# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {
        "model": "tiny",  # the folder of an mT5 with random weights, made by prepare_data.py
        "output_dir": "results/sample-accelerate",
        "max_input_length": 512,
        "max_target_length": 30,
        "epochs": 10,
        "batch_size": 16,
        "learning_rate": 2e-3,  # large, because random weights have everything to learn
        "weight_decay": 0.3,  # large, as the model would otherwise memorize even more
        "bf16": False,  # a model as small as this one is no faster in bf16
    },
    "amazon": {  # the chapter's values; where its two trainings differ, those with Accelerate
        "model": "google/mt5-small",
        "output_dir": "results/amazon-accelerate",
        "max_input_length": 512,
        "max_target_length": 30,
        "epochs": 10,
        "batch_size": 8,  # of each process
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
        "bf16": None,  # common.parse_args() makes it True if the device has bfloat16, else False
    },
}


def load_model(args, rows):
    """Return the tokenizer and the model of --model, which must fit the ``rows``."""
    with common.explain_checkpoint_errors(args.model):
        # trust_remote_code=False: code that comes with a checkpoint never runs. By default,
        # transformers asks the user. dtype: the weights are kept in float32, even if they were
        # saved in another type. With --bf16, only the computations are in bfloat16.
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        model, loading_info = AutoModelForSeq2SeqLM.from_pretrained(
            args.model, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    # The script ends here if a weight is missing, which loading_info says, or if the tokenizer is
    # that of another model.
    common.check_checkpoint(args, tokenizer, model, loading_info, rows)
    settings = model.generation_config  # generate() reads these when it writes a summary
    # Differs from the chapter: a summary may be as long as a title, 30 tokens. The default is 20.
    settings.max_new_tokens = args.max_target_length
    # Not in the chapter: never write <extra_id_0> and the like. They mark the gaps in mT5's
    # pre-training, and after a short training mT5 may still write them.
    settings.suppress_tokens = common.tokens_of_pretraining(tokenizer, model)
    if args.num_beams:  # by default, the checkpoint says how many beams there are; for mT5, one
        settings.num_beams = args.num_beams
    # What models other than mT5 need. For example, BART's minimum length is longer than a title.
    common.adapt_checkpoint(args, tokenizer, model)
    return tokenizer, model


def tokenize(books, tokenizer, prefix, max_input_length, max_target_length):
    """Return the ``DatasetDict`` with input_ids, attention_mask and labels instead of texts."""

    def preprocess_function(examples):
        reviews = [prefix + review for review in examples["review_body"]]
        model_inputs = tokenizer(reviews, max_length=max_input_length, truncation=True)
        # Titles are tokenized in a second call, because they have another max_length.
        labels = tokenizer(examples["review_title"], max_length=max_target_length, truncation=True)
        model_inputs["labels"] = labels["input_ids"]
        # For mBART-50 this adds the language of each text. For mT5 it changes nothing.
        return common.set_language_codes(model_inputs, examples["language"], tokenizer)

    # The texts are not needed any more, and the collator could not pad them.
    columns = books["train"].column_names
    return books.map(preprocess_function, batched=True, remove_columns=columns)


def postprocess_text(texts, languages):
    """Put each sentence on a line of its own, as ROUGE-Lsum compares line by line.

    (The chapter says this of ROUGE-L, which takes a text as one line.)
    Differs from the chapter: the sentences are found by the rules of each row's language. Spaces
    around a text change no score, so the chapter's strip() is not needed.
    """
    texts_in_sentences = map(common.sent_tokenize, texts, languages)
    return ["\n".join(sentences) for sentences in texts_in_sentences]


def compute_metrics(rouge, summaries, rows):
    """Return the mean F1 scores × 100 of the summaries of the ``rows``.

    Differs from the chapter, whose metric is made for English: it splits "años" into "a" and "os".
    Here, words and stems are those of each row's language. (The chapter has stems in its Trainer
    section only.) A score is the mean over the rows, and not the .mid of a bootstrap.
    """
    languages = list(rows["language"])
    decoded_preds = postprocess_text(summaries, languages)
    # Differs from the chapter: the references are the titles, and not the labels, which are cut
    # off after max_target_length tokens.
    decoded_labels = postprocess_text(list(rows["review_title"]), languages)
    result = rouge.compute(
        predictions=decoded_preds, references=decoded_labels, languages=languages
    )
    return {name: round(f1 * 100, 4) for name, f1 in result.items()}


def get_dataloaders(tokenized_datasets, data_collator, batch_size, generator):
    """Return the dataloaders of the training and of the validation split.

    Differs from the chapter: the reviews of a training batch have similar lengths, which saves
    padding. The sampler shuffles all rows, cuts them into groups of up to 50 batches, and sorts
    each group by length. With a plain shuffle an epoch of the sample takes 30% longer on a CPU.
    The chapter's set_format("torch") is not needed, as the collator returns tensors.
    """
    train_dataset = tokenized_datasets["train"]
    sampler = LengthGroupedSampler(batch_size, train_dataset, generator=generator)
    train_dataloader = DataLoader(
        train_dataset, sampler=sampler, collate_fn=data_collator, batch_size=batch_size
    )
    eval_dataloader = DataLoader(
        tokenized_datasets["validation"],
        collate_fn=data_collator,
        batch_size=4 * batch_size,  # differs from the chapter: without gradients more rows fit
    )
    return train_dataloader, eval_dataloader


def weight_by_label_tokens(accelerator, loss, labels):
    """Return the ``loss`` of a batch; on several processes, weighted by its label tokens.

    Differs from the chapter: each label token counts the same on all processes. ``loss`` is a mean
    over the tokens of one process, and backward() averages the gradients of the processes. With 10
    tokens on one process and 30 on another, each of the 10 would count three times as much. So the
    losses are multiplied by 10/20 and by 30/20, where 20 is the mean. On one process, the factor is
    1, and nothing changes.
    """
    label_tokens = (labels != -100).sum().float()  # the mean below needs a float
    return loss * (label_tokens / accelerator.reduce(label_tokens, reduction="mean"))


def row_losses(logits, labels):
    """Return the sum of the losses and the number of label tokens of each row, of shape (rows,).

    On several processes the last batch may contain repeated rows. gather_for_metrics() can drop
    these if there is one number per row. But outputs.loss is one number per batch.
    """
    # cross_entropy() wants the shape (rows, vocabulary, tokens), and gives 0 for labels of -100.
    losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1)
    return losses, (labels != -100).sum(dim=1)


def evaluate(accelerator, model, eval_dataloader, tokenizer):
    """Return the summaries of the validation rows, in their order, and the loss per label token."""
    model.eval()
    summaries, losses, tokens = [], [], []
    for batch in eval_dataloader:
        # autocast() matters for speed, and for bf16 only. It keeps the converted weights until it
        # ends. Without it, generate() would convert them again for each token.
        with torch.no_grad(), accelerator.autocast():
            # unwrap_model(), because on several processes the wrapped model has no generate()
            generated_tokens = accelerator.unwrap_model(model).generate(
                batch["input_ids"], attention_mask=batch["attention_mask"]
            )
            # Not in the chapter: the validation loss, which shows when a model starts to memorize
            logits = model(**batch).logits
        # The longest summary differs between processes, but gathered tensors need one length.
        generated_tokens = accelerator.pad_across_processes(
            generated_tokens, dim=1, pad_index=tokenizer.pad_token_id
        )
        batch_losses, batch_tokens = row_losses(logits, batch["labels"])
        # Differs from the chapter: on several processes the dataloader fills the last batch up with
        # repeated rows. gather_for_metrics() drops these, while gather() would score them twice.
        generated_tokens, batch_losses, batch_tokens = accelerator.gather_for_metrics(
            (generated_tokens, batch_losses, batch_tokens)
        )
        summaries += tokenizer.batch_decode(generated_tokens, skip_special_tokens=True)
        losses.append(batch_losses)
        tokens.append(batch_tokens)
    eval_loss = torch.cat(losses).sum() / torch.cat(tokens).sum()
    return summaries, eval_loss.item()


def print_summary(accelerator, books, summaries):
    """Print the first review whose title is not in the training split, so not known by heart."""
    known = set(books["train"]["review_title"])
    titles = list(books["validation"]["review_title"])
    row = next((row for row, title in enumerate(titles) if title not in known), 0)
    review = books["validation"][row]["review_body"]
    text = f"Review: {review}\nTitle: {titles[row]}\nSummary: {summaries[row]}\n"
    accelerator.print(common.printable(text))  # without characters that could clear the screen


def check_and_log_epoch(progress, epochs_done, loss, eval_loss, result):
    """End the script if a loss is infinite or nan. Otherwise add the epoch to the ``progress``."""
    common.check_losses([loss, eval_loss])
    log = {"epoch": epochs_done, "loss": loss, "eval_loss": eval_loss}
    log |= {f"eval_{name}": f1 for name, f1 in result.items()}  # the names of the Trainer's log
    progress["log_history"].append(log)
    progress["epoch"] = epochs_done


def save_checkpoint(accelerator, output_dir, progress):
    """Save the state of the training in checkpoint-<epoch>, and remove the previous checkpoint.

    The files are written to a temporary folder, which is renamed when it is whole. So a run that is
    killed while it saves still has the previous one.
    """
    temporary = Path(output_dir, "checkpoint-unfinished")
    accelerator.save_state(temporary)  # weights, optimizer, schedule and random states
    accelerator.wait_for_everyone()  # each process writes its own random states
    if accelerator.is_main_process:
        common.write_json(temporary / "progress.json", progress)
        temporary.rename(Path(output_dir, f"checkpoint-{progress['epoch']}"))
        for older in common.find_checkpoints(output_dir)[:-1]:
            shutil.rmtree(older)


def load_checkpoint(accelerator, checkpoint):
    """Load the state that ``save_checkpoint`` saved, and return its ``progress``."""
    with common.explain_errors(
        f"cannot read {checkpoint}", "delete it and train again from the start"
    ):
        accelerator.load_state(checkpoint)
    return common.read_json(checkpoint / "progress.json")


def push_to_hub(args, commit_message):
    """Start to upload --output-dir in the background; return a future, which knows when it ends.

    Differs from the chapter: huggingface_hub has no Repository any more.
    """
    return upload_folder(
        repo_id=args.push_to_hub,  # this flag is the name of a repository
        folder_path=args.output_dir,
        ignore_patterns=list(common.NOT_UPLOADED),
        commit_message=commit_message,
        run_as_future=True,
    )


def save_model(args, model, tokenizer, progress):
    """Save the model with its tokenizer, scores, log and card in --output-dir.

    The files move there when all are written. If an error comes before, the older ones stay.
    Differs from the chapter: only the first process calls this. The scores are a little too high
    for new reviews, as the epoch was chosen by them.
    """
    with common.new_files(args.output_dir) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        common.save_results(folder, args, progress["best_scores"], progress["log_history"])


def main():
    # The flags: those of PRESETS, and --num-beams, --rouge, --seed, --resume, --push-to-hub, ...
    args = common.parse_args(common.training_parser(__doc__, PRESETS), PRESETS)
    set_seed(args.seed)  # for dropout; the order of the rows is seeded below, before each epoch

    # 1. The data: a DatasetDict with the columns review_body, review_title and language
    books = common.load_prepared(args, ["train", "validation"])
    # With --resume, this is the newest checkpoint if there is one, else None. Without --resume, the
    # script ends here if --output-dir holds a run that has not ended.
    checkpoint = common.checkpoint_to_resume(args)

    # 2. The tokenizer and the model
    tokenizer, model = load_model(args, books["train"])

    # 3. Tokenize the reviews and their titles. Each process does so for itself, in seconds.
    prefix = common.task_prefix(model)  # "summarize: " for T5; mT5 was not trained with prefixes
    tokenized_datasets = tokenize(
        books, tokenizer, prefix, args.max_input_length, args.max_target_length
    )

    # 4. The dataloaders
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    generator = torch.Generator()  # draws the order of the rows; seeded before each epoch
    train_dataloader, eval_dataloader = get_dataloaders(
        tokenized_datasets, data_collator, args.batch_size, generator
    )

    # 5. The optimizer and the schedule. Not in the chapter: "fused" updates the weights faster.
    optimizer = AdamW(
        model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=True
    )
    # Differs from the chapter: the schedule is prepared, so that --resume restores it. On two
    # processes the sample's 430 batches are then 215 steps, and each moves the schedule on by 2.
    num_training_steps = args.epochs * len(train_dataloader)
    lr_scheduler = get_scheduler(
        "linear", optimizer, num_warmup_steps=0, num_training_steps=num_training_steps
    )

    # 6. Prepare everything: the model moves to the device, and each process gets a part of the
    # batches. On several processes the model is wrapped, so that their gradients are averaged.
    accelerator = Accelerator(mixed_precision="bf16" if args.bf16 else "no")
    model, optimizer, train_dataloader, eval_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader, lr_scheduler
    )

    # 7. The metric, used like evaluate.load("rouge"). compute() also takes the languages.
    rouge = common.Rouge(args.rouge)

    # 8. The first process prints what will be trained, and creates the Hub repository
    common.begin_run(args, len(books["train"]), checkpoint)
    # How far the training is. "epoch" is the number of epochs that are done.
    progress = {"epoch": 0, "best_rougeL": -1.0, "best_scores": None, "log_history": []}
    if checkpoint:
        progress = load_checkpoint(accelerator, checkpoint)

    # 9. Train. (1) to (4) are the four steps of the chapter's section "Training loop".
    no_bar = not sys.stderr.isatty()  # a progress bar would clutter a log file
    upload = None  # the upload that was started last
    for epoch in range(progress["epoch"], args.epochs):
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
            epoch_loss += loss.detach()  # stays on the GPU, so that no step waits for the sum
        # The mean over the batches of all processes. len() counts those of one process.
        epoch_loss = accelerator.reduce(epoch_loss / len(train_dataloader), "mean").item()

        # (2) Generate a summary of each validation review
        summaries, eval_loss = evaluate(accelerator, model, eval_dataloader, tokenizer)
        # (3) Compute ROUGE. All processes have all summaries, but only the first one prints.
        result = compute_metrics(rouge, summaries, books["validation"])
        accelerator.print(f"{epoch_name}: loss {epoch_loss:.3f} eval_loss {eval_loss:.3f}", result)
        print_summary(accelerator, books, summaries)
        check_and_log_epoch(progress, epoch + 1, epoch_loss, eval_loss, result)

        # (4) Save and push. Differs from the chapter: only if ROUGE-L is the best so far.
        if result["rougeL"] > progress["best_rougeL"]:
            progress["best_rougeL"] = result["rougeL"]
            if accelerator.is_main_process:
                # For the model card: by language, with intervals, beside the baseline lead-3
                scores = common.score_beside_lead_3(rouge, books["validation"], summaries)
                progress["best_scores"] = scores
                common.wait_for_upload(args, upload)  # it may still be reading the older files
                save_model(args, accelerator.unwrap_model(model), tokenizer, progress)
                if args.push_to_hub:
                    upload = push_to_hub(args, f"Training in progress epoch {epoch + 1}")
        # After every epoch, not only the best one, as --resume goes on from the last one
        save_checkpoint(accelerator, args.output_dir, progress)

    # 10. Save the log of all epochs beside the best model, print its scores, and push
    if accelerator.is_main_process:
        common.wait_for_upload(args, upload)
        scores, log_history = progress["best_scores"], progress["log_history"]
        with common.new_files(args.output_dir) as folder:  # replaces these files; the model stays
            common.save_results(folder, args, scores, log_history, finished=True)
        common.print_scores(args, scores, books["validation"])
        if args.push_to_hub:
            with common.explain_upload_errors(args):  # an error prints how to upload it later
                push_to_hub(args, "Training complete").result()  # waits for the end


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
