"""A trained network from its files alone, without lists or videos."""

from __future__ import annotations

import glob
import itertools
from dataclasses import dataclass
from pathlib import Path

from coviar.encoder import GOP, SIZE
from models import PUBLISHED_NETWORK
from models.official import is_official
from models.team_net import TeamNet
from models.team_net_ic import CONCAT, TeamNetIC
from training.checkpoint import backbone_from, load_checkpoint, of_this_version, published_from
from training.recipes import BACKBONES
from training.tensor_file import BEST, weights_digest


@dataclass
class Trained:
    """A network in eval mode on the CPU, and what its inputs and outputs are.

    net: without exits (`net.exits` is empty) where the file is a backbone alone.
    class_names: by label; numbers where no file tells. picture_size (width, height) and gop: how
    the videos it was trained on are encoded. path: the checkpoint file.
    """

    net: TeamNetIC
    path: Path
    digest: str  # of the backbone
    class_names: list[str]
    crop_size: int
    picture_size: tuple[int, int]
    gop: int


def load_trained(path: Path, pretrained: Path | None = None) -> Trained:
    """The network of a run folder, of its best.pt, or of a published TEAM-Net (+ IC) file.

    Exits come with the path and the digest of their backbone. It is looked for there and in the
    run tree around (../../<one of BACKBONES>/<split>_seed*/best.pt); `pretrained` names another
    place.
    Raises FileNotFoundError, and ValueError when a file is unreadable or the digests differ.
    """
    path = Path(path)
    file = path / BEST if path.is_dir() else path
    content = load_checkpoint(file)
    if "heads" in content:
        backbone, facts, digest = _find_backbone(content, file, pretrained)
        net, facts = put_exits_on(backbone, digest, file, content), {**facts, **content}
    else:
        if pretrained is not None:
            raise ValueError(f"{file} is a whole network: leave out the backbone {pretrained}")
        if is_official(content):
            net = published_from(content, file)
        else:
            net = TeamNetIC(backbone_from(content, file), ())
        facts, digest = content, weights_digest(net.backbone.state_dict())
    num_classes = net.backbone.config["num_classes"]
    encoding = facts.get("encoding") or {"size": SIZE, "gop": GOP}
    return Trained(
        net=net.eval(),
        path=file,
        digest=digest,
        class_names=facts.get("class_names") or [str(label) for label in range(num_classes)],
        crop_size=facts.get("crop_size") or PUBLISHED_NETWORK["crop_size"],
        picture_size=tuple(encoding["size"]),
        gop=encoding["gop"],
    )


def put_exits_on(backbone: TeamNet, digest: str, path: Path, content: dict) -> TeamNetIC:
    """The exits in `content`, an IC run's best.pt at `path`, on the backbone with this digest, in
    eval mode. Raises ValueError when there are none, and when they were trained on another backbone
    or another number of segments."""
    if not content.keys() >= {"heads", "exits", "backbone", "backbone_digest"}:
        raise ValueError(f"{path} holds no exits; the {BEST} of a run of exits does")
    if content["backbone_digest"] != digest:
        raise ValueError(
            f"the exits in {path} stand on the backbone {content['backbone']} as it was then"
            f" (digest {content['backbone_digest']}), not on one with the digest {digest}; name the"
            " right one with --pretrained, or train the exits again"
        )
    if content.get("num_segments", backbone.num_segments) != backbone.num_segments:
        raise ValueError(
            f"the exits in {path} were trained with --num_segments {content['num_segments']}, the"
            f" network has {backbone.num_segments}: name that number"
        )
    with of_this_version(path, "train the exits again, with --num_segments as it is now"):
        net = TeamNetIC(backbone, content["exits"], content.get("ic_pool", CONCAT)).eval()
        net.heads.load_state_dict(content["heads"])
    return net


def _find_backbone(content: dict, file: Path, pretrained: Path | None) -> tuple[TeamNet, dict, str]:
    """The first candidate whose weights have the recorded digest, its checkpoint, the digest."""
    if "backbone_digest" not in content:
        raise ValueError(f"{file} does not say its backbone; name the run's {BEST} instead")
    if pretrained is not None:
        candidates = [Path(pretrained)]
    else:
        run = file.resolve().parent
        split = glob.escape(run.name.rsplit("_seed", 1)[0])
        tree = run.parent.parent
        beside = [sorted(tree.glob(f"{name}/{split}_seed*/{BEST}")) for name in BACKBONES]
        candidates = [Path(content["backbone"]), *itertools.chain(*beside)]
    looked = []
    for candidate in candidates:
        try:
            facts = load_checkpoint(candidate)
            backbone = backbone_from(facts, candidate, content.get("num_segments"))
        except (FileNotFoundError, ValueError) as error:
            looked.append(str(error))
            continue
        digest = weights_digest(backbone.state_dict())
        if digest == content["backbone_digest"]:
            return backbone, facts, digest
        looked.append(f"{candidate} has the digest {digest}")
    raise ValueError(
        f"the exits in {file} stand on a backbone with the digest {content['backbone_digest']},"
        f" trained at {content['backbone']}; it was not found: {'; '.join(looked)}. Name its file"
        " with --pretrained, or train the exits again"
    )
