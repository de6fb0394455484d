"""Build the documentation into site/ with zensical, in two languages, of README.md, CONTRIBUTING.md and docs/.

The pages of each language are laid side by side, with their links as they are there. A page without a Chinese twin is
English in both, and says so in the Chinese site. What a link names in the checkout but is no page, such as
deploy/nginx, becomes plain text.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from posixpath import normpath

from clone import import_from

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "site"
PAGES = {  # by name: the file, and its title in the navigation in both languages
    "index": ("README", "Start in one minute", "一分钟上手"),
    "operations": ("docs/operations", "The day's work", "日常操作"),
    "verdicts": ("docs/verdicts", "Verdicts and cures", "判断与对策"),
    "scenarios": ("docs/scenarios", "Thirteen situations", "十三种情况"),
    "behaviour": ("docs/behaviour", "What it does, and when", "行为与时机"),
    "options": ("docs/options", "Options", "选项"),
    "services": ("docs/services", "As a service", "作为系统服务"),
    "kubernetes": ("docs/kubernetes", "Kubernetes", "Kubernetes"),
    "security": ("docs/security", "Threat model", "威胁模型"),
    "planned": ("docs/planned", "What planned operations lose", "计划内操作的损失"),
    "benchmark": ("docs/benchmark", "Beside the rivals", "与同类比较"),
    "design": ("docs/design", "Architecture", "架构"),
    "patches": ("docs/patches", "What is replaced in Circus", "对 Circus 的替换"),
    "contributing": ("CONTRIBUTING", "How to change it", "如何修改"),
    "changelog": ("CHANGELOG", "Changes", "变更"),
}
FILES = {file: name for name, (file, *_) in PAGES.items()}
TWIN = ".zh-CN"
ONLY_ENGLISH = "\n\n> 本页只有英文版。\n"
LANGUAGES = {"en": ("English", ""), "zh": ("简体中文", "zh-CN/")}  # with the folder in the site
PICTURES = (".png", ".svg")
EXTENSIONS = ("attr_list", "tables", "pymdownx.highlight", "pymdownx.superfences")
SCHEMES = (("light", "default"), ("dark", "slate"))
_OUTSIDE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")


def linked(text: str, file: str, language: str, pictures: set[str]) -> str:
    """Return the text of *file* with the links of the site; the *pictures* that it shows are added. One that leads
    nowhere ends this.

    >>> linked("[options](docs/options.md#x), [nginx](deploy/nginx), [中文](README.zh-CN.md)", "README.md", "en", set())
    '[options](options.md#x), nginx, [中文](zh-CN/index.html)'
    """

    def link(found: re.Match[str]) -> str:
        mark, title, target, anchor = found.groups("")
        path = normpath(f"{Path(file).parent}/{target}")
        if not (ROOT / path).exists():
            sys.exit(f"{file}: the link to {target} leads nowhere")
        if path.endswith(PICTURES):
            pictures.add(path)
            return f"{mark}[{title}]({Path(path).name})"
        stem = path.removesuffix(".md")
        name = FILES.get(stem.removesuffix(TWIN))
        if name is None:
            return title
        other = "zh" if stem.endswith(TWIN) else "en"
        has_twin = (ROOT / f"{stem.removesuffix(TWIN)}{TWIN}.md").exists()
        if other == language or not has_twin:
            return f"{mark}[{title}]({name}.md{anchor})"
        folder = "../" if language == "zh" else LANGUAGES[other][1]
        return f"{mark}[{title}]({folder}{name}.html{anchor})"

    # GitHub ends a cell at each pipe that has no backslash, the site's Markdown not within code, where it shows that.
    return re.sub(r"`[^`\n]+`", lambda code: code[0].replace(r"\|", "|"), _LINK.sub(link, text))


def outside(folder: Path) -> list[str]:
    """Return what pages in *folder* would fetch from other hosts."""
    pages = (page.read_text(encoding="utf-8") for page in sorted(folder.rglob("*.html")))
    return [found for page in pages for found in _OUTSIDE.findall(page)]


def lay(folder: Path, language: str) -> None:
    """Write the pages of a language into *folder*, and the settings beside them."""
    docs = folder / "docs"
    docs.mkdir()
    pictures: set[str] = set()
    for name, (stem, *_) in PAGES.items():
        twin = f"{stem}{TWIN}.md"
        file = twin if language == "zh" and (ROOT / twin).exists() else f"{stem}.md"
        text = (ROOT / file).read_text(encoding="utf-8")
        if language == "zh" and file != twin:
            text = text.replace("\n", ONLY_ENGLISH, 1)
        (docs / f"{name}.md").write_text(linked(text, file, language, pictures), encoding="utf-8")
    for path in pictures:
        shutil.copy(ROOT / path, docs)
    # JSON is YAML.
    (folder / "mkdocs.yml").write_text(json.dumps(settings(language)), encoding="utf-8")


def settings(language: str) -> dict[str, object]:
    """Return the settings of zensical, which are those of mkdocs; nothing is fetched from another host."""
    home = "../" if language == "zh" else "./"
    places = {code: (title, f"{home}{path}index.html") for code, (title, path) in LANGUAGES.items()}
    others = [{"name": title, "link": link, "lang": code} for code, (title, link) in places.items()]
    return {
        "site_name": "xboard-circus",
        "docs_dir": "docs",
        "site_dir": "site",
        "use_directory_urls": False,
        "theme": {
            "name": "material",
            "language": language,
            "font": False,
            "features": ["navigation.footer", "navigation.top", "content.code.copy"],
            "palette": [{"media": f"(prefers-color-scheme: {name})", "scheme": scheme} for name, scheme in SCHEMES],
        },
        "plugins": ["search"],
        "markdown_extensions": [*EXTENSIONS, {"toc": {"permalink": True}}],
        "extra": {"generator": False, "alternate": others},
        "nav": [{titles[list(LANGUAGES).index(language)]: f"{name}.md"} for name, (_, *titles) in PAGES.items()],
    }


def main() -> None:
    """Build the site anew."""
    shutil.rmtree(SITE, ignore_errors=True)
    for language, (_, path) in LANGUAGES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            lay(folder, language)
            command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                # After the warnings it has a traceback of its own.
                sys.exit(_COLOURS.sub("", f"{done.stdout}{done.stderr}").partition("Traceback")[0])
            shutil.copytree(folder / "site", SITE / path, dirs_exist_ok=True)
    if found := outside(SITE):
        sys.exit("\n".join(["the site fetches from other hosts:", *found]))
    print(f"built {SITE.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    import_from(ROOT)
    main()
