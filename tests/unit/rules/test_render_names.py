"""Names of chains and sets: what nft takes, and never one for two things."""

from hypothesis import given
from hypothesis import strategies as st

from felix.calc.ip_sets import SetKey, SetKind
from felix.rules import render_names as names
from felix.rules import values as nft
from weft.model.keys import ResourceKey
from weft.policy.values import Action, Direction, TierPolicies

segments = st.one_of(
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=300),
    st.from_regex(r"[a-z0-9.-]{1,63}(\.hash)?", fullmatch=True),
)
keys = st.one_of(
    st.builds(ResourceKey, st.sampled_from(["GlobalNetworkPolicy", "Profile"]), segments),
    st.builds(ResourceKey, st.just("NetworkPolicy"), segments, segments),
)


@given(one=keys, other=keys)
def test_every_policy_has_a_chain_name_of_its_own_that_nft_takes(one: ResourceKey, other: ResourceKey) -> None:
    found = {(d, key): names.policy_chain(d, key) for d in Direction for key in (one, other)}
    assert len(set(found.values())) == len(found)
    for name in found.values():
        nft.Chain(name)


def test_a_name_that_looks_like_a_hash_is_hashed_itself() -> None:
    odd = ResourceKey("Profile", "a:b")
    chain = names.policy_chain(Direction.INGRESS, odd)
    lookalike = ResourceKey("Profile", chain.rpartition("/")[2])
    assert names.policy_chain(Direction.INGRESS, lookalike) != chain


def test_chains_are_shared_exactly_by_the_same_policies_in_the_same_order() -> None:
    a, b = (ResourceKey("GlobalNetworkPolicy", name) for name in "ab")
    profiles = (ResourceKey("Profile", "p"),)

    def name(tier: TierPolicies) -> str:
        return names.endpoint_chain(Direction.INGRESS, (tier,), profiles)

    one = name(TierPolicies("t", Action.DENY, ingress=(a, b)))
    assert one == name(TierPolicies("t", Action.DENY, ingress=(a, b), egress=(a,)))
    others = [
        TierPolicies("t", Action.DENY, ingress=(b, a)),
        TierPolicies("t", Action.DENY, ingress=(a,)),
        TierPolicies("t", Action.PASS, ingress=(a, b)),
        TierPolicies("u", Action.DENY, ingress=(a, b)),
    ]
    assert len({one, *map(name, others)}) == 5


def test_a_set_of_another_kind_or_family_is_another_set() -> None:
    found = {names.selector_set(SetKey("s1", version), kind) for version in (4, 6) for kind in SetKind}
    assert len(found) == 2 * len(SetKind)
