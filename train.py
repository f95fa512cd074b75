"""Fine-tune and evaluate a classifier or a summarizer whose encoder pools its tokens to k.

python train.py --config configs/bbc.yaml [--any_field value ...]
python train.py --config configs/docstrings.yaml
accelerate launch train.py --config configs/bbc.yaml
torchrun --nproc_per_node 2 train.py --config configs/bbc.yaml

A YAML file holds what differs from the defaults below; the command line wins over it. `--help` explains every field.
The run's folder gets the best checkpoint (with its model card), all_results.json, the predictions and, if asked for,
pages to look at.
"""

import json
import math
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import DatasetDict
from safetensors.torch import load_model
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, get_scheduler

from configs import TrainArguments, parse
from models import (
    ModelArguments,
    freeze_layers,
    load_pretrained_classifier,
    load_pretrained_seq2seq,
    load_tokenizer,
    write_model_card,
)
from shtopk import TopKPooling, anneal
from shtopk.integrations.transformers import show_document
from tasks import DataArguments, Task, get_task, write_samples


def best_precision() -> str:
    """bf16 where the device computes in it, else full precision."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if probe is not None and probe() else "no"


def build_model(task: Task, texts: DatasetDict, data: DataArguments, arguments: ModelArguments):
    """The model that gives the task's answers."""
    fields = {name: getattr(arguments, name) for name in ("window", "windows_at_once", "window_k")}
    fields |= arguments.pooling() | {
        "k_by_layer": arguments.layers_and_counts,
        "sha256": arguments.backbone_sha256,
        "backbone_dropout": arguments.backbone_dropout,
    }
    if task.target == "label":
        labels = texts["train"].features["label"].names
        model = load_pretrained_classifier(
            arguments.backbone,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            classifier_dropout=arguments.dropout,
            **fields,
        )
    else:
        model = load_pretrained_seq2seq(
            arguments.backbone,
            decoder=arguments.decoder,
            decoder_layers=arguments.decoder_layers,
            copy_head=arguments.copy_head,
            **fields,
        )
        model.set_generation(
            max_new_tokens=data.max_summary_tokens,
            num_beams=arguments.num_beams,
            no_repeat_ngram_size=arguments.no_repeat_ngram_size,
            min_new_tokens=arguments.min_new_tokens,
            length_penalty=arguments.length_penalty,
        )
    if arguments.attention is not None:
        model.set_attn_implementation(arguments.attention)
    # Only ever switched off: some backbones keep parts, such as sinusoidal positions, fixed themselves.
    if arguments.freeze_encoder:
        model.encoder.requires_grad_(False)
        for pooling in poolings(model):
            pooling.requires_grad_(True)
    if arguments.freeze_layers:
        freeze_layers(model.encoder, arguments.freeze_layers)
    if arguments.freeze_scorer:
        for pooling in poolings(model):
            pooling.requires_grad_(False)
    return model


def poolings(model) -> list[TopKPooling]:
    """The one over the encoder's vectors, and those between its layers."""
    return [module for module in model.modules() if isinstance(module, TopKPooling)]


def parameter_groups(model, train: TrainArguments) -> list[dict]:
    """Encoder, decoder, what is new, and the scorer, each with its learning rate; empty groups left out."""
    rates = {
        "encoder": train.learning_rate,
        "decoder": train.decoder_learning_rate or train.learning_rate,
        "new": train.head_learning_rate,
        "scorer": train.scorer_learning_rate,
    }
    groups = {part: {"params": [], "lr": rate} for part, rate in rates.items()}
    groups["scorer"]["weight_decay"] = 0.0
    encoder = set(model.encoder.parameters())
    scorers = {parameter for pooling in poolings(model) for parameter in pooling.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = "new" if name in model.fresh else "encoder" if parameter in encoder else "decoder"
            groups["scorer" if parameter in scorers else new]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def predict(model, loader: DataLoader, accelerator: Accelerator, desc: str) -> list:
    """Class numbers, or the tokens of summaries, of a whole split: each document once, on however many processes."""
    model.eval()
    predictions = []
    for batch in tqdm(loader, desc=desc, leave=False, disable=not accelerator.is_main_process):
        with torch.inference_mode(), accelerator.autocast():
            if model.can_generate():
                predicted = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"])
                pad = model.generation_config.pad_token_id
                predicted = accelerator.pad_across_processes(predicted, dim=1, pad_index=pad)
            else:
                predicted = model(**batch).logits.argmax(-1)
        predictions += accelerator.gather_for_metrics(predicted).tolist()
    return predictions


def evaluate(model, loader: DataLoader, task: Task, tokenizer, references: list, accelerator: Accelerator, name: str):
    """(metrics of a split, with the split's name in front; the predictions)."""
    start = time.perf_counter()
    predicted = predict(model, loader, accelerator, f"evaluate ({name})")
    seconds = time.perf_counter() - start
    predictions = task.decode(tokenizer, predicted)
    results = task.compute_metrics(predictions, references)
    results |= {"runtime": seconds, "documents_per_second": len(references) / seconds, "documents": len(predictions)}
    if model.can_generate():
        pad = model.generation_config.pad_token_id
        generated = sum(token != pad for summary in predicted for token in summary[1:])  # without the start
        results["generated_tokens_per_second"] = generated / seconds
    return {f"{name}_{key}": value for key, value in results.items()}, predictions


def main(argv: list[str] | None = None) -> dict:
    """Run one experiment; returns what all_results.json holds."""
    argv = sys.argv[1:] if argv is None else argv
    parser, data, model_arguments, arguments = parse(argv, __doc__)
    output = Path(arguments.output_dir)
    precision = best_precision() if arguments.mixed_precision == "auto" else arguments.mixed_precision
    accelerator = Accelerator(
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        mixed_precision=precision,
        log_with=None if arguments.tracker == "none" else arguments.tracker,
        project_dir=output,
    )
    set_seed(arguments.seed)

    # Data and model. Everything that can be wrong with them is said here, before any training.
    try:
        task = get_task(data)
        with accelerator.main_process_first():
            texts = task.load(data)
        tokenizer = load_tokenizer(model_arguments.backbone)
        model = build_model(task, texts, data, model_arguments)
        with accelerator.main_process_first():
            splits = task.encode(tokenizer, texts, data, model.generation_start)
    except (ValueError, ImportError) as error:  # the second: an attention whose package is missing
        parser.error(" ".join(str(error).split()))
    answers = {name: split[task.target][:] for name, split in texts.items()}

    collate = DataCollatorForSeq2Seq(tokenizer) if model.can_generate() else DataCollatorWithPadding(tokenizer)
    loaders = {
        name: DataLoader(
            split,
            batch_size=arguments.batch_size if name == "train" else arguments.eval_batch_size,
            shuffle=name == "train",
            collate_fn=collate,
        )
        for name, split in splits.items()
    }
    optimizer = torch.optim.AdamW(parameter_groups(model, arguments), weight_decay=arguments.weight_decay)
    model, optimizer, *prepared = accelerator.prepare(model, optimizer, *loaders.values())
    loaders = dict(zip(loaders, prepared, strict=True))
    updates_per_epoch = math.ceil(len(loaders["train"]) / arguments.gradient_accumulation_steps)
    updates = math.ceil(arguments.epochs * updates_per_epoch)
    eval_every = arguments.eval_every or updates_per_epoch
    # Stepped once an update below; prepared by Accelerate it would step once for each process.
    scheduler = get_scheduler(
        arguments.schedule,
        optimizer,
        num_warmup_steps=math.ceil(arguments.warmup * updates),
        num_training_steps=updates,
    )
    if arguments.tracker != "none":
        accelerator.init_trackers("logs", config={"command": shlex.join(argv)})

    # The loop, counted in optimizer updates.
    plain = accelerator.unwrap_model(model)
    scorers = [parameter for pooling in poolings(plain) for parameter in pooling.parameters()]
    others = [parameter for parameter in plain.parameters() if all(parameter is not scorer for scorer in scorers)]
    metric = f"eval_{arguments.metric or task.selectors[0]}"
    best, best_update, evaluations_since_best = {}, 0, 0
    update, tokens, train_seconds, started = 0, 0, 0.0, time.perf_counter()
    progress = tqdm(total=updates, desc="train", disable=not accelerator.is_main_process)
    done = False
    while not done:
        for batch in loaders["train"]:
            model.train()
            with accelerator.accumulate(model):
                temperature = anneal(plain, update / max(1, updates - 1))
                loss = model(**batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(others, arguments.max_grad_norm)
                    # Not Accelerate's a second time: with fp16 it would unscale the gradients once more.
                    torch.nn.utils.clip_grad_norm_(scorers, arguments.scorer_max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            tokens += int(batch["attention_mask"].sum())
            if not accelerator.sync_gradients:
                continue
            scheduler.step()
            update += 1
            progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}", temperature=f"{temperature:.3g}")
            accelerator.log({"train_loss": loss.item(), "temperature": temperature}, step=update)
            done = update == updates
            if not done and update % eval_every:
                continue
            train_seconds += time.perf_counter() - started
            results, _ = evaluate(
                plain, loaders["validation"], task, tokenizer, answers["validation"], accelerator, "eval"
            )
            accelerator.log(results, step=update)
            if results[metric] > best.get(metric, -math.inf):
                best, best_update, evaluations_since_best = results, update, 0
                plain.save_pretrained(output, is_main_process=accelerator.is_main_process)
            else:
                evaluations_since_best += 1
            if accelerator.is_main_process:
                progress.write(f"update {update}: {task.in_short(results, 'eval')}")
            done = done or evaluations_since_best == arguments.patience
            started = time.perf_counter()
            if done:
                break
    progress.close()

    # The best checkpoint on the test split, and everything that tells how it came about.
    accelerator.wait_for_everyone()
    load_model(plain, output / "model.safetensors")
    total_tokens = accelerator.reduce(torch.tensor(tokens, device=accelerator.device)).item()
    tested, predictions = evaluate(plain, loaders["test"], task, tokenizer, answers["test"], accelerator, "test")
    results = best | tested
    results |= {
        "best_update": best_update,
        "updates": update,
        "epochs": update / updates_per_epoch,
        "train_runtime": train_seconds,
        "train_documents_per_second": update / updates_per_epoch * len(splits["train"]) / train_seconds,
        "train_tokens_per_second": total_tokens / train_seconds,
        "parameters": sum(p.numel() for p in plain.parameters()),
        "processes": accelerator.num_processes,
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        "mixed_precision": precision,
        "command": shlex.join(["python", "train.py", *argv]),
        "arguments": asdict(data) | asdict(model_arguments) | asdict(arguments),
    }
    if accelerator.is_main_process:
        baselines = task.baselines(texts)
        results["baselines"] = {name: task.compute_metrics(said, answers["test"]) for name, said in baselines.items()}
        tokenizer.save_pretrained(output)
        (output / "all_results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        write_samples(output, texts["test"], task, predictions, baselines)
        base_model = model_arguments.backbone or "sentence-transformers/all-MiniLM-L6-v2"
        write_model_card(
            output,
            target=task.target,
            base_model=base_model,
            data=task.description,
            licence=task.licence,
            command=results["command"],
            results=results,
        )
        for i, document in enumerate(texts["test"].select(range(min(arguments.show, len(texts["test"]))))):
            answer = document[task.target]
            known = {"reference": answer} if plain.can_generate() else {"label": plain.config.id2label[answer]}
            page = show_document(plain, tokenizer, document["text"], max_tokens=data.max_tokens, **known)
            (output / f"document_{i}.html").write_text(page, encoding="utf-8")
        for name, found in results["baselines"].items():
            accelerator.print(f"{name}: {task.in_short(found)}")
        accelerator.print(f"test: {task.in_short(results, 'test')}; see {output}")
    accelerator.end_training()
    return results


if __name__ == "__main__":
    main()
