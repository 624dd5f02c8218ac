import torch
from mmpretrain.structures import DataSample
from reference import LABELS, records

from mfef_mmrazor.models import IndependentDistiller, OnlineDistill

STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)


def test_nobody_teaches():
    for students in (2, 3, 4):
        distiller = IndependentDistiller(num_students=students)
        assert distiller.compute_distill_losses(records(students), LABELS) == {}
        assert distiller.fused_logits(records(students)) is None
        assert not list(distiller.parameters())


def test_each_student_gets_the_gradient_it_would_get_alone():
    torch.manual_seed(0)
    model = OnlineDistill(students=[STUDENT] * 3, distiller=dict(type='IndependentDistiller'))
    inputs, samples = torch.randn(4, 3, 16, 16), [DataSample().set_gt_label(i) for i in range(4)]
    losses = model.loss(inputs, samples)
    assert sorted(losses) == ['student0.loss', 'student1.loss', 'student2.loss']
    sum(losses.values()).backward()
    for student in model.students:
        together = [p.grad.clone() for p in student.parameters()]
        student.zero_grad()
        student.loss(inputs, samples)['loss'].backward()
        for parameter, gradient in zip(student.parameters(), together, strict=True):
            assert torch.equal(parameter.grad, gradient)
