# The digits, with an augmentation of its own for each of two students.
_base_ = ['digits.py']
data_preprocessor = dict(
    _delete_=True,
    type='mmpretrain.SelfSupDataPreprocessor',  # takes a list of views
    mean=[78.0] * 3,
    std=[96.0] * 3,
)
view = [
    dict(type='Resize', scale=16),
    dict(type='RandomCrop', crop_size=16, padding=2),
]
train_dataloader = dict(
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        pipeline=[
            dict(type='MultiView', num_views=[2], transforms=[view]),
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(collate_fn=dict(type='default_collate'))
test_dataloader = val_dataloader
