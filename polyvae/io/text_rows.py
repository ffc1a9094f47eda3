"""Rows of text to columns of numbers, by pandas; rows that do not fit are found by hand."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from polyvae.arguments import shown
from polyvae.errors import InputError

# Names of a column that orders rows: time, Time (ps), Time/ps, time_ps; t with a unit alone, as in t (ns).
_IN_SECONDS = r"[fpnuµμm]?s"
TIME = re.compile(
    rf"(?:time|step|timestep)\s*(?:[(\[].*|[/_]\s*(?P<unit>{_IN_SECONDS}))?"
    rf"|t\s*(?:[(\[]{_IN_SECONDS}[)\]]|/\s*(?P<short>{_IN_SECONDS}))",
    re.IGNORECASE,
)
_NO_NUMBER = r"[-+]?(?i:nan|inf|infinity)"
_VECTOR = bytes.maketrans(b"(),", b"   ")


class Section:
    """The rows under one header.

    Args:
        path: of the file.
        stated: the names in the header, one for each number or vector of a row.
        vectors: whether rows hold vectors, as Colvars writes them.
        separator: ",", ";" or " "; beside a semicolon, numbers may have decimal commas.
        line: number of the line above the first row.
    """

    def __init__(self, path: Path, stated: list[str], vectors: bool, separator: str, line: int = 0):
        self.path, self.stated, self.line = path, stated, line
        self.names: list[str] = [] if vectors else list(stated)
        self.n, self.closed, self.by_hand = 0, False, False
        self.starts: list[int] = []  # rows that follow a header of the same names
        self.faults: dict[str, str] = {}  # why a column cannot be used
        self.separator, self._vectors = separator, vectors
        self._pending: list[bytes] = []
        self._n_pending = 0
        self._columns: list[list[np.ndarray]] = [[] for _ in self.names]

    @classmethod
    def of(cls, path: Path, columns: dict[str, np.ndarray]) -> "Section":
        """Columns (n,) by name, as those of an npz."""
        section = cls(path, list(columns), False, ",")
        section._columns = [[values] for values in columns.values()]
        section.n = len(next(iter(columns.values())))
        return section

    def take_columns(self) -> dict[str, np.ndarray]:
        """The columns (n,) by name, which are kept here no longer; of two that have one name, the first."""
        found: dict[str, np.ndarray] = {}
        for k, name in enumerate(self.names):
            parts, self._columns[k] = self._columns[k], []
            values = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if not np.array_equal(found.setdefault(name, values), values, equal_nan=True):
                self.faults[name] = f"{self.path}: two columns are called {name!r}; give each a name of its own"
        return found

    def add(self, data: bytes) -> int:
        """Hold rows of text, which `parse` takes, and return how many they are."""
        n = data.count(b"\n")
        self._pending.append(data)
        self._n_pending += n
        return n

    def restart(self) -> None:
        """A header follows the rows so far."""
        self.starts.append(self.n + self._n_pending)

    def parse(self, note: Callable[[str], None], last: bool = False) -> None:
        """Take the text that was added.

        Args:
            note: called with a line on each row that is left out.
            last: no row follows. One without its end was cut off, but for a table that a person may have written.
        """
        data, self._pending, self._n_pending = b"".join(self._pending), [], 0
        if not last:  # whether the last row was cut off shows in what follows
            end = data.rfind(b"\n", 0, -1) + 1
            self.add(data[end:])
            data = data[:end]
        end = data.rfind(b"\n") + 1
        if end < len(data):
            if not self.by_hand and (end or self.n):
                note("the last row is cut off, and left out")
                data = data[:end]
            else:
                data += b"\n"
        if not data or data.isspace():
            return
        if self._vectors:
            if not self.names:
                self._name_parts(data.lstrip().split(b"\n", 1)[0].decode(errors="replace"))
            data = data.translate(_VECTOR)
        values = self._quickly(data)
        if values is None:
            values = self._slowly(data.decode(errors="replace").splitlines(), note, last)
        for parts, column in zip(self._columns, values, strict=True):
            parts.append(column)
        self.n += len(values[0])

    def _name_parts(self, row: str) -> None:
        for name, cell in zip(self.stated, re.findall(r"\([^)]*\)|\S+", row), strict=True):
            n = cell.count(",") + 1
            self.names += [f"{name}_{k}" for k in range(n)] if cell.startswith("(") else [name]
        self._columns = [[] for _ in self.names]

    def _quickly(self, data: bytes) -> list[np.ndarray] | None:
        """The columns, unless a row is empty, or holds too few or too many numbers, or what is none."""
        import pandas as pd

        width = len(self.names)
        separator = r"\s+" if self.separator == " " else self.separator
        decimal = "," if separator == ";" and b"," in data else "."
        try:
            found = pd.read_csv(
                io.BytesIO(data), sep=separator, header=None, names=list(range(width + 1)), dtype=np.float64,
                index_col=False, skipinitialspace=True, decimal=decimal,
            )  # fmt: skip
        except ValueError:  # pandas' own errors are of this kind
            return None
        columns = [found[k].to_numpy() for k in range(width + 1)]
        if len(found) < data.count(b"\n"):
            return None
        if all(np.isfinite(values).all() for values in columns[:width]) and np.isnan(columns[width]).all():
            return columns[:width]
        return None

    def _slowly(self, lines: list[str], note: Callable[[str], None], last: bool) -> list[np.ndarray]:
        """The columns of lines some of which do not fit: those that a kill cut off are left out, others refused;
        words make their column useless."""
        import pandas as pd

        rows = [self._words(line) for line in lines]
        width = len(self.names)
        again = np.array([[word.strip('"') for word in row] == self.stated for row in rows])  # files put together
        empty = again | [not line.strip() for line in lines]
        wrong = ~empty & [len(row) != width for row in rows]
        table = pd.DataFrame([row if len(row) == width else [""] * width for row in rows], dtype=str)
        values = [pd.to_numeric(table[k], errors="coerce").to_numpy(np.float64) for k in range(width)]
        unusable = [~np.isfinite(v) & ~wrong & ~empty for v in values]
        worded = [u & ~table[k].str.fullmatch(_NO_NUMBER) for k, u in enumerate(unusable)]
        for k, words in enumerate(worded):
            if words[~wrong & ~empty].all():
                self._blame(k, f"column {self.names[k]!r} holds words, not numbers")
            if self.names[k] in self.faults:
                words[:] = False
        bad = wrong | np.any(worded, axis=0)
        kept, n, final = ~empty, self.n, int(np.flatnonzero(~empty)[-1]) if last else None
        when = next((k for k, name in enumerate(self.names) if TIME.fullmatch(name)), None)
        for i in np.flatnonzero(wrong | np.any(unusable, axis=0)).tolist():
            if bad[i] and self._is_cut(i, ~bad & ~empty, None if when is None else values[when], final):
                kept[i] = False
                note(f"row {n + i + 1}, {shown(lines[i].strip())}, was cut off, and is left out")
                continue
            text = (
                f"every row must hold {width} finite numbers ({', '.join(self.names)}); row {n + i + 1} below "
                f"line {self.line} is {shown(lines[i].strip())}. Cut the file there, or mend that row"
            )
            if wrong[i]:
                raise InputError(f"{self.path}: {text}")
            for k in np.flatnonzero([column[i] for column in unusable]).tolist():
                self._blame(k, text)
        gone = np.flatnonzero(~kept)
        cut = np.flatnonzero(~kept & (again | ~empty))  # what follows was started anew
        starts = sorted({*self.starts, *(n + cut).tolist()})
        self.starts = [start - int(np.searchsorted(gone, start - n)) for start in starts]
        return [v[kept] for v in values]

    def _blame(self, k: int, why: str) -> None:
        self.faults.setdefault(self.names[k], f"{self.path}: {why}")

    def _words(self, line: str) -> list[str]:
        if self.separator == ";":
            line = line.replace(",", ".")
        words = line.split() if self.separator == " " else line.split(self.separator)
        while len(words) > len(self.names) and not words[-1].strip():
            words.pop()
        return [word.strip() for word in words]

    def _is_cut(self, i: int, good: np.ndarray, time: np.ndarray | None, final: int | None) -> bool:
        """Whether a kill explains a bad row: it is the last, a header follows, or time goes back below it."""
        if (i == final and i + self.n > 0) or self.n + i + 1 in self.starts:
            return True
        before, after = np.flatnonzero(good[:i]), np.flatnonzero(good[i + 1 :])
        if time is None or not len(before) or not len(after):
            return False
        return bool(time[i + 1 + after[0]] <= time[before[-1]])
