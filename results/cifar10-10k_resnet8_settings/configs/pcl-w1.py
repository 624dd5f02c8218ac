augmentation = [
    dict(
        crop_size=40,
        pad_if_needed=True,
        padding_mode='reflect',
        type='RandomCrop'),
    dict(crop_size=32, type='RandomCrop'),
    dict(direction='horizontal', prob=0.5, type='RandomFlip'),
]
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
        125.307,
        122.961,
        113.8575,
    ],
    std=[
        51.5865,
        50.847,
        51.255,
    ],
    to_rgb=True,
    type='mmpretrain.SelfSupDataPreprocessor')
data_root = 'data/cifar10_folder'
default_hooks = dict(
    checkpoint=dict(
        interval=1, max_keep_ckpts=2, type='mmrazor.SafeCheckpointHook'),
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
load = dict(imdecode_backend='cv2', type='LoadIntactImage')
load_from = None
log_level = 'INFO'
model = dict(
    _scope_='mmrazor',
    data_preprocessor=dict(
        mean=[
            125.307,
            122.961,
            113.8575,
        ],
        std=[
            51.5865,
            50.847,
            51.255,
        ],
        to_rgb=True,
        type='mmpretrain.SelfSupDataPreprocessor'),
    distiller=dict(
        in_channels=64,
        loss_peers=dict(loss_weight=1, type='KLDivergence'),
        loss_transfer=dict(loss_weight=1, type='KLDivergence'),
        num_classes=10,
        ramp_up_epochs=3,
        type='PCLDistiller'),
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
    ],
    type='OnlineDistill')
model_wrapper_cfg = dict(
    broadcast_buffers=False, device_ids=None, type='MMDistributedDataParallel')
optim_wrapper = dict(
    optimizer=dict(
        lr=0.1, momentum=0.9, nesterov=True, type='SGD', weight_decay=0.0005),
    paramwise_cfg=dict(custom_keys=dict(distiller=dict(decay_mult=0.02))),
    type='mmrazor.BFloat16OptimWrapper')
pack = dict(type='PackInputs')
param_scheduler = dict(T_max=12, by_epoch=True, type='CosineAnnealingLR')
randomness = dict(seed=0)
resume = False
student = dict(
    backbone=dict(depth=8, type='CifarResNet'),
    head=dict(in_channels=64, num_classes=10, type='LinearClsHead'),
    neck=dict(type='GlobalAveragePooling'),
    type='mmpretrain.ImageClassifier')
test_cfg = dict(type='mmrazor.OnlineDistillTestLoop')
test_dataloader = dict(
    batch_size=250,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_prefix='test',
        data_root='data/cifar10_folder',
        num_classes=10,
        pipeline=[
            dict(imdecode_backend='cv2', type='LoadIntactImage'),
            dict(type='PackInputs'),
        ],
        type='ImageFolder'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(topk=(1, ), type='Accuracy')
test_pipeline = [
    dict(imdecode_backend='cv2', type='LoadIntactImage'),
    dict(type='PackInputs'),
]
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=12)
train_dataloader = dict(
    batch_size=128,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_prefix='train',
        data_root='data/cifar10_folder',
        num_classes=10,
        pipeline=[
            dict(imdecode_backend='cv2', type='LoadIntactImage'),
            dict(
                num_views=[
                    2,
                ],
                transforms=[
                    [
                        dict(
                            crop_size=40,
                            pad_if_needed=True,
                            padding_mode='reflect',
                            type='RandomCrop'),
                        dict(crop_size=32, type='RandomCrop'),
                        dict(
                            direction='horizontal',
                            prob=0.5,
                            type='RandomFlip'),
                    ],
                ],
                type='MultiView'),
            dict(type='PackInputs'),
        ],
        type='ImageFolder'),
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
train_pipeline = [
    dict(imdecode_backend='cv2', type='LoadIntactImage'),
    dict(
        crop_size=40,
        pad_if_needed=True,
        padding_mode='reflect',
        type='RandomCrop'),
    dict(crop_size=32, type='RandomCrop'),
    dict(direction='horizontal', prob=0.5, type='RandomFlip'),
    dict(type='PackInputs'),
]
val_cfg = dict(fp16=True, type='mmrazor.OnlineDistillValLoop')
val_dataloader = dict(
    batch_size=250,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_prefix='held_out',
        data_root='data/cifar10_folder',
        num_classes=10,
        pipeline=[
            dict(imdecode_backend='cv2', type='LoadIntactImage'),
            dict(type='PackInputs'),
        ],
        type='ImageFolder'),
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
