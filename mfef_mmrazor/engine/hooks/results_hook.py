"""Keeps the accuracies of every epoch, and writes the results at the end."""

import time
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from rich.console import Console
from rich.table import Table

from ...models.algorithms.online_distill import OnlineDistill
from ..calibration import Calibration, Diversity
from ..loops import PredictorsEvaluator, collected_as
from ..loss_terms import Shares, logged_losses, mean_losses, remarks, shares_by_epoch
from ..position import by_iterations, epochs_over, position, steps_per_epoch
from ..results import (
    METRIC,
    SCHEMA,
    UNITS,
    accuracies,
    calibration,
    deployed_size,
    device_name,
    draw_curves,
    git_revision,
    metric_label,
    package_versions,
    peak_memory_mb,
    primary_metric,
    put_aside,
    summarize,
    summarize_students,
    unit_of,
    write_json,
)
from ..unwrap import unwrapped


@HOOKS.register_module()
class ResultsHook(Hook):
    """Writes ``results.json`` and ``curves.png`` to the work dir, and prints a table.

    Once per term, at the end of an epoch, the log says when a term of the distillation was below
    1 % of the loss while it had its full weight, or above ten times the students' mean own loss.

    ``results.json`` has, for every predictor, the accuracy at the last and at the best epoch (or
    what stands for it where the config has no ``accuracy/top1``: ``metric`` says which) with NLL
    and ECE (:class:`Calibration`), how far the students differ (:class:`Diversity`), the whole
    history, the mean training losses of the last epoch, the seed, versions, git revision,
    training seconds, images a second, peak memory and device; ``docs/results.md`` describes it. The
    history is kept in the checkpoints, so that a resumed run has all of it, and names every
    revision and device that it ran with.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.calibration: list[dict[str, Any]] = []
        self.metric = METRIC
        self.seconds = 0.0
        self.revision = git_revision()  # now: there may be a later one when the run ends
        self.revisions: list[str | None] = []
        self.devices: list[str] = []
        self.peak_memory = 0
        self._skips = self._trains = False
        self._named: set[str] = set()  # loss terms that the log has a line for

    def before_train(self, runner: Runner) -> None:
        """Add calibration to what validation measures, and put an earlier run aside.

        And score the epoch a run is resumed from: its checkpoint was saved before it was scored.
        """
        self._skips = runner._resume
        if not runner._resume:
            barrier()  # all have loaded what they start from
            if is_main_process():
                put_aside(Path(runner.work_dir))
        self.measure_calibration(runner)
        ((unit, over),) = position(runner).items()
        if not over or over in [entry.get(unit) for entry in self.history] or not runner.val_loop:
            return
        last = runner.max_iters if by_iterations(runner) else runner.max_epochs
        if hasattr(runner.train_loop, '_decide_current_val_interval'):  # mmengine's own loops
            runner.train_loop._decide_current_val_interval()
        if over >= runner.val_begin and (over == last or over % runner.val_interval == 0):
            runner.val_loop.run()

    def measure_calibration(self, runner: Runner) -> None:
        """Let validation measure it as well, once for each runner."""
        evaluator = runner.val_loop.evaluator if runner.val_loop else None
        if evaluator and not any(isinstance(m, Calibration) for m in evaluator.metrics):
            how = collected_as(evaluator)
            evaluator.metrics.append(Calibration(**how))
            if isinstance(evaluator, PredictorsEvaluator):
                evaluator.together.append(Diversity(**how))

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock; validation is not counted."""
        self._started = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start it again where a resumed run has taken, and dropped, what was trained before."""
        if self._skips:
            self._started, self._skips = time.perf_counter(), False
        if not self._trains:  # until now it may only have scored
            self._trains = True
            self.devices = list(dict.fromkeys([*self.devices, device_name()]))
            self.revisions = list(dict.fromkeys([*self.revisions, self.revision]))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Read the clock: the checkpoint of an epoch has the whole epoch's time."""
        now = time.perf_counter()
        self.seconds += now - self._started
        self._started = now
        if (runner.iter + 1) % steps_per_epoch(runner) == 0:
            self.name_lost_terms(runner)

    def name_lost_terms(self, runner: Runner) -> None:
        """Say, once per term, that it was lost in this epoch or drowned the others."""
        model = unwrapped(runner.model)
        if not isinstance(model, OnlineDistill):
            return
        taught = model.distiller.ramp_up() > 0.99
        for term, advice in remarks(self.training_losses(runner), taught).items():
            if term not in self._named:
                self._named.add(term)
                runner.logger.warning(f'{term} {advice}')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add this epoch's accuracies to the history."""
        found, now = accuracies(metrics or {}), position(runner)
        if found:
            self.metric = primary_metric(metrics or {}) or METRIC
            self.history = self._with(self.history, now, found)
            self.calibration = self._with(self.calibration, now, calibration(metrics or {}, found))
        self._started = time.perf_counter()  # a training by iterations starts no other epoch

    def _with(
        self, entries: list[dict[str, Any]], now: dict[str, int], found: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Entries with what was found now, in the place of an earlier one of this epoch."""
        earlier = [entry for entry in entries if not now.items() <= entry.items()]
        return [*earlier, {**now, **found}] if found else earlier

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the history into the checkpoint."""
        checkpoint['results'] = dict(
            history=self.history,
            calibration=self.calibration,
            metric=self.metric,
            seconds=self.seconds,
            revisions=self.revisions,
            devices=self.devices,
            peak_memory=self.peak(),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the history back when a run is resumed."""
        if runner._resume and 'results' in checkpoint:
            results = checkpoint['results']
            self.history = results['history']
            self.calibration = results.get('calibration', [])
            self.metric = results.get('metric', METRIC)
            self.seconds = results['seconds']
            self.devices = results.get('devices', [])
            self.revisions = results['revisions']
            self.peak_memory = results.get('peak_memory') or 0

    def after_train(self, runner: Runner) -> None:
        """Write the files and print the table."""
        if not self.history or not is_main_process():
            return
        work_dir = Path(runner.work_dir)
        write_json(work_dir / 'results.json', self.results(runner))
        draw_curves(
            work_dir / 'curves.png',
            self.history,
            runner.experiment_name,
            self.metric,
            self.calibration,
            self.shares(runner),
        )
        console = Console(soft_wrap=True)
        console.print(self.table())
        console.print(f'{work_dir / "results.json"}\n{work_dir / "curves.png"}', highlight=False)

    def results(self, runner: Runner) -> dict[str, Any]:
        """The content of ``results.json``."""
        loader = runner.train_dataloader
        images = len(loader.dataset)
        of_epoch = images
        if loader.drop_last:
            of_epoch = steps_per_epoch(runner) * loader.batch_size * runner.world_size
        seen = of_epoch * epochs_over(runner)
        ((unit, over),) = position(runner).items()
        return dict(
            schema=SCHEMA,
            predictors=summarize(self.history, self.calibration),
            students=summarize_students(self.calibration),
            metric=self.metric,
            config=Path(runner.cfg.filename or '').name,
            **{f'{unit}s': over},
            seed=runner.seed,
            processes=runner.world_size,
            train_images=images,
            training_losses={k: round(x, 4) for k, x in self.training_losses(runner).items()},
            train_seconds=round(self.seconds, 1),
            images_per_second=round(seen / self.seconds, 1) if self.seconds else None,
            peak_memory_mb=self.peak(),
            device='; '.join(self.devices),
            deployed=self.deployed(runner),
            versions=package_versions(),
            git_revision=', '.join(filter(None, self.revisions)) or None,
            history=self.history,
            calibration=self.calibration,
        )

    def peak(self) -> int | None:
        """The most memory in MiB that a process of the run has had."""
        now = peak_memory_mb()
        return now if now is None else max(now, self.peak_memory)

    def training_losses(self, runner: Runner) -> dict[str, float]:
        """Mean of each loss over the steps of the last epoch, without those that were left out."""
        steps = steps_per_epoch(runner)
        last = {name: x[-steps:] for name, x in logged_losses(runner.message_hub).items()}
        return mean_losses(last)

    def shares(self, runner: Runner) -> Shares:
        """Share of each loss term, by the epochs or iterations that were over."""
        steps = steps_per_epoch(runner)
        shares = shares_by_epoch(logged_losses(runner.message_hub), steps)
        return shares if by_iterations(runner) else {n // steps: x for n, x in shares.items()}

    def deployed(self, runner: Runner) -> dict[str, int]:
        """Size of the (first) network as it is deployed."""
        model = unwrapped(runner.model)
        loader = runner.val_dataloader
        batch = loader.collate_fn([loader.dataset[0]])
        inputs = model.data_preprocessor(batch, False)['inputs']
        return deployed_size(getattr(model, 'architecture', model), inputs)

    def table(self) -> Table:
        """Predictors and accuracies, as printed."""
        table = Table(title=metric_label(self.metric))
        unit = unit_of(self.history)
        for column in ('predictor', f'last {UNITS[unit]}', f'best {UNITS[unit]}'):
            table.add_column(column, justify='left' if column == 'predictor' else 'right')
        for name, result in summarize(self.history).items():
            last, best = result['last'], result['best']
            best_cell = f'{best["accuracy"]:.2f} ({UNITS[unit]} {best[unit]})'
            table.add_row(name, f'{last["accuracy"]:.2f}', best_cell)
        return table
