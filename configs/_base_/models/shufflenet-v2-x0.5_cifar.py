student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarShuffleNetV2', widen_factor=0.5),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=1024),
)
