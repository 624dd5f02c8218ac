"""Channels of the recorded maps, as the config gives them, and checks against the maps."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def one_per_student(in_channels: int | Sequence[int], num_students: int) -> list[int]:
    """Channels of each student's recorded map, from one number for all or a list.

    Raises:
        ValueError: It is neither, or the list names another number of students.
    """
    if isinstance(in_channels, int):
        return [in_channels] * num_students
    if not isinstance(in_channels, Sequence) or not all(isinstance(c, int) for c in in_channels):
        raise ValueError(
            f'in_channels={in_channels!r}, expected the number of channels, or one for each student'
        )
    if len(in_channels) != num_students:
        raise ValueError(
            f'in_channels={list(in_channels)} names {len(in_channels)} students, '
            f'but there are {num_students}'
        )
    return list(in_channels)


def stages_per_student(
    in_channels: Sequence[int] | Sequence[Sequence[int]], stages: int, num_students: int
) -> list[list[int]]:
    """Channels of the recorded maps of each student's stages, from one list for all or one each.

    Raises:
        ValueError: It is not a number for each stage, or names another number of students.
    """
    given: list[Any] = list(in_channels) if isinstance(in_channels, Sequence) else [in_channels]
    one_each = all(isinstance(own, Sequence) for own in given)
    found = [list(own) for own in (given if one_each else [given] * num_students)]
    whole = all(isinstance(c, int) for own in found for c in own)
    if len(found) != num_students or {len(own) for own in found} != {stages} or not whole:
        raise ValueError(
            f'in_channels={in_channels!r}, expected the channels of {stages} stages, such as '
            f'{[16, 32, 64][:stages]}, or such a list for each of the {num_students} students'
        )
    return found


def stages_of_all(
    in_channels: Sequence[int] | Sequence[Sequence[int]], stages: int, num_students: int
) -> list[int]:
    """Channels of the recorded maps of the stages, for methods that compare whole maps.

    Raises:
        ValueError: It is not a number for each stage, or not the same for all students.
    """
    first, *others = stages_per_student(in_channels, stages, num_students)
    if any(channels != first for channels in others):
        raise ValueError(
            f'in_channels={in_channels!r}: whole maps can be compared only where all students '
            'have the same channels'
        )
    return first


def check_maps(
    maps: Sequence[Tensor], in_channels: Sequence[int], record: str = 'feature', first: int = 0
) -> None:
    """Raise a ``ValueError`` for the first map whose shape is not (B, C, H, W) with its channels.

    The maps are those of the students from number ``first`` on.
    """
    for i, (x, channels) in enumerate(zip(maps, in_channels, strict=True), first):
        announced = (
            f'the recorded {record} of student{i} is {tuple(x.shape)}, but in_channels='
            f'{list(in_channels)} stands for a map of (batch, {channels}, height, width)'
        )
        if x.dim() != 4:
            raise ValueError(
                f"{announced}; record one by recorders=dict({record}=dict(type='ModuleOutputs', "
                'source=...)), source being the last module of the student that gives a map'
            )
        if x.shape[1] != channels:
            raise ValueError(
                f'{announced}; set in_channels to what is recorded, {x.shape[1]} for this student'
            )
