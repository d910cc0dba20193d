"""What was measured, a line of JSON for each picture, so that a run goes on where the last one ended."""

import ast
import hashlib
import inspect
import json
import pathlib
import statistics
from collections import Counter

from flops import HUNYUAN_DIT, Flops, stretched
from measure import EQUAL, lowest_tenth
from model import LAYERS

HERE = pathlib.Path(__file__).parent
#: Code that pictures of every method depend on.
SHARED = ("model.py", "draw.py", "measure.py", "methods/base.py", "methods/series.py")
#: Hunyuan-DiT's image tokens at 1024x1024.
TOKENS = 64 * 64


def fingerprint(method, data=""):
    """Of all code and data that a method's pictures depend on: what was measured with others does not count."""
    files = [HERE / name for name in SHARED] + [pathlib.Path(inspect.getfile(method))]
    return hashlib.sha256("".join([*map(code_of, files), data]).encode()).hexdigest()[:16]


def code_of(file):
    """What a Python file does, whatever its comments, its docstrings and its line breaks."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def pack(ran):
    """A `Counter` of what ran as JSON: rows of every part, and of every layer by block."""
    depth = 1 + max(what[0] for what in ran if isinstance(what, tuple))
    parts = {what: rows for what, rows in ran.items() if isinstance(what, str)}
    return parts | {layer: [ran.get((block, layer), 0) for block in range(depth)] for layer in LAYERS}


def unpack(packed):
    ran = Counter()
    for what, rows in packed.items():
        if what in LAYERS:
            ran.update({(block, what): count for block, count in enumerate(rows) if count})
        else:
            ran[what] = rows
    return ran


class Records:
    """Those of one model, sampler and number of steps."""

    def __init__(self, path):
        self.path, self.lines = path, {}
        if path.exists():
            for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    line = json.loads(text)
                    self.lines[self.key(line)] = line
                except (ValueError, KeyError):
                    raise SystemExit(f"{path}:{number}: not a line that this program has written: remove it, and run "
                                     "again to measure it anew") from None

    @staticmethod
    def key(line):
        return line["code"], line["method"], json.dumps(line["setting"]), line["set"], line["prompt"], line["seed"]

    def get(self, code, method, setting, kind, picture):
        return self.lines.get((code, method.name, json.dumps(setting), kind, picture.prompt, picture.seed))

    def add(self, lines):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for line in lines:
                self.lines[self.key(line)] = line
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


class Costs:
    """FLOPs of the model that drew, and of Hunyuan-DiT at 1024x1024, had it made the same decisions."""

    def __init__(self, config, tokens, steps):
        self.own, self.real, self.steps = Flops(config, tokens), Flops(HUNYUAN_DIT, TOKENS), steps

    def of(self, ran, counts):
        real = stretched(ran, self.own.depth, self.real.depth, counts)
        return self.own.of(ran), self.real.of(real)

    def speed_ups(self, costs):
        """Of pictures with these costs: by the model's own FLOPs, and by Hunyuan-DiT's."""
        own, real = (statistics.mean(column) for column in zip(*costs))
        return self.own.uncached(self.steps) / own, self.real.uncached(self.steps) / real


class Figures:
    """Of one setting of a method, over pictures."""

    def __init__(self, method, setting, lines, costs):
        self.method, self.setting, self.count = method, setting, len(lines)
        psnr = [line["psnr"] for line in lines]
        self.psnr = statistics.mean([value for value in psnr if value != EQUAL] or [EQUAL])
        self.p10 = lowest_tenth(psnr)
        self.ssim = statistics.mean(line["ssim"] for line in lines)
        self.latent_error = statistics.mean(line["latent_error"] for line in lines)
        self.full = statistics.mean(len(line["full"]) for line in lines)
        self.speed_ups = costs.speed_ups([costs.of(unpack(line["ran"]), method.counts) for line in lines])


def named(setting):
    return ", ".join(f"{name} {value}" for name, value in setting.items()) or "–"
