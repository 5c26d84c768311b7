"""What reg, ldic and ddic share: the settings of a registration, from options and grey levels."""

from __future__ import annotations

import argparse
from typing import Any

from mpidvc.core.grey import Choice
from mpidvc.core.registration import RegistrationSettings

__all__ = ["describe_criterion", "registration_options", "registration_settings"]


def registration_settings(
    args: argparse.Namespace, choice: Choice, rigid: bool, shift: bool = False
) -> RegistrationSettings:
    """The settings of a registration that minimises the criterion chosen."""
    return RegistrationSettings(
        order=args.interpolation_order,
        max_iterations=args.max_iterations,
        min_delta_phi=args.min_delta_phi,
        rigid=rigid,
        update_gradient=args.update_gradient,
        shift=shift,
        criterion=choice.criterion,
        gain=choice.gain,
        bias=choice.bias,
    )


def describe_criterion(choice: Choice) -> str:
    """The line about the criterion and the reason for it."""
    return f"Criterion: {choice.criterion} ({choice.reason})"


def registration_options(settings: RegistrationSettings) -> dict[str, Any]:
    """Settings of a registration, by the names of their options."""
    return {
        "-o": settings.order,
        "-it": settings.max_iterations,
        "-dp": settings.min_delta_phi,
        "-rig": settings.rigid,
        "-ug": settings.update_gradient,
        "-shift": settings.shift,
        "--criterion": [settings.criterion, settings.gain, settings.bias],
    }
