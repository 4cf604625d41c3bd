"""Hundreds to thousands of BGP sessions in one process that do what they are told: the other side of benches and
simulations. `driver.Speakers` is the way in."""
