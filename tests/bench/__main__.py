"""`make bench`: every benchmark beside its rival, printed and written to bench/latest.json."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import tests.bench
from tests.bench.result import Result

REPORT = Path("bench/latest.json")


def benchmarks() -> dict[str, Callable[[], list[Result]]]:
    found: dict[str, Callable[[], list[Result]]] = {}
    for module in pkgutil.iter_modules(tests.bench.__path__):
        if module.name.startswith("bench_"):
            found.update(importlib.import_module(f"tests.bench.{module.name}").BENCHMARKS)
    return dict(sorted(found.items()))


def main(arguments: list[str]) -> int:
    available = benchmarks()
    unknown = [name for name in arguments if name not in available]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(available)}", file=sys.stderr)
        return 2
    results: list[Result] = []
    for name in arguments or available:
        print(f"== {name}", flush=True)
        for result in available[name]():
            results.append(result)
            print(
                f"   {result.name}: {result.ours:.4g} {result.unit}; {result.rival_name}: {result.rival:.4g} "
                f"{result.unit}; ratio {result.ratio:.3f}; goal {result.goal}: {'met' if result.met else 'NOT MET'}"
                + (f" ({result.spread})" if result.spread else ""),
                flush=True,
            )
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps([result.as_json() for result in results], indent=2) + "\n")
    print(f"written to {REPORT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
