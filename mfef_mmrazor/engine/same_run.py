"""What a run that is resumed must have in common with the run that was stopped."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner

from .unwrap import unwrapped

# what a run is made of, and how a message calls it
PARTS = {
    'method': 'method',
    'students': 'students',
    'batch_size': 'batch size of each process',
    'processes': 'number of processes',
}


def identity(runner: Runner) -> dict[str, Any]:
    """Method, students, batch size and number of processes of a run, as plain values."""
    model = unwrapped(runner.model)
    distiller = getattr(model, 'distiller', None)
    students = getattr(model, 'students', [model])
    return dict(
        method=' with '.join(type(x).__name__ for x in (model, distiller) if x is not None),
        students=[
            f'{type(getattr(student, "backbone", student)).__name__} of '
            f'{sum(p.numel() for p in student.parameters())} parameters'
            for student in students
        ],
        batch_size=runner.train_dataloader.batch_size,
        processes=get_world_size(),
    )


def changed(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The parts of a run that are not as they were; what an older checkpoint lacks is as it was.

    Example:
        >>> changed(dict(batch_size=32), dict(batch_size=16, processes=2))
        ['batch_size']
    """
    return [part for part in PARTS if part in was and was[part] != now[part]]


def check_same(was: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise if a run would go on as another one.

    Raises:
        ValueError: Names what was, what is, and how to go on in spite of it.

    Example:
        >>> check_same(dict(batch_size=32, processes=1), dict(batch_size=32, processes=2))
        Traceback (most recent call last):
        ...
        ValueError: the run to resume had number of processes 1, this one has 2; restore it, or \
allow it with --cfg-options default_hooks.checkpoint.allow_changes=True
    """
    unlike = [f'{PARTS[part]} {was[part]}, this one has {now[part]}' for part in changed(was, now)]
    if unlike:
        raise ValueError(
            f'the run to resume had {"; ".join(unlike)}; restore it, or allow it with '
            '--cfg-options default_hooks.checkpoint.allow_changes=True'
        )
