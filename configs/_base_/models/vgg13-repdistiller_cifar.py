student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarVGG', depth=13, variant='repdistiller'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)
