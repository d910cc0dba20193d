"""Goldens of the three samplers -> schedulers/schedulers.{safetensors,json}

    alphas_cumprod/<beta_end>   [1000]                float32, DDPMScheduler.alphas_cumprod
    <run>/samples               [steps, 1, 4, 2, 2]   the sample after every step

A run starts from input_values("sample", [1, 4, 2, 2], 1.7) (see synthetic.py); in step k the model's output is
input_values("model_output.<k>", .., 1.0) and the noise that ddpm adds is input_values("variance_noise.<k>", .., 1.7).
schedulers.json lists the runs with their scheduler config and timesteps, and more timesteps under "timesteps".
"""

import diffusers.schedulers.scheduling_ddpm as ddpm_module
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from safetensors.torch import save_file

import golden
import synthetic

SHAPE = [1, 4, 2, 2]
# As the checkpoint's scheduler_config.json has it.
CONFIG = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.018,
    beta_schedule="scaled_linear",
    prediction_type="v_prediction",
    clip_sample=False,
    steps_offset=1,
    timestep_spacing="leading",
    variance_type="fixed_small",
)
RUNS = [(sampler, steps, {}) for sampler in ("ddpm", "ddim", "dpmms") for steps in (1, 2, 10, 15, 25, 50)]
RUNS += [(sampler, 10, {"beta_end": 0.03}) for sampler in ("ddpm", "ddim", "dpmms")]
RUNS += [(sampler, 10, {"prediction_type": "epsilon"}) for sampler in ("ddpm", "ddim", "dpmms")]
RUNS += [("dpmms", 10, {"timestep_spacing": "leading"}), ("dpmms", 10, {"timestep_spacing": "trailing"})]
RUNS += [("ddim", 10, {"timestep_spacing": "trailing"}), ("ddim", 10, {"timestep_spacing": "linspace"})]


def make(sampler: str, changes: dict):
    """As the pipeline would: from the checkpoint's DDPM config, but dpmms is spaced "linspace" unless told otherwise."""
    base = DDPMScheduler(**{**CONFIG, **{k: v for k, v in changes.items() if k != "timestep_spacing"}})
    spacing = changes.get("timestep_spacing", "linspace" if sampler == "dpmms" else "leading")
    cls = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpmms": DPMSolverMultistepScheduler}[sampler]
    return cls.from_config(base.config, timestep_spacing=spacing)


def run(scheduler, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    sample = synthetic.input_values("sample", SHAPE, 1.7) * scheduler.init_noise_sigma
    samples = []
    for k, t in enumerate(scheduler.timesteps):
        ddpm_module.randn_tensor = lambda *args, **kwargs: synthetic.input_values(f"variance_noise.{k}", SHAPE, 1.7)
        output = synthetic.input_values(f"model_output.{k}", SHAPE, 1.0)
        sample = scheduler.step(output, t, scheduler.scale_model_input(sample, t), return_dict=False)[0]
        samples.append(sample)
    return torch.stack(samples)


def main():
    tensors, runs, timesteps = {}, [], []
    for beta_end in (0.018, 0.02, 0.03):
        tensors[f"alphas_cumprod/{beta_end}"] = make("ddpm", {"beta_end": beta_end}).alphas_cumprod
    for sampler, steps, changes in RUNS:
        scheduler = make(sampler, changes)
        name = "-".join([sampler, str(steps), *map(str, changes.values())])
        tensors[f"{name}/samples"] = run(scheduler, steps)
        assert torch.isfinite(tensors[f"{name}/samples"]).all(), name
        config = {key: scheduler.config[key] for key in ("beta_start", "beta_end", "prediction_type", "timestep_spacing", "steps_offset")}
        runs.append({"name": name, "sampler": sampler, "steps": steps, **config, "timesteps": scheduler.timesteps.tolist()})
    for sampler in ("ddpm", "ddim", "dpmms"):
        for steps in (1, 3, 7, 20, 30, 33, 67, 100, 999, 1000):
            scheduler = make(sampler, {})
            scheduler.set_timesteps(steps)
            found = scheduler.timesteps.tolist()
            timesteps.append({"sampler": sampler, "steps": steps, "first": found[:5], "last": found[-5:], "count": len(found), "sum": sum(found)})
    golden.write_json("schedulers/schedulers.json", {"runs": runs, "timesteps": timesteps})
    save_file(tensors, golden.HERE / "schedulers/schedulers.safetensors")


if __name__ == "__main__":
    main()
