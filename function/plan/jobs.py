"""How a provider's Jobs run: the Composition's defaults, and what the provider says over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from function import names
from function.resources.job import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from function.backends.base import Backend
    from function.model import Jobs, MemoryInput
    from function.state import Provider


def settings_of(settings: MemoryInput, provider: Provider) -> Jobs:
    """The provider's fields over the Composition's."""
    given = provider.spec.jobs.model_dump(exclude_none=True)
    return settings.jobs.model_copy(update={name: getattr(provider.spec.jobs, name) for name in given})


def service_account(settings: MemoryInput, provider: Provider) -> str:
    """The account that the Jobs run as: a named one, or that which the provider composes."""
    named = provider.spec.jobs.service_account_name or settings.jobs.service_account_name
    return named or names.provider_object(provider.name)


def task(  # noqa: PLR0913 - each is another Secret, and all are names
    command: Literal["provision", "probe", "reap", "maintain"],
    settings: MemoryInput,
    provider: Provider,
    backend: Backend,
    *,
    request: str,
    admin: str | None,
    ca: str | None,
    logins: tuple[str, Mapping[str, str]] | None = None,
) -> Task:
    """Give one run of the migrations image, or of the backend's own."""
    return Task(
        command=command,
        image=backend.image or settings.migrations.image,
        jobs=settings_of(settings, provider),
        service_account=service_account(settings, provider),
        request=request,
        admin=admin,
        ca=ca,
        config=backend.config_secret,
        logins=logins,
        is_ours=backend.image is None,
    )
