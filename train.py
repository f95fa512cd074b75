"""Fine-tune and evaluate a classifier or a summarizer whose encoder pools its tokens to k.

python train.py --config configs/bbc.yaml [--any_field value ...]
python train.py --config configs/docstrings.yaml
accelerate launch --config_file configs/accelerate/multi_gpu.yaml train.py --config configs/bbc.yaml
torchrun --nproc_per_node 2 train.py --config configs/bbc.yaml

A YAML file holds what differs from the defaults below; the command line wins over it. `--help` explains every field.
The run's folder gets the best checkpoint (with its model card), all_results.json, the predictions, what was measured
on the way (history.jsonl, training.png), where it all comes from (run.json, arguments.yaml) and, if asked for, pages
to look at. A run that ended early goes on with --resume latest.
"""

import json
import math
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration, set_seed
from datasets import disable_progress_bars
from filelock import FileLock
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    get_scheduler,
)
from transformers.utils.logging import disable_progress_bar

from shtopk.integrations.transformers import show_document
from shtopk.models import load_tokenizer, write_model_card
from shtopk.tasks import get_task, write_samples
from shtopk.training import (
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
    Terminated,
    Updates,
    any_process,
    bring_along,
    build_model,
    build_optimizer,
    device_name,
    load_weights,
    on_main_process,
    plot,
    profiler,
    publish,
    read_state,
    reason,
    restore,
    sharding,
    terminable,
    train_step,
)
from shtopk.training.aliases import with_our_names
from shtopk.training.command_line import parse

RESUME, HISTORY = "--resume", "history.jsonl"


def main(argv: list[str] | None = None) -> dict:
    """Run one experiment; returns what all_results.json holds.

    Ends with a line and an exit code of 2 where what it was given cannot be, 1 where it failed on the way, and 130 or
    143 where Ctrl-C or SIGTERM stopped it.
    """
    argv = sys.argv[1:] if argv is None else argv
    run = None
    try:
        with terminable():
            run = prepare(argv)
            stopped = fit(run)
            if stopped:
                end(run, f"stopped by {stopped.name} after update {run.progress.update}; {how_to_go_on(argv)}",
                    stopped.exit_code)  # fmt: skip
            return finish(run)
    except KeyboardInterrupt as stop:
        when = "before training began" if run is None else f"after training; {how_to_go_on(argv)}"
        end(run, f"stopped {when}", 143 if isinstance(stop, Terminated) else 130)
    except (CheckpointError, Diverged) as error:
        end(run, str(error), 1)
    except OSError as error:
        end(run, f"cannot read or write: {reason(error)}; {how_to_go_on(argv)}", 1)
    finally:
        if run is not None:
            run.lock.release()


def end(run: Run | None, message: str, code: int) -> NoReturn:
    """Say why, once, and exit."""
    if run is None or run.accelerator.is_main_process:
        print(f"train.py: {message}", file=sys.stderr)
    if run is not None:
        run.accelerator.end_training()
    sys.exit(code)


def how_to_go_on(argv: list[str]) -> str:
    """The command that goes on where this one stopped."""
    words = with_our_names(argv)
    kept = [word for word, before in zip(words, ["", *words], strict=False)
            if not word.startswith(RESUME) and before != RESUME]  # fmt: skip
    launcher = " (by the same launcher)" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    return f"go on with{launcher}: {shlex.join(['python', 'train.py', *kept, RESUME, 'latest'])}"


def best_precision() -> str:
    """bf16 where the device computes in it, else full precision."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if probe is not None and probe() else "no"


def prepare(argv: list[str]) -> Run:
    """From the words of a command line to everything that training needs. All that can be wrong is said here."""
    parser, data, model_arguments, arguments = parse(argv, __doc__)
    output, command = Path(arguments.output_dir), shlex.join(["python", "train.py", *argv])
    accelerator = Accelerator(
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # train_step does it, whatever is set
        mixed_precision=best_precision() if arguments.mixed_precision == "auto" else arguments.mixed_precision,
        log_with=arguments.trackers or None,
        project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output / "logs")),
    )
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version != 2:
        parser.error(f"expected version 2 of FSDP, got {plugin.fsdp_version}; see configs/accelerate/fsdp.yaml")
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
        accumulation=arguments.accumulation,
        processes=accelerator.num_processes,
        process=accelerator.process_index,
        seed=arguments.seed,
    )
    loaders = {
        name: DataLoader(splits[name], arguments.eval_batch_size, collate_fn=collate, generator=torch.Generator())
        for name in ("validation", "test")
    }
    optimizer = build_optimizer(model, arguments)
    with sharding(accelerator, model):
        model, optimizer, *prepared = accelerator.prepare(model, optimizer, *loaders.values())
    plain = accelerator.unwrap_model(model)
    if isinstance(plain, FSDPModule) and plain.can_generate():
        register_fsdp_forward_method(plain, "generate")
    updates = math.ceil(round(arguments.epochs * len(batches), 6))
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
            num_warmup_steps=math.ceil(round(arguments.warmup * updates, 6)),
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
        lock=FileLock(output / ".lock"),
    )
    try:
        on_main_process(accelerator, run.open_folder)
        resume(run)
    except CheckpointError as error:
        run.lock.release()
        parser.error(str(error))
    return run


def resume(run: Run) -> None:
    """Go to where the run was when the checkpoint was written that it is to go on from; nowhere if there is none."""
    wanted, overwrite = run.arguments.resume, run.arguments.overwrite
    source = on_main_process(run.accelerator, lambda: run.checkpoints.find(wanted, overwrite))
    if source is not None:
        state = read_state(source)
        different = run.provenance.differences(state["identity"])
        if different:
            raise CheckpointError(f"cannot go on from {source}, as {different}")
        run.progress = restore(source, state, run.accelerator, run.plain, run.optimizer, run.scheduler)

    def start() -> None:
        run.provenance.write(run.output)
        run.checkpoints.start(source, overwrite or wanted == "latest")
        if source is not None and source.parent.resolve() != run.checkpoints.folder.resolve():
            bring_along(source.parent.parent / HISTORY, run.output / HISTORY)

    on_main_process(run.accelerator, start)


def fit(run: Run) -> Interruption | None:
    """Train, evaluate and save, one thing after the other; the signal that ended it early, if one did."""
    accelerator, arguments, progress = run.accelerator, run.arguments, run.progress
    main = accelerator.is_main_process
    if run.arguments.trackers:
        accelerator.init_trackers("shtopk", config=run.provenance.arguments)
    history = History(run.output / HISTORY, progress.update, progress.evaluated) if main else None
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
        stopped = stopping()
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
        show_documents(run)
        for name, found in results["baselines"].items():
            print(f"{name}: {run.task.in_short(found)}")
        print(f"test: {run.task.in_short(results, 'test')}; see {output}")
    accelerator.end_training()
    return results


def show_documents(run: Run) -> None:
    """HTML pages that show what was kept of the first test documents."""
    count = min(run.arguments.show, len(run.texts["test"]))
    model = run.plain
    if count and isinstance(model, FSDPModule):  # one process has but a share of it
        auto = AutoModelForSeq2SeqLM if model.can_generate() else AutoModelForSequenceClassification
        model = auto.from_pretrained(run.output).eval()
    for i, document in enumerate(run.texts["test"].select(range(count))):
        answer = document[run.task.target]
        known = {"reference": answer} if model.can_generate() else {"label": model.config.id2label[answer]}
        text = show_document(model, run.tokenizer, document["text"], max_tokens=run.data.max_tokens, **known)
        (run.output / f"document_{i}.html").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
