"""Every script in a process of its own, as a user starts it, with true ResNets."""

import json


def test_from_videos_to_trade_offs(server, toy_data, toy_options, tmp_path):
    def run(*command):
        """The result line of a script."""
        process = server.call(*command)
        assert process.returncode == 0, process.stdout + process.stderr
        return json.loads(process.stdout.splitlines()[-1].removeprefix("result: "))

    options = [*toy_options, "--checkpoint_dir", tmp_path]
    for part in ("train", "test"):  # of three videos of a group, one
        lines = (toy_data / f"{part}.txt").read_text().splitlines(keepends=True)
        (tmp_path / f"{part}.txt").write_text("".join(lines[::3]))
        options += [f"--{part}-list", tmp_path / f"{part}.txt"]
    network = ["--arch", "resnet18", "--num_segments", 2, "--crop-size", 32, "--batch-size", 8]
    run("pretrain.py", *options, *network, "--epochs", 1)
    start = tmp_path / "toy/pretrain/split1_seed1/best.pt"
    run("train_team_net.py", *options, *network, "--epochs", 1, "--pretrained", start)
    for method in ("team_ce", "prog_kd", "prog_kd_anti", "i_frame"):
        result = run(f"train_{method}.py", *options, "--views", 1)
        folder = tmp_path / f"toy/{method}/split1_seed1"
        assert result["run"] == str(folder) and len(result["test_top1_pct"]) == 3
    run("save_logits.py", *options, "--method", "i_frame", "--views", 1)
    run("wise_team_net_logit.py", "--logits", folder / "logits.pt")
    run("team_net_wise_all_acc.py", "--logits", folder / "logits.pt")
    written = {path.name for path in folder.iterdir()}
    video = next(toy_data.glob("*/*.mp4"))
    assert run("predict.py", video, "--checkpoint", folder)["videos"] == 1
    assert {"result.json", "logits.pt", "wise.json", "trade_off.csv", "policy.json"} <= written
