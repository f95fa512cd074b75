"""What a benchmark's figures depend on, found in the code: what its script reaches, name by name.

From `main()` on, every name of this repository that a function, a class or a constant uses is looked up, through
packages that only pass it on, and what it stands for is read in turn. With a module of which anything is reached comes
what it does when it is imported. A file whose name stands in a string counts too: a YAML configuration, a script. So
do code that is run by `python -c`, a command behind "shtopk", and the C sources where their backend is reached.

All that is seen without running anything. A module whose name is put together elsewhere is not found.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator

from sources import Code, Module, Name, imported, module_name, written

NATIVE, KERNELS = "shtopk.backends.native", "shtopk.backends.gpu"
COMMANDS, REGISTRY = "shtopk.commands", "shtopk.tasks.registry"
# What keeps or shows figures, refuses arguments, ends a run that fails, or exports a model, and makes no figure; of
# benchmarks these functions as well.
APART = ("record", "origin", "reached", "sources", "parts", "shtopk.show", "shtopk.onnx", "shtopk.models.model_card",
         "shtopk.training.plot", "shtopk.training.trackers", "shtopk.training.hub", "shtopk.training.checks",
         "shtopk.training.trial", "shtopk.training.ending", "shtopk.training.results.show_documents")  # fmt: skip
PAGES = ("table", "draw")


class Reach:
    """What is reached from the start of a script.

    Args:
        code: where to look.
        script: the module that is run.
        without: modules, and names as "module.name", that are not followed.
        tasks: those of shtopk.tasks that are read; None: any.
        words: of the command line.

    Attributes:
        names: module -> name -> the statements that define it; "" has what importing the module does.
        others: paths of files that are no Python.
        outside: the packages from elsewhere that are used.
    """

    def __init__(self, code: Code, script: str, *, without: Iterable[str] = (), tasks: Iterable[str] | None = None,
                 words: Iterable[str] = ()):  # fmt: skip
        self.code, self.without = code, {*APART, *without}
        if tasks is not None and REGISTRY in code.paths:
            records = {source: name for source, name in code.module(REGISTRY).imports.values() if str(name).isupper()}
            kept = {f"shtopk.tasks.{task}" for task in tasks}
            self.without |= {f"{source}.{name}" for source, name in records.items() if source not in kept}
        self.names: dict[str, dict[str, list[ast.AST]]] = {}
        self.others: set[str] = set()
        self.outside: set[str] = set()
        todo = [*self._run(script), *(one for word in words for one in self._said(word))]
        met: set[Name] = set()
        while todo:
            if (name := todo.pop()) not in met:
                met.add(name)
                todo += self._entered(*name)

    def hashes(self) -> dict[str, str]:
        """Path -> a hash of what counts in that file."""
        texts = {self.code.paths[module]: "".join(f"{name}{written(found)}" for name, found in sorted(names.items()))
                 for module, names in self.names.items()}  # fmt: skip
        contents = {path: text.encode() for path, text in texts.items()}
        contents |= {path: _without_comments(path, self.code.files[path]) for path in self.others}
        return {path: hashlib.sha256(content).hexdigest()[:12] for path, content in sorted(contents.items())}

    def _entered(self, module: str, name: str | None) -> Iterator[Name]:
        """What a name uses, when it is met for the first time."""
        if module not in self.code.paths:
            self.outside.add(module.split(".")[0])
        elif not self._is_apart(module, name):
            found = self.code.module(module)
            if name is None:
                yield from ((module, one) for one in found.definitions)
                yield from self._effects(module)
            elif name in found.definitions:
                if name not in self.names.setdefault(module, {}):
                    self.names[module][name] = found.definitions[name]
                    yield from self._used(found.definitions[name], found, module)
                    yield from self._effects(module)
            elif name in found.imports and found.imports[name] != (module, name):
                yield found.imports[name]
            elif f"{module}.{name}" in self.code.paths:
                yield f"{module}.{name}", None

    def _is_apart(self, module: str, name: str | None) -> bool:
        if name in PAGES and self.code.paths[module].startswith("benchmarks/"):
            return True
        parts = [*module.split("."), *filter(None, [name])]
        return any(".".join(parts[:count]) in self.without for count in range(1, len(parts) + 1))

    def _run(self, script: str) -> Iterator[Name]:
        yield from self._effects(script)
        found = self.code.module(script)
        yield from self._used(found.main, found, script)

    def _effects(self, module: str) -> Iterator[Name]:
        names = self.names.setdefault(module, {})
        if "" not in names:
            found = self.code.module(module)
            names[""] = found.effects
            if module == NATIVE:
                self.others |= {path for path in self.code.files if path.endswith((".c", ".h"))}
            yield from self._used(found.effects, found, module)

    def _used(self, nodes: Iterable[ast.AST], module: Module, own: str | None) -> Iterator[Name]:
        """The names that statements of a module use. own: its name; None for a program in a string."""
        inner = [node for statement in nodes for node in ast.walk(statement)]
        names: dict[str, Name] = {name: (own, name) for name in module.definitions if own} | module.imports
        for node in inner:
            if isinstance(node, ast.Import | ast.ImportFrom):
                local = imported(node, module.package)
                names |= local
                yield from (one for one in local.values() if one[1])
        parts: set[ast.AST] = set()
        said: set[str] = set()
        for node in inner:  # an a.b.c comes before its parts
            if node in parts:
                continue
            if isinstance(node, ast.Attribute):
                chain, part = [], node
                while isinstance(part, ast.Attribute):
                    parts.add(part)
                    chain.insert(0, part.attr)
                    part = part.value
                if isinstance(part, ast.Name) and part.id in names:
                    parts.add(part)
                    yield self._attribute(*names[part.id], chain)
            elif isinstance(node, ast.Name) and node.id in names:
                yield names[node.id]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
        for text in said:
            yield from self._said(text)
        if own != COMMANDS and ("shtopk" in said or (COMMANDS, "main") in names.values()):
            yield from ((f"{COMMANDS}.{word}", "main") for word in said if f"{COMMANDS}.{word}" in self.code.paths)

    def _attribute(self, module: str, name: str | None, chain: list[str]) -> Name:
        """What a.b.c stands for, where a stands for a name and chain is b, c."""
        if name is not None and f"{module}.{name}" in self.code.paths:
            found = self.code.module(module) if module in self.code.paths else None
            own = found.definitions | found.imports if found else {}
            if own.get(name) in (None, (module, name)):
                module, name = f"{module}.{name}", None
        if name is None and chain and module in self.code.paths:
            return self._attribute(module, chain[0], chain[1:])
        return module, name

    def _said(self, text: str) -> Iterator[Name]:
        """What a string names."""
        if text.endswith(".yaml"):
            self.others |= {path for path in self.code.files if path in (text, f"configs/{text}")}
        elif text.endswith(".py") and text in self.code.files:
            yield from self._run(module_name(text))
        elif "import " in text and "\n" in text:
            try:
                program = Module("", text.encode())
            except SyntaxError:
                return
            yield from program.imports.values()
            yield from self._used(program.effects, program, None)


def _without_comments(path: str, content: bytes) -> bytes:
    if not path.endswith(".yaml"):
        return content
    return b"\n".join(line for line in content.splitlines() if not line.startswith(b"#"))
