"""What environments can be made from."""

from sandgate.core import errors
from sandgate.environments.base import Templates
from sandgate.http.api import Api
from sandgate.http.authentication import Caller
from sandgate.http.models.environments import TemplateAnswer, TemplatesAnswer
from sandgate.http.paths import TemplatePath

_TEMPLATES = "/api/v1/sandbox/templates"
_TAG = "templates"


def add_template_routes(api: Api, templates: Templates) -> None:
    """Declare the operations."""

    @api.operation("GET", _TEMPLATES, tag=_TAG)
    async def list_templates(caller: Caller) -> TemplatesAnswer:  # noqa: ARG001 - everybody with a credential
        """List all templates by name, with the reason where one cannot be used on this machine."""
        return TemplatesAnswer(templates=[TemplateAnswer.of(template) for template in templates.list()])

    @api.operation("GET", f"{_TEMPLATES}/{{name}}", tag=_TAG, errors=(errors.TemplateNotFound,))
    async def get_template(caller: Caller, name: TemplatePath) -> TemplateAnswer:  # noqa: ARG001 - as above
        """Get one template."""
        return TemplateAnswer.of(templates.get(name))
