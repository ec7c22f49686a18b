"""Whether a policy was made for the network that it is to steer."""

from __future__ import annotations

from early_exit.outside import OUTSIDE
from early_exit.policy import Policy
from models import STREAMS
from models.over_time import check_network
from models.points import exits_of
from training.tensor_file import weights_digest
from training.trained import Trained


def made_otherwise(policy: Policy, precision: str) -> list[str]:
    """How the decisions it was made on differ from those of one view at `precision`, in words.

    A policy of an earlier version does not tell its precision.
    """
    made, found = policy.provenance, []
    if made.get("num_views", 1) > 1:
        found.append(
            f"on the mean of {made['num_views']} views of each video (--clips, --crops); here one"
            " view decides"
        )
    if made.get("precision") not in (None, precision):
        found.append(f"on logits of --precision {made['precision']}; here it is {precision}")
    return found


def check_policy(policy: Policy, trained: Trained) -> None:
    """Raise ValueError where it was made on another network, another backbone or other exits."""
    made = policy.provenance
    is_outside = made.get("method") == OUTSIDE and not made.get("backbone_digest")
    outputs = len(policy.exits) + len(STREAMS)
    if is_outside or (not policy.route and len(policy.weights[0]) != outputs):
        raise ValueError(
            f"the policy was calibrated on logits of another network ({made.get('data', '?')}), not"
            f" on {trained.path}: calibrate one for it with team_net_wise_all_acc.py"
        )
    if policy.route:
        check_network(trained.net, policy.route)
    missing = set(policy.exits) - set(trained.net.exits)
    if missing and not policy.route:
        raise ValueError(
            f"the policy uses exits {policy.exits}, but {trained.path} has"
            f" {trained.net.exits or 'none'}: calibrate one for it with team_net_wise_all_acc.py"
        )
    digest = made.get("backbone_digest") or trained.digest
    if digest != trained.digest:
        raise ValueError(
            f"the policy was calibrated on the backbone with the digest {digest}, {trained.path}"
            f" stands on {trained.digest}: calibrate one for it with team_net_wise_all_acc.py"
        )
    if not made.get("exits_digest") or (policy.route and not exits_of(policy.route)):
        return
    digest = weights_digest(trained.net.heads.state_dict())
    if digest != made["exits_digest"]:
        raise ValueError(
            f"the policy was calibrated on exits with the digest {made['exits_digest']},"
            f" {trained.path} holds exits with the digest {digest}: run save_logits.py,"
            " wise_team_net_logit.py and team_net_wise_all_acc.py again"
        )
