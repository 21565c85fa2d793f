"""The source itself: no shell, no code from data, no unpickling, wherever a module is added."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.params import load

REPO = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for top in ("pipelines", "training") for p in (REPO / top).rglob("*.py"))
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile",
    "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput", "pty.spawn",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "joblib.load",
    "cloudpickle.load", "cloudpickle.loads", "marshal.load", "marshal.loads", "shelve.open",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all",
    "pd.read_pickle", "pandas.read_pickle", "torch.hub.load", "tempfile.mktemp",
    "tarfile.TarFile.extractall", "shutil.unpack_archive", "random.seed_from_pickle",
}  # fmt: skip
SAFE_LOADERS = {"_Loader", "SafeLoader", "yaml.SafeLoader", "CSafeLoader", "yaml.CSafeLoader"}


def name_of(node: ast.expr) -> str:
    """`a.b.c` of a dotted name, else an empty string."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) else ""


def problems(source: str) -> Iterator[str]:
    """What a file does that data from outside could turn into code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "dill"):
            yield f"{node.lineno}: imports from {node.module}"
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        last = name.rpartition(".")[2]
        given = {k.arg: k.value for k in node.keywords}
        if name in FORBIDDEN or last in ("extractall", "unsafe_load"):
            yield f"{node.lineno}: {name}"
        if last in ("create_subprocess_shell", "execlp", "execvp"):
            yield f"{node.lineno}: {name}"
        if "shell" in given and not is_constant(given["shell"], False):
            yield f"{node.lineno}: {name} with shell="
        if name.startswith("subprocess.") and node.args and isinstance(node.args[0], STRINGS):
            yield f"{node.lineno}: {name} of a string"
        if name == "yaml.load":
            loader = given.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            if loader is None or name_of(loader) not in SAFE_LOADERS:
                yield f"{node.lineno}: yaml.load without a safe loader"
        if name == "torch.load" and not is_constant(given.get("weights_only"), True):
            yield f"{node.lineno}: torch.load without weights_only=True"
        if "allow_pickle" in given and not is_constant(given["allow_pickle"], False):
            yield f"{node.lineno}: {name} with allow_pickle"
        if (
            last == "environment"
            and name_of(node.func) == "Environment"
            and "autoescape" not in given
        ):
            yield f"{node.lineno}: jinja2 without autoescape"


STRINGS = (ast.JoinedStr, ast.Constant, ast.BinOp)


def is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run(f'ls {x}', shell=True)",
        "subprocess.run(words, shell=maybe)",
        "subprocess.check_output('ls ' + name)",
        "os.system(x)",
        "eval(x)",
        "exec(x)",
        "pickle.loads(x)",
        "from pickle import loads",
        "yaml.load(x)",
        "yaml.load(x, yaml.Loader)",
        "yaml.load(x, Loader=yaml.FullLoader)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "torch.load(x, weights_only=maybe)",
        "np.load(x, allow_pickle=True)",
        "tar.extractall(x)",
        "asyncio.create_subprocess_shell(x)",
        "tempfile.mktemp()",
    ],
)
def test_the_search_finds_each_of_these(source: str) -> None:
    assert list(problems(source))


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run([a, b], shell=False)",
        "yaml.load(x, _Loader)",
        "torch.load(x, map_location='cpu', weights_only=True)",
        "np.load(x, allow_pickle=False)",
        "module.eval()",
    ],
)
def test_the_search_lets_each_of_these_pass(source: str) -> None:
    assert not list(problems(source))


def test_no_module_runs_a_shell_or_code_out_of_data() -> None:
    assert len(SOURCES) > 100
    found = [
        f"{path.relative_to(REPO)}:{problem}"
        for path in SOURCES
        for problem in problems(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_servers_are_bound_to_loopback_by_the_one_module_that_has_one() -> None:
    words = ("HTTPServer(", "socketserver", "add_insecure_port", ".listen(", '"0.0.0.0"')
    having = {p.name for p in SOURCES if any(word in p.read_text() for word in words)}
    assert having <= {"handler.py", "runner.py", "server.py"}


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch pwned']",
        "!!python/object/new:os.system ['touch pwned']",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/object/apply:subprocess.check_output [[touch, pwned]]",
    ],
)
def test_python_tags_in_params_are_refused_and_do_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(f"name: {tag}\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load(tmp_path / "params.yaml")
    assert not (tmp_path / "pwned").exists()
