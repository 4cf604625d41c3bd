"""Kernel settings in memory: refuses names that the kernel does not have, and side effects are the kernel's."""

from dataclasses import dataclass, field


@dataclass
class FakeSettings:
    """`values` by path below /proc/sys/net; `read_only` are refused as a container's mount would."""

    values: dict[str, str]
    read_only: frozenset[str] = frozenset()
    written: list[tuple[str, str]] = field(default_factory=list)

    def read(self, name: str) -> str | None:
        return self.values.get(name)

    def write(self, name: str, value: str) -> None:
        if name not in self.values:
            raise FileNotFoundError(2, "No such file or directory", name)
        if name in self.read_only:
            raise OSError(30, "Read-only file system", name)
        self.values[name] = value
        self.written.append((name, value))
        if name.endswith("conf/all/forwarding") or name == "ipv4/ip_forward":
            family = name.split("/")[0]
            for other in self.values:
                if other.startswith(f"{family}/conf/") and other.endswith("/forwarding"):
                    self.values[other] = value

    def interfaces(self, family: str) -> list[str]:
        found = {name.split("/")[2] for name in self.values if name.startswith(f"{family}/conf/")}
        return sorted(found - {"all", "default"})
