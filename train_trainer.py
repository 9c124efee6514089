"""Fine-tune mT5 to write the title of a review, with the Trainer.

Chapter section: "Fine-tuning mT5 with the Trainer API".

    python train_trainer.py                     # the sample, and a tiny mT5 of random weights
    python train_trainer.py --preset amazon     # the chapter: google/mt5-small; not tried by us
    python train_trainer.py --resume            # go on after Ctrl-C or a crash
    python train_trainer.py --push-to-hub NAME/REPO    # upload the model; first: hf auth login
    torchrun --nproc_per_node 4 train_trainer.py --preset amazon

Reads   data/prepared/<preset>/, which prepare_data.py makes first if it is missing, and the
        checkpoint --model.
Writes  results/<preset>-trainer/: model, tokenizer, results.json, log.csv, training.png, a model
        card, and up to three folders checkpoint-<step>/. --resume goes on from the newest one.
Takes   two to four minutes for the sample on two CPU cores.
Prints  at the end, for the sample, one failure and one title that it knows by heart,
            Review with a new title: Gran guía turística, me gustó muchísimo. Pero hay ...
            Title: Gran guía turística
            Summary: Empieza lenta, pero mejora

            Review with a title that is also in train: The author lectures on every page ...
            Title: An advert for his own courses
            Summary: An advert for his own courses
        and a table of scores. In our runs, rouge1 was 66 to 69 on the validation split. The
        baseline lead-3, the first three sentences of a review, has 22.

The sample shows that the script works, and not how good mT5 is:
- Its tiny model starts from random weights, so this is training, and not fine-tuning.
- A program composed its reviews, 6,866 to train on and 496 to validate on, and most titles of the
  validation split are also in the training split. So a high rouge1 means mostly that the model
  has picked the right one of the titles that it knows.
--preset amazon fine-tunes. It should take hours on a GPU. We could not get the chapter's corpus and
checkpoint, so we have no scores of it.
"""

import copy

import numpy as np
import torch
from huggingface_hub import upload_folder
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from transformers.integrations import get_available_reporting_integrations

# common.py holds what the scripts share. You can follow the steps without it. Read main() first,
# and each function where main() calls it. These names stand for code of the chapter:
#   load_prepared()         the book reviews of "Preparing a multilingual corpus"
#   Rouge                   evaluate.load("rouge"), with the words and stems of each language
#   sent_tokenize()         nltk.sent_tokenize, by the rules of a language
#   score_beside_lead_3()   evaluate_baseline, beside the scores of the model
# With the same data and flags, a score can differ from the chapter's because of
#   load_model()                summaries of up to 30 tokens, not 20; no <extra_id_0> and the like
#   get_training_arguments()    the best checkpoint by ROUGE-L, not the last one
#   step 5                      words, stems and sentences by language; whole titles as references
#   step 7                      the loss, but only if a step has several batches
#   common.parse_args()         bf16 for --preset amazon, if the device has it
# All else of common.py is for flags, errors, files, --resume, other models, and the last table.
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
        "bf16": None,  # common.parse_args() makes it True if the device has bfloat16, else False
    },
}


def parse_args():
    # The flags of both training scripts: those of PRESETS, and --num-beams, --rouge, --seed, ...
    parser = common.training_parser(__doc__, PRESETS)
    add = parser.add_argument
    add("--gradient-accumulation-steps", type=int, default=1, help="batches per step (1)")
    add("--save-steps", type=int, help="evaluate and save every N steps, not after each epoch")
    trackers = ["none", *get_available_reporting_integrations()]
    add(
        "--report-to", choices=trackers, default="none", help="one of the installed trackers (none)"
    )
    return common.parse_args(parser, PRESETS)


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
        save_total_limit=3,  # with load_best_model_at_end, below, the best one is always kept
        num_train_epochs=args.epochs,
        predict_with_generate=True,  # compute_metrics gets the ids of summaries, not logits
        logging_strategy=interval,  # the chapter's logging_steps: as often as the evaluation
        # Differs from the chapter: the result is the best checkpoint by ROUGE-L, not the last.
        save_strategy=interval,
        load_best_model_at_end=True,
        metric_for_best_model="rougeL",  # it minds the order of words; the highest one is taken
        # Differs from the chapter: evaluation needs less memory per row, so batches are larger.
        per_device_eval_batch_size=4 * args.batch_size,
        # Not in the chapter: the value of --save-steps. It is not used if the interval is an epoch.
        eval_steps=args.save_steps,
        save_steps=args.save_steps,
        logging_steps=args.save_steps,
        # Not in the chapter: the other flags of this script
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        bf16=args.bf16,
        seed=args.seed,
        report_to=args.report_to,
        # Gives compute_metrics() the losses, so that it can end the script if they are not finite.
        # This happens if the learning rate is much too high.
        include_for_metrics=["loss"],
        # What depends on the machine: use_cpu, dataloader_pin_memory, disable_tqdm and two more
        **common.machine_arguments(args),
    )


def decode(predictions, tokenizer, num_rows):
    """Return the summaries of the first ``num_rows`` rows of ids in ``predictions``."""
    # Only with several processes there are more rows: the last batch is filled up with rows of the
    # first batch, and Seq2SeqTrainer does not remove them. They come last, so cut them off.
    predictions = predictions[:num_rows]
    # Differs from the chapter: today the Trainer pads with -100, which cannot be decoded.
    predictions = np.where(predictions != -100, predictions, tokenizer.pad_token_id)
    return tokenizer.batch_decode(predictions, skip_special_tokens=True)


def save_model(args, model, tokenizer, scores, log_history):
    """Save the model with its tokenizer, scores, log and card in --output-dir.

    The files move there when all are written. If an error comes before, the older ones stay.
    """
    with common.new_files(args.output_dir) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        common.save_results(folder, args, scores, log_history, finished=True)


def print_summary(books, summaries):
    """Print a review whose title is new to the model, and one whose title is also in train."""
    known = set(books["train"]["review_title"])
    titles = list(books["validation"]["review_title"])
    is_known = [title in known for title in titles]
    for wanted, name in ((False, "a new title"), (True, "a title that is also in train")):
        if wanted in is_known:
            row = is_known.index(wanted)
            review = books["validation"][row]["review_body"]
            text = (
                f"\nReview with {name}: {review}\nTitle: {titles[row]}\nSummary: {summaries[row]}"
            )
            print(common.printable(text))  # without characters that could clear the screen


def push_to_hub(args):
    """Upload --output-dir, without the checkpoints.

    Differs from the chapter: trainer.push_to_hub() would put its model card over ours. Our card has
    the chapter's tag "summarization" too.
    """
    with common.explain_upload_errors(args):  # an error prints how to upload it later
        upload_folder(
            repo_id=args.push_to_hub,
            folder_path=args.output_dir,
            ignore_patterns=list(common.NOT_UPLOADED),
            commit_message="Training complete",
        )


def main():
    args = parse_args()  # the flags; what the chapter calls args is training_args, in step 6
    state = common.process_state()  # Accelerate's PartialState: which of several processes is this?

    # 1. The data: a DatasetDict with the columns review_body, review_title and language
    books = common.load_prepared(args, ["train", "validation"])
    # With --resume, this is the newest checkpoint if there is one, else None. Without --resume, the
    # script ends here if --output-dir holds a run that has not ended.
    checkpoint = common.checkpoint_to_resume(args)

    # 2. The tokenizer and the model
    tokenizer, model = load_model(args, books["train"])
    # A copy, to be saved in step 8. In the evaluation, generate() writes its defaults into the
    # model's settings, such as max_length=20. This changes nothing here, as max_new_tokens goes
    # first. But save_pretrained() would write them out, as if we had chosen them.
    generation_config = copy.deepcopy(model.generation_config)

    # 3. Tokenize the reviews and their titles. Each process does so for itself, in seconds.
    prefix = common.task_prefix(model)  # "summarize: " for T5; mT5 was not trained with prefixes
    tokenized_datasets = tokenize(
        books, tokenizer, prefix, args.max_input_length, args.max_target_length
    )

    # 4. The collator pads the rows of a batch to one length. It also makes decoder_input_ids, which
    # are the labels shifted right, so that the decoder sees only tokens before the one to predict.
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    batch = data_collator(list(tokenized_datasets["train"].take(2)))  # only to look at
    state.print("The labels of two rows. The loss does not count the padding, which is -100.")
    state.print(batch["labels"])
    padding = f"with the padding token, {tokenizer.pad_token_id}, for -100"
    state.print(f"Their decoder_input_ids: the labels, shifted right by one token, {padding}.")
    state.print(batch["decoder_input_ids"])

    # 5. The metric. Differs from the chapter in three ways:
    # a) Words. The chapter's metric is made for English: it splits "años" into "a" and "os", and
    #    use_stemmer=True gives Spanish words English stems. common.Rouge goes by the language of
    #    each text. (--rouge rouge_score_stemmer counts words as the chapter does.)
    # b) Scores. Each one is a number, without .mid.
    # c) References. The chapter decodes the labels, which are cut off after max_target_length
    #    tokens. Here they are the whole titles, in the order of the validation split. So
    #    compute_metrics() fits no other split, and no argument may make the Trainer reorder rows.
    rouge = common.Rouge(args.rouge)
    titles = list(books["validation"]["review_title"])
    languages = list(books["validation"]["language"])
    references = postprocess_text(titles, languages)

    def compute_metrics(eval_pred):
        common.check_losses(eval_pred.losses)  # the script ends here if one is infinite or nan
        # Decode the generated summaries, and put each sentence on a line of its own
        decoded_preds = decode(eval_pred.predictions, tokenizer, len(titles))
        decoded_preds = postprocess_text(decoded_preds, languages)
        result = rouge.compute(
            predictions=decoded_preds, references=references, languages=languages
        )
        return {name: round(f1 * 100, 4) for name, f1 in result.items()}

    # 6. The arguments of the Trainer
    training_args = get_training_arguments(args)

    # 7. Train
    trainer = Seq2SeqTrainer(
        model,
        training_args,
        train_dataset=tokenized_datasets["train"],
        eval_dataset=tokenized_datasets["validation"],
        data_collator=data_collator,
        processing_class=tokenizer,  # the chapter's tokenizer=
        # Differs from the chapter, but only if a step has several batches, through accumulation or
        # several processes: each label token of the step counts the same. By default, a batch with
        # few tokens would count as much as one with many.
        compute_loss_func=common.compute_loss,
        compute_metrics=compute_metrics,
    )
    # This prints what will be trained, and creates the Hub repository with --push-to-hub.
    common.begin_run(args, len(books["train"]), checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)

    # 8. Score, save and push the best model, which train() has loaded. Differs from the chapter:
    # evaluate() would return only the scores of compute_metrics(). predict() also returns the ids
    # of the summaries, which are scored once more: by language, with confidence intervals, and
    # beside the baseline. The validation split has also chosen the best checkpoint, so its scores
    # are a little too high.
    predictions = trainer.predict(tokenized_datasets["validation"]).predictions
    if state.is_main_process:
        summaries = decode(predictions, tokenizer, len(titles))
        scores = common.score_beside_lead_3(rouge, books["validation"], summaries)
        model.generation_config = generation_config  # the copy of step 2
        save_model(args, model, tokenizer, scores, trainer.state.log_history)
        print_summary(books, summaries)
        common.print_scores(args, scores, books["validation"])
        if args.push_to_hub:
            push_to_hub(args)


if __name__ == "__main__":
    with common.command_line():  # hides warnings; Ctrl-C or a full disk end in one line
        main()
