"""Drivers that keep the kernel equal to what the calculation wants; every adapter to the kernel is here."""
