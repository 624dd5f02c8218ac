# FitNets, in one stage: the student's second stage learns the teacher's, through a regressor.
distiller = dict(
    type='ConfigurableDistiller',
    student_recorders=dict(hint=dict(type='ModuleOutputs', source='backbone.layer2')),
    teacher_recorders=dict(hint=dict(type='ModuleOutputs', source='backbone.layer2')),
    connectors=dict(regressor=dict(type='MapAdapter', in_channels=32, out_channels=32)),
    # with `normalize` it could not take maps in channels_last
    distill_losses=dict(loss_hint=dict(type='L2Loss', normalize=False, div_element=True)),
    loss_forward_mappings=dict(
        loss_hint=dict(
            s_feature=dict(recorder='hint', from_student=True, connector='regressor'),
            t_feature=dict(recorder='hint', from_student=False),
        ),
    ),
)
