student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='WideResNet', depth=40, widen_factor=2, variant='ffsd'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
)
