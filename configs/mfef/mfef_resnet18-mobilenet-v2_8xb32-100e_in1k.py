_base_ = [
    '../_base_/datasets/imagenet.py',
    '../_base_/models/resnet18_imagenet.py',
    '../_base_/schedules/sgd_100e_imagenet.py',
    '../_base_/default_runtime.py',
]

first = _base_.student
second = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='MobileNetV2'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=1280),
)

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[first, second],
    distiller=dict(type='MFEFDistiller', ramp_up_epochs=25),
)
