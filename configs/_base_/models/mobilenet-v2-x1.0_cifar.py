student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarMobileNetV2'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=1280),
)
