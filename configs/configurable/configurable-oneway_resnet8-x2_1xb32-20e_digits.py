# What no class here does: one direction, one of mmrazor's losses for the logits and another for the
# maps of a hidden stage. student1 learns from student0; student0 learns from its labels alone.
_base_ = [
    '../_base_/datasets/digits.py',
    '../_base_/models/resnet8_cifar.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmrazor',
    type='OnlineDistill',
    data_preprocessor=_base_.data_preprocessor,
    students=[_base_.student, _base_.student],
    distiller=dict(
        type='ConfigurableOnlineDistiller',
        recorders=dict(stage2=dict(type='ModuleOutputs', source='backbone.layer2')),
        distill_losses=dict(
            loss_relations=dict(type='DISTLoss', tau=4.0),
            loss_hidden=dict(type='ATLoss', loss_weight=100.0),
        ),
        loss_forward_mappings=dict(
            loss_relations=dict(
                logits_S=dict(recorder='logits', student=1),
                logits_T=dict(recorder='logits', student=0, detach=True),
            ),
            loss_hidden=dict(
                s_feature=dict(recorder='stage2', student=1),
                t_feature=dict(recorder='stage2', student=0, detach=True),
            ),
        ),
        ramped_losses=['loss_relations', 'loss_hidden'],
        ramp_up_epochs=5,
    ),
)
