"""What may be named how, and how much of everything there may be, in one place for parser and schema."""

from sandgate.core.workflow import StepType

STEP_NAME = r"[A-Za-z][A-Za-z0-9_-]{0,62}"
INPUT_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,62}"
VARIABLE_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
LANGUAGE = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
HEADER_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}"
# Printable characters, no space at the ends.
WORKFLOW_NAME = r"[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,126}[^\s\x00-\x1f\x7f])?"
WORKFLOW_ID = r"workflow-[0-9a-z]{1,64}"
SELF = "self"
"""What a step that starts a workflow calls its own."""

STEP_NAME_RULE = "1 to 63 letters, digits, _ and -, and start with a letter"
INPUT_NAME_RULE = "1 to 63 letters, digits, _ and -, and start with a letter or _"
LANGUAGE_RULE = "the name of a language of the template, as bash or javascript"
WORKFLOW_NAME_RULE = "1 to 128 printable characters, no space at the ends"
WORKFLOW_ID_RULE = "the id of a workflow, as in workflow-…, or self; expressions are not for it"
"""The patterns in words, as the end of a sentence that begins with "has to be"."""

RESERVED_VARIABLES = "SANDGATE_"

MAX_DEFINITION_BYTES = 1024 * 1024
MAX_DEPTH = 48
MAX_STEPS = 500
MAX_NEEDS = 10_000
MAX_EXPRESSIONS = 5000
MAX_INPUTS = 100
MAX_OUTPUTS = 100
MAX_VARIABLES = 100
MAX_HEADERS = 100
MAX_STATUSES = 50
MAX_APPROVERS = 50
MAX_ITEMS = 1000
MAX_PARALLEL = 1000
MAX_ATTEMPTS = 100
MAX_DESCRIPTION = 2000
MAX_GROUP = 256
MAX_ADDRESS = 8192
MAX_LABEL = 128
MAX_NAME = 128
MAX_CONCURRENCY = 1000

SHORTEST_TIMEOUT_S = 0.1
LONGEST_WORK_S = 86_400
LONGEST_WAIT_S = 366 * 86_400
LONGEST_SLEEP_S = 31 * 86_400
LONGEST_DELAY_S = 86_400
LARGEST_BACKOFF = 100

WORKING_TYPES = frozenset({StepType.CODE_EXECUTION, StepType.HTTP})
"""Steps that do work of their own; only for these there are defaults of time limit and retry."""

RETRIED_TYPES = WORKING_TYPES | {StepType.WORKFLOW}
"""Steps that may be tried again."""

HTTP_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OWN_HEADERS = (
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
"""What a request's headers may not say: the connection is the service's own."""

RETRY_REASONS = ("failed", "timed_out", "out_of_memory", "output_limit", "lost")
RETRY_ATTEMPTS = 3
"""How often a step is tried whose ``retry`` does not say it."""

STEP_FIELDS = ("status", "outputs", "error")
"""What an expression may ask of a step."""

RUN_FIELDS = ("id", "workflow_id", "started_at", "scheduled_at")
"""What an expression may ask of the run."""
