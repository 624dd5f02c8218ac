# Be Your Own Teacher: the first two of three stages, each with a small classifier of its own, learn
# the labels, and the logits and pooled map of the last. Sizes are for images of 32 x 32.
branch = dict(
    type='BYOTConnector', out_channel=64, expansion=1, stride=2, pool_size=8, num_classes=10
)
label_loss = dict(type='mmpretrain.CrossEntropyLoss', loss_weight=0.7)
kl_loss = dict(type='KLDivergence', tau=3, loss_weight=0.3)
map_loss = dict(type='L2Loss', normalize=False, dist=True, loss_weight=0.03)
map1 = dict(recorder='stage1', from_student=True, connector='branch1', connector_idx=0)
map2 = dict(recorder='stage2', from_student=True, connector='branch2', connector_idx=0)
labels = dict(recorder='labels', from_student=False, data_idx=1)
last_logits = dict(recorder='fc', from_student=False)
last_map = dict(recorder='pooled', from_student=False, data_idx=0)

distiller = dict(
    type='BYOTDistiller',
    student_recorders=dict(
        stage1=dict(type='ModuleOutputs', source='backbone.layer1'),
        stage2=dict(type='ModuleOutputs', source='backbone.layer2'),
    ),
    teacher_recorders=dict(
        fc=dict(type='ModuleOutputs', source='head.fc'),
        pooled=dict(type='ModuleOutputs', source='neck'),
        labels=dict(type='ModuleInputs', source='head.loss_module'),
    ),
    connectors=dict(branch1=dict(branch, in_channel=16), branch2=dict(branch, in_channel=32)),
    distill_losses=dict(
        loss_label1=label_loss, loss_kl1=kl_loss, loss_map1=map_loss,
        loss_label2=label_loss, loss_kl2=kl_loss, loss_map2=map_loss,
    ),
    loss_forward_mappings=dict(
        loss_label1=dict(cls_score=dict(map1, connector_idx=1), label=labels),
        loss_kl1=dict(preds_S=dict(map1, connector_idx=1), preds_T=last_logits),
        loss_map1=dict(s_feature=map1, t_feature=last_map),
        loss_label2=dict(cls_score=dict(map2, connector_idx=1), label=labels),
        loss_kl2=dict(preds_S=dict(map2, connector_idx=1), preds_T=last_logits),
        loss_map2=dict(s_feature=map2, t_feature=last_map),
    ),
)  # fmt: skip
