"""One peer in a process of its own: loads once, then draws the same picture whenever a line arrives on stdin.

run.py starts it with the job as JSON; every answer is one line of JSON on stdout. A peer's name says what it is:

    ENGINE-DTYPE[-compile][-cachedit[-taylor]]      e.g. diffusers-bf16-compile, openvino-fp32

The last two parts are for diffusers alone.

All of them run diffusers' HunyuanDiTPipeline: its text encoders, its loop, its scheduler, its VAE. With onnxruntime and
openvino the transformer is hydit's unsplit graph; with the others it is diffusers' own.
"""

import json
import os
import pathlib
import sys
import time

import torch
from diffusers import DPMSolverMultistepScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline


class LoopTimer:
    """Stands in for the progress bar, which diffusers opens right before the denoising loop and closes right after."""

    def __call__(self, total):
        return self

    def __enter__(self):
        self.started = time.perf_counter()
        return self

    def __exit__(self, *exception):
        self.seconds = time.perf_counter() - self.started

    def update(self):
        pass


def load(job, dtype):
    """The pipeline; and what it draws: a prompt, or made-up embeddings where the checkpoint is not a whole one."""
    checkpoint = pathlib.Path(job["checkpoint"])
    if not job["transformer_only"]:
        pipe = HunyuanDiTPipeline.from_pretrained(checkpoint, torch_dtype=dtype)
        config, drawn = pipe.scheduler.config, {"prompt": job["prompt"]}
    else:
        transformer = HunyuanDiT2DModel.from_pretrained(checkpoint / "transformer", torch_dtype=dtype)
        config = json.loads((checkpoint / "scheduler/scheduler_config.json").read_text())
        pipe = HunyuanDiTPipeline(
            vae=None, text_encoder=None, tokenizer=None, transformer=transformer,
            scheduler=DPMSolverMultistepScheduler.from_config(config), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False)
        drawn = made_up_embeddings(transformer.config, dtype) | {"output_type": "latent"}
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(config, timestep_spacing="linspace")
    return pipe, drawn


def made_up_embeddings(config, dtype):
    drawn = {}
    for suffix, length, width in (("", config.text_len, config.cross_attention_dim),
                                  ("_2", config.text_len_t5, config.cross_attention_dim_t5)):
        for sign in ("", "negative_"):
            drawn[f"{sign}prompt_embeds{suffix}"] = torch.randn(1, length, width).to(dtype)
            drawn[f"{sign}prompt_attention_mask{suffix}"] = torch.ones(1, length, dtype=torch.int64)
    return drawn


def enable_cache_dit(pipe, job, taylor):
    """cache-dit's DBCache with hydit's plan: the same full steps, and one block on each side at the others."""
    import cache_dit

    mask = [int(step in job["full_steps"]) for step in range(job["steps"])]
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1, Bn_compute_blocks=1, max_warmup_steps=0, enable_separate_cfg=False,
        num_inference_steps=job["steps"], steps_computation_mask=mask, steps_computation_policy="static")
    calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1) if taylor else None
    cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=calibrator)


def count_full_steps(blocks):
    """Counts how often a block in the middle runs: once per full step."""
    calls = []
    blocks[len(blocks) // 2].register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


class Graph:
    """An ONNX file on one of the two engines."""

    def __init__(self, engine, dtype, file, threads, shapes=None):
        if engine == "onnxruntime":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            self.names = [item.name for item in session.get_inputs()]
            self.run = lambda inputs: session.run(None, inputs)
            return
        import openvino

        model = openvino.Core().read_model(file)
        self.names = [item.any_name for item in model.inputs]
        if shapes:
            model.reshape(shapes)
        hint = {"fp32": "f32", "bf16": "bf16"}[dtype]
        compiled = openvino.Core().compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"})
        print("precision:", compiled.get_property("INFERENCE_PRECISION_HINT"))
        self.run = lambda inputs: list(compiled(inputs).values())

    def __call__(self, inputs):
        return self.run({name: inputs[name] for name in self.names})


class OnnxTransformer:
    """Replaces the transformer's forward by conditioner.onnx (once a picture) and full.onnx (every step)."""

    def __init__(self, engine, dtype, job):
        folder, threads = pathlib.Path(job["graphs"]), job["threads"]
        grid = [job["height"] // 16, job["width"] // 16]
        self.grid = grid
        self.conditioner = Graph("onnxruntime", "fp32", str(folder / "conditioner.onnx"), threads)
        shapes = None
        if engine == "openvino":
            sizes = json.loads((pathlib.Path(job["checkpoint"]) / "transformer/config.json").read_text())
            head, width = sizes["attention_head_dim"], sizes["attention_head_dim"] * sizes["num_attention_heads"]
            text = [2, sizes["text_len"] + sizes["text_len_t5"], sizes["cross_attention_dim"]]
            shapes = {"latents": [2, 4, 2 * grid[0], 2 * grid[1]], "timestep": [2], "extra": [2, width],
                      "text_states": text, "cos": [*grid, head], "sin": [*grid, head]}
        self.full = Graph(engine, dtype, str(folder / "full.onnx"), threads, shapes)

    def start(self):
        self.inputs, self.aside = None, 0.0

    def forward(self, latents, timestep, image_rotary_emb, return_dict, style, image_meta_size, **text):
        if self.inputs is None:  # hydit's clock leaves the conditioner out of the loop, so it is left out here too
            started = time.perf_counter()
            states, extra = self.conditioner({name: tensor.numpy() for name, tensor in text.items()})
            cos, sin = (table.float().reshape(*self.grid, -1).numpy() for table in image_rotary_emb)
            self.inputs = {"text_states": states, "extra": extra, "cos": cos, "sin": sin}
            self.aside = time.perf_counter() - started
        predicted = self.full(self.inputs | {"latents": latents.numpy(), "timestep": timestep.float().numpy()})
        return (torch.from_numpy(predicted[0]),)


def peer(job):
    """A function that draws once and gives its times."""
    engine, dtype_name, *extras = job["peer"].split("-")
    allowed = {"diffusers": {"compile", "cachedit", "taylor"}, "onnxruntime": set(), "openvino": set()}
    if dtype_name not in ("fp32", "bf16") or not set(extras) <= allowed[engine] or job["peer"] == "onnxruntime-bf16":
        raise ValueError(f"no such peer: {job['peer']}")
    dtype = torch.bfloat16 if (engine, dtype_name) == ("diffusers", "bf16") else torch.float32
    pipe, drawn = load(job, dtype)
    pipe.progress_bar = timer = LoopTimer()
    onnx, calls = None, None
    if engine != "diffusers":
        onnx = OnnxTransformer(engine, dtype_name, job)
        pipe.transformer.forward = onnx.forward
    if "cachedit" in extras:
        calls = count_full_steps(pipe.transformer.blocks)
        enable_cache_dit(pipe, job, "taylor" in extras)
    if "compile" in extras:
        pipe.transformer.compile(dynamic=False)
    noise = torch.randn(1, 4, job["height"] // 8, job["width"] // 8, generator=torch.Generator().manual_seed(job["seed"]))

    def draw():
        if onnx:
            onnx.start()
        if calls:
            calls.clear()
        started = time.perf_counter()
        image = pipe(
            **drawn, height=job["height"], width=job["width"], num_inference_steps=job["steps"],
            guidance_scale=job["guidance"], latents=noise.to(dtype), use_resolution_binning=False).images[0]
        answer = {"pipeline": time.perf_counter() - started, "denoise": timer.seconds - (onnx.aside if onnx else 0)}
        answer["full_steps"] = len(calls) if calls is not None else job["steps"]
        if job["transformer_only"]:
            answer["pipeline"] = None
            answer["finite"] = bool(torch.isfinite(image).all())
        else:
            image.save(job["picture"])
        return answer

    return draw


def main():
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print what they like; stdout proper is for answers
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    draw = peer(job)
    for _ in sys.stdin:
        answers.write(json.dumps(draw()) + "\n")


if __name__ == "__main__":
    main()
