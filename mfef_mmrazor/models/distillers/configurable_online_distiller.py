"""Online distillation of N students, written in the config alone."""

import inspect
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

from mmengine.model import ModuleDict
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ..builder import build, nearest
from ..losses.logit_losses import check_temperature
from ..precision import full_precision
from .online_distiller import OnlineDistiller, Records

Students = dict[str, int]
"""Which students the letters of a source stand for: ``{'i': 0, 'j': 2}``."""
KEYS = ('recorder', 'connector', 'from_batch', 'student', 'detach')
"""What a source may have."""


@MODELS.register_module()
class ConfigurableOnlineDistiller(OnlineDistiller):
    """mmrazor's ``ConfigurableDistiller`` for N students that teach each other.

    Connectors and losses read *sources*. A source is a dict with one of

    - ``recorder='logits'`` and ``student=0`` (or 1, ...): what was recorded of that student;
    - ``connector='fused'``: what that connector gives. It runs once per step, whoever reads it;
    - ``from_batch='gt_label'``: the labels of the batch;

    and, if it must not receive gradients, ``detach=True``. A list of sources is a list of tensors.
    ``student='all'`` stands for a list of all students. ``student='i'`` in a loss stands for each
    student in turn, with ``student='j'`` beside it for all ordered pairs of different students; the
    loss is the sum.

    Args:
        distill_losses: Configs of losses, by name. A name that contains ``loss`` is minimised.
        loss_forward_mappings: For every loss, a source for each argument of its ``forward``.
        connectors: Configs of connectors (or any other modules) by name; beside its own arguments
            each has ``inputs``, a source or a list of sources for the one argument of ``forward``.
        ramped_losses: Names of the losses that the ramp-up weighs.
        ramp_up_epochs: R, in epochs; 0 for none.
        fused: Name of the connector whose output is the logits of a classifier over all students.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        KeyError: A source, a mapping, ``ramped_losses`` or ``fused`` names something that is not
            there; or a source has an unknown key.
        ValueError: A source is not a dict with one of the three keys; there is no such student;
            connectors read each other in a circle; no loss reads a connector that can learn; or a
            temperature is not positive.
        TypeError: A loss's ``forward`` has not the arguments that its mapping names.

    Example:
        Deep mutual learning, the students' predictions alone:

        >>> from mfef_mmrazor.models import ConfigurableOnlineDistiller
        >>> dml = ConfigurableOnlineDistiller(
        ...     distill_losses=dict(loss_mutual=dict(type='KLDivergence', tau=1)),
        ...     loss_forward_mappings=dict(loss_mutual=dict(
        ...         preds_S=dict(recorder='logits', student='i'),
        ...         preds_T=dict(recorder='logits', student='j', detach=True))))
        >>> import torch
        >>> records = dict(logits=[torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])])
        >>> losses = dml.compute_distill_losses(records, torch.tensor([0]))
        >>> round(losses['loss_mutual'].item(), 4)
        0.2311
    """

    takes_multi_label = True

    def __init__(
        self,
        distill_losses: dict[str, Cfg],
        loss_forward_mappings: dict[str, dict[str, Any]],
        connectors: dict[str, Cfg] | None = None,
        ramped_losses: Sequence[str] = (),
        ramp_up_epochs: float = 0,
        fused: str | None = None,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        connectors = {name: dict(cfg) for name, cfg in (connectors or {}).items()}
        self.inputs = {name: cfg.pop('inputs', None) for name, cfg in connectors.items()}
        self.mappings = loss_forward_mappings
        self.ramped_losses = tuple(_flat(ramped_losses))
        self.fused = fused
        self.connectors = ModuleDict({name: build(cfg) for name, cfg in connectors.items()})
        for name, cfg in distill_losses.items():
            if isinstance(cfg, dict):
                check_temperature(f'{name}.tau', cfg.get('tau', 1))
        self.losses = ModuleDict({name: build(cfg) for name, cfg in distill_losses.items()})
        self._check()

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """All losses of the config."""
        step = _Step(self, records, labels)
        losses = {}
        for name, mapping in self.mappings.items():
            terms = [
                self.losses[name](**{arg: step.read(source, of) for arg, source in mapping.items()})
                for of in self._expand(mapping)
            ]
            losses[name] = sum(terms[1:], terms[0])
            if name in self.ramped_losses:
                losses[name] = self.ramp_up() * losses[name]
        return losses

    def fused_logits(self, records: Records) -> Tensor | None:
        """Logits (B, K) of the connector that ``fused`` names."""
        return None if self.fused is None else _Step(self, records).connect(self.fused)

    def _expand(self, mapping: dict[str, Any]) -> Iterator[Students]:
        found = {s.get('student') for arg in mapping.values() for s in _flat(arg)}
        letters = sorted(found & {'i', 'j'})
        for students in permutations(range(self.num_students), len(letters)):
            yield dict(zip(letters, students, strict=True))

    def _check(self) -> None:
        """Every name and signature of the config, before anything runs."""
        _known('loss_forward_mappings', self.mappings, self.losses)
        _known('distill_losses without a mapping:', self.losses, self.mappings)
        _known('ramped_losses', self.ramped_losses, self.losses)
        for name in self.mappings:
            if 'loss' not in name:
                self.log(f"{name!r} is logged but not minimised, since 'loss' is not in its name")
        _known('fused', [self.fused] if self.fused else [], self.connectors)
        for name, inputs in self.inputs.items():
            if inputs is None:
                raise KeyError(f"connector {name!r} has no 'inputs'")
            self._check_sources(f'connector {name!r}', inputs, letters=())
            self._check_circle(name, ())
        for name, mapping in self.mappings.items():
            for argument, source in mapping.items():
                self._check_sources(f'{name}.{argument}', source, letters=('i', 'j'))
            try:
                inspect.signature(self.losses[name].forward).bind(**mapping)
            except TypeError as error:
                kind = type(self.losses[name]).__name__
                parameters = list(inspect.signature(self.losses[name].forward).parameters)
                raise TypeError(
                    f'{name}: {kind}.forward takes {parameters}, the mapping gives '
                    f'{list(mapping)}: {error}'
                ) from None
        self._check_is_read()

    def _check_sources(self, reader: str, sources: Any, letters: tuple[str, ...]) -> None:
        recorders = self.recorder_cfgs[0]
        for source in _flat(sources):
            if not isinstance(source, dict):
                raise ValueError(f'{reader}: expected a dict as source, got {source!r}')
            _known(f'{reader}: source keys', source, KEYS)
            if len({'recorder', 'connector', 'from_batch'} & set(source)) != 1:
                raise ValueError(
                    f"{reader}: a source has one of 'recorder', 'connector' and 'from_batch', "
                    f'got {source}'
                )
            _known(f'{reader}: recorder', [source.get('recorder', 'logits')], recorders)
            if 'connector' in source:
                _known(f'{reader}: connector', [source['connector']], self.connectors)
            _known(f'{reader}: from_batch', [source.get('from_batch', 'gt_label')], ['gt_label'])
            if 'recorder' not in source and 'student' in source:
                raise ValueError(f"{reader}: only a recorder has a 'student', got {source}")
            students = [*range(self.num_students), 'all', *letters]
            if 'recorder' in source and source.get('student') not in students:
                raise ValueError(
                    f'{reader}: student={source.get("student")!r}, expected one of {students}'
                )

    def _check_is_read(self) -> None:
        arguments = [arg for mapping in self.mappings.values() for arg in mapping.values()]
        sources = [source for arg in arguments for source in _flat(arg)]
        read: set[str] = set()
        while sources:
            name = sources.pop().get('connector')
            if name is not None and name not in read:
                read.add(name)
                sources += _flat(self.inputs[name])
        for name, connector in self.connectors.items():
            if name not in read and any(True for _ in connector.parameters()):
                raise ValueError(f'connector {name!r}: no loss reads it, so it would never learn')

    def _check_circle(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f'connectors read each other: {" <- ".join([*above, name])}')
        for source in _flat(self.inputs[name]):
            if 'connector' in source:
                self._check_circle(source['connector'], (*above, name))


class _Step:
    """What one training step has recorded, and what its connectors have made of it so far."""

    def __init__(
        self, distiller: ConfigurableOnlineDistiller, records: Records, labels: Tensor | None = None
    ) -> None:
        self.distiller = distiller
        self.records = records
        self.labels = labels
        self.connected: dict[str, Tensor] = {}

    def read(self, source: Any, of: Students) -> Any:
        if isinstance(source, (list, tuple)):
            return [self.read(each, of) for each in source]
        found: Any
        if 'connector' in source:
            found = self.connect(source['connector'])
        elif 'from_batch' in source:
            found = self.labels
        elif source['student'] == 'all':
            found = list(self.records[source['recorder']])
        else:
            found = self.records[source['recorder']][of.get(source['student'], source['student'])]
        return _detached(found) if source.get('detach') else found

    def connect(self, name: str) -> Tensor:
        if name not in self.connected:
            output = self.distiller.connectors[name](self.read(self.distiller.inputs[name], {}))
            while isinstance(output, (tuple, list)):  # as of mmpretrain's necks
                output = output[-1]
            self.connected[name] = full_precision(output)
        return self.connected[name]


def _flat(sources: Any) -> list[Any]:
    return list(sources) if isinstance(sources, (list, tuple)) else [sources]


def _detached(found: Any) -> Any:
    return [x.detach() for x in found] if isinstance(found, list) else found.detach()


def _known(what: str, names: Any, known: Any) -> None:
    names, known = list(names), list(known)
    for name in names:
        if name not in known:
            raise KeyError(f'{what} {name!r}, expected one of {known}{nearest(str(name), known)}')
