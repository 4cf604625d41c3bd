"""weftctl: arguments in, tables, YAML or JSON out. Decides nothing that the admin API decides.

Imports of what is slow to load (grpc, aetcd, the model) happen inside the commands that need it."""
