_base_ = [
    '../_base_/datasets/cifar100.py',
    '../_base_/models/mobilenet-v2-x0.5-repdistiller_cifar.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

student = _base_.student
student.head.num_classes = 100
teacher = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='WideResNet', depth=16, widen_factor=2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=128),
)

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[student, teacher],
    distiller=dict(type='SwitOKDDistiller'),
)
# the original's: 0.1 for the teacher, 0.01 for MobileNetV2
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(architecture=dict(lr_mult=0.1))))
