# What every run shares, without the loops that score it: those are in default_runtime.py. By itself
# it stands beside one of mmpretrain's schedules, which have `val_cfg` and `test_cfg`;
# tools/train.py then scores every student as well.
# `custom_imports` registers the plugin, so a config works from any folder.
custom_imports = dict(imports=['mfef_mmrazor'], allow_failed_imports=False)
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmrazor.SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
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

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_level = 'INFO'
randomness = dict(seed=0)
# under torchrun; mmengine's default device_ids are GPUs, None serves every host
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
load_from = None
resume = False
