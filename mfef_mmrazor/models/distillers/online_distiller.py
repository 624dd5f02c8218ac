"""The base of all online distillation methods: from the students' records to named losses."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmrazor.models.distillers.base_distiller import BaseDistiller
from mmrazor.models.task_modules import RecorderManager
from mmrazor.registry import TASK_UTILS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import sigmoid_ramp_up
from ..builder import arguments_of, nearest
from ..losses.logit_losses import DivergenceAdapter
from ..precision import full_precision
from ..recorders import combined_logits

Records = dict[str, list[Tensor]]
"""What was recorded in one step: name -> one tensor per student."""


class Progress(NamedTuple):
    """How far a training is."""

    epoch: float
    """Epochs that are over; not a whole number in a training by iterations."""
    iteration: int
    """Steps that are over."""


LOGITS_ALONE: dict[str, Cfg] = dict(logits=dict(type='Logits', source='head'))
DEFAULT_RECORDERS = dict(**LOGITS_ALONE, feature=dict(type='FeatureMap', source='backbone'))

HIDDEN_STAGES = dict(
    stage1=dict(type='ModuleOutputs', source='backbone.layer1'),
    stage2=dict(type='ModuleOutputs', source='backbone.layer2'),
)
"""Recorders of the maps before the last one, of a network with three stages."""


def network_logits(network: nn.Module, outputs: Any) -> Tensor:
    """Logits (B, K) in full precision, of what a network gives in tensor mode."""
    return full_precision(combined_logits(getattr(network, 'head', None), outputs))


def is_autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device."""
    try:
        return torch.is_autocast_enabled(device.type)
    except TypeError:  # torch before 2.4
        cpu = device.type == 'cpu'
        return torch.is_autocast_cpu_enabled() if cpu else torch.is_autocast_enabled()


def classification_loss(loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """A loss on the labels as mmpretrain's heads take it, a mean over the images.

    Without ``avg_factor`` a loss of each label would be a mean over the labels as well.
    """
    return loss(logits, labels, avg_factor=len(logits))


def check_same_architecture(students: Sequence[nn.Module], why: str) -> None:
    """Raise a ``ValueError`` for the first student whose weights are not those of student0."""
    shapes = [{k: v.shape for k, v in student.state_dict().items()} for student in students]
    for i, found in enumerate(shapes):
        if found != shapes[0]:
            raise ValueError(
                f'{why}: student{i} is not the same network as student0; list one network as often '
                'as there are students'
            )


def _is_of_module(recorder: Cfg) -> bool:
    return recorder['type'].startswith(('Module', 'FeatureMap', 'Logits'))


class OnlineDistiller(BaseDistiller):
    """Base class: a method overrides :meth:`compute_distill_losses` and reads like its paper.

    Every student runs once per step under its own copy of the recorders. A recorded tuple (such as
    mmpretrain's backbones give, one map per stage) stands for its last item. By default
    ``records['logits']`` are the classifiers' logits and ``records['feature']`` the last feature
    maps, before pooling; tokens of a transformer become a map (:class:`FeatureMapRecorder`).

    :class:`OnlineDistill` fills in what a config leaves out and the students' heads tell, by the
    names of the constructor's arguments: ``num_students``, ``num_classes``, ``in_channels`` and,
    for the loss on the labels, ``loss_ce``, ``head`` and ``*_head``.

    Args:
        num_students: m, how many students there are; :class:`OnlineDistill` fills it in.
        recorders: mmrazor recorder configs by name, beside or instead of the default ones; one dict
            for all students, or a list with one for each.
        ramp_up_epochs: R, the epochs over which :meth:`ramp_up` rises to 1; 0 for none.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: There are fewer than two students, a ramp-up is not a number or is negative, the
            list of recorders is of another length than ``num_students``, or the students' recorders
            have different names.
    """

    default_recorders: dict[str, Cfg] = DEFAULT_RECORDERS
    renamed_weights: dict[str, str] = {}
    """Starts of weights' names that older checkpoints have: name then -> name now."""
    extra_views = 0
    """Views of the images beside one for each student; they are in the records by this name."""
    shares_stages = True
    """Whether the students may be branches of one network."""
    acts_on_updates = False
    """Whether it needs :meth:`before_update` or :meth:`after_update`, from DistillerUpdateHook."""
    decides_by_batch = False
    """Whether a step of the optimizer must be of one batch."""
    takes_multi_label = False
    """Whether the method is defined for images of several labels, (B, K) of 0 and 1."""
    half_precision_maps = False
    """Whether its records of maps stay in the precision of autocast, to which convolutions would
    cast them back."""

    def __init__(
        self,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        ramp_up_epochs: float = 0,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_students < 2:
            raise ValueError(f'num_students={num_students}, expected 2 or more')
        sigmoid_ramp_up(0, ramp_up_epochs)  # raises if it is negative
        whole = isinstance(ramp_up_iters, int) and ramp_up_iters >= 0
        if ramp_up_iters is not None and not whole:
            raise ValueError(f'ramp_up_iters={ramp_up_iters!r}, expected a whole number, 0 or more')
        self.num_students = num_students
        self.ramp_up_epochs = ramp_up_epochs
        self.ramp_up_iters = ramp_up_iters
        self.progress: Progress | None = None  # set by RampUpHook
        if not isinstance(recorders, Sequence):
            recorders = [recorders or {}] * num_students
        if len(recorders) != num_students:
            raise ValueError(
                f'{len(recorders)} sets of recorders for {num_students} students: '
                'give one dict for all of them, or one for each'
            )
        self.recorder_cfgs = [{**self.default_recorders, **cfg} for cfg in recorders]
        for i, cfgs in enumerate(self.recorder_cfgs):
            if set(cfgs) != set(self.recorder_cfgs[0]):
                raise ValueError(
                    f'recorders: student{i} has {sorted(cfgs)}, student0 '
                    f'{sorted(self.recorder_cfgs[0])}; every student needs each of them'
                )
        self.own_loss_weight = 1.0  # of what the students' own heads compute
        self.updates_announced = False  # set by DistillerUpdateHook
        self._moved_from: list[Tensor] | None = None
        self.recorders: list[RecorderManager] = []
        self._notes: set[tuple[int, str]] = set()  # what the log has said of the recorded maps
        self._recorded_modules: list[nn.Module] = []

    @abstractmethod
    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """The method: what the students teach each other.

        Args:
            records: Name -> one tensor per student, with gradients.
            labels: Class indices (B,), or scores (B, K) after mixup and the like.

        Returns:
            Scalars by name. A name that contains ``loss`` is added to what is minimised.
        """

    @classmethod
    def default_in_channels(cls, channels: list[int]) -> int | list[int] | None:
        """``in_channels`` of a method that has it, where the config leaves it out.

        Args:
            channels: Of the students' last maps.

        Raises:
            ValueError: They are not enough for the method.
        """
        if set(HIDDEN_STAGES) <= set(cls.default_recorders):
            raise ValueError(
                f'in_channels: {cls.__name__} needs the channels of the stages that it records, '
                f"as in its configs; the students' heads tell only those of the last, {channels}"
            )
        return channels

    def fused_logits(self, records: Records) -> Tensor | None:
        """Logits (B, K) of the method's own classifier over all students, if it has one."""
        return None

    def auxiliary_logits(self, records: Records) -> dict[str, Tensor]:
        """Logits (B, K) of all classifiers of the method's own, by name; none in some methods."""
        fused = self.fused_logits(records)
        return {} if fused is None else dict(fused=fused)

    def set_up(self, students: Sequence[BaseModel]) -> None:
        """Called once, after all students are built."""

    def before_step(self, students: Sequence[BaseModel]) -> None:
        """Called at the start of every training step, after the previous optimizer step."""

    def before_update(self, students: Sequence[BaseModel]) -> None:
        """Called right before the optimizer uses the gradients."""

    def after_update(self, students: Sequence[BaseModel]) -> None:
        """Called right after a step of the optimizer."""

    def check_updates(self, students: Sequence[BaseModel]) -> None:
        """Raise a ``ValueError`` if the optimizer steps and ``DistillerUpdateHook`` is missing."""
        if not self.acts_on_updates or self.updates_announced:
            return
        # torch does not count the changes that a fused optimizer makes
        trained = [[p for p in student.parameters() if p.requires_grad] for student in students]
        now = [weights[-1].detach().clone() for weights in trained if weights]
        if not all(map(torch.equal, now, self._moved_from or now)):
            raise ValueError(
                f'{type(self).__name__} has to act when the optimizer steps: add '
                "dict(type='mmrazor.DistillerUpdateHook') to custom_hooks"
            )
        self._moved_from = now

    def ramp_up(self) -> float:
        """Weight of the distillation at this point of the training, see ``sigmoid_ramp_up``."""
        if self.ramp_up_iters is not None:
            return sigmoid_ramp_up(self.iteration(), self.ramp_up_iters)
        return sigmoid_ramp_up(self.epoch(), self.ramp_up_epochs)

    def epoch(self) -> float:
        """Number of finished epochs, which :class:`RampUpHook` takes from its runner.

        Without that hook, the number that mmengine recorded for the runner that was built last.
        """
        if self.progress is not None:
            return self.progress.epoch
        return MessageHub.get_current_instance().get_info('epoch', 0)

    def iteration(self) -> int:
        """Steps of the training that are over, from 0; likewise."""
        if self.progress is not None:
            return self.progress.iteration
        return MessageHub.get_current_instance().get_info('iter', 0)

    def check_recorders(self, students: Sequence[nn.Module]) -> None:
        """Raise a ``KeyError`` for the first recorder without a source in its student."""
        for i, (student, cfgs) in enumerate(zip(students, self.recorder_cfgs, strict=True)):
            modules = dict(student.named_modules())
            for name, cfg in cfgs.items():
                if not {'type', 'source'} <= set(cfg):
                    raise KeyError(
                        f"recorder {name!r} needs a 'type' and a 'source', got {dict(cfg)}"
                    )
                if TASK_UTILS.get(f'{cfg["type"]}Recorder') is None:
                    raise KeyError(
                        f'recorder {name!r}: type={cfg["type"]!r}, expected the name of a recorder '
                        "of mmrazor's, such as 'ModuleOutputs'"
                    )
                if _is_of_module(cfg) and cfg['source'] not in modules:
                    raise KeyError(
                        f'recorder {name!r}: student{i} has no module {cfg["source"]!r}'
                        + (
                            f'. {type(self).__name__} needs a map (B, C, H, W) of this stage: name '
                            'the module that gives it in distiller.recorders. A transformer has '
                            'no such map: use MFEFDistiller or a method on logits for it'
                            if HIDDEN_STAGES.get(name) == cfg
                            else nearest(cfg['source'], modules)
                        )
                    )

    def prepare_recorders(self, students: Sequence[nn.Module]) -> None:
        """Hook the recorders into the students, again if a hooked module has been replaced.

        (As the conversion to SyncBN does after construction.)
        """
        modules = [
            student.get_submodule(cfg['source'])
            for student, cfgs in zip(students, self.recorder_cfgs, strict=True)
            for cfg in cfgs.values()
            if _is_of_module(cfg)
        ]
        if self.recorders and all(
            old is new for old, new in zip(self._recorded_modules, modules, strict=True)
        ):
            return
        self._recorded_modules = modules
        with DefaultScope.overwrite_default_scope('mmrazor'):
            self.recorders = [RecorderManager(cfgs) for cfgs in self.recorder_cfgs]
        for student, recorders in zip(students, self.recorders, strict=True):
            recorders.initialize(student)

    def collect_records(self) -> Records:
        """Take what the recorders hold, and empty them: they would keep the step's graph alive.

        Raises:
            ValueError: A source did not run.
        """
        records: Records = {}
        for i, manager in enumerate(self.recorders):
            for name, recorder in manager.recorders.items():
                if not recorder.data_buffer:
                    raise ValueError(
                        f'recorder {name!r} recorded nothing: {recorder.source!r} of student{i} '
                        'did not run in this forward pass'
                    )
                record = recorder.get_record_data()
                while isinstance(record, (tuple, list)):
                    record = record[-1]
                self._log_note(i, name, recorder)
                is_map = record.dim() == 4
                if not (is_map and self.half_precision_maps and is_autocast(record.device)):
                    record = full_precision(record)
                records.setdefault(name, []).append(record)
                recorder.reset_data_buffer()
        return records

    def hand_out(self, labels: Tensor) -> None:
        """Give the labels of a batch to those losses that ask for them, such as ``DKDLoss``."""
        for module in self.modules():
            if isinstance(module, DivergenceAdapter):
                module.labels = labels

    def _log_note(self, student: int, name: str, recorder: Any) -> None:
        """Say once how a map was got, if it is not what the network itself gives."""
        note = getattr(recorder, 'note', '')
        if not note or (student, name) in self._notes:
            return
        self._notes.add((student, name))
        if 'in_channels' in arguments_of(type(self))[0]:  # it reads maps
            self.log(f'{name} of student{student}: {note}')

    def log(self, message: str) -> None:
        """Write to the run's log."""
        print_log(f'{type(self).__name__}: {message}', logger='current')
