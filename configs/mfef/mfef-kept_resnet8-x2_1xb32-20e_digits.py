_base_ = ['mfef_resnet8-x2_1xb32-20e_digits.py']

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
