"""From a network to its logits, to a policy, and back: both sides decide alike."""

import numpy as np
import torch

from early_exit import wise
from early_exit.policy import Policy, decide, load_policy, save_policy
from early_exit.thresholds import confidences, distinct_thresholds
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC


def test_early_exit_decides_as_saved_logits_do(tmp_path):
    torch.manual_seed(0)
    backbone = TeamNet(5, num_segments=2, arch="resnet18")
    net = TeamNetIC(backbone, exits=(1, 3)).eval()
    for head in net.heads.values():
        head.weight.data.normal_(std=5)  # exits that differ from clip to clip
    clips = [torch.randn(24, 2, channels, 32, 32) for channels in (3, 2, 3)]
    with torch.no_grad():
        output = net(*clips)
    logits = torch.stack([*output.exits, output.iframe, output.mv, output.residual], 1).numpy()
    labels = np.arange(24) % 5
    outputs = ["exit1", "exit3", "iframe", "mv", "residual"]
    weights = wise.fit(logits, labels, outputs).weights + 0.05
    weights *= wise.available(outputs)
    combined = wise.combine(logits, weights)
    sure = confidences(combined, "margin", 0.8)
    # About a third is sure enough at the first exit, half at the second.
    first, second = (distinct_thresholds(sure[:, k]) for k in (0, 1))
    thresholds = (float(first[len(first) * 2 // 3]), float(second[len(second) // 2]))
    policy = Policy((1, 3), thresholds, tuple(map(tuple, weights.tolist())), 0.8, "margin")
    save_policy(tmp_path / "policy.json", policy)

    expected = decide(load_policy(tmp_path / "policy.json"), logits)
    decisions = net.early_exit(*clips, load_policy(tmp_path / "policy.json"))
    assert set(expected.points) == {0, 1, 2}
    np.testing.assert_array_equal(decisions.point.numpy(), expected.points)
    np.testing.assert_array_equal(decisions.label.numpy(), expected.labels)
