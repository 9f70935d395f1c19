"""What an edited transcript means: for every output frame the target's frame behind it and the mouth wanted in it.

Words that stay keep their frames and their sound. Between them lie breaks: something was deleted, inserted or
replaced. A break gets the sound of its new words, mouth motion from the model, and frames from `background`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from retell import voice
from retell.background import bridge
from retell.edits import GESTURE_SECONDS, Token, parse
from retell.errors import UserError
from retell.media import SOUND
from retell.perform import Style, perform
from retell.phones import SIL, names
from retell.project import Project
from retell.retarget import Model
from retell.speech import Speech
from retell.voice import Said

CONTEXT = 0.4  # seconds of the neighbours' phones that a break's motion is predicted with
EASE = 4  # frames in which predicted motion runs into the neighbours' own


@dataclass
class Plan:
    background: np.ndarray  # (T,) frame numbers of the target
    motion: np.ndarray  # (T, D) mouth parameters; of use where `altered`
    altered: np.ndarray  # (T,) the mouth is replaced here
    samples: np.ndarray  # sound
    words: list[dict]  # text, start, end, token, phones: what the page shows
    notes: list[str] = field(default_factory=list)


@dataclass
class _Break:
    """New sound, phones and gestures for source frames first..last-1."""

    first: int
    last: int
    samples: np.ndarray
    length: int  # frames
    speech: Speech | None = None  # its phones in time, from 0
    places: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # token, first and one past the last phone
    gestures: list[tuple[int, str, int, int]] = field(
        default_factory=list
    )  # token, name, first and last frame


class Planner:
    def __init__(self, project: Project, model: Callable[[], Model]):
        self.project, self.model = project, model
        self.speech, self.sound = project.target.speech, project.target.sound
        self.rate = float(project.target.rate)
        self.total = len(self.speech.motion)
        self.poses = project.target.track["pose"]
        self.style = Style(self.speech)
        self.aligned: dict[tuple[str, tuple[str, ...]], Said] = {}
        self.lexicon = project.lexicon()

    def frame(self, seconds: float) -> int:
        return int(np.clip(round(seconds * self.rate), 0, self.total))

    def sample(self, frame: int) -> int:
        return round(frame * SOUND / self.rate)

    def plan(self) -> Plan:
        history = self.project.history
        tokens = history.tokens
        parts: list[tuple[int, int] | _Break] = []
        notes: list[str] = []
        speech = self.speech
        before: int | None = None  # the last kept word
        start = 0  # where the next kept part begins
        waiting: list[int] = []  # new tokens since then
        for i, token in [*enumerate(tokens), (len(tokens), None)]:
            if token is not None and token.keep is None:
                waiting.append(i)
                continue
            after = token.keep if token is not None else len(speech.words)
            if waiting or after != (0 if before is None else before + 1):
                first = self.frame(
                    voice.cut_after(speech, before) if before is not None else voice.cut_before(speech, 0)
                )
                last = self.frame(voice.cut_before(speech, after))
                first, last = min(first, last), max(first, last)
                parts += [(start, first), self._break(first, last, waiting, tokens, notes)]
                start, waiting = last, []
            before = after
        parts.append((start, self.total))
        return self._assemble([p for p in parts if isinstance(p, _Break) or p[1] > p[0]], tokens, notes)

    def _break(
        self, first: int, last: int, waiting: list[int], tokens: list[Token], notes: list[str]
    ) -> _Break:
        pieces, parts, places, gestures = [], [], [], []
        count, samples = 0, 0

        def add(speech: Speech, sound: np.ndarray) -> None:
            nonlocal count, samples
            pieces.append(sound)
            parts.append((speech, len(sound) / SOUND))
            count, samples = count + len(speech), samples + len(sound)

        for _, group in groupby(
            waiting, key=lambda i: (tokens[i].run, tokens[i].sound, tokens[i].gesture and i)
        ):
            members = list(group)
            token = tokens[members[0]]
            if token.gesture:
                length = round(GESTURE_SECONDS * SOUND)
                a = round(samples / SOUND * self.rate)
                b = round((samples + length) / SOUND * self.rate)
                gestures.append((members[0], token.gesture, a, b))
                add(_silence(length / SOUND, self.speech.rate), voice.room(self.sound, length))
                continue
            new = [tokens[i].word for i in members]
            said = self._said(new, token)
            notes += [
                f'"{w}" is not in the dictionary; guessed as {self.lexicon.guessed[w]}'
                for w in new
                if w in self.lexicon.guessed
            ]
            notes.append(f'"{" ".join(new)}": {said.how}')
            places += [
                (i, w.first + count, w.last + count) for i, w in zip(members, said.speech.words, strict=True)
            ]
            add(said.speech, said.samples)
        length = round(samples / SOUND * self.rate)
        if not pieces:
            return _Break(first, last, np.zeros(0, np.int16), 0)
        speech = voice.in_a_row(parts, self.speech.rate)
        return _Break(first, last, voice.crossfade(pieces), length, speech, places, gestures)

    def _said(self, words: list[str], token: Token) -> Said:
        if token.sound is None:
            said, missing = voice.recorded(words, self.speech, self.sound)
            if said is None:
                raise UserError(
                    "new words need sound", f"no recording of {', '.join(map(repr, missing))}",
                    "give a WAV of these words (--sound), a text-to-speech command (--tts), or use recorded words",
                )  # fmt: skip
            return said
        full = tuple(t.word for t in parse(self.project.history.done[token.run - 1]["text"], 0) if t.word)
        key = (token.sound, full)
        if key not in self.aligned:
            path = self.project.folder / "sounds" / Path(token.sound).name
            self.aligned[key] = voice.from_sound(
                path, list(full), self.lexicon, self.speech.rate, "sound given"
            )
        whole = self.aligned[key]
        if tuple(words) == full:
            return whole
        part, _ = voice.recorded(words, whole.speech, whole.samples)
        return Said(part.speech, part.samples, whole.how) if part else whole

    def _assemble(self, parts: list, tokens: list[Token], notes: list[str]) -> Plan:
        background, motion, altered, sounds, words = [], [], [], [], []
        at, skip = 0, 0  # output frame; frames of the next kept part that a bridge has already shown
        low = None  # the first frame of the part before that a bridge may re-time
        number = {t.keep: i for i, t in enumerate(tokens) if t.keep is not None}
        for n, part in enumerate(parts):
            if isinstance(part, tuple):
                first, last = part[0] + skip, part[1]
                frames = np.arange(first, last)
                background.append(frames)
                motion.append(self.speech.motion[first:last])
                altered.append(np.zeros(len(frames), bool))
                sounds.append((self.sound, part[0], part[1]))
                words += [w | {"token": number[w["source"]]} for w in self._kept_words(part, at - skip)]
                at, skip, low = at + len(frames), 0, first + 1
                continue
            following = parts[n + 1] if n + 1 < len(parts) else None
            high = following[1] - 1 if isinstance(following, tuple) else part.last
            floor = part.first if low is None else min(low, part.first)
            over = bridge(part.first, part.last, part.length, self.poses, floor, max(high, part.last))
            if over.jump > 0.05:
                notes.append(
                    f"a cut moves the head by {over.jump:.2f} eye distances at {at / self.rate:.2f} s"
                )
            if over.before:
                for arrays in (background, motion, altered):
                    arrays[-1] = arrays[-1][: len(arrays[-1]) - over.before]
            own = [self.speech.motion[part.first - over.before : part.first]]
            own += [self._predicted(part), self.speech.motion[part.last : part.last + over.after]]
            background.append(over.frames)
            motion.append(np.concatenate(own))
            altered.append(np.ones(len(over.frames), bool))
            sounds.append((part.samples, part.length))
            words += self._new_words(part, at)
            at, skip, low = at + part.length + over.after, over.after, None
        plan = Plan(*map(np.concatenate, (background, motion, altered)), self._sound(sounds), words, notes)
        self._perform(plan, tokens)
        return plan

    def _predicted(self, part: _Break) -> np.ndarray:
        """Motion for a break: predicted with its neighbours' phones around it, run into their own motion."""
        if part.speech is None:
            return self.speech.motion[:0]
        ahead = self._context(part.first - round(CONTEXT * self.rate), part.first)
        behind = self._context(part.last, part.last + round(CONTEXT * self.rate))
        around = [c for c in (ahead, (part.speech, part.length / self.rate), behind) if c is not None]
        speech = voice.in_a_row(around, self.speech.rate)
        lead = round(ahead[1] * self.rate) if ahead else 0
        count = round(sum(length for _, length in around) * self.rate)
        full = self.model()(speech, count)
        motion = full[lead : lead + part.length].copy()
        for _, name, a, b in part.gestures:
            motion[a:b] = self.style.gesture(name, len(motion[a:b]))
        fade = np.clip(1 - (np.arange(len(motion)) + 0.5) / EASE, 0, 1)[:, None]
        if part.first > 0 and lead:
            motion += fade * (self.speech.motion[part.first - 1] - full[lead - 1])
        if part.last < self.total and lead + part.length < count:
            motion += fade[::-1] * (self.speech.motion[part.last] - full[lead + part.length])
        motion[:, 0] = np.maximum(motion[:, 0], 0)
        return motion.astype(np.float32)

    def _context(self, first: int, last: int) -> tuple[Speech, float] | None:
        """The target's own phones between two frames, as a part of their length."""
        first, last = max(first, 0), min(last, self.total)
        a, b = first / self.rate, last / self.rate
        inside = (self.speech.end > a + 1e-3) & (self.speech.start < b - 1e-3)
        if last - first < 2 or not inside.any():
            return None
        start = np.clip(self.speech.start[inside], a, b) - a
        end = np.clip(self.speech.end[inside], a, b) - a
        phones = self.speech.phones[inside]
        return Speech(phones, start, end, np.zeros(len(phones), np.int32), [], self.speech.rate), b - a

    def _sound(self, pieces: list) -> np.ndarray:
        """Sound of all parts; each is as long as its frames, to the sample."""
        made, frames = [], 0
        for piece in pieces:
            if len(piece) == 3:
                source, first, last = piece
                length, start = last - first, self.sample(first)
                wanted = self.sample(frames + length) - self.sample(frames)
                samples = source[start : start + wanted]
            else:
                samples, length = piece
                wanted = self.sample(frames + length) - self.sample(frames)
            if len(samples) < wanted:
                samples = np.concatenate([samples, voice.room(self.sound, wanted - len(samples))])
            made.append(samples[:wanted])
            frames += length
        return voice.crossfade([m for m in made if len(m)])

    def _kept_words(self, part: tuple[int, int], at: int) -> list[dict]:
        zero = (at - part[0]) / self.rate
        found = []
        for i, word in enumerate(self.speech.words):
            start, end = self.speech.word_times(word)
            if part[0] <= self.frame((start + end) / 2) < part[1]:
                found.append(self._word(self.speech, word.first, word.last, word.text, zero) | {"source": i})
        return found

    def _new_words(self, part: _Break, at: int) -> list[dict]:
        if part.speech is None:
            return []
        zero = at / self.rate
        texts = [w.text for w in part.speech.words]
        found = [
            self._word(part.speech, a, b, text, zero) | {"token": token}
            for (token, a, b), text in zip(part.places, texts, strict=True)
        ]
        for token, name, a, b in part.gestures:
            found.append(
                {
                    "text": f"[{name}]",
                    "start": zero + a / self.rate,
                    "end": zero + b / self.rate,
                    "phones": [],
                    "token": token,
                }
            )
        return sorted(found, key=lambda w: w["token"])

    @staticmethod
    def _word(speech: Speech, first: int, last: int, text: str, zero: float) -> dict:
        phones = [
            {"phone": name, "start": zero + float(a), "end": zero + float(b)}
            for name, a, b in zip(
                names(speech.phones[first:last]),
                speech.start[first:last],
                speech.end[first:last],
                strict=True,
            )
        ]
        return {"text": text, "start": phones[0]["start"], "end": phones[-1]["end"], "phones": phones}

    def _perform(self, plan: Plan, tokens: list[Token]) -> None:
        """Apply each token's controls to its frames."""
        original = plan.motion.copy()
        for word in plan.words:
            token = tokens[word["token"]]
            if not token.refined:
                continue
            a = int(np.clip(np.floor(word["start"] * self.rate), 0, len(original)))
            b = int(np.clip(np.ceil(word["end"] * self.rate), 0, len(original)))
            bounds = [p["start"] for p in word["phones"]] + [word["end"]]
            edges = np.array(bounds) * self.rate - a
            frames = {k: v * self.rate for k, v in token.shifts}
            scaled = Token(
                energy=token.energy, smooth=token.smooth, shifts=tuple(frames.items()), curves=token.curves
            )
            plan.motion[a:b] = perform(original, a, b, scaled, edges, self.style)
            plan.altered[a:b] = True


def _silence(seconds: float, rate: float) -> Speech:
    one = np.zeros(1)
    return Speech(np.array([SIL], np.int32), one, one + seconds, np.zeros(1, np.int32), [], rate)
