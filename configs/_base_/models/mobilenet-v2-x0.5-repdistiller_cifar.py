student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarMobileNetV2', widen_factor=0.5, variant='repdistiller'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=1280),
)
