"""Requests that steps make from the gateway's side, and which addresses they may reach."""

from sandgate.workflows.requests.egress import Egress
from sandgate.workflows.requests.steps import HttpSteps

__all__ = ["Egress", "HttpSteps"]
