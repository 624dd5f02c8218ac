_base_ = [
    '../_base_/datasets/cifar100.py',
    '../_base_/models/resnet8_cifar.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

student = _base_.student
student.head.num_classes = 100

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[student, student],
    distiller=dict(type='MFEFDistiller'),
)
