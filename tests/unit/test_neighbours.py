"""network/neighbours.py: our rules in dockerd's chain, and nobody else's touched."""

from __future__ import annotations

from supervisor.network.neighbours import entering, leaving, rules

RETURN = "-A DOCKER-USER -j RETURN"
ADMINS = "-A DOCKER-USER -s 203.0.113.0/24 -j DROP"
OTHERS = "-A DOCKER-USER -i bhabc123-+ -m comment --comment bakehouse-abc123 -j ACCEPT"
OURS = [f"-A DOCKER-USER {rule}" for rule in rules("bh-", "bakehouse")]


def listing(*lines: str) -> str:
    return "\n".join(["-N DOCKER-USER", *lines, ""])


def script(text: str) -> list[str]:
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("*filter", "COMMIT")
    return lines[1:-1]


def test_our_rules_come_after_the_administrators_and_before_the_return() -> None:
    entered = script(entering(listing(ADMINS, RETURN), "bh-", "bakehouse"))
    assert entered == [
        f"-I DOCKER-USER {n} {r}" for n, r in enumerate(rules("bh-", "bakehouse"), 2)
    ]


def test_an_empty_chain_or_one_without_a_return_is_added_to_at_its_end() -> None:
    assert script(entering(listing(), "bh-", "bakehouse"))[0].startswith("-I DOCKER-USER 1 ")
    assert script(entering(listing(ADMINS), "bh-", "bakehouse"))[0].startswith("-I DOCKER-USER 2 ")


def test_rules_that_stand_are_left_alone() -> None:
    assert entering(listing(ADMINS, *OURS, RETURN), "bh-", "bakehouse") == ""


def test_what_is_left_of_ours_is_replaced() -> None:
    entered = script(entering(listing(OURS[3], ADMINS, RETURN), "bh-", "bakehouse"))
    assert entered[0] == OURS[3].replace("-A", "-D", 1)
    assert entered[1].startswith("-I DOCKER-USER 2 ")


def test_another_daemons_rules_are_not_ours() -> None:
    assert len(script(entering(listing(OTHERS, RETURN), "bh-", "bakehouse"))) == len(OURS)
    assert leaving(listing(OTHERS, RETURN), "bakehouse") == ""


def test_leaving_takes_exactly_ours() -> None:
    left = script(leaving(listing(ADMINS, OTHERS, *OURS, RETURN), "bakehouse"))
    assert left == [rule.replace("-A", "-D", 1) for rule in OURS]


def test_containers_are_not_let_through_to_dockers_own_bridges() -> None:
    returned = [rule for rule in rules("bh-", "bakehouse") if rule.endswith("-j RETURN")]
    assert [rule.split()[3] for rule in returned] == ["docker0", "br-+"]
    assert rules("bh-", "bakehouse")[: len(returned)] == returned
