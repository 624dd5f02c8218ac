_base_ = [
    '../_base_/datasets/cifar10_views.py',
    '../_base_/models/wrn-16-2_cifar.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[_base_.student, _base_.student],
    distiller=dict(type='PCLDistiller'),
)
