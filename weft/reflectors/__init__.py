"""Automatic route reflectors: who becomes one, from resources and records alone. Pure."""
