custom_hooks = [
    dict(type='mmrazor.ChannelsLastHook'),
    dict(type='mmrazor.ContinuedScheduleHook'),
    dict(type='mmrazor.DataCheckHook'),
    dict(type='mmrazor.EpochSeedHook'),
    dict(type='mmrazor.RampUpHook'),
    dict(type='mmrazor.DistillerUpdateHook'),
    dict(type='mmrazor.FiniteHook'),
    dict(type='mmrazor.PlainLogHook'),
    dict(type='mmrazor.ProgressHook'),
    dict(type='mmrazor.ResultsHook'),
    dict(type='mmrazor.SignalHook'),
]
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'mfef_mmrazor',
    ])
data_preprocessor = dict(
    mean=[
        78.0,
        78.0,
        78.0,
    ],
    num_classes=10,
    std=[
        96.0,
        96.0,
        96.0,
    ],
    type='mmpretrain.ClsDataPreprocessor')
default_hooks = dict(
    checkpoint=dict(
        interval=10, max_keep_ckpts=2, type='mmrazor.SafeCheckpointHook'),
    logger=dict(interval=50, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'))
default_scope = 'mmpretrain'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
launcher = 'none'
load_from = None
log_level = 'INFO'
model = dict(
    _scope_='mmrazor',
    data_preprocessor=dict(
        mean=[
            78.0,
            78.0,
            78.0,
        ],
        num_classes=10,
        std=[
            96.0,
            96.0,
            96.0,
        ],
        type='mmpretrain.ClsDataPreprocessor'),
    distiller=dict(type='IndependentDistiller'),
    same_initial_weights=False,
    students=[
        dict(
            backbone=dict(depth=8, type='CifarResNet'),
            head=dict(in_channels=64, num_classes=10, type='LinearClsHead'),
            neck=dict(type='GlobalAveragePooling'),
            type='mmpretrain.ImageClassifier'),
        dict(
            backbone=dict(depth=8, type='CifarResNet'),
            head=dict(in_channels=64, num_classes=10, type='LinearClsHead'),
            neck=dict(type='GlobalAveragePooling'),
            type='mmpretrain.ImageClassifier'),
        dict(
            backbone=dict(depth=8, type='CifarResNet'),
            head=dict(in_channels=64, num_classes=10, type='LinearClsHead'),
            neck=dict(type='GlobalAveragePooling'),
            type='mmpretrain.ImageClassifier'),
    ],
    type='OnlineDistill')
model_wrapper_cfg = dict(
    broadcast_buffers=False, device_ids=None, type='MMDistributedDataParallel')
optim_wrapper = dict(
    optimizer=dict(
        lr=0.1, momentum=0.9, nesterov=True, type='SGD', weight_decay=0.0005),
    paramwise_cfg=dict(custom_keys=dict(distiller=dict(decay_mult=0.02))),
    type='OptimWrapper')
param_scheduler = dict(T_max=10, by_epoch=True, type='CosineAnnealingLR')
randomness = dict(seed=0)
resume = False
student = dict(
    backbone=dict(depth=8, type='CifarResNet'),
    head=dict(in_channels=64, num_classes=10, type='LinearClsHead'),
    neck=dict(type='GlobalAveragePooling'),
    type='mmpretrain.ImageClassifier')
test_cfg = dict(type='mmrazor.OnlineDistillTestLoop')
test_dataloader = dict(
    batch_size=256,
    dataset=dict(
        pipeline=[
            dict(scale=16, type='Resize'),
            dict(type='PackInputs'),
        ],
        split='test',
        type='Digits'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(topk=(1, ), type='Accuracy')
test_pipeline = [
    dict(scale=16, type='Resize'),
    dict(type='PackInputs'),
]
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=5)
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        pipeline=[
            dict(scale=16, type='Resize'),
            dict(crop_size=16, padding=2, type='RandomCrop'),
            dict(type='PackInputs'),
        ],
        split='train',
        type='Digits'),
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
train_pipeline = [
    dict(scale=16, type='Resize'),
    dict(crop_size=16, padding=2, type='RandomCrop'),
    dict(type='PackInputs'),
]
val_cfg = dict(type='mmrazor.OnlineDistillValLoop')
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        pipeline=[
            dict(scale=16, type='Resize'),
            dict(type='PackInputs'),
        ],
        split='test',
        type='Digits'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(topk=(1, ), type='Accuracy')
vis_backends = [
    dict(type='LocalVisBackend'),
]
visualizer = dict(
    type='Visualizer', vis_backends=[
        dict(type='LocalVisBackend'),
    ])
