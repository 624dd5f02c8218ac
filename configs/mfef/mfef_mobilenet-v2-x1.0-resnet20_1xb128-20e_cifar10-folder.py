_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/models/mobilenet-v2-x1.0_cifar.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/default_runtime.py',
]

first = _base_.student
second = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=20),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[first, second],
    distiller=dict(type='MFEFDistiller', ramp_up_epochs=5),
)
