"""The code of this repository as its figures see it: modules, what they define, and what of it counts.

What changes no figure does not count: comments, formatting, docstrings, annotations of functions, and the texts of
`--help` and of errors.
"""

import ast
import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {name: f"shtopk.{name}" for name in ("models", "tasks", "training", "configs")}
FOLDERS = ("benchmarks", "shtopk", *PACKAGES, "train.py")  # where code lies
KINDS = (".py", ".yaml", ".c", ".h")
NO_CODE = ("benchmarks/results/", "benchmarks/.cache/")
Name = tuple[str, str | None]  # a module and a name in it; None: the module


class Module:
    """The top level of a module.

    Attributes:
        definitions: name -> the statements that define it.
        imports: name -> what it stands for.
        effects: all other statements: what importing the module does.
        main: what it does when it is run as a script.
    """

    def __init__(self, name: str, content: bytes, is_package: bool = False):
        self.package = name if is_package else name.rpartition(".")[0]
        self.definitions: dict[str, list[ast.AST]] = {}
        self.imports: dict[str, Name] = {}
        self.effects: list[ast.AST] = []
        self.main: list[ast.AST] = []
        for statement in ast.parse(content).body:
            self._add(statement)

    def _add(self, statement: ast.stmt) -> None:
        test = ast.unparse(statement.test) if isinstance(statement, ast.If) else ""
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self.imports |= imported(statement, self.package)
        elif test == "TYPE_CHECKING":  # where packages name what they import late
            for inner in statement.body:
                self._add(inner)
        elif test == "__name__ == '__main__'":
            self.main.append(_Counted().visit(statement))
        elif names := [name for name in _defined(statement) if name != "_"]:
            counted = _Counted().visit(statement)
            for name in names:
                self.definitions.setdefault(name, []).append(counted)
        elif not _is_text(statement):
            self.effects.append(_Counted().visit(statement))


def imported(statement: ast.Import | ast.ImportFrom, package: str) -> dict[str, Name]:
    """The names that an import in a package defines, and what each stands for."""
    if isinstance(statement, ast.Import):
        names = [(alias.asname or alias.name.split(".")[0], alias) for alias in statement.names]
        return {name: (alias.name if alias.asname else name, None) for name, alias in names}
    parts = package.split(".")[: len(package.split(".")) + 1 - statement.level] if statement.level else []
    source = ".".join([*parts, *filter(None, [statement.module])])
    return {alias.asname or alias.name: (source, alias.name) for alias in statement.names}


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class _Counted(ast.NodeTransformer):
    """Leaves of a statement what counts."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if _is_text(node) else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg == "help" else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in ("option", "_option"):
            node.args = node.args[:1]  # of the fields of a command line; behind the default stands their help
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)


def written(node: object) -> str:
    """A tree as text, the same with every version of Python."""
    if isinstance(node, list):
        return f"[{' '.join(map(written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={written(value)}" for name, value in ast.iter_fields(node) if value is not None and value != []]
    return f"{type(node).__name__}({' '.join(fields)})"


def module_name(path: str) -> str:
    """As programs import it: "speed" for benchmarks/speed.py, "shtopk.tasks.bbc" for tasks/bbc.py."""
    first, *rest = path.removesuffix(".py").split("/")
    parts = rest if first == "benchmarks" else [PACKAGES.get(first, first), *rest]
    return ".".join(parts).removesuffix(".__init__")


class Code:
    """All files that figures may depend on.

    Args:
        files: path from the root -> content.

    Attributes:
        paths: of the modules, by name.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files = {path: content for path, content in files.items() if _is_code(path)}
        self.paths = {module_name(path): path for path in self.files if path.endswith(".py")}
        self._modules: dict[str, Module] = {}

    @classmethod
    def here(cls) -> "Code":
        """As it stands in this folder."""
        found = [path for name in FOLDERS for path in [ROOT / name, *(ROOT / name).rglob("*")]]
        names = {path.relative_to(ROOT).as_posix(): path for path in sorted(found) if path.is_file()}
        return cls({name: path.read_bytes() for name, path in names.items() if _is_code(name)})

    @classmethod
    def of_revision(cls, revision: str) -> "Code | None":
        """As git has it; None where git or the revision is not there."""
        try:
            packed = subprocess.run(
                ["git", "archive", "--format=tar", revision], cwd=ROOT, capture_output=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            entries = [entry for entry in archive if entry.isfile() and _is_code(entry.name)]
            return cls({entry.name: archive.extractfile(entry).read() for entry in entries})

    def module(self, name: str) -> Module:
        if name not in self._modules:
            path = self.paths[name]
            self._modules[name] = Module(name, self.files[path], path.endswith("__init__.py"))
        return self._modules[name]


def _is_code(path: str) -> bool:
    return path.endswith(KINDS) and path.split("/")[0] in FOLDERS and not path.startswith(NO_CODE)
