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
    spare = max(0, min(own.ready, wanted) + sum(map(_serving, others.values())) - least)
    return _without(others, budget, spare)


def _without(pods: Mapping[str, RevisionPods], budget: int, spare: int) -> dict[str, int]:
    """Replicas after `budget` pods are taken, in the order of the revisions: what serves nobody, then ready pods, `spare` at most."""
    replicas = {name: state.desired for name, state in pods.items()}
    for name, state in pods.items():
        idle = min(state.desired - _serving(state), budget)
        replicas[name], budget = replicas[name] - idle, budget - idle
    for name in pods:
        taken = min(replicas[name], spare, budget)
        replicas[name], spare, budget = replicas[name] - taken, spare - taken, budget - taken
    return replicas


def _serving(state: RevisionPods) -> int:
    return min(state.ready, state.desired)


def _held(target: str, pods: Mapping[str, RevisionPods], wanted: int, rollout: Rollout) -> dict[str, int]:
    """Keep the split of a paused rollout; a changed number of wanted pods is taken from, or added to, the old revisions first.

    Ready pods are taken only as far as the promise leaves. One pod of the old revisions stays, or scaling would end the pause; unless they
    serve nobody and the target does.
    """
    own = pods.get(target, NO_PODS)
    names = sorted(set(pods) - {target}, key=lambda name: (-pods[name].ready, -pods[name].desired, name))
    others = {name: pods[name] for name in names}
    total = own.desired + sum(state.desired for state in others.values())
    served = sum(map(_serving, others.values()))
    stays = min(1, wanted) if served or not _serving(own) else 0
    excess = max(0, total - (wanted + rollout.max_surge))
    spare = max(0, served + _serving(own) - max(0, wanted - rollout.max_unavailable))
    replicas = _without(others, max(0, min(excess, total - own.desired - stays)), spare)
    spare -= served - sum(min(replicas[name], _serving(state)) for name, state in others.items())
    replicas |= _without({target: own}, excess - (total - own.desired - sum(replicas.values())), spare)
    held = sum(max(replicas[name], pods.get(name, NO_PODS).existing) for name in replicas)
    missing = min(wanted - sum(replicas.values()), wanted - held)
    if missing > 0:
        replicas[names[0]] += missing
    return replicas


def _others_hold_pods(target: str, pods: Mapping[str, RevisionPods]) -> bool:
    return any(state.held for name, state in pods.items() if name != target)
