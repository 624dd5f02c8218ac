# Your own images. What to change is in image_folder.py; how, in the README.md next to that.
_base_ = [
    '../_base_/datasets/image_folder.py',
    '../_base_/models/resnet18_imagenet.py',
    '../_base_/schedules/sgd_100e_imagenet.py',
    '../_base_/default_runtime.py',
]

num_classes = _base_.num_classes
student = _base_.student
student.head.num_classes = num_classes

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ClassBalancedDataset',
        oversample_thr=0.5 / num_classes,  # a class with less than half its share is repeated
        dataset=_base_.train_dataloader.dataset,
    )
)
auto_scale_lr = dict(enable=True)

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[student, student],
    distiller=dict(type='MFEFDistiller', ramp_up_epochs=25),
)
