# CIFAR-10 as image files, with an augmentation of its own for each of two students.
_base_ = ['cifar10_folder.py']
data_preprocessor = dict(
    _delete_=True,
    type='mmpretrain.SelfSupDataPreprocessor',  # takes a list of views
    mean=_base_.data_preprocessor.mean,
    std=_base_.data_preprocessor.std,
    to_rgb=_base_.data_preprocessor.to_rgb,
)
load, *augmentation, pack = _base_.train_pipeline
train_dataloader = dict(
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        pipeline=[load, dict(type='MultiView', num_views=[2], transforms=[augmentation]), pack]
    ),
)
val_dataloader = dict(collate_fn=dict(type='default_collate'))
test_dataloader = val_dataloader
