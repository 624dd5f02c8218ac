# Tiny ImageNet, 200 classes of 64x64, as its archive is. Its test images have no labels; `val` is
# what is scored.
data_root = 'data/tiny-imagenet-200'
data_hint = (
    'Tiny ImageNet is at http://cs231n.stanford.edu/tiny-imagenet-200.zip; unpacked, data_root has '
    'train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt.'
)
data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=200,
    mean=[122.461, 114.258, 101.364],
    std=[70.492, 68.560, 71.805],
    to_rgb=True,
)
train_pipeline = [
    dict(type='LoadIntactImage'),
    # the first one only pads by 8 on every side (mmpretrain's `padding` knows no reflection)
    dict(type='RandomCrop', crop_size=80, pad_if_needed=True, padding_mode='reflect'),
    dict(type='RandomCrop', crop_size=64),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadIntactImage'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    dataset=dict(
        type='TinyImageNet',
        data_root=data_root,
        split='train',
        num_classes=200,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    dataset=dict(type='TinyImageNet', data_root=data_root, split='val', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
