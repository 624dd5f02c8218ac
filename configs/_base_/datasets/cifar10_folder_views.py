# CIFAR-10 as image files, with an augmentation of its own for each of two students.
_base_ = ['cifar10_folder.py']
data_preprocessor = dict(
    _delete_=True,
    type='mmpretrain.SelfSupDataPreprocessor',  # takes a list of views
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)
view = [
    # the first one only pads by 4 on every side (mmpretrain's `padding` knows no reflection)
    dict(type='RandomCrop', crop_size=40, pad_if_needed=True, padding_mode='reflect'),
    dict(type='RandomCrop', crop_size=32),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
train_dataloader = dict(
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        pipeline=[
            dict(type='LoadIntactImage', imdecode_backend='cv2'),
            dict(type='MultiView', num_views=[2], transforms=[view]),
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(collate_fn=dict(type='default_collate'))
test_dataloader = val_dataloader
