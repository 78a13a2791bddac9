"""Names of the classes of Hugging Face's `ClassLabel`, as a data set's features, card or JSON describe them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import from_json

_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "README.md")


def classes_of(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of the classes of each column that Hugging Face's features call a `ClassLabel`.

    Of a column of objects, or of lists of them, it is a mapping of the keys that hold classes.
    """
    return {column: found for column, said in features.items() if (found := _classes(said))}


def classes_beside(folder: Path) -> tuple[dict[str, Any], Path | None]:
    """Return the names of the classes that a folder, or the one above it, describes, and the file that does.

    Raises `UserError` where the configurations of a data set name the classes of a column differently.
    """
    for place in (folder, folder.absolute().parent):
        for path in (place / name for name in _DESCRIPTIONS):
            found: dict[str, Any] = {}
            for classes in _described(path) if path.is_file() else ():
                for column, names in classes.items():
                    if found.setdefault(column, names) != names:
                        raise UserError(
                            f"{path}: column {column} has other classes in other configurations: write the names of "
                            "the classes into the data, or give hf:NAME"
                        )
            if found:
                return found, path
    return {}, None


def named(values: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's values, or an object's, with the names of classes in place of their numbers; −1 is none."""
    return {name: _name_of(value, classes[name]) if name in classes else value for name, value in values.items()}


def _name_of(value: Any, classes: Any) -> Any:
    if isinstance(value, list):
        return [_name_of(one, classes) for one in value]
    if isinstance(classes, Mapping):
        return named(value, classes) if isinstance(value, Mapping) else value
    if isinstance(value, float | str) and value not in classes and re.fullmatch(r"\d+(\.0+)?", str(value)):
        value = int(float(value))
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value >= len(classes):
        return f"class {value} of {len(classes)}"  # no known word: refused by name where it is read
    return classes[value] if value >= 0 else None


def _classes(said: Any) -> Any:
    if isinstance(said, list):
        return _classes(said[0]) if said else None
    if not isinstance(said, Mapping):
        return None
    if said.get("_type") == "ClassLabel":
        return [str(name) for name in said.get("names") or ()]
    if isinstance(said.get("_type"), str):  # of a list
        return _classes(said.get("feature"))
    return classes_of(said)


def _described(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the classes of each configuration that a file describes; none for a file that cannot be read."""
    try:
        if path.suffix == ".md":
            from huggingface_hub import metadata_load

            infos = (metadata_load(path) or {}).get("dataset_info")
            for info in [infos] if isinstance(infos, Mapping) else infos or ():
                yield _of_card(info.get("features") or ())
            return
        content = from_json(path.read_bytes())
        for info in [content] if "features" in content else content.values():
            yield classes_of(info.get("features") or {})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception:  # what parsers of YAML and JSON raise: it describes nothing
        return


def _of_card(features: Any) -> dict[str, Any]:
    """Return the classes of the features in a card's front matter: a list of names and types."""
    return {str(said["name"]): found for said in features if (found := _in_card(said))}


def _in_card(said: Mapping[str, Any]) -> Any:
    dtype = said.get("dtype")
    if isinstance(dtype, Mapping) and "class_label" in dtype:
        names = dtype["class_label"]["names"]
        if isinstance(names, Mapping):  # by number, in any order
            numbered = {int(number): name for number, name in names.items()}
            if gaps := set(range(len(numbered))) - numbered.keys():
                raise UserError(f"no class has the number {min(gaps)}, and {max(numbered)} has a name: name them all")
            names = [numbered[number] for number in range(len(numbered))]
        return [str(name) for name in names]
    inner = next((said[key] for key in ("struct", "list", "sequence") if key in said), None)
    return _in_card(inner) if isinstance(inner, Mapping) else _of_card(inner) if isinstance(inner, list) else None
