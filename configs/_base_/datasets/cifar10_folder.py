# CIFAR-10 as image files: {data_root}/{train,test}/<class>/*.jpg (or .png).
data_root = 'data/cifar10_folder'
data_preprocessor = dict(
    type='mmpretrain.ClsDataPreprocessor',
    num_classes=10,
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)
train_pipeline = [
    # Pillow would be slower; OpenCV before 5 lets a truncated jpg pass
    dict(type='LoadIntactImage', imdecode_backend='cv2'),
    # the first one only pads by 4 on every side (mmpretrain's `padding` knows no reflection)
    dict(type='RandomCrop', crop_size=40, pad_if_needed=True, padding_mode='reflect'),
    dict(type='RandomCrop', crop_size=32),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadIntactImage', imdecode_backend='cv2'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=0,  # files this small are read faster than workers can hand them over
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
    num_workers=0,
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
