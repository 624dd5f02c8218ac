_base_ = ['mfef_resnet8-x2_1xb128-20e_cifar10-folder.py']

# the extraction stays in the students' own path, and is deployed with them
student = _base_.student
student.neck = [
    dict(type='MultiScaleNeck', in_channels=64),
    dict(type='GlobalAveragePooling'),
]

model = dict(
    students=[student, student],
    distiller=dict(
        in_channels=64,
        multi_scale=None,
        attention=None,
        recorders=dict(feature=dict(type='ModuleOutputs', source='neck.0')),
    ),
)
