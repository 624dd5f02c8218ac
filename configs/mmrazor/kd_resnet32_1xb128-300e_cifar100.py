_base_ = [
    '../_base_/datasets/cifar100.py',
    '../_base_/models/resnet32_cifar.py',
    '../_base_/distillers/kd.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/single_runtime.py',
]

_base_.student.head.num_classes = 100
student = dict(_base_.student, _scope_='mmpretrain')
teacher = dict(student, backbone=dict(type='CifarResNet', depth=110))

model = dict(
    _scope_='mmrazor',
    type='SingleTeacherDistill',
    data_preprocessor=_base_.data_preprocessor,
    architecture=student,
    teacher=teacher,
    teacher_ckpt='work_dirs/alone_resnet110_1xb128-300e_cifar100/epoch_300.pth',
    distiller=_base_.distiller,
)
