"""The algorithm: N students, one batch for all, one optimizer step."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel, ModuleList
from mmengine.structures import BaseDataElement
from mmrazor.models.algorithms.base import BaseAlgorithm
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import ensemble_logits
from ..builder import build, find, shortened
from ..data_samples import copied, pack_predictions, targets
from ..distillers.online_distiller import OnlineDistiller, Records, check_same_architecture
from ..from_students import (
    Heads,
    arguments_of_distiller,
    check_teaching,
    share_augments,
    warn_of_normalisation,
)
from ..initial_weights import warn_of_twins
from ..student_facts import is_multi_label, number_of_classes, predicts_itself
from ..students import build_student
from ..trunk import Trunk

Predictions = dict[str, Sequence[BaseDataElement]]


@MODELS.register_module()
class OnlineDistill(BaseAlgorithm):
    """Trains N students together; a distiller says what they teach each other.

    One step: the data preprocessor, then every student once in loss mode under its recorders, then
    the distiller, which turns the records into named losses. The result is
    ``{'student0.loss', 'student1.loss', ..., 'distill.loss_...'}``.

    The first student is held as ``architecture``, so that mmrazor's own test script and hooks
    (such as ``StopDistillHook``) work as they are, and is what ``mode='predict'`` answers for.
    A student given as a config is initialised when it is built, before the next one and before the
    distiller. So at one seed the students start from the same weights whatever the method, and
    ``student0`` from the very weights it would have if trained alone.

    Where the data pipeline makes a view for each student (mmpretrain's ``MultiView``, see
    ``configs/_base_/datasets/cifar10_folder_views.py``), every student sees its own.

    With ``shared_stages`` the students are branches of one network, as in the original forms of
    ONE, CL-ILR, OKDDip and FFL: the stem and the first stages, the trunk, are the first student's
    and run once per step, and all students go on from their map. The others' own are dropped
    (``nn.Identity`` is in their place), so such a student does not take images;
    :meth:`student_weights` gives the weights of the plain network that it stands for.

    Unless the config says otherwise, the students' own settings are used: where they agree on
    ``train_cfg.augments`` (mixup, cutmix), the common batch is mixed that way; the classifiers of a
    distiller use the loss of the students' heads (class weights, label smoothing); a distiller
    gets ``num_classes`` and ``in_channels`` from the heads; and predictions are made by the heads.

    Args:
        students: Configs or built models, at least two; they may be different networks, with the
            same number of classes. Built ones keep their weights, unless ``pretrained`` is given.
        distiller: Config or built :class:`OnlineDistiller`.
        data_preprocessor: As in mmengine; by default that of the first student. One without a
            type is an ``mmpretrain.ClsDataPreprocessor``, as in mmpretrain's configs. Its
            ``batch_augments``, also None, come before the students' own.
        shared_stages: How many of the first stages the students share, with the stem; 0 for none.
            Backbones can be ``CifarResNet``, ``WideResNet`` and mmpretrain's ``ResNet``.
        mean_trunk_gradient: Divide the gradient of the trunk's output by the number of students,
            as CL-ILR does. Otherwise the trunk gets the sum of the students' gradients.
        same_initial_weights: All students start from the weights of the first, as in OKDPH.
            Otherwise each has its own.
        pretrained: Checkpoint of one plain network. Every student that names no checkpoint of its
            own starts from it. How much of it was loaded is in the log.
        init_cfg: Initialization config; applied to the students as well, after their own.

    Raises:
        ValueError: There are fewer than two students, or the same one twice; their numbers of
            classes or their ``train_cfg.augments`` differ; the method is not defined for their
            multi-label heads; the distiller was made for another number of students; the students
            cannot start from the same weights, or cannot share the stages; ``mean_trunk_gradient``
            is set without ``shared_stages``; a recorder looks inside the shared stages; or weights
            of another architecture are loaded, also with ``strict=False``.
        TypeError: A student is not a ``BaseModel``, or the distiller not an ``OnlineDistiller``.
        ImportError: A student is of a package that is not installed.
        FileNotFoundError: A checkpoint or a config that a student names is not there.
        KeyError: A recorder's source is not in its student.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import OnlineDistill
        >>> student = dict(
        ...     type='mmpretrain.ImageClassifier',
        ...     backbone=dict(type='CifarResNet', depth=8),
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
        >>> model = OnlineDistill(
        ...     students=[student, student], distiller=dict(type='FFLDistiller'))
        >>> list(model.predict_all(torch.rand(2, 3, 32, 32)))
        ['student0', 'student1', 'ensemble', 'fused']
    """

    def __init__(
        self,
        students: Sequence[Cfg | BaseModel],
        distiller: Cfg | OnlineDistiller,
        data_preprocessor: Cfg | nn.Module | None = None,
        shared_stages: int = 0,
        mean_trunk_gradient: bool = False,
        same_initial_weights: bool = False,
        pretrained: str | None = None,
        init_cfg: Cfg | None = None,
    ) -> None:
        if not isinstance(students, Sequence) or len(students) < 2:
            found = len(students) if isinstance(students, Sequence) else type(students).__name__
            raise ValueError(
                f'students: found {found}, expected a list of at least 2; a single network is '
                'trained with mmpretrain itself, or learns from a trained teacher with '
                "mmrazor's SingleTeacherDistill"
            )
        built = [id(student) for student in students if isinstance(student, nn.Module)]
        if len(set(built)) < len(built):
            raise ValueError('students: the same built network is there twice; give each its own')
        first, *peers = [build_student(i, each, pretrained) for i, each in enumerate(students)]
        if same_initial_weights:
            check_same_architecture([first, *peers], 'same_initial_weights')
        preprocessor = data_preprocessor
        if isinstance(preprocessor, dict):
            preprocessor = build(preprocessor, type='mmpretrain.ClsDataPreprocessor')
        # mmrazor would clear `inplace` in the first student alone: done for all parts below
        super().__init__(first, preprocessor, init_cfg, module_inplace=True)
        self.peers = ModuleList(peers)
        self.same_initial_weights = same_initial_weights
        self._share_initial_weights()
        share_augments(self.students, self.data_preprocessor, data_preprocessor)
        warn_of_normalisation(self.students, self.data_preprocessor)
        self.trunk = Trunk(self.students, shared_stages, mean_trunk_gradient)
        self._keep_recorded_features_intact()
        self.distiller = self._build_distiller(distiller)
        self._check_classes()
        self.distillation_stopped = False  # set by mmrazor's StopDistillHook
        self.first_step_checked = False

    @property
    def students(self) -> list[BaseModel]:
        """All students, in order."""
        return [self.architecture, *self.peers]

    @property
    def multi_label(self) -> int | None:
        """K, where an image may have several labels at once; None where it has one."""
        first = self.architecture
        return number_of_classes(first) if is_multi_label(first) else None

    @property
    def head(self) -> Heads:
        """All heads as one, as mmpretrain's ``SwitchRecipeHook`` wants to set their loss."""
        return Heads(self)

    def init_weights(self) -> None:
        """Initialise by the ``init_cfg`` of the whole, if there is one."""
        initialises = self.init_cfg and not self.is_init
        super().init_weights()
        if initialises:
            self._share_initial_weights()

    def _share_initial_weights(self) -> None:
        if self.same_initial_weights:
            for peer in self.peers:  # it has no trunk of its own where that is shared
                peer.load_state_dict(self.architecture.state_dict(), strict=False)

    def loss(
        self, inputs: Tensor | list[Tensor], data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """Every student's own losses and the distiller's, for one batch (B, 3, H, W).

        Or for a list of batches, other views of the same images: one per student, and those that
        the method wants for itself.
        """
        first = not self.first_step_checked
        if first and not isinstance(inputs, list):
            warn_of_twins([self.student_weights(i) for i in range(len(self.students))])
        self.first_step_checked = True
        self.distiller.check_updates(self.students)
        self.distiller.before_step(self.students)
        student_losses, records = self._run_students(inputs, data_samples, mode='loss')
        weight = 1.0 if self.distillation_stopped else self.distiller.own_loss_weight
        losses = {}
        for i, own in enumerate(student_losses):
            if weight != 1:
                own = {name: weight * x if 'loss' in name else x for name, x in own.items()}
            losses.update(add_prefix(own, f'student{i}'))
        labels = targets(data_samples, self.multi_label)
        self.distiller.hand_out(labels)
        distill = self.distiller.compute_distill_losses(records, labels)
        if first and distill and not any('loss' in name for name in distill):
            print_log(
                f'{type(self.distiller).__name__}: its terms {shortened([*distill])} are not '
                'trained: mmengine adds up those that have "loss" in their names',
                logger='current',
                level=logging.WARNING,
            )
        if self.distillation_stopped:
            # every parameter stays in the graph, as DDP wants it
            distill = {name: 0 * value for name, value in distill.items()}
        losses.update(add_prefix(distill, 'distill'))
        return losses

    @torch.no_grad()
    def predict_all(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None
    ) -> Predictions:
        """Predictions of every student, their ensemble and the fused classifier, in one pass.

        Args:
            inputs: Preprocessed images (B, 3, H, W).
            data_samples: Their annotations; copied, not changed.

        Returns:
            ``student0``, ``student1``, ..., ``ensemble`` (the mean of the students' logits) and,
            where the method has them, ``fused`` and other classifiers of its own: a list of B data
            samples each. Scores and labels of a student are those of its own head (such as sigmoids
            and a threshold, for several labels); of the others, those that the first student's head
            makes of their logits.
        """
        logits = self.predict_logits(inputs, data_samples)
        predictions = {
            name: pack_predictions(z, data_samples, self.head_of(name))
            for name, z in logits.items()
        }
        if any(map(predicts_itself, self.students)):
            own, _ = self._run_students(inputs, data_samples, mode='predict')
            predictions.update({f'student{i}': samples for i, samples in enumerate(own)})
        return predictions

    def head_of(self, predictor: str) -> nn.Module | None:
        """The head that makes scores and labels of a predictor's logits."""
        heads = {f'student{i}': getattr(x, 'head', None) for i, x in enumerate(self.students)}
        return heads.get(predictor, heads['student0'])

    def predict_logits(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None = None
    ) -> dict[str, Tensor]:
        """Logits (B, K) of all that :meth:`predict_all` answers for, by the same names."""
        _, records = self._run_students(inputs, data_samples, mode='tensor')
        logits = {f'student{i}': z for i, z in enumerate(records['logits'])}
        logits['ensemble'] = ensemble_logits(records['logits'])
        auxiliary = self.distiller.auxiliary_logits(records)
        if not isinstance(auxiliary, dict):
            raise TypeError(
                f'{type(self.distiller).__name__}.auxiliary_logits returned a '
                f'{type(auxiliary).__name__}, expected a dict of logits by name'
            )
        return {**logits, **auxiliary}

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Depth of a parameter in its network, and the network's depth.

        For mmpretrain's layer-wise decay of the learning rate. What is not a student's, the
        distiller's parts, counts as the last layer and so has the full rate.

        Raises:
            ValueError: A student's backbone does not say which layer a parameter belongs to.
        """
        prefixes = ['architecture.', *(f'peers.{i}.' for i in range(len(self.peers)))]
        for i, (prefix, student) in enumerate(zip(prefixes, self.students, strict=True)):
            if not param_name.startswith(prefix):
                continue
            try:
                return student.get_layer_depth(param_name.removeprefix(prefix))
            except (NotImplementedError, AttributeError):  # mmpretrain's answer for many networks
                network = getattr(student, 'backbone', student)
                raise ValueError(
                    f'layer-wise learning rate decay: {type(network).__name__} of '
                    f"student{i} does not know its parameters' layers. Leave layer_decay_rate out, "
                    "or take mmpretrain's transformers, ConvNeXt or ResNet-50, which know them"
                ) from None
        return 0, 1

    def student_weights(self, index: int) -> dict[str, Tensor]:
        """State dict of a student as the plain network it is deployed as, trunk included."""
        return {**self.trunk.weights(), **self.students[index].state_dict()}

    def _run_students(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[BaseDataElement] | None,
        mode: str,
    ) -> tuple[list[Any], Records]:
        views = inputs if isinstance(inputs, list) else [inputs] * len(self.students)
        wanted = len(self.students) + self.distiller.extra_views
        if isinstance(inputs, list) and len(views) != wanted:
            # InMemoryDataPreprocessor makes the views itself
            fast = getattr(self.data_preprocessor, 'num_views', None)
            where = 'data_preprocessor.num_views' if fast else 'num_views of MultiView'
            raise ValueError(
                f'the data pipeline gives {len(views)} views of an image for '
                f'{len(self.students)} students: set {where} to {wanted if fast else [wanted]}'
            )
        views, extra = views[: len(self.students)], views[len(self.students) :]
        if self.trunk and isinstance(inputs, list):
            raise ValueError(
                'the data pipeline gives a view of an image for each student, but with '
                'shared_stages they all go on from one map: make one view, or drop shared_stages'
            )
        self.distiller.prepare_recorders(self.students)
        outputs = []
        with self.trunk.running() as start_of:
            for student, view, recorders in zip(
                self.students, views, self.distiller.recorders, strict=True
            ):
                samples = data_samples
                if mode == 'predict' and samples is not None:  # which the heads write into
                    samples = [copied(sample) for sample in samples]
                with recorders:
                    try:
                        outputs.append(student(start_of(view), samples, mode=mode))
                    except RuntimeError as error:
                        if 'shapes cannot be multiplied' not in str(error):
                            raise
                        raise ValueError(
                            f'student{len(outputs)}: {error}; do in_channels of its head fit its '
                            'backbone?'
                        ) from error
        records = self.distiller.collect_records()
        if extra:
            records['extra_views'] = extra
        return outputs, records

    def _build_distiller(self, distiller: Cfg | OnlineDistiller) -> OnlineDistiller:
        number = len(self.students)
        kind = find(distiller) if isinstance(distiller, dict) else type(distiller)
        if not (isinstance(kind, type) and issubclass(kind, OnlineDistiller)):
            raise TypeError(
                f'distiller: found {kind.__name__}, expected one of the registered '
                'online distillers, such as dict(type="MFEFDistiller", ...)'
            )
        if isinstance(distiller, dict):
            built = build(arguments_of_distiller(kind, distiller, self.students))
        else:
            built = distiller
        if built.num_students != number:
            raise ValueError(
                f'the distiller was made for {built.num_students} students, but there are {number}'
            )
        if self.trunk and not built.shares_stages:
            raise ValueError(
                f'shared_stages: {type(built).__name__} needs students that are networks of their '
                'own; set it to 0'
            )
        check_teaching(built, self.students)
        self.trunk.check_recorders(built.recorder_cfgs)
        built.check_recorders(self.students)
        built.set_up(self.students)
        return built

    def _check_classes(self) -> None:
        classes = {f'student{i}': number_of_classes(x) for i, x in enumerate(self.students)}
        classes['distiller'] = getattr(self.distiller, 'num_classes', None)
        known = {name: number for name, number in classes.items() if number is not None}
        if len(set(known.values())) > 1:
            found = ', '.join(f'{name}: {number}' for name, number in known.items())
            raise ValueError(
                f'found different numbers of classes ({found}); students can teach each other '
                'only over the same ones'
            )
        if 1 in known.values() and self.multi_label is None:
            raise ValueError(
                'num_classes=1, expected two or more: with one class nothing can be learnt, and '
                'the accuracy is 100 %'
            )
        if not known:
            return
        number = next(iter(known.values()))
        for module in self.modules():  # data preprocessors and losses, which learn it late or never
            if getattr(module, 'num_classes', 0) is None:
                module.num_classes = number
        told = getattr(self.data_preprocessor, 'num_classes', number)
        if told != number:  # that of a config for other data
            print_log(
                f'data_preprocessor: num_classes={number}, as the heads of the students have it, '
                f'not {told}',
                logger='current',
            )
            self.data_preprocessor.num_classes = number

    def _keep_recorded_features_intact(self) -> None:
        """In-place activations would overwrite what the recorders hold."""
        for module in self.modules():
            if hasattr(module, 'inplace'):
                module.inplace = False

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse weights of another architecture, which mmengine would skip in silence."""
        for old, new in self.distiller.renamed_weights.items():
            start = f'{prefix}distiller.{old}'
            for key in [key for key in state_dict if key.startswith(start)]:
                state_dict[f'{prefix}distiller.{new}{key.removeprefix(start)}'] = state_dict.pop(
                    key
                )
        found = {k: v.shape for k, v in state_dict.items() if k.startswith(prefix)}
        expected = {k: v.shape for k, v in self.state_dict(prefix=prefix).items()}
        wrong = {
            'missing': sorted(set(expected) - set(found)),
            'unexpected': sorted(set(found) - set(expected)),
            'of another shape': [
                f'{k} {tuple(found[k])} instead of {tuple(expected[k])}'
                for k in sorted(set(found) & set(expected))
                if found[k] != expected[k]
            ],
        }
        if any(wrong.values()):
            if found and not any(key.startswith(f'{prefix}architecture.') for key in found):
                raise ValueError(
                    'the checkpoint is of one plain network, not of an OnlineDistill. To start '
                    'students from it, set model.pretrained (all) or model.students.0.pretrained '
                    'instead of load_from'
                )
            raise ValueError(
                'the checkpoint is of another architecture than the config; '
                + '; '.join(f'{what}: {shortened(keys)}' for what, keys in wrong.items() if keys)
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
