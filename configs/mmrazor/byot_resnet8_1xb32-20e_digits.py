_base_ = [
    '../_base_/datasets/digits.py',
    '../_base_/models/resnet8_cifar.py',
    '../_base_/distillers/byot.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/single_runtime.py',
]

student = dict(_base_.student, _scope_='mmpretrain')
distiller = _base_.distiller
for branch in distiller.connectors.values():
    branch.pool_size = 4  # images of 16 x 16

model = dict(
    _scope_='mmrazor',
    type='SelfDistill',
    data_preprocessor=_base_.data_preprocessor,
    architecture=student,
    distiller=distiller,
)
