"""The words weftctl uses for errors and results; calicoctl's where it has some. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from weft.model.errors import AlreadyExistsError, ConflictError, NotFoundError, ValidationError, WeftError

PAST = {"apply": "applied", "create": "created", "replace": "replaced", "delete": "deleted"}


def describe(error: WeftError) -> str:
    """One line that says what is wrong and, for a document, where and what would be right."""
    match error:
        case ValidationError():
            where = f"{error.source}, document {error.document + 1}: " if error.source else ""
            field = f"{error.field}: " if error.field else ""
            found = "" if error.value is None else f"{error.value!r} is not valid: "
            return f"{where}{field}{found}{error.expected}"
        case NotFoundError():
            return f"resource does not exist: {error.key}"
        case AlreadyExistsError():
            return f"resource already exists: {error.key}"
        case ConflictError():
            return f"update conflict: {error.key}: it was changed since; get it again to change it"
        case _:
            return str(error)


def summary(verb: str, kinds: Sequence[str], done: int, failures: Sequence[str]) -> str:
    """What happened to the resources of these kinds, one line and one more for each failure.

    Those that are neither done nor failed were not tried."""
    kind = kinds[0] if len(set(kinds)) == 1 else ""
    of_kind = f"'{kind}' " if kind else ""
    if not failures:
        return f"Successfully {PAST[verb]} {done} {of_kind}resource(s)"
    if len(kinds) == 1:
        return f"Failed to {verb} {of_kind}resource: {failures[0]}"
    head = f"Partial success: {PAST[verb]} {done} out of {len(kinds)} {of_kind}resources:"
    if not done:
        head = f"Failed to {verb} any {of_kind}resources:"
    left = len(kinds) - done - len(failures)
    tail = [f"  {left} more were not tried"] if left else []
    return "\n".join([head, *(f"  {failure}" for failure in failures), *tail])
