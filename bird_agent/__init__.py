"""bird_agent: the BGP agent."""
