"""Fine-tune mT5 to write the title of a review, with the Trainer.

Chapter section: "Fine-tuning mT5 with the Trainer API".

    python train_trainer.py                     # the sample, with a tiny mT5
    python train_trainer.py --preset amazon     # the chapter: google/mt5-small
    python train_trainer.py --resume            # go on after Ctrl-C or a crash
    python train_trainer.py --push-to-hub NAME/REPO    # upload the model; first: hf auth login
    torchrun --nproc_per_node 4 train_trainer.py --preset amazon

Reads   data/prepared/<preset>/, which prepare_data.py makes first if it is missing, and the
        checkpoint --model.
Writes  results/<preset>-trainer/: the best model, its tokenizer, scores (results.json), log.csv,
        training.png and a model card; up to three folders checkpoint-<step>/ for --resume.
Takes   two to four minutes for the sample on two CPU cores.
Prints  the losses and scores of each epoch, and at the end three summaries, such as
            >>> I called the seller three times and got no answer, I am still waiting. What a ...
            Title: Still waiting for my fantasy novel
            Summary: Still waiting for my crime novel.
        and a table of scores beside the baseline lead-3. Expect rouge1 of 66 to 69 for the sample.
        Lead-3 has 22.

The sample is 6,866 English and Spanish book reviews to train on and 496 to validate on, which a
program composed. It shows that the script works, and not how good mT5 is: its model starts from
random weights, and most titles of its validation split are also in its training split. The corpus
and the model of --preset amazon could not be downloaded where we work, so this preset is not tried.
The validation split also chooses the best checkpoint, so its scores are a little too high.
"""

import copy

import numpy as np
import torch
from accelerate import PartialState
from huggingface_hub import create_repo, upload_folder
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from transformers.integrations import get_available_reporting_integrations

# What the scripts share: flags, errors, files, --resume, what models other than mT5 need, and the
# metric. A comment says what a call does where its name does not.
import common

# What each --preset sets. A flag on the command line overrides it.
PRESETS = {
    "sample": {
        "model": "tiny",  # the folder of an mT5 with random weights, made by prepare_data.py
        "output_dir": "results/sample-trainer",
        "max_input_length": 512,
        "max_target_length": 30,
        "epochs": 10,
        "batch_size": 16,
        "learning_rate": 2e-3,  # large, because random weights have everything to learn
        "weight_decay": 0.3,  # large, as there are few reviews: with 0, rouge1 ends at 44, not 66
        "bf16": False,  # a model as small as this one is no faster in bf16
    },
    "amazon": {  # the values of the chapter, except output_dir and bf16
        "model": "google/mt5-small",
        "output_dir": "results/amazon-trainer",
        "max_input_length": 512,
        "max_target_length": 30,
        "epochs": 8,
        "batch_size": 8,
        "learning_rate": 5.6e-5,
        "weight_decay": 0.01,
        "bf16": None,  # True if the device has bfloat16, else False
    },
}


def parse_args():
    # The flags of both training scripts: those of PRESETS, and --num-beams, --rouge, --seed, ...
    parser = common.training_parser(__doc__)
    add = parser.add_argument
    add("--gradient-accumulation-steps", type=int, default=1, help="batches per step (1)")
    add("--save-steps", type=int, help="evaluate and save every N steps, not after each epoch")
    trackers = ["none", *get_available_reporting_integrations()]
    add(
        "--report-to", choices=trackers, default="none", help="one of the installed trackers (none)"
    )
    return common.parse_args(parser, PRESETS)


def load_model(args):
    """Return the tokenizer and the model of --model."""
    with common.explain_checkpoint_errors(args.model):
        # trust_remote_code=False: code that comes with a checkpoint never runs.
        # dtype: weights are kept in float32. With --bf16, only the computations are in bfloat16.
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        model, loading_info = AutoModelForSeq2SeqLM.from_pretrained(
            args.model, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    settings = model.generation_config  # generate() reads these when it writes a summary
    # Differs from the chapter: a summary may be as long as a title, 30 tokens. The default is 20.
    settings.max_new_tokens = args.max_target_length
    # Not in the chapter: never write <extra_id_0> and the like. They mark the gaps in mT5's
    # pre-training, and after a short training mT5 may still write them.
    settings.suppress_tokens = common.tokens_of_pretraining(tokenizer, model)
    if args.num_beams:  # by default, the checkpoint says how many beams there are; for mT5, one
        settings.num_beams = args.num_beams
    # End the script if weights are missing, or if the tokenizer is that of another model. Set up
    # what models other than mT5 need. For example, BART's minimum length is longer than a title.
    common.set_up_checkpoint(args, tokenizer, model, loading_info)
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
    """Put each sentence on a line of its own, as ROUGE-Lsum compares line by line."""
    # Differs from the chapter: sentences are found by the rules of each text's language, which are
    # those of nltk, without a download. Spaces around a text change no score, so strip() is gone.
    pairs = zip(texts, languages, strict=True)
    return ["\n".join(common.sent_tokenize(text, language)) for text, language in pairs]


def decode(predictions, tokenizer, num_rows):
    """Return the summaries of the first ``num_rows`` rows of ids in ``predictions``."""
    # Only on several processes there are more rows: the last batch is filled up with rows of the
    # first batch, and Seq2SeqTrainer does not remove them. They come last, so cut them off.
    predictions = predictions[:num_rows]
    # Differs from the chapter: today the Trainer pads with -100, which cannot be decoded.
    predictions = np.where(predictions != -100, predictions, tokenizer.pad_token_id)
    return tokenizer.batch_decode(predictions, skip_special_tokens=True)


def get_training_arguments(args):
    """Return the ``Seq2SeqTrainingArguments``."""
    interval = "steps" if args.save_steps else "epoch"
    return Seq2SeqTrainingArguments(
        # As in the chapter
        output_dir=args.output_dir,
        eval_strategy=interval,  # the chapter's evaluation_strategy
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.batch_size,
        weight_decay=args.weight_decay,
        save_total_limit=3,  # the best checkpoint is always one of the three
        num_train_epochs=args.epochs,
        predict_with_generate=True,  # compute_metrics gets the ids of summaries, not logits
        logging_strategy=interval,  # the chapter's logging_steps: as often as the evaluation
        # Differs from the chapter: the result is the best checkpoint by ROUGE-L, not the last.
        save_strategy=interval,
        load_best_model_at_end=True,
        metric_for_best_model="rougeL",
        # Differs from the chapter: evaluation needs less memory per row, so batches are larger.
        per_device_eval_batch_size=4 * args.batch_size,
        # Not in the chapter: the other flags of this script. Without --save-steps, the three that
        # have its value are not used.
        eval_steps=args.save_steps,
        save_steps=args.save_steps,
        logging_steps=args.save_steps,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        bf16=args.bf16,
        seed=args.seed,
        report_to=args.report_to,
        # Not in the chapter: what depends on the machine. These are use_cpu, disable_tqdm,
        # dataloader_pin_memory, ddp_find_unused_parameters and log_level_replica.
        **common.machine_arguments(),
    )


def compute_loss(outputs, labels, num_items_in_batch):
    """Return the loss of a batch: its sum, divided by the number of label tokens of its step.

    Differs from the chapter, but only if a step has several batches, by accumulation or on several
    processes: each label token of the step counts the same. The losses of two batches with 10 and
    30 label tokens are both divided by 40, and the Trainer adds them up. mT5's own loss divides by
    10 and by 30, so that a token of the first batch would count three times as much.
    """
    logits = outputs.logits.flatten(0, 1)  # (rows × tokens, vocabulary)
    loss = cross_entropy(logits, labels.flatten(), reduction="sum")  # does not count labels of -100
    return loss / num_items_in_batch


def main():
    args = parse_args()  # what the chapter calls args is training_args, in step 7

    # 1. The data: a DatasetDict with the columns review_body, review_title and language. On several
    # processes, the first one makes it if it is missing.
    state = PartialState()  # Accelerate's: it knows the processes, and prints on the first one only
    books = common.load_prepared(args, ["train", "validation"])

    # 2. The tokenizer and the model
    tokenizer, model = load_model(args)

    # 3. Print what will be trained, and check --output-dir. With --resume, checkpoint is the newest
    # one there, if there is one. Otherwise it is None.
    checkpoint = common.begin_run(args, books["train"], tokenizer)
    if args.push_to_hub and state.is_main_process:
        # The chapter's Repository is gone. A wrong token is seen now and not after the training.
        with common.explain_hub_errors(args):
            create_repo(args.push_to_hub, private=args.hub_private, exist_ok=True)

    # 4. Tokenize the reviews and their titles. Each process does so for itself.
    prefix = common.task_prefix(model)  # "summarize: " for T5; mT5 was not trained with prefixes
    tokenized_datasets = tokenize(
        books, tokenizer, prefix, args.max_input_length, args.max_target_length
    )

    # 5. The collator pads the rows of a batch to one length. It also makes decoder_input_ids, which
    # are the labels shifted right, so that the decoder sees only tokens before the one to predict.
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    batch = data_collator(list(tokenized_datasets["train"].take(2)))  # only to look at
    state.print("The labels of two rows. The loss does not count the padding, which is -100.")
    state.print(batch["labels"])
    padding = f"with the padding token, {tokenizer.pad_token_id}, for -100"
    state.print(f"Their decoder_input_ids: the labels, shifted right by one token, {padding}.")
    state.print(batch["decoder_input_ids"])

    # 6. The metric. Differs from the chapter: common.Rouge stands for evaluate.load("rouge"). It
    # calls the same package, rouge_score, but with the words and stems of each text's language. By
    # itself, this package knows a-z only, and splits "años" into "a" and "os". To count words as
    # the chapter does, give --rouge rouge_score_stemmer.
    rouge = common.Rouge(args.rouge)
    # Differs from the chapter: the references are the titles, and not the decoded labels, which
    # are cut off after max_target_length tokens.
    titles = list(books["validation"]["review_title"])
    languages = list(books["validation"]["language"])
    references = postprocess_text(titles, languages)

    def compute_metrics(eval_pred):
        decoded_preds = decode(eval_pred.predictions, tokenizer, len(titles))
        decoded_preds = postprocess_text(decoded_preds, languages)
        result = rouge.compute(
            predictions=decoded_preds, references=references, languages=languages
        )
        # It has rouge1, rouge2, rougeL and rougeLsum. Differs from the chapter: there is no .mid.
        return {name: round(f1 * 100, 4) for name, f1 in result.items()}

    # 7. The arguments of the Trainer
    training_args = get_training_arguments(args)

    # 8. Train
    trainer = Seq2SeqTrainer(
        model,
        training_args,
        train_dataset=tokenized_datasets["train"],
        eval_dataset=tokenized_datasets["validation"],
        data_collator=data_collator,
        processing_class=tokenizer,  # the chapter's tokenizer=
        compute_metrics=compute_metrics,
        compute_loss_func=compute_loss,
    )
    # A copy to be saved in step 9. In the evaluation, generate() writes defaults such as
    # max_length=20 into the settings of the model.
    generation_config = copy.deepcopy(model.generation_config)
    trainer.train(resume_from_checkpoint=checkpoint)

    # 9. Score and save the best model, which train() has loaded. Differs from the chapter:
    # evaluate() would return no summaries. Those of predict() are scored by language, with
    # intervals, beside the baseline lead-3.
    output = trainer.predict(tokenized_datasets["validation"], metric_key_prefix="eval")
    common.check_losses([output.metrics["eval_loss"]])  # ends the script if it is infinite or nan
    if state.is_main_process:
        summaries = decode(output.predictions, tokenizer, len(titles))
        scores = common.score_beside_lead_3(rouge, books["validation"], summaries)
        model.generation_config = generation_config  # the copy of step 8
        # The files replace the older ones when all are written. After an error, those stay.
        with common.new_files(args.output_dir) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            common.save_results(folder, args, scores, trainer.state.log_history, finished=True)
        common.print_examples(books, summaries, number=3)
        common.print_scores(args, scores, books["validation"])

    # 10. Push. Differs from the chapter: trainer.push_to_hub() would replace our model card.
    if args.push_to_hub and state.is_main_process:
        with common.explain_hub_errors(args):  # an error prints how to upload it later
            upload_folder(
                repo_id=args.push_to_hub,
                folder_path=args.output_dir,
                ignore_patterns=["checkpoint-*", "arguments.json"],  # the latter has private paths
                commit_message="Training complete",
            )


if __name__ == "__main__":
    with common.command_line():  # Ctrl-C or a full disk end in one line; warnings are hidden
        main()
