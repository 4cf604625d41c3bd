"""The admin API: what every agent serves on its unix socket, and the services behind it.

`v1` below is generated from proto/weft/admin/v1 by scripts/setup and never edited."""
