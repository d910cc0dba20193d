"""One model with one sampler: its pictures, its calibration, and what each method makes of them."""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

import numpy
from PIL import Image

import methods
from draw import BATCH, Painter, Picture, batches
from measure import psnr, ssim
from methods import hydit, teacache
from methods.base import Context
from methods.plain import Uncached
from records import Costs, Figures, Records, fingerprint, named, pack

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: The speed-ups for which each method shows its best setting.
BUDGETS = (1.5, 2.0, 2.5, 3.0)
#: These by the model's own FLOPs, and by Hunyuan-DiT's.
GOALS = [(axis, budget) for axis in (0, 1) for budget in BUDGETS]
#: How many settings of a method go on to the second trial, for each of these: of those tried, and between them.
GO_ON = 2
#: By how much more than the wanted speed-up thresholds between those tried are to reach, so that they reach it.
MARGIN = 1.02


def prompts(model, kind, count, flag, every=1):
    """The first `count` of every so many prompts to calibrate with, or of those held out."""
    file = f"bench/cache/prompts/{model}-{kind}.txt"
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")][::every]
    if count > len(lines):
        sys.exit(f"{flag}: {count} prompts, but {file} has {len(lines)} for it: ask for at most as many")
    return lines[:count]


class Case:
    def __init__(self, arguments, model, sampler):
        self.arguments, self.model, self.sampler = arguments, model, sampler
        self.name = f"{model}-{sampler}-{arguments.steps}"
        self.painter = Painter(ROOT / "models" / model, sampler, arguments.steps)
        self.costs = Costs(self.painter.config, self.painter.tokens, arguments.steps)
        self.records = Records(arguments.out / f"{self.name}.jsonl")
        held_out = prompts(model, "heldout", arguments.prompts, "--prompts")
        trials = prompts(model, "calibrate", max(arguments.trials), "--trials", every=2)
        # hydit-serve calibrate numbers its seeds from --seed on; these are others.
        self.pictures = {
            "search": [Picture(prompt, 5000 + i) for i, prompt in enumerate(trials)],
            "judge": [Picture(prompt, seed) for seed in range(arguments.seeds) for prompt in held_out],
        }
        self.uncached = {}
        self.context = Context(self.painter.transformer.depth, self.painter.timesteps(arguments.steps).tolist())
        self.agreement, self.results = None, {}

    def reference(self, kind):
        """The pictures of a set without a cache, and their latents."""
        if kind not in self.uncached:
            pictures = self.pictures[kind]
            drawn = self.painter.draw(pictures, lambda: Uncached(self.context))
            decoded = self.painter.decode(drawn)
            self.uncached[kind] = {picture: pair for picture, pair in zip(pictures, zip(decoded, drawn))}
        return self.uncached[kind]

    def prepare(self, method):
        """What the method knows of the model, and a text that stands for it."""
        if method is teacache.TeaCache:
            if not self.context.polynomials:
                self.context.polynomials = teacache.fit(self.painter, self.context, self.pictures["search"])
            return str(self.pictures["search"])
        if method is methods.Hydit:
            if not self.context.schedules:
                self.context.schedules = hydit.read(self.calibration())
                self.agreement = self.agrees()
            return hashlib.sha256(self.calibration().read_bytes()).hexdigest()
        return ""

    def measure(self, method):
        """Searches the method's settings, and judges the best ones."""
        code = fingerprint(method, self.prepare(method))
        settings = [setting for setting in method.settings(self.context)
                    if not (method is methods.FewerSteps and self.sampler == "ddpm")]  # there they draw other noise
        started = time.monotonic()
        first = [self.figures(method, code, setting, "search", self.arguments.trials[0]) for setting in settings]
        second = [self.figures(method, code, setting, "search") for setting in each(
            [one.setting for one in ranked(first, axis, budget)[:GO_ON]] + between(first, axis, budget)[:GO_ON]
            for axis, budget in GOALS)]
        judged = [self.figures(method, code, setting, "judge") for setting in each(
            [one.setting for one in ranked(second, axis, budget)[:1]] for axis, budget in GOALS)]
        self.results[method] = Result(len(settings), second, judged)
        print(f"\r{self.name}: {method.name}: {len(settings)} settings tried, {len(judged)} judged, "
              f"{time.monotonic() - started:.0f} s{' ' * 72}", flush=True)

    def figures(self, method, code, setting, kind, count=None):
        pictures = self.pictures[kind][:count]
        missing = [one for one in pictures if not self.records.get(code, method, setting, kind, one)]
        for together in batches(missing, BATCH):
            print(f"\r{self.name}: {method.name}, {kind}: {named(setting):72}", end="", file=sys.stderr, flush=True)
            self.records.add(self.draw(method, code, setting, kind, together))
        lines = [self.records.get(code, method, setting, kind, picture) for picture in pictures]
        return Figures(method, setting, lines, self.costs)

    def draw(self, method, code, setting, kind, pictures):
        references = self.reference(kind)
        drawn = self.painter.draw(pictures, lambda: method(self.context, **setting))
        for picture, one, decoded in zip(pictures, drawn, self.painter.decode(drawn)):
            image, whole = references[picture]
            error = (one.latents - whole.latents).norm() / whole.latents.norm()
            yield {
                "code": code, "method": method.name, "setting": setting, "set": kind, "prompt": picture.prompt,
                "seed": picture.seed, "psnr": round(psnr(decoded, image), 3), "ssim": round(ssim(decoded, image), 5),
                "latent_error": round(float(error), 6), "full": one.full, "ran": pack(one.ran)}

    def calibration(self):
        """hydit's, made where there is none."""
        artifacts = self.arguments.artifacts / self.model
        spacing = {"dpmms": "linspace"}.get(self.sampler, "leading")
        path = artifacts / f"calibration-{self.sampler}-{spacing}-{self.arguments.steps}.yaml"
        if not path.exists():
            print(f"{self.name}: calibrating (minutes)", flush=True)
            runs = ",".join(map(str, range(4, 3 * self.arguments.steps // 4 + 1)))
            self.serve("calibrate", "--prompts", ROOT / f"bench/cache/prompts/{self.model}-calibrate.txt",
                       "--batch-size", "2", "--seed", "1000", "--runs", runs)
        return path

    def serve(self, command, *flags):
        line = [self.arguments.serve, command, "--model", self.arguments.artifacts / self.model, "--sampler",
                self.sampler, "--infer-steps", self.arguments.steps, "--threads", self.arguments.threads, *flags]
        done = subprocess.run([str(word) for word in line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, line))}\nended with {done.returncode}:\n{done.stderr.strip()}")
        return done.stdout

    def agrees(self):
        """hydit-serve's own pictures beside these: of each policy the PSNR, where its refreshes are those here."""
        picture, found = self.pictures["judge"][0], {}
        runs = sorted(self.context.schedules)
        for policy, make in [("off", lambda: Uncached(self.context))] + [
                (f"schedule:{self.calibration()}#{count}", lambda count=count: methods.Hydit(self.context, count))
                for count in (runs[0], runs[len(runs) // 2], runs[-1])]:
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "picture.png"
                made = json.loads(self.serve("generate", "--prompt", picture.prompt, "--seed", picture.seed,
                                             "--cache-policy", policy, "--json", "-o", file))
                theirs = numpy.asarray(Image.open(file).convert("RGB"))
            drawn = self.painter.draw([picture], make)
            if made["refresh"] != drawn[0].full:
                sys.exit(f"{self.name}: {policy}: hydit-serve refreshes at {made['refresh']}, but here it is "
                         f"{drawn[0].full}: the two read the calibration differently")
            found[policy.rpartition("#")[2]] = psnr(theirs, self.painter.decode(drawn)[0])
        return found


class Result:
    """Of a method: how many settings were tried, those of the second trial, and those that were judged."""

    def __init__(self, tried, searched, judged):
        self.tried, self.searched, self.judged = tried, searched, judged

    def best(self, axis, budget):
        """The judged setting that the search chose for a speed-up, or None."""
        chosen = ranked(self.searched, axis, budget)
        return next((one for one in self.judged if chosen and one.setting == chosen[0].setting), None)


def each(lists):
    """The settings of several lists, once each."""
    return {json.dumps(setting): setting for settings in lists for setting in settings}.values()


def between(figures, axis, budget):
    """Settings with thresholds between those tried that should just reach a speed-up, those for the best PSNR first."""
    families, found = defaultdict(list), []
    for one in figures:
        if "threshold" in one.setting:
            families[json.dumps(one.setting | {"threshold": None})].append(one)
    for family in families.values():
        family.sort(key=lambda one: one.setting["threshold"])
        for slow, fast in zip(family, family[1:]):
            if slow.speed_ups[axis] < budget * MARGIN < fast.speed_ups[axis]:
                share = (budget * MARGIN - slow.speed_ups[axis]) / (fast.speed_ups[axis] - slow.speed_ups[axis])
                low, high = slow.setting["threshold"], fast.setting["threshold"]
                threshold = float(f"{low * (high / low) ** share:.3g}")
                found.append((slow.psnr + share * (fast.psnr - slow.psnr), slow.setting | {"threshold": threshold}))
                break
    return [setting for _, setting in sorted(found, key=lambda pair: -pair[0])]


def ranked(figures, axis, budget):
    """Those that reach a speed-up, best first."""
    return sorted((one for one in figures if one.speed_ups[axis] >= budget), key=lambda one: -one.psnr)
