"""Save a run, and go on with one."""

from shtopk.training.checkpoints import CheckpointError
from shtopk.training.collectives import on_main_process
from shtopk.training.console import refusing
from shtopk.training.history import HISTORY, bring_along
from shtopk.training.run import Run
from shtopk.training.snapshot import capture, read_state, restore


def save(run: Run) -> None:
    """Write a checkpoint of the present update; all processes together."""
    snapshot = capture(run)
    on_main_process(
        run.accelerator,
        lambda: run.checkpoints.write(
            run.progress.update,
            lambda folder: snapshot.write(folder, run.model, run.tokenizer),
            keep=[run.progress.best_update],
        ),
    )


def resume(run: Run) -> None:
    """Open the run's folder, and go to the update of the checkpoint that `resume` names, if it names one.

    A checkpoint or a folder that cannot be used is refused in one line.
    """
    try:
        with refusing(CheckpointError):
            on_main_process(run.accelerator, run.open_folder)
            _go_on(run)
    except BaseException:
        run.lock.release()
        raise


def _go_on(run: Run) -> None:
    wanted, overwrite = run.arguments.training.resume, run.arguments.training.overwrite
    source = on_main_process(run.accelerator, lambda: run.checkpoints.find(wanted, overwrite))
    if source is not None:
        state = read_state(source)
        different = run.provenance.differences(state["identity"])
        if different:
            raise CheckpointError(f"cannot go on from {source}, as {different}")
        restore(run, source, state)

    def start() -> None:
        run.provenance.write(run.output)
        run.checkpoints.start(source, overwrite or wanted == "latest")
        if source is not None and source.parent.resolve() != run.checkpoints.folder.resolve():
            bring_along(source.parent.parent / HISTORY, run.output / HISTORY)

    on_main_process(run.accelerator, start)
