"""Everything that knows ExaBGP: its launcher with pinned corrections, its configuration, and the speaker link."""
