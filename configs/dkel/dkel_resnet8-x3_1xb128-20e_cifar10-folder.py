_base_ = [
    '../_base_/datasets/cifar10_folder_views.py',
    '../_base_/models/resnet8_cifar.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/default_runtime.py',
]

# a view for each student
load, *augmentation, pack = _base_.train_pipeline
views = dict(type='MultiView', num_views=[3], transforms=[augmentation])
train_dataloader = dict(dataset=dict(pipeline=[load, views, pack]))

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[_base_.student, _base_.student, _base_.student],
    distiller=dict(type='DKELDistiller', momentum=0.005, ramp_up_epochs=5),
)
