"""What every model of the API is."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Builds what it checks and writes with when it is first used: of all models that takes as long as a start does."""

    model_config = ConfigDict(defer_build=True)
