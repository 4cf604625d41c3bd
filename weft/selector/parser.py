"""Text to syntax tree, in one pass without tokens in between.

The language is that of libcalico-go 3.32.1: only spaces and tabs separate, a string ends at the next quote
of its kind, a double negation vanishes. Trees are limited in depth, so that no text exhausts the stack."""

from __future__ import annotations

import re
from typing import Final, Literal

from weft.selector.nodes import Compare, Everything, Has, Junction, Member, Node, Not

MAX_LABEL_LENGTH: Final = 512
MAX_DEPTH: Final = 100


class SelectorError(ValueError):
    """The text is no selector: at `position` (0 first) there is not what was `expected`."""

    def __init__(self, text: str, position: int, expected: str) -> None:
        self.text = text
        self.position = position
        self.expected = expected
        super().__init__(f"selector {text!r}: expected {expected} at position {position}")


_SPACE: Final = re.compile(r"[ \t]*")
_IDENTIFIER: Final = re.compile(r"[a-zA-Z0-9_./-]+")
_END: Final = r"(?![a-zA-Z0-9_./-])"
_COMPARISON: Final = re.compile(
    rf"==|!=|contains{_END}|starts[ \t]*with[ \t]*{_END}|ends[ \t]*with[ \t]*{_END}|not[ \t]*in[ \t]*{_END}|in{_END}"
)


class Parser:
    """One text; `position` is where reading goes on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self._skip_space()

    def parse(self) -> Node:
        if self.position == len(self.text):
            return Everything("all")
        node = self._junction("||")
        if self.position != len(self.text):
            raise self._error("&&, || or the end")
        return node

    def _error(self, expected: str) -> SelectorError:
        return SelectorError(self.text, self.position, expected)

    def _skip_space(self) -> None:
        found = _SPACE.match(self.text, self.position)
        assert found is not None
        self.position = found.end()

    def _take(self, literal: str) -> bool:
        if not self.text.startswith(literal, self.position):
            return False
        self.position += len(literal)
        self._skip_space()
        return True

    def _junction(self, operator: Literal["&&", "||"]) -> Node:
        """`||` binds loosest; its operands are `&&` junctions, whose operands are terms."""
        operands = []
        while True:
            operands.append(self._junction("&&") if operator == "||" else self._term())
            if not self._take(operator):
                return operands[0] if len(operands) == 1 else Junction(operator, tuple(operands))

    def _term(self) -> Node:
        negated = False
        while self._take("!"):
            negated = not negated
        node = self._positive_term()
        if not negated:
            return node
        return node.operand if isinstance(node, Not) else Not(node)

    def _positive_term(self) -> Node:
        if self._take("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self._error(f"at most {MAX_DEPTH} parentheses inside each other")
            node = self._junction("||")
            self._expect(")")
            self.depth -= 1
            return node
        if self._take("has("):
            label = self._identifier("a label name")
            self._expect(")")
            return Has(label)
        if self._take("all("):
            self._expect(")")
            return Everything("all")
        if self._take("global("):
            self._expect(")")
            return Everything("global")
        return self._condition(self._identifier("a label name, has(), all(), global(), ! or ("))

    def _condition(self, label: str) -> Node:
        found = _COMPARISON.match(self.text, self.position)
        if found is None:
            raise self._error("==, !=, in, not in, contains, starts with or ends with")
        self.position = found.end()
        self._skip_space()
        match re.sub(r"[ \t]", "", found[0]):
            case "==":
                return Compare(label, "==", self._string())
            case "!=":
                return Compare(label, "!=", self._string())
            case "contains":
                return Compare(label, "contains", self._string())
            case "startswith":
                return Compare(label, "starts with", self._string())
            case "endswith":
                return Compare(label, "ends with", self._string())
            case "in":
                return Member(label, "in", self._set())
            case _:
                return Member(label, "not in", self._set())

    def _identifier(self, expected: str) -> str:
        found = _IDENTIFIER.match(self.text, self.position)
        if found is None:
            raise self._error(expected)
        if len(found[0]) > MAX_LABEL_LENGTH:
            raise self._error(f"a label name of at most {MAX_LABEL_LENGTH} characters")
        self.position = found.end()
        self._skip_space()
        return found[0]

    def _string(self) -> str:
        quote = self.text[self.position : self.position + 1]
        if quote not in ("'", '"'):
            raise self._error("a string in quotes")
        end = self.text.find(quote, self.position + 1)
        if end < 0:
            raise SelectorError(self.text, len(self.text), f"the closing {quote}")
        value = self.text[self.position + 1 : end]
        self.position = end + 1
        self._skip_space()
        return value

    def _set(self) -> tuple[str, ...]:
        self._expect("{")
        values: set[str] = set()
        while self.text[self.position : self.position + 1] in ("'", '"') and self.position < len(self.text):
            values.add(self._string())
            if not self._take(","):
                break
        self._expect("}")
        return tuple(sorted(values))

    def _expect(self, literal: str) -> None:
        if not self._take(literal):
            raise self._error(literal)
