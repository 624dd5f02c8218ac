_base_ = [
    '../_base_/datasets/cifar10_folder.py',
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
        distill_losses=dict(loss_mutual=dict(type='KLDivergence', tau=1.0)),
        loss_forward_mappings=dict(
            loss_mutual=dict(
                preds_S=dict(recorder='logits', student='i'),
                preds_T=dict(recorder='logits', student='j', detach=True),
            )
        ),
    ),
)
