_base_ = [
    '../_base_/datasets/cifar100_views.py',
    '../_base_/models/resnet32_cifar.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

student = _base_.student
student.head.num_classes = 100

# a view for each student and one for the hybrid network
*augmentation, pack = _base_.train_pipeline
views = dict(type='MultiView', num_views=[3], transforms=[augmentation])
train_dataloader = dict(dataset=dict(pipeline=[views, pack]))

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[student, student],
    same_initial_weights=True,
    distiller=dict(type='OKDPHDistiller', label_weight=1.0, transfer_weight=0.5, averaging=1.0),
)
