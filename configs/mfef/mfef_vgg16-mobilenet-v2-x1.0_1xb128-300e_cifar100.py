_base_ = [
    '../_base_/datasets/cifar100.py',
    '../_base_/models/vgg16_cifar.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

first = _base_.student
first.head.num_classes = 100
second = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarMobileNetV2'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=1280),
)

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[first, second],
    distiller=dict(type='MFEFDistiller'),
)
