_base_ = [
    '../_base_/datasets/cinic10.py',
    '../_base_/models/vgg16_cifar.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[_base_.student, _base_.student, _base_.student],
    distiller=dict(
        type='FFSDDistiller',
        in_channels=[128, 256, 512],
        num_classes=10,
        recorders=dict(
            stage1=dict(type='ModuleOutputs', source='backbone.features.5'),
            stage2=dict(type='ModuleOutputs', source='backbone.features.9'),
        ),
    ),
)
