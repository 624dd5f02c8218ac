_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/models/resnet8_cifar.py',
    '../_base_/distillers/kd.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/single_runtime.py',
]

student = dict(_base_.student, _scope_='mmpretrain')
teacher = dict(student, backbone=dict(type='CifarResNet', depth=20))

model = dict(
    _scope_='mmrazor',
    type='SingleTeacherDistill',
    data_preprocessor=_base_.data_preprocessor,
    architecture=student,
    teacher=teacher,
    teacher_ckpt='work_dirs/alone_resnet20_1xb128-20e_cifar10-folder/epoch_20.pth',
    distiller=_base_.distiller,
)
