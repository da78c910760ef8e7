"""Settings: the one base class of everything that can be configured."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tamis.errors import RecipeError


class Settings(BaseModel):
    """Frozen, strict settings; an unknown key is refused.

    A method is a subclass with one verb. Every problem of a constructor call is reported at
    once as a RecipeError with its key path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - the fields of any subclass
        """Validate ``values``.

        Raises:
          RecipeError: one line for each problem: key path, message, value got.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(describe(error, type(self).__name__)) from None

    # Nested settings read from JSON are validated by pydantic itself: in JSON mode, all problems together.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Self:
        """Validate JSON text (arrays are accepted for tuples); ``where`` names it in errors."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RecipeError(describe(error, where)) from None


def describe(error: ValidationError, where: str) -> str:
    """Return one line a problem: ``key.path: message (got value)``."""
    problems = error.errors(include_url=False)
    lines = [f"{where}: {len(problems)} problem(s)"]
    for problem in problems:
        path = ".".join(str(part) for part in problem["loc"]) or "(top)"
        lines.append(f"  {path}: {problem['msg']} (got {problem['input']!r:.80})")
    return "\n".join(lines)
