student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarShuffleNetV1'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=960),
)
