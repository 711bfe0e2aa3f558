# ruff: noqa
"""Renames identifiers to the field's terms, and proves that nothing else changed. Removed once it has run.

    python tests/refactoring/rename.py          renames, then compares syntax trees before and after modulo the names

Needs Python 3.12 or newer, whose tokenizer sees into f-strings. A rule is a set of files (globs) and names; a name that
begins with `.` is renamed as an attribute or method alone, one that begins with `!` everywhere but as an attribute.
Names of modules in import statements stay. A new name that a file has already, other than by these rules, is a fault.
"""

import ast
import fnmatch
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from renames import CODE, KEPT, RULES, SEEN, STRINGS

Names = dict[str, str]


def files() -> Iterator[str]:
    listed = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout
    yield from (name for name in listed.splitlines() if "refactoring" not in name)


def rules_for(name: str) -> tuple[Names, Names]:
    """What is renamed in a file: identifiers, and whole strings."""
    names, strings = {}, {}
    for table, found in ((RULES, names), (STRINGS, strings)):
        for globs, changes in table:
            if any(fnmatch.fnmatch(name, glob) for glob in globs.split()):
                found |= changes
    return names, strings


def new_name(names: Names, token: str, attribute: bool) -> str:
    special = f".{token}" if attribute else f"!{token}"
    return names.get(special, names.get(token, token))


def module_tokens(tokens: list[tokenize.TokenInfo]) -> set[int]:
    """Which tokens name modules in `from X import` and `import X`."""
    found: set[int] = set()
    for number, token in enumerate(tokens):
        starts = number == 0 or tokens[number - 1].type in (
            tokenize.NEWLINE,
            tokenize.NL,
            tokenize.INDENT,
            tokenize.DEDENT,
            tokenize.COMMENT,
        )
        if starts and token.string in ("from", "import"):
            place = number + 1
            while tokens[place].string == "." or (
                tokens[place].type == tokenize.NAME and tokens[place].string not in ("import", "as")
            ):
                found.add(place)
                place += 1
    return found


def kept(name: str, token: str, line: str) -> bool:
    return any(name == file and token == each and part in line for file, each, part in KEPT)


def renamed(text: str, name: str) -> str:
    """The source with its identifiers renamed, all else as it was."""
    names, strings = rules_for(name)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    modules, lines = module_tokens(tokens), text.splitlines(keepends=True)
    changes = []
    for number, token in enumerate(tokens):
        row, column = token.start
        new = token.string
        if token.type == tokenize.NAME and number not in modules:
            new = new_name(names, token.string, number > 0 and tokens[number - 1].string in (".", "def"))
        elif re.fullmatch(r'"_?[A-Z][A-Za-z]+[a-z]"', token.string):  # An annotation.
            new = f'"{new_name(names, token.string[1:-1], False)}"'
        elif token.type in (tokenize.STRING, tokenize.FSTRING_MIDDLE):
            for old, other in strings.items():
                if token.string in (old, f'"{old}"'):
                    new = token.string.replace(old, other)
        if new != token.string and not kept(name, token.string, lines[row - 1]):
            changes.append((row, column, token.string, new))
    for row, column, old, new in sorted(changes, reverse=True):
        line = lines[row - 1]
        assert line[column : column + len(old)] == old, (name, row, line)
        lines[row - 1] = line[:column] + new + line[column + len(old) :]
    return "".join(lines)


def collisions(text: str, name: str) -> list[str]:
    """Where a new name meets one that is there already: variables in one function, attributes in one file."""
    names, _ = rules_for(name)
    tree = ast.parse(text)
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    top = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | bound_by_imports(tree)
    found = set()
    for scope in [*scopes, None]:
        variables = variables_of(scope) if scope else {each for each in top if is_global(tree, each)}
        attributes = set() if scope else {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for there, is_attribute in ((variables, False), (attributes, True)):
            renamed_here = {each: new_name(names, each, is_attribute) for each in there}
            for old, new in renamed_here.items():
                if new != old and renamed_here.get(new, "") == new:
                    kind = "attribute " * is_attribute
                    found.add(
                        f"{kind}{old} -> {new} in {getattr(scope, 'name', 'the module' if not scope else 'lambda')}"
                    )
    return sorted(each for each in found if (name, each) not in SEEN)


def variables_of(scope: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(scope) if isinstance(node, ast.Name)}
    return names | {node.arg for node in ast.walk(scope) if isinstance(node, ast.arg)} | bound_by_imports(scope)


def bound_by_imports(tree: ast.AST) -> set[str]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in nodes for alias in node.names}


def is_global(tree: ast.Module, name: str) -> bool:
    return any(
        isinstance(node, ast.FunctionDef | ast.ClassDef)
        and node.name == name
        or isinstance(node, ast.Assign | ast.AnnAssign | ast.ImportFrom | ast.Import)
        and name in {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} | bound_by_imports(node)
        for node in tree.body
    )


class Shape(ast.NodeVisitor):
    """A syntax tree as a list of its nodes, identifiers apart from all else."""

    FIELDS = ("id", "attr", "arg", "name", "asname", "kwd_attrs", "names")

    def __init__(self) -> None:
        self.rest: list[str] = []
        self.names: list[str] = []

    def generic_visit(self, node: ast.AST) -> None:
        self.rest.append(type(node).__name__)
        for field, value in ast.iter_fields(node):
            if field in self.FIELDS and isinstance(value, str):
                self.names.append(value)
                self.rest.append(field)
            elif isinstance(value, ast.AST):
                self.visit(value)
            elif isinstance(value, list):
                for each in value:
                    if isinstance(each, ast.AST):
                        self.visit(each)
                    else:
                        self.names.append(str(each))
            elif not (isinstance(node, ast.Constant) and isinstance(value, str)):  # Strings: see STRINGS.
                self.rest.append(f"{field}={value!r}")


def differs(before: str, after: str, name: str) -> str:
    """What is different beyond the rules; empty if nothing is."""
    shapes = []
    for text in (before, after):
        shape = Shape()
        shape.visit(ast.parse(text))
        shapes.append(shape)
    if shapes[0].rest != shapes[1].rest:
        return f"{name}: another tree"
    names, _ = rules_for(name)
    for old, new in zip(shapes[0].names, shapes[1].names, strict=True):
        if new != old and new not in (names.get(old), names.get(f".{old}"), names.get(f"!{old}")):
            return f"{name}: {old} became {new}"
    return ""


def main() -> int:
    faults = []
    for name in files():
        before = Path(name).read_text()
        faults += [f"{name}: {fault}" for fault in collisions(before, name)]
        after = renamed(before, name)
        if fault := differs(before, after, name):
            faults.append(fault)
        for old, new in CODE.get(name, {}).items():
            assert old in after, (name, old)
            after = after.replace(old, new)
        if after != before:
            Path(name).write_text(after)
    print("\n".join(faults))
    return len(faults)


if __name__ == "__main__":
    sys.exit(main() and 1)
