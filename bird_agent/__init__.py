"""The BGP agent: sessions, routes learnt and announced, through a supervised ExaBGP."""
