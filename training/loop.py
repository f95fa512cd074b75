"""The training loop: updates, evaluations and checkpoints, one after the other."""

from tqdm.auto import tqdm

from shtopk.training.collectives import reduce_sum
from shtopk.training.compiling import uncompiled
from shtopk.training.ending import Interrupted, Interruption
from shtopk.training.evaluation import Stopped, evaluate
from shtopk.training.history import HISTORY, History
from shtopk.training.meter import Meter, profiler
from shtopk.training.plot import plot
from shtopk.training.run import Run
from shtopk.training.snapshot import save
from shtopk.training.step import train_step
from shtopk.training.trackers import start_trackers
from shtopk.training.validation import Probe, validation_loss


def fit(run: Run) -> None:
    """Train, evaluate and save until a run is done.

    Args:
        run: it goes on from the update that `resume` restored, or begins.

    Raises:
        Interrupted: a signal ended it early.
    """
    accelerator, training, progress = run.accelerator, run.arguments.training, run.progress
    main = accelerator.is_main_process
    if training.trackers:
        start_trackers(accelerator, training, run.provenance.arguments)
    history = History(run.output / HISTORY, progress.update, progress.evaluated) if main else None
    probe = Probe(run)
    meter = Meter(run.model, accelerator.device)
    incoming = run.batches.starting_at(progress.update)
    bar = tqdm(total=run.updates, initial=progress.update, desc="train", disable=not main)
    trace = profiler(training.profile if main else 0, run.output / "trace.json")
    with bar, Interruption() as interruption, trace as profile:

        def stopping() -> bool:
            return bool(reduce_sum(accelerator, float(interruption.received is not None))[0])  # on any process

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
                    with uncompiled():
                        evaluated = evaluate(run, "validation", "eval", stopping)
                        measured_already = evaluated.metrics.get("eval_loss")
                        loss = (
                            validation_loss(run, evaluated.answers) if measured_already is None else measured_already
                        )
                except Stopped:
                    stop = True
                else:
                    results = {"eval_loss": loss} | evaluated.metrics
                    progress.judge(results, run.metric, lower_is_better=run.lower_is_better)
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
                if probe.due:
                    with uncompiled():
                        log(probe.measure())
            stop = stop or stopping()
            due = training.save_every and progress.update % training.save_every == 0 and not run.evaluation_due
            if evaluating or due or stop:
                save(run)
            meter.begin()
        stopped = stopping()
    if history is not None:
        plot(history.path, run.metric, run.output / "training.png", lower_is_better=run.lower_is_better)
    if stopped:
        raise Interrupted(interruption.received, progress.update)
