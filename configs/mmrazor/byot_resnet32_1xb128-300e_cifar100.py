_base_ = [
    '../_base_/datasets/cifar100.py',
    '../_base_/models/resnet32_cifar.py',
    '../_base_/distillers/byot.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/single_runtime.py',
]

_base_.student.head.num_classes = 100
student = dict(_base_.student, _scope_='mmpretrain')
distiller = _base_.distiller
for branch in distiller.connectors.values():
    branch.num_classes = 100

model = dict(
    _scope_='mmrazor',
    type='SelfDistill',
    data_preprocessor=_base_.data_preprocessor,
    architecture=student,
    distiller=distiller,
)
