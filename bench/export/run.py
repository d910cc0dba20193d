#!/usr/bin/env python3
"""Measures exporting a Hunyuan-DiT transformer: hydit-export, a plain copy, torch.onnx.export, mobius.

    hydit-export synth --variant hunyuan-dit-v1.2 --small-text --dtype fp16 --out checkpoints/v1.2-random
    python3 -m venv .venv-export && .venv-export/bin/pip install -r bench/export/requirements.txt
    .venv-export/bin/python bench/export/run.py checkpoints/v1.2-random

Each one is a process of its own, which ends with its files synced. Its time is wall time; its memory is read from /proc
every 10 ms: resident in all, and anonymous, which is what cannot be given back without swapping.

mobius takes models from Hugging Face's hub; here its downloads are answered from the checkpoint's folder.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def torch_onnx(checkpoint, out):
    import torch
    from diffusers import HunyuanDiT2DModel
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    model = HunyuanDiT2DModel.from_pretrained(checkpoint / "transformer", torch_dtype=torch.float16).eval()
    config, rows = model.config, 2
    tables = get_2d_rotary_pos_embed(config.attention_head_dim, ((0, 0), (8, 8)), (8, 8), output_type="pt")
    given = {
        "hidden_states": torch.randn(rows, config.in_channels, 16, 16).half(),
        "timestep": torch.full((rows,), 500.0).half(),
        "encoder_hidden_states": torch.randn(rows, config.text_len, config.cross_attention_dim).half(),
        "text_embedding_mask": torch.ones(rows, config.text_len, dtype=torch.int64),
        "encoder_hidden_states_t5": torch.randn(rows, config.text_len_t5, config.cross_attention_dim_t5).half(),
        "text_embedding_mask_t5": torch.ones(rows, config.text_len_t5, dtype=torch.int64),
        "image_rotary_emb": tuple(tables), "return_dict": False}
    out.mkdir()
    torch.onnx.export(model, (), str(out / "model.onnx"), kwargs=given, dynamo=True, external_data=True)


def mobius(checkpoint, out):
    import huggingface_hub
    from huggingface_hub.utils import EntryNotFoundError

    def local(repo_id, filename, **_):
        path = checkpoint / filename
        if not path.exists():
            raise EntryNotFoundError(filename)
        return str(path)

    huggingface_hub.hf_hub_download = local
    from mobius import _diffusers_builder as builder

    builder._parallel_download = lambda model, files, **_: [str(checkpoint / name) for name in files]
    index = builder._load_diffusers_pipeline_index
    builder._load_diffusers_pipeline_index = lambda model: {"transformer": index(model)["transformer"]}
    builder.build_diffusers_pipeline("local", dtype="f16").save(str(out))


def command(name, arguments, out):
    if name == "cp":
        return ["sh", "-c", 'cp -r "$1" "$2" && sync', "sh", str(arguments.checkpoint), str(out)]
    if name == "hydit-export":
        export = [arguments.export, "--checkpoint", str(arguments.checkpoint), "--out", str(out), "--dtype", "fp16"]
        return ["sh", "-c", '"$@" && sync', "sh", *export]
    return [sys.executable, __file__, str(arguments.checkpoint), "--one", name, "--out", str(out)]


def memory(pid):
    """Resident and anonymous bytes of a process and its children."""
    total = [0, 0]
    for folder in (pid, *children(pid)):
        try:
            fields = dict(line.split(":", 1) for line in open(f"/proc/{folder}/status") if ":" in line)
        except OSError:
            continue
        for i, key in enumerate(("VmRSS", "RssAnon")):
            total[i] += 1024 * int(fields.get(key, "0 kB").split()[0])
    return total


def children(pid):
    try:
        return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    except OSError:
        return []


def measure(name, arguments, out):
    if arguments.cold:
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    else:
        for file in arguments.checkpoint.rglob("*.safetensors"):
            with open(file, "rb") as opened:
                while opened.read(1 << 24):
                    pass
    started, peaks = time.perf_counter(), [0, 0]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command(name, arguments, out), stdout=words, stderr=words)
        while process.poll() is None:
            peaks = [max(pair) for pair in zip(peaks, memory(process.pid))]
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        words.seek(0)
        said = words.read().decode(errors="replace").strip().splitlines()
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    if process.returncode:
        return None, said[-1] if said else f"status {process.returncode}"
    return (seconds, *peaks), None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--export", default=str(ROOT / "target/release/hydit-export"), help="the program hydit-export")
    parser.add_argument("--names", nargs="+", default=["cp", "hydit-export", "torch.onnx", "mobius"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each one (as root)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("export-out"), help="made and removed again")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        {"torch.onnx": torch_onnx, "mobius": mobius}[arguments.one](arguments.checkpoint, arguments.out)
        os.sync()
        return
    if arguments.out.exists():
        sys.exit(f"--out: {arguments.out} exists, and would be removed: name another")
    samples = {name: [] for name in arguments.names}
    for _ in range(arguments.rounds):
        for name in arguments.names:
            sample, failure = measure(name, arguments, arguments.out)
            print(f"{name}: {failure or ' '.join(f'{value:.4g}' for value in sample)}", file=sys.stderr, flush=True)
            if sample:
                samples[name].append(sample)
    print("| exporter | seconds | resident, MiB | anonymous, MiB |\n| --- | --: | --: | --: |")
    for name, runs in samples.items():
        if runs:
            seconds, resident, anonymous = (statistics.median(column) for column in zip(*runs))
            print(f"| {name} | {seconds:.1f} | {resident / 2**20:.0f} | {anonymous / 2**20:.0f} |")


if __name__ == "__main__":
    main()
