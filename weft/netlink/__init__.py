"""Talk to the kernel over netlink: sans-IO encoders and decoders, and one small socket adapter."""
