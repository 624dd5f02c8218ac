_base_ = [
    '../_base_/datasets/digits.py',
    '../_base_/models/resnet8_cifar.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/default_runtime.py',
]

student = _base_.student
teacher = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=20),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[student, teacher],
    distiller=dict(type='SwitOKDDistiller'),
)
