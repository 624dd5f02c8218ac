# Fashion-MNIST through mmpretrain, which downloads it to `data_root` if it is not there. The grey
# channel becomes three when the three means are subtracted from it.
data_root = 'data/fashion_mnist'
data_hint = (
    'Debian and Ubuntu have it as a package: "apt-get install dataset-fashion-mnist", then copy '
    '/usr/share/datasets/fashion-mnist/*.gz into data_root and gunzip them there.'
)
data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor', num_classes=10, mean=[72.94] * 3, std=[90.02] * 3
)
train_pipeline = [
    # the first one only pads by 4 on every side (mmpretrain's `padding` knows no reflection)
    dict(type='RandomCrop', crop_size=36, pad_if_needed=True, padding_mode='reflect'),
    dict(type='RandomCrop', crop_size=28),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    dataset=dict(type='FashionMNIST', data_root=data_root, split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    dataset=dict(
        type='FashionMNIST',
        data_root=data_root,
        split='test',
        test_mode=True,  # without it mmpretrain 1.2 loads the training images, whatever the split
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
