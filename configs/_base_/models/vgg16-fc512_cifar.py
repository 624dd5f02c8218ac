student = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarVGG', depth=16),
    neck=dict(type='GlobalMaxPooling'),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=10,
        in_channels=512,
        mid_channels=[512, 512],
        dropout_rate=0.5,
    ),
)
