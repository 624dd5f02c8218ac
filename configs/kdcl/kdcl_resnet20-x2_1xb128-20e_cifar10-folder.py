_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/models/resnet20_cifar.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[_base_.student, _base_.student],
    distiller=dict(type='KDCLDistiller'),
)
