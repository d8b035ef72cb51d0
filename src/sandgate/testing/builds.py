"""The use cases of templates that are built, with layers that are nowhere but in memory."""

from dataclasses import dataclass
from pathlib import Path

from sandgate.config.settings import Settings
from sandgate.core.clock import Clock
from sandgate.environments.builds.all_templates import AllTemplates
from sandgate.environments.builds.base import BuildTools
from sandgate.environments.builds.running_builds import RunningBuilds
from sandgate.environments.builds.service import TemplateService
from sandgate.environments.service import EnvironmentService
from sandgate.sandbox.base import Runtime
from sandgate.store.base import Store
from sandgate.testing.fake_layers import FakeLayers


@dataclass(frozen=True)
class Builds:
    """The use cases, and what they keep."""

    service: TemplateService
    all_templates: AllTemplates
    layers: FakeLayers


def make_builds(
    store: Store,
    runtime: Runtime,
    all_templates: AllTemplates,
    environments: EnvironmentService,
    clock: Clock,
    settings: Settings,
    logs: Path,
) -> Builds:
    """Of the server that is called ``server``."""
    layers = FakeLayers()
    running = RunningBuilds(
        store.templates, runtime, BuildTools(layers, logs, None), all_templates, clock, settings, None, None
    )
    service = TemplateService(store.templates, all_templates, running, runtime, clock, settings, "server", environments)
    return Builds(service, all_templates, layers)
