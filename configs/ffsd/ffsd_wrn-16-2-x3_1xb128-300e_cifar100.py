_base_ = [
    '../_base_/datasets/cifar100.py',
    '../_base_/models/wrn-16-2_cifar.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

student = _base_.student
student.head.num_classes = 100

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[student, student, student],
    distiller=dict(
        type='FFSDDistiller',
        in_channels=[32, 64, 128],
        recorders=dict(
            stage1=dict(type='ModuleOutputs', source='backbone.stages.0'),
            stage2=dict(type='ModuleOutputs', source='backbone.stages.1'),
        ),
    ),
)
