"""Calico's published cases are its own text, kept outside: collected where CALICO_SOURCE says where they are."""

import os

collect_ignore = [] if os.environ.get("CALICO_SOURCE") else ["test_calico_cases.py"]
