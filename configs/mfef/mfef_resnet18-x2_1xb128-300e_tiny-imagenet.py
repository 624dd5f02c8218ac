_base_ = [
    '../_base_/datasets/tiny_imagenet.py',
    '../_base_/models/resnet18_imagenet.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

student = _base_.student
student.backbone.type = 'ResNet_CIFAR'  # a 3x3 stem and no pooling, for 64x64: last map of 8x8
student.head.num_classes = 200

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[student, student],
    distiller=dict(type='MFEFDistiller'),
)
