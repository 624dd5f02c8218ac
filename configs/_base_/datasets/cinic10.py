# CINIC-10 as unpacked: {data_root}/{train,valid,test}/<class>/*.png, 90,000 pictures each. This one
# trains on `train`; cinic10_trainvalid.py on `train` and `valid`. Say which when quoting a figure.
# The test images contain those of CIFAR-10: never start from weights trained on CIFAR-10.
data_root = 'data/cinic10'
data_hint = (
    'CINIC-10 is at https://datashare.ed.ac.uk/handle/10283/3192 (CINIC-10.tar.gz); unpack it so '
    'that data_root has the folders train, valid and test.'
)
data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=10,
    mean=[122.118, 120.431, 109.771],
    std=[61.725, 60.762, 65.981],
    to_rgb=True,
)
train_pipeline = [
    dict(type='LoadIntactImage'),
    # the first one only pads by 4 on every side (mmpretrain's `padding` knows no reflection)
    dict(type='RandomCrop', crop_size=40, pad_if_needed=True, padding_mode='reflect'),
    dict(type='RandomCrop', crop_size=32),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadIntactImage'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    dataset=dict(
        type='ImageFolder',
        data_root=data_root,
        data_prefix='train',
        num_classes=10,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=2,
    dataset=dict(
        type='ImageFolder',
        data_root=data_root,
        data_prefix='test',
        num_classes=10,
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
