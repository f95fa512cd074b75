"""Fine-tune and evaluate a classifier or a summarizer whose encoder pools its tokens to k.

python train.py --config configs/bbc.yaml [--any_field value ...]
python train.py --config configs/docstrings.yaml
accelerate launch --config_file configs/accelerate/multi_gpu.yaml train.py --config configs/bbc.yaml
torchrun --nproc_per_node 2 train.py --config configs/bbc.yaml

A YAML file holds what differs from the defaults below; the command line wins over it. `--help` explains every field.
The run's folder gets the best checkpoint (with its model card), all_results.json, the predictions, what was measured
on the way (history.jsonl, training.png), where it all comes from (run.json, arguments.yaml) and, if asked for, pages
to look at. A run that ended early goes on with --resume_from_checkpoint latest.
"""

import errno
import json
import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from datasets import disable_progress_bars
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding, get_scheduler
from transformers.utils.logging import disable_progress_bar

from configs import parse
from models import load_tokenizer, write_model_card
from shtopk.integrations.transformers import show_document
from tasks import get_task, write_samples
from training import (
    CheckpointError,
    Checkpoints,
    Diverged,
    History,
    Interruption,
    Meter,
    Progress,
    Provenance,
    Run,
    Stopped,
    Updates,
    any_process,
    build_model,
    device_name,
    load_weights,
    on_main_process,
    parameter_groups,
    plot,
    profiler,
    publish,
    read_state,
    reason,
    restore,
    sharding,
    train_step,
)


def main(argv: list[str] | None = None) -> dict:
    """Run one experiment; returns what all_results.json holds.

    Ends with a line and an exit code of 2 where what it was given cannot be, 1 where it failed on the way, and 130 or
    143 where Ctrl-C or SIGTERM stopped it.
    """
    argv = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "train.py", *argv])
    go_on = command if "--resume_from_checkpoint" in command else f"{command} --resume_from_checkpoint latest"
    run = None
    try:
        run = prepare(argv, command)
        stopped = fit(run)
        if stopped:
            run.accelerator.print(f"train.py: stopped by {stopped.name} after update {run.progress.update}; "
                                  f"go on with: {go_on}", file=sys.stderr)  # fmt: skip
            run.accelerator.end_training()
            sys.exit(stopped.exit_code)
        return finish(run)
    except KeyboardInterrupt:
        how = " before training began" if run is None else f"; go on with: {go_on}"
        print(f"train.py: stopped{how}", file=sys.stderr)
        sys.exit(130)
    except (CheckpointError, Diverged) as error:
        if run.accelerator.is_main_process:
            print(f"train.py: {error}", file=sys.stderr)
        run.accelerator.end_training()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"train.py: cannot write: {reason(error)}; make room, then go on with: {go_on}", file=sys.stderr)
        sys.exit(1)


def best_precision() -> str:
    """bf16 where the device computes in it, else full precision."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if probe is not None and probe() else "no"


def prepare(argv: list[str], command: str) -> Run:
    """From the words of a command line to everything that training needs. All that can be wrong is said here."""
    parser, data, model_arguments, arguments = parse(argv, __doc__)
    output = Path(arguments.output_dir)
    accelerator = Accelerator(
        mixed_precision=best_precision() if arguments.mixed_precision == "auto" else arguments.mixed_precision,
        log_with=arguments.trackers or None,
        project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output / "logs")),
    )
    if not accelerator.is_main_process:  # one voice
        disable_progress_bar()
        disable_progress_bars()
    set_seed(arguments.seed)
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
    set_seed(arguments.seed, device_specific=True)  # the weights were the same everywhere, dropout need not be

    collate = DataCollatorForSeq2Seq(tokenizer) if model.can_generate() else DataCollatorWithPadding(tokenizer)
    batches = Updates(
        splits["train"],
        collate,
        batch_size=arguments.batch_size,
        accumulation=arguments.gradient_accumulation_steps,
        processes=accelerator.num_processes,
        process=accelerator.process_index,
        seed=arguments.seed,
    )
    loaders = {
        name: DataLoader(splits[name], arguments.eval_batch_size, collate_fn=collate, generator=torch.Generator())
        for name in ("validation", "test")
    }
    optimizer = torch.optim.AdamW(parameter_groups(model, arguments), weight_decay=arguments.weight_decay)
    with sharding(accelerator, model):
        model, optimizer, *prepared = accelerator.prepare(model, optimizer, *loaders.values())
    plain = accelerator.unwrap_model(model)
    if isinstance(plain, FSDPModule) and plain.can_generate():
        register_fsdp_forward_method(plain, "generate")
    updates = math.ceil(arguments.epochs * len(batches))
    run = Run(
        command=command,
        data=data,
        model_arguments=model_arguments,
        arguments=arguments,
        accelerator=accelerator,
        task=task,
        texts=texts,
        tokenizer=tokenizer,
        model=model,
        plain=plain,
        optimizer=optimizer,
        # Stepped once an update; prepared by Accelerate it would step once for each process.
        scheduler=get_scheduler(
            arguments.schedule,
            optimizer,
            num_warmup_steps=math.ceil(arguments.warmup * updates),
            num_training_steps=updates,
        ),
        batches=batches,
        loaders=dict(zip(loaders, prepared, strict=True)),
        answers={name: texts[name][task.target][:] for name in loaders},
        updates=updates,
        eval_every=arguments.eval_every or len(batches),
        metric=f"eval_{arguments.metric or task.selectors[0]}",
        provenance=Provenance(
            command,
            asdict(data) | asdict(model_arguments) | asdict(arguments),
            texts,
            task.target,
            accelerator,
            batches.size,
        ),
        checkpoints=Checkpoints(output / "checkpoints", arguments.total_limit),
        progress=Progress(),
    )
    try:
        resume(run)
    except CheckpointError as error:
        parser.error(str(error))
    return run


def resume(run: Run) -> None:
    """Go to where the run was when the checkpoint was written that it is to go on from; nowhere if there is none."""
    source = on_main_process(run.accelerator, lambda: run.checkpoints.find(run.arguments.resume_from_checkpoint))
    if source is not None:
        state = read_state(source)
        different = run.provenance.differences(state["identity"])
        if different:
            raise CheckpointError(f"cannot go on from {source}, as {different}")
        run.progress = restore(source, run.accelerator, run.plain, run.optimizer, run.scheduler)
    overwrite = run.arguments.overwrite_output_dir or run.arguments.resume_from_checkpoint == "latest"
    best_update = run.progress.best_update
    on_main_process(run.accelerator, lambda: run.checkpoints.start(source, best_update, overwrite))
    on_main_process(run.accelerator, lambda: run.provenance.write(run.output))


def fit(run: Run) -> Interruption | None:
    """Train, evaluate and save, one thing after the other; the signal that ended it early, if one did."""
    accelerator, arguments, progress = run.accelerator, run.arguments, run.progress
    main = accelerator.is_main_process
    if run.arguments.trackers:
        accelerator.init_trackers("shtopk", config=run.provenance.arguments)
    history = History(run.output / "history.jsonl", progress.update, progress.evaluated) if main else None
    meter = Meter(run.plain, accelerator.device)
    incoming = run.batches.starting_at(progress.update)
    bar = tqdm(total=run.updates, initial=progress.update, desc="train", disable=not main)
    trace = profiler(arguments.profile if main else 0, run.output / "trace.json")
    with bar, Interruption() as interruption, trace as profile:

        def stopping() -> bool:
            return any_process(accelerator, bool(interruption))

        def log(measured: dict) -> None:
            accelerator.log(measured, step=progress.update)
            if history is not None:
                history.add(progress.update, measured)

        meter.begin()
        stop = False
        while not (run.done or stop):
            evaluating = run.evaluation_due
            if evaluating:
                try:
                    results, _ = run.evaluate("validation", "eval", stopping)
                except Stopped:
                    stop = True
                else:
                    progress.judge(results, run.metric)
                    log(results)
                    if main:
                        bar.write(f"update {progress.update}: {run.task.in_short(results, 'eval')}")
            else:
                measured = train_step(run, next(incoming), meter)
                log(measured)
                bar.update()
                bar.set_postfix(loss=f"{measured['loss']:.3f}", temperature=f"{measured['temperature']:.3g}")
                if profile is not None:
                    profile.step()
            stop = stop or stopping()
            due = arguments.save_every and progress.update % arguments.save_every == 0 and not run.evaluation_due
            if evaluating or due or stop:
                run.save()
            meter.begin()
        stopped = stopping() and not run.done
    if main:
        plot(history.path, run.metric, run.output / "training.png")
    return interruption if stopped else None


def finish(run: Run) -> dict:
    """The best checkpoint on the test split, and everything that tells how it came about."""
    accelerator, progress, output = run.accelerator, run.progress, run.output
    best = run.checkpoints.path(progress.best_update)
    load_weights(run.plain, best)
    tested, predictions = run.evaluate("test", "test")
    results = progress.best | tested
    results |= {
        "best_update": progress.best_update,
        "updates": progress.update,
        "epochs": progress.update / len(run.batches),
        "train_runtime": progress.seconds,
        "train_documents_per_second": progress.documents / progress.seconds,
        "train_tokens_per_second": progress.tokens / progress.seconds,
        "parameters": sum(p.numel() for p in run.plain.parameters()),
        "processes": accelerator.num_processes,
        "device": device_name(accelerator.device),
        "mixed_precision": accelerator.mixed_precision,
        "command": run.command,
        "arguments": run.provenance.arguments,
    }
    baselines = run.task.baselines(run.texts) if accelerator.is_main_process else {}
    results["baselines"] = {
        name: run.task.compute_metrics(said, run.answers["test"]) for name, said in baselines.items()
    }
    shown = min(run.arguments.show, len(run.texts["test"]))
    pages = [page(run, document) for document in run.texts["test"].select(range(shown))]
    if accelerator.is_main_process:
        publish(best, output)
        (output / "all_results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        write_samples(output, run.texts["test"], run.task, predictions, baselines)
        write_model_card(
            output,
            target=run.task.target,
            base_model=run.model_arguments.backbone or "sentence-transformers/all-MiniLM-L6-v2",
            data=run.task.description,
            licence=run.task.licence,
            command=run.command,
            results=results,
        )
        for i, text in enumerate(pages):
            (output / f"document_{i}.html").write_text(text, encoding="utf-8")
        for name, found in results["baselines"].items():
            print(f"{name}: {run.task.in_short(found)}")
        print(f"test: {run.task.in_short(results, 'test')}; see {output}")
    accelerator.end_training()
    return results


def page(run: Run, document: dict) -> str:
    """An HTML page that shows what was kept of a document."""
    answer = document[run.task.target]
    known = {"reference": answer} if run.plain.can_generate() else {"label": run.plain.config.id2label[answer]}
    return show_document(run.plain, run.tokenizer, document["text"], max_tokens=run.data.max_tokens, **known)


if __name__ == "__main__":
    main()
