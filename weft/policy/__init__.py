"""Which policies and rules apply to an endpoint, in which order, and what becomes of a flow.

Pure: felix renders these values into the kernel, `explain` evaluates them. Both use the same values, so
that what is explained is what is enforced."""
