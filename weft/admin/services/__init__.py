"""The gRPC services: each turns messages into calls on a core that knows no gRPC, and back."""
