"""AnyObjective: every objective by the name that a recipe gives.

Source: tamis design. The type is the registry.
"""

from typing import Annotated

from pydantic import Field

from tamis.training.objectives.weighted import Summand, Weighted

AnyObjective = Annotated[Summand | Weighted, Field(discriminator="method")]
