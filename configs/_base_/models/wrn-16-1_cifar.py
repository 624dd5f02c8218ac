student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='WideResNet', depth=16, widen_factor=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
