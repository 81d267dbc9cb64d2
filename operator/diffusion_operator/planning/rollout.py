"""How many pods each revision shall have now: the arithmetic of a rollout, and nothing else.

Two promises hold at every step, whatever the cluster does: the step itself takes the number of ready pods never below
`wanted - max_unavailable`, and lets the pods of all revisions never grow beyond `wanted + max_surge`. Pods that terminate
count, for they hold their GPU. So a step that waits for a pod to end or to become ready changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffusion_api.serving import Rollout, RolloutStrategy
from diffusion_operator.planning.observed import RevisionPods

NO_PODS = RevisionPods()


@dataclass(frozen=True)
class RolloutStep:
    """What to do now."""

    replicas: Mapping[str, int]
    """`spec.replicas` by revision, for the target and for each revision that has pods or a Deployment."""
    complete: bool
    """Whether the target has all its pods, all ready, and no other revision has any."""


def rollout_step(target: str, pods: Mapping[str, RevisionPods], wanted: int, rollout: Rollout) -> RolloutStep:
    """Return the next step towards `wanted` pods of `target` and none of any other revision.

    Args:
        target: Revision that shall serve; after an abandonment the last good one.
        pods: What there is, by revision.
        wanted: Serving pods wanted, at least 0.
        rollout: The strategy with its surge and unavailability.
    """
    complete = is_complete(target, pods, wanted)
    if rollout.paused and _others_hold_pods(target, pods):
        return RolloutStep(_held(target, pods, wanted, rollout), complete)
    match rollout.strategy:
        case RolloutStrategy.RECREATE:
            return RolloutStep(_recreate(target, pods, wanted), complete)
        case RolloutStrategy.ROLLING_UPDATE | RolloutStrategy.CANARY:
            return RolloutStep(_roll(target, pods, wanted, rollout), complete)


def is_complete(target: str, pods: Mapping[str, RevisionPods], wanted: int) -> bool:
    """Tell whether the target alone has pods, and as many ready as wanted."""
    return is_whole(target, pods, wanted) and not _others_hold_pods(target, pods)


def is_whole(target: str, pods: Mapping[str, RevisionPods], wanted: int) -> bool:
    """Tell whether the target has all the pods that are wanted, all ready, whatever others have."""
    own = pods.get(target, NO_PODS)
    return own.desired == wanted and own.ready >= wanted


def _recreate(target: str, pods: Mapping[str, RevisionPods], wanted: int) -> dict[str, int]:
    replicas = {name: 0 for name in pods if name != target}
    room = 0 if _others_hold_pods(target, pods) else wanted
    return {**replicas, target: _grown(pods.get(target, NO_PODS), wanted, room)}


def _roll(target: str, pods: Mapping[str, RevisionPods], wanted: int, rollout: Rollout) -> dict[str, int]:
    elsewhere = sum(state.held for name, state in pods.items() if name != target)
    room = wanted + rollout.max_surge - elsewhere
    return {**_shrunk(target, pods, wanted, rollout), target: _grown(pods.get(target, NO_PODS), wanted, room)}


def _grown(own: RevisionPods, wanted: int, room: int) -> int:
    """Replicas of the target: what it has and may keep, or as many as there is room for beside its own pods that terminate."""
    leaving = max(0, own.existing - own.desired)
    return max(min(own.desired, wanted), min(wanted, room - leaving))


def _shrunk(target: str, pods: Mapping[str, RevisionPods], wanted: int, rollout: Rollout) -> dict[str, int]:
    """Take from the other revisions first what serves nobody, then as many ready pods as the promise leaves.

    What serves nobody may recover, so that too is taken only as fast as the target's pods become ready. ReplicaSets end pods that are
    not ready first. Source: `reconcileOldReplicaSets` of Kubernetes' Deployment controller.
    """
    own = pods.get(target, NO_PODS)
    others = {name: pods[name] for name in sorted(set(pods) - {target})}
    least = max(0, wanted - rollout.max_unavailable)
    total = own.desired + sum(state.desired for state in others.values())
    budget = max(0, total - least - max(0, min(own.desired, wanted) - own.ready))
    replicas = {}
    for name, state in others.items():
        idle = min(state.desired - _serving(state), budget)
        budget -= idle
        replicas[name] = state.desired - idle
    spare = max(0, min(own.ready, wanted) + sum(map(_serving, others.values())) - least)
    for name, state in others.items():
        taken = min(_serving(state), spare, budget) if replicas[name] == _serving(state) else 0
        spare, budget = spare - taken, budget - taken
        replicas[name] -= taken
    return replicas


def _serving(state: RevisionPods) -> int:
    return min(state.ready, state.desired)


def _held(target: str, pods: Mapping[str, RevisionPods], wanted: int, rollout: Rollout) -> dict[str, int]:
    """Keep the split of a paused rollout; a changed number of wanted pods is taken from, or added to, the old revisions first.

    Ready pods are taken only as far as the promise leaves. One pod of the old revisions stays, or scaling would end the pause; unless they
    serve nobody and the target does.
    """
    replicas = {name: state.desired for name, state in pods.items()} | {target: pods.get(target, NO_PODS).desired}
    others = sorted(set(replicas) - {target}, key=lambda name: (-pods[name].ready, -replicas[name], name))
    excess = sum(replicas.values()) - (wanted + rollout.max_surge)
    serving = {name: _serving(pods.get(name, NO_PODS)) for name in replicas}
    spare = max(0, sum(serving.values()) - max(0, wanted - rollout.max_unavailable))
    stays = min(1, wanted) if any(serving[name] for name in others) or not serving[target] else 0
    for names, least in ((others, stays), ([target], 0)):
        room = max(0, min(excess, sum(replicas[name] for name in names) - least))
        excess -= room
        for name in names:
            idle = min(replicas[name] - serving[name], room)
            replicas[name], room = replicas[name] - idle, room - idle
        for name in names:
            taken = min(replicas[name], spare, room)
            replicas[name], spare, room = replicas[name] - taken, spare - taken, room - taken
        excess += room
    held = sum(max(replicas[name], pods.get(name, NO_PODS).existing) for name in replicas)
    missing = min(wanted - sum(replicas.values()), wanted - held)
    if missing > 0:
        replicas[others[0]] += missing
    return replicas


def _others_hold_pods(target: str, pods: Mapping[str, RevisionPods]) -> bool:
    return any(state.held for name, state in pods.items() if name != target)
