student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarVGG', depth=8),
    neck=dict(type='GlobalMaxPooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)
