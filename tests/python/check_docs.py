#!/usr/bin/env python3
"""Checks the Markdown files of the repository, offline.

    tests/python/check_docs.py [FOLDER OF hydit-serve AND hydit-export]

- Every relative link leads to a file, and its anchor to a heading.
- Prose has at most 110 columns; tables, code and pictures may be wider.
- With the programs: every flag in a command of an example is in the program's --help.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
WIDTH = 110
APART = {"target", "artifacts", "demo", "node_modules"}
#: A line that runs one of the programs, perhaps under `time`: program and arguments.
EXAMPLE = re.compile(r"^ *(?:/usr/bin/time .* )?(hydit-(?:serve|export)) ([^|#>\n]*)", re.M)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def main():
    programs = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
    pages = {path: Page(path) for path in sorted(ROOT.rglob("*.md")) if not apart(path)}
    problems = [problem for page in pages.values() for problem in page.problems(pages)]
    examples = [example for page in pages.values() for example in page.examples()] if programs else []
    helps = {}
    problems += [problem for example in examples for problem in unknown_flags(programs, helps, *example)]
    print("\n".join(problems), end="\n" if problems else "")
    print(f"{len(pages)} pages, {len(examples)} commands, {len(problems)} problems")
    return 1 if problems else 0


def apart(path):
    return any(part in APART or part.startswith(".") for part in path.relative_to(ROOT).parts)


class Page:
    """A Markdown file: its prose, its examples, its headings."""

    def __init__(self, path):
        self.path, self.name = path, str(path.relative_to(ROOT))
        self.prose, self.code = [], []
        fenced, before = False, ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            fence = line.lstrip().startswith("```")
            # Four spaces begin a block of code after an empty line only; else the line belongs to a list.
            indented = line.startswith("    ") and (not before.strip() or before in self.code[-1:])
            if fenced or indented:
                self.code.append(line)
            elif not fence:
                self.prose.append((number, line))
            fenced ^= fence
            before = line
        self.anchors = {slug(line) for _, line in self.prose if re.match(r"#+ ", line)}

    def problems(self, pages):
        """Wrong links and wide lines."""
        for number, line in self.prose:
            where = f"{self.name}:{number}"
            if len(line) > WIDTH and not line.lstrip().startswith(("|", "![", "[")):
                yield f"{where}: {len(line)} columns, at most {WIDTH} are allowed"
            for link in LINK.findall(re.sub(r"`[^`]*`", "", line)):
                if re.match(r"[a-z]+:", link):
                    continue
                file, _, anchor = link.partition("#")
                target = (self.path.parent / file).resolve() if file else self.path
                if not target.exists():
                    yield f"{where}: {link} leads nowhere"
                elif anchor and target in pages and anchor not in pages[target].anchors:
                    yield f"{where}: {file or self.name} has no heading for #{anchor}"

    def examples(self):
        """The commands of the two programs, as (page, program, arguments)."""
        text = re.sub(r"\\\n\s*", " ", "\n".join(self.code))
        for program, arguments in re.findall(EXAMPLE, text):
            yield self.name, program, arguments.split()


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.lstrip("#").strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def unknown_flags(programs, helps, page, program, arguments):
    """Flags of a command that its --help does not name."""
    subcommand = [arguments[0]] if re.fullmatch("[a-z]+", arguments[0]) else []
    key = (program, *subcommand)
    if key not in helps:
        done = subprocess.run([programs / program, *subcommand, "--help"], capture_output=True, text=True)
        helps[key] = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout)) if done.returncode == 0 else None
    if helps[key] is None:
        yield f"{page}: {' '.join(key)} is not a command"
        return
    for flag in arguments:
        flag = flag.strip("[]`")
        if re.match(r"--?[a-z]", flag) and flag.partition("=")[0] not in helps[key]:
            yield f"{page}: {' '.join(key)} has no {flag}"


sys.exit(main())
