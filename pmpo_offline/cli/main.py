"""The command-line application and its exit codes: 0 done, 1 failed, 2 a mistake of the user, 130 interrupted."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import textwrap
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperGroup

from pmpo_offline import __version__
from pmpo_offline.cli import bench, datasets, evaluate, hub, plain, report, train, verbs
from pmpo_offline.runtime.errors import FULL, Notice, PmpoOfflineError, refusal
from pmpo_offline.runtime.machine import SLEEPING


class Commands(TyperGroup):
    """The group of all commands; its help lists what each does up to the first colon or semicolon, and cuts nothing."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # of the click inside typer
        """Write the list of commands."""
        told = {name: re.split("[:;]", each.help or "")[0].strip(" .") for name, each in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, f"{text}.") for name, text in told.items()])


app = typer.Typer(
    name="pmpo-offline",
    cls=Commands,
    help="Datasets and an offline benchmark for learning from accept/reject feedback.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich cuts names of options in narrow terminals
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("build-dataset")(datasets.build_dataset)
app.command("bench")(bench.bench)
app.command("tune")(bench.tune)
app.command("list")(datasets.list_names)
app.command("show")(datasets.show_dataset)
app.command("verify")(datasets.verify)
app.command("clean")(datasets.clean)
app.command("report")(report.report)
app.command("submit")(report.submit)
app.command("doctor")(train.doctor)
app.command("import", cls=datasets.with_epilog(datasets.formats_in))(datasets.import_)
app.command("export", cls=datasets.with_epilog(datasets.formats_out))(datasets.export)
app.command("filter")(verbs.filter_)
app.command("split")(verbs.split)
app.command("combine")(verbs.combine)
app.command("relabel")(verbs.relabel)
app.command("rename")(verbs.rename)
app.command("delete")(verbs.delete)
app.command("push")(hub.push)
app.command("pull")(hub.pull)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("train-behavior")(train.train_behavior)

INTERRUPTED = "interrupted: what was finished is kept; run the same command again to go on"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pmpo-offline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line and exit."""
    # Nothing here renders, and looking for a display takes a process, which Ctrl-C ends with a traceback of its own.
    os.environ.setdefault("MUJOCO_GL", "disable")
    for name, value in SLEEPING.items():  # read when torch is imported, by child processes too
        os.environ.setdefault(name, value)
    sys.path.append("")  # modules of the working directory (`--environment module:Name-v0`), as with `python -m`
    arguments = sys.argv[1:]
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as with `>&-`; the file takes the number of what was closed
            setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `pmpo_offline` sets it while this is imported
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(arguments)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what libraries do at exit is no longer worth a traceback
    except KeyboardInterrupt:
        code = _fail(INTERRUPTED, 130)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code."""
    warnings.showwarning = _show_warning
    # Help is wrapped by Typer, which breaks lines at hyphens too: ids and options have some.
    textwrap.TextWrapper.wordsep_re = textwrap.TextWrapper.wordsep_simple_re
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=plain.HANDLER)
    for before, argument in pairwise(["pmpo-offline", *arguments]):
        if (before.startswith("-") and not argument.strip()) or (argument.startswith("--") and argument.endswith("=")):
            return _fail(f"{argument.strip() or before}: the name or value that follows is empty", 2)
    group = commands()
    try:
        code = group.main(args=list(arguments) or ["--help"], prog_name="pmpo-offline", standalone_mode=False)
        sys.stdout.flush()
    except PmpoOfflineError as error:
        return _fail(error, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # which Typer turns into an exit of its own
            raise
        return _hang_up()
    except BrokenPipeError:
        return _hang_up()
    except OSError as error:
        if error.errno in (*FULL, errno.EROFS, errno.EACCES, errno.EPERM):
            return _fail(refusal(Path(error.filename or "the results"), error, "run the same command elsewhere"), 1)
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}; check the path", 1)
    except MemoryError:
        return _fail("not enough memory: free some, or lower --workers, seeds or settings at once", 1)
    except Exception as error:
        # Typer's own errors (unknown option, missing value), whose class depends on Typer's version. They suggest near
        # misses themselves; anything else is a defect of ours and deserves its traceback.
        if not hasattr(error, "format_message"):
            raise
        command = " ".join(["pmpo-offline", *(name for name in arguments[:1] if name in group.commands)])
        message = _named(error.format_message().rstrip("."), arguments, getattr(error, "param", None))
        return _fail(f"{message} (see {command} --help)", getattr(error, "exit_code", 2))
    if code == 130:
        return _fail(INTERRUPTED, 130)
    return code if isinstance(code, int) else 0


@cache
def commands() -> TyperGroup:
    """Return the command line as Typer makes it of the functions, 20 ms for a process that runs several commands."""
    return cast(TyperGroup, typer.main.get_command(app))


def _named(message: str, arguments: Sequence[str], parameter: Any) -> str:
    """Return Typer's message on an option's value with that value, which it leaves out, and what may be written."""
    said = re.match(r"Invalid value for '(--[-\w]+)': Input should be (?:a )?(?:valid )?([^,]*)", message)
    if said is None:
        return message.replace("Value error, ", "")
    option, wanted = said.groups()
    words = [word for argument in arguments for word in argument.split("=", 1)]
    found = [value for name, value in pairwise(words) if name == option]
    low, high = (getattr(parameter, end, None) for end in ("min", "max"))
    within = "" if low is None or high is None else f" from {low} to {high}"
    wanted = f"{wanted}{within}" if wanted in ("number", "integer") else f"number {wanted}"
    return f"{option} {found[0]}: write {'an' if wanted.startswith('integer') else 'a'} {wanted}" if found else message


def _hang_up() -> int:
    """Exit quietly on a broken pipe (`| head -1`)."""
    # Buffered output is discarded, instead of failing when the interpreter exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(message: object, code: int) -> int:
    print(f"error: {_line(message)}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"{'note' if issubclass(category, Notice) else 'warning'}: {_line(message)}", file=sys.stderr, flush=True)


def _line(message: object) -> str:
    return " ".join(str(message).split())
